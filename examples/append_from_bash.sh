#!/usr/bin/env bash
# Add a job without Python: one line of nine cells, appended under the queue's lock.
#
#     ./append_from_bash.sh send_email '{"to": "ana@example.com"}'
#
# Prints the job's id when the line is on the disk; else says why on stderr, ends with 1, and
# has added nothing. The JSON is taken as it is: `dbbasic-queue doctor` names a line that holds
# none. Needs bash 5 and flock(1), as on every Linux.
set -eu
export LC_ALL=C

queue=$(realpath -m "${DBBASIC_QUEUE:-data/queue.tsv}")     # the lock is beside the real file
type=${1:?usage: $0 TYPE [JSON]}
payload=${2:-null}
columns=$'id\ttype\tpayload\tstatus\tcreated_at\trun_at\tattempts\terror\tresult'

die() { echo "$0: $1" >&2; exit 1; }
[[ $type =~ ^[A-Za-z0-9_.:-]{1,100}$ ]] || die "not a job type: ${type@Q}"
[[ $payload != *[[:cntrl:]]* ]] || die "a payload is one line without tabs: ${payload@Q}"

mkdir -p "$(dirname "$queue")"
umask o=                                    # payloads are for the group at most
exec 9>> "$queue.lock"                      # the lock is this file: never delete, never replace it
flock -w 20 9 || die "$queue.lock did not come free"

size=$(stat -c %s "$queue" 2> /dev/null || echo 0)
if ((size == 0)); then
    text=$columns$'\n'
else
    text=
    [[ $(head -n 1 "$queue")$'\t' == "$columns"$'\t'* ]] || die "$queue is not a queue"
    [[ -z $(tail -c 1 "$queue") ]] || die "$queue ends in a torn line: see dbbasic-queue doctor"
fi

us=${EPOCHREALTIME//[!0-9]/}                # microseconds: ids sort by time
now=${us:0:-6}
printf -v id '%013x%03x' "$us" $((RANDOM % 4096))
text+=$id$'\t'$type$'\t'$payload$'\tpending\t'$now$'\t'$now$'\t0\t\t\n'

if ! { printf %s "$text" >> "$queue" && sync -d "$queue"; }; then
    truncate -s "$size" "$queue"            # nobody else has written: we hold the lock
    die "$queue could not be written"
fi
echo "$id"
