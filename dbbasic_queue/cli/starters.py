"""What `init` writes and `makefile` prints: files for an application of somebody's own."""

WORKER = '''\
#!/usr/bin/env python3
"""Run every job that is due, then end: cron starts this each minute.

`dbbasic-queue cron --install` puts the line into your crontab.  A job that fails is no error of
the worker, its row says why; exit status 1 means that the queue itself could not be worked on.
"""

import logging
import sys

from handlers import HANDLERS

from dbbasic_queue import process_jobs
from dbbasic_queue.middleware import traceback_kept

logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s")

if __name__ == "__main__":
    try:
        logging.info("Starting queue worker")
        process_jobs(HANDLERS, max_attempts=3, middleware=[traceback_kept])
        logging.info("Queue worker finished")
    except Exception as error:
        logging.error(f"Worker error: {error}", exc_info=True)
        sys.exit(1)
'''

HANDLERS = '''\
"""The handlers: plain functions, from a payload to a result, both JSON.

A worker that was killed in mid-job runs that job again, so let a handler be safe to run twice.
"""


def greet(payload):
    """Replace this by what your application does; what is returned becomes the job's result."""
    return {"greeting": f"Hello, {payload['name']}!"}


HANDLERS = {"greet": greet}
'''

FILES = {"worker.py": WORKER, "handlers.py": HANDLERS}

MAKEFILE = r"""
# Targets for a queue of dbbasic-queue; printed by `dbbasic-queue makefile`.
# They may stand in a file of their own: `include queue.mk` at the end of your Makefile.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
QUEUE ?= $(or $(DBBASIC_QUEUE),data/queue.tsv)
HANDLERS ?= handlers:HANDLERS
QUEUE_LOG ?= logs/queue.log
QUEUE_RUN = DBBASIC_QUEUE='$(QUEUE)' $(PYTHON)
QUEUE_DO = $(QUEUE_RUN) -m dbbasic_queue

.PHONY: queue-work queue-stats queue-list queue-failed queue-retry queue-retry-failed \
	queue-clear queue-flush queue-workers queue-stop queue-dashboard queue-metrics \
	queue-health queue-doctor queue-top queue-always

# Run the jobs that are due
queue-work:
	$(QUEUE_RUN) worker.py

# Those of one queue: make queue-work-emails
queue-work-%: queue-always
	$(QUEUE_DO) work '$(HANDLERS)' --queue '$*'

# A status of 1 says that there is nothing, which is no error here
queue-stats:
	@$(QUEUE_DO) stats || test $$? -eq 1

queue-list:
	@$(QUEUE_DO) list || test $$? -eq 1

queue-failed:
	@$(QUEUE_DO) failed || test $$? -eq 1

# Try one failed job again: make queue-retry ID=6474847126a6107c
queue-retry:
	@test -n '$(ID)' || { echo 'which job? make queue-retry ID=…' >&2; exit 2; }
	$(QUEUE_DO) retry '$(ID)'

queue-retry-failed:
	@$(QUEUE_DO) retry --all || test $$? -eq 1

# Delete what is pending, or what failed; both ask first, unless: make queue-clear YES=1
queue-clear:
	@$(QUEUE_DO) purge --status pending $(if $(YES),--yes) || test $$? -eq 1

queue-flush:
	@$(QUEUE_DO) purge --status failed $(if $(YES),--yes) || test $$? -eq 1

queue-workers:
	@$(QUEUE_DO) workers || test $$? -eq 1

queue-stop:
	$(QUEUE_DO) stop

queue-dashboard:
	$(QUEUE_DO) dashboard

queue-metrics:
	@$(QUEUE_DO) metrics

queue-health:
	@$(QUEUE_DO) health $(if $(wildcard $(QUEUE_LOG)),--log '$(QUEUE_LOG)')

queue-doctor:
	@$(QUEUE_DO) doctor

queue-top:
	@$(QUEUE_DO) top

queue-always:
""".lstrip()
