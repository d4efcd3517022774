"""The pytest fixture: `pytest_plugins = ["dbbasic_queue.testing.plugin"]` in conftest.py."""

import pytest

from dbbasic_queue import Queue

from . import temporary_queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def queue_file() -> "Iterator[Queue]":
    """A new, empty queue for this test, which is the default queue meanwhile."""
    with temporary_queue() as queue:
        yield queue
