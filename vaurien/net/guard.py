"""Callbacks of the loop must not raise: gevent would stop their watcher for good.

The pump guards itself, where a call more would count; everything else is decorated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from vaurien.errors import RAISED

T = TypeVar("T")


def guarded(callback: Callable[[T], None]) -> Callable[[T], None]:
    """A method without arguments; what it raises is left to the object's ``crashed()``."""

    @functools.wraps(callback)
    def run(self: Any) -> None:
        try:
            callback(self)
        except RAISED:
            self.crashed()

    return run
