"""The sweep: which connections have been quiet, looked at a few at a time.

Law: it never holds the loop: however many connections there are, a turn looks at `AT_ONCE` of them,
which takes some hundred microseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from vaurien.net.guard import guarded
from vaurien.net.loop import Loop, Watcher

log = logging.getLogger("vaurien")

AT_ONCE = 100  # connections
TICK = 0.02  # seconds between two turns, while there are more to look at


def quiet(connections: Iterable[Any], now: float, limit: float) -> list[Any]:
    """Those of `connections` through which nothing has passed for `limit` seconds."""
    found = []
    for connection in connections:
        moved = connection.moved
        if connection.seen != moved or not connection.quiet:
            connection.seen, connection.quiet = moved, now
        elif now - connection.quiet >= limit and not connection.closed:
            found.append(connection)
    return found


class Sweep:
    """Calls `idle` with each connection that has been quiet for `limit` seconds."""

    def __init__(
        self,
        loop: Loop,
        connections: Callable[[], Iterable[Any]],
        limit: float,
        idle: Callable[[Any], None],
    ) -> None:
        self._loop, self._connections, self._limit, self._idle = loop, connections, limit, idle
        self._pause = min(limit / 4, 1.0)  # seconds between two rounds
        self._left: list[Any] = []
        self._timer: Watcher | None = None
        self._wait(0.0)

    def _wait(self, seconds: float) -> None:
        self.stop()
        self._timer = self._loop.timer(seconds)
        self._timer.start(self._look)

    @guarded
    def _look(self) -> None:
        if not self._left:
            self._left = list(self._connections())
        now, left = self._loop.now(), self._left
        some, self._left = left[:AT_ONCE], left[AT_ONCE:]
        for connection in quiet(some, now, self._limit):
            self._idle(connection)
        self._wait(TICK if self._left else self._pause)

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours; the next round comes."""
        log.exception("the sweep of quiet connections: internal error")
        self._left = []
        self._wait(self._pause)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
