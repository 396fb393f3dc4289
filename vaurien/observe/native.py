"""Threads and locks of the system, whatever was monkey-patched.

gevent's ``patch_all`` turns `threading` into greenlets; what must not wait for the loop (the log's
writer, the watch on the loop) asks here for the real ones.
"""

from __future__ import annotations

import _queue
from collections.abc import Callable
from typing import Any

from gevent import monkey

Queue = _queue.SimpleQueue


def start_thread(function: Callable[[], None]) -> None:
    """Run `function` in a thread of the system that does not keep the process alive."""
    monkey.get_original("_thread", "start_new_thread")(function, ())


def lock() -> Any:
    """A lock of the system; ``acquire(True, seconds)`` holds up the whole thread."""
    return monkey.get_original("_thread", "allocate_lock")()


def wait(queue: _queue.SimpleQueue[Any], seconds: float | None = None) -> bool:
    """Wait, the whole thread, until `queue` gives something, for `seconds` at most; whether so."""
    try:
        queue.get(True, seconds)
    except _queue.Empty:
        return False
    return True


def sleep(seconds: float) -> None:
    """Sleep the thread, not the greenlet, for `seconds`."""
    monkey.get_original("time", "sleep")(seconds)


def get_ident() -> int:
    """The thread's own number, as in ``sys._current_frames()``."""
    return int(monkey.get_original("_thread", "get_ident")())
