#!/bin/sh
# Commands as jobs, as with at, batch, nq and task-spooler; what waits survives a reboot.
#
#     sh commands.sh
#
# What you know                    is here
#   echo make | at now + 5 minutes   dbbasic-queue enqueue --run-at +5m -- make
#   echo make | batch                dbbasic-queue work --shell --load 1.5     (the worker's flag)
#   nq make; nqtail                  dbbasic-queue enqueue -- make; dbbasic-queue tail -f ID
#   tsp make; tsp -c ID; tsp -t ID   enqueue -- make; tail ID; tail -f ID
#   tsp -w ID; tsp -k ID; tsp -S 4   wait ID; kill ID; work --shell --processes 4
#   tsp -D ID make; tsp -u ID        enqueue --after ID -- make; enqueue --priority -1 -- make
#   atq; tsp; tsp -i ID              list; show ID
set -eu

queue() { python3 -m dbbasic_queue "$@"; }

# Each word arrives as it is; for a line of the shell, name the shell.
fetch=$(queue enqueue -- echo 'a  file with   spaces')
build=$(queue enqueue --after "$fetch" -- sh -c 'echo built && exit 3')
queue enqueue --after "$build" -- echo 'this never runs' >/dev/null

queue work --shell 2>/dev/null # in earnest: cron each minute, or one `work --shell --forever`

queue tail "$fetch" | sed '/^---/d'
status=0
queue wait "$build" || status=$?
echo "the build ended with $status"
