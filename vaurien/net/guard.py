"""Callbacks of the loop must not raise: gevent would stop their watcher for good.

Law: whatever the loop calls is guarded: decorated with `guarded`, or all that may raise in it is in
a ``try`` that catches `RAISED`, as in the pump's, where a call more would count. So are greenlets
that nobody waits for: they would end in silence. A test reads the sources and holds them to this.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from vaurien.errors import RAISED

log = logging.getLogger("vaurien")

T = TypeVar("T")
P = ParamSpec("P")


def guarded(callback: Callable[Concatenate[T, P], None]) -> Callable[Concatenate[T, P], None]:
    """A method; what it raises is left to the object's ``crashed()``, called in the ``except``."""

    @functools.wraps(callback)
    def run(self: Any, /, *arguments: P.args, **named: P.kwargs) -> None:
        try:
            callback(self, *arguments, **named)
        except RAISED:
            self.crashed()

    return run


def each(callbacks: list[Callable[[T], None]], value: T, what: str) -> None:
    """Call each with `value`; one that raises is logged as `what`, and starves no other."""
    for callback in callbacks:
        try:
            callback(value)
        except RAISED:
            log.exception("%s: internal error", what)
