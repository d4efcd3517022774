"""Processes that are killed, disks that fail: the slow part of the tests, and what the quick part shares with it."""

import pytest

pytest.register_assert_rewrite("faults.reader", "faults.scenes")
