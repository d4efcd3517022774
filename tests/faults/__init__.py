"""Processes that are killed, disks that fail: slow tests, and what quick ones share with them."""

import pytest

pytest.register_assert_rewrite("faults.reader", "faults.scenes")
