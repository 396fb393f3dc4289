"""For tests that run in the loop that they test."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from tests.support import PATIENCE


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Let the loop of this thread run until `condition` gives something true."""
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, f"not within {patience} s: {condition}"
        gevent.sleep(0.001)
