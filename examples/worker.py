#!/usr/bin/env python3
"""The worker for the crontab: run every job that is due, then end.

Copy it beside your handlers.py; crontab.example has the line that starts it each minute.
A tick that takes longer than a minute does no harm: the next one helps with the rest.
A job that fails is no error of the worker, its row says why; exit status 1 means that the
queue itself could not be worked on.
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
