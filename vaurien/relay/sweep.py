"""Quiet connections: swept a few at a time while the proxy runs, ended when it drains.

Law: it never holds the loop: however many connections there are, a turn looks at `AT_ONCE` of them,
which takes some hundred microseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent

from vaurien.net.guard import guarded
from vaurien.net.linger import LINGER
from vaurien.net.loop import Loop, Watcher
from vaurien.relay.looks import is_idle

log = logging.getLogger("vaurien")

AT_ONCE = 100  # connections
QUIET = 0.25  # seconds after which a connection with nothing under way ends while draining
LOOK = 0.025  # seconds between two looks at the connections while draining
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


def drain(loop: Loop, connections: Mapping[int, Any], limit: float) -> int:
    """Let `connections` come to their end, for `limit` seconds; how many had to be ended.

    One with nothing under way ends after `QUIET` seconds of quiet. Blocks the greenlet.
    """
    now = loop.now
    for connection in connections.values():
        connection.quiet = 0.0
    until = now() + limit
    while connections and now() < until:
        for connection in quiet(list(connections.values()), now(), QUIET):
            if is_idle(connection):
                connection.end("exit")
        gevent.sleep(min(LOOK, max(0.0, until - now())))
    left = [connection for connection in connections.values() if not connection.closed]
    for connection in left:
        connection.end("exit")
    until = now() + LINGER + LOOK
    while connections and now() < until:
        gevent.sleep(LOOK)
    return len(left)


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
