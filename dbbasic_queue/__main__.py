"""`python -m dbbasic_queue` is `dbbasic-queue`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
