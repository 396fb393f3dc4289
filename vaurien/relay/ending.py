"""The end of a connection: each side in its own way, once.

Laws: what is open is told and counted before anything is let go. A side ends by FIN after what it
holds (polite), or by RST. Where one side was reset, the other gets what is on its way to it first:
what moves is let through, what stands still is not.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from functools import partial
from typing import Any

from vaurien.errors import RAISED
from vaurien.net.guard import guarded
from vaurien.net.linger import LINGER, Linger, Way
from vaurien.relay import home


class LastWords:
    """Resets a connection when what is still on its way has come through, or stands still.

    It looks every `LINGER` seconds. What has its time still before it does not stand still, nor
    does what a handler has: they may take their time.
    """

    __slots__ = ("_connection", "_moved", "_timer")

    def __init__(self, connection: Any) -> None:
        self._connection, self._moved = connection, connection.moved
        self._timer = connection.loop.timer(LINGER, LINGER)
        self._timer.start(self._look)

    @guarded
    def _look(self) -> None:
        connection = self._connection
        before, self._moved = self._moved, connection.moved
        waits = connection.calls or any(flow.is_due for flow in connection.flows)
        if before == self._moved and not waits:
            connection.reset()

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this connection, and no other."""
        self._connection.crashed()

    def over(self) -> None:
        """The connection has ended."""
        self._timer.stop()
        self._timer.close()


def finish(connection: Any, client: Way | None, backend: Way | None, why: str) -> None:
    """End each side in its own way: `close`, `reset`, or None, the polite one.

    `why` is for those who want to know how the exchange ended, see `observe.events.Ended`.
    """
    if connection.way is not None:
        home.ended(connection)
    calls, flows = connection.calls, connection.flows
    for call in calls:
        call.count()
    try:
        connection.exchanges.over_all(connection, why)
    except RAISED:
        connection.server.reports.crashed(connection)
    connection.counters.add(connection)
    for flow in flows if calls else ():
        flow.sink.keep()  # it may be the memory of a handler that waits in sendall
    held = [flows[1].sink.held, flows[0].sink.held] if flows else [None, None]
    for flow in flows:
        flow.close()
    for flow in flows:
        flow.source.let_go()
    for call in calls:
        call.cancel()
    if client is None or backend is None:
        _Goodbye(connection, (connection.client, connection.backend), (client, backend), held)
        return
    client(connection.client)
    if connection.backend is not None:
        backend(connection.backend)
    connection.server.closed_one(connection)


class _Goodbye:
    """The ends of two sockets, of which at least one is polite; then the server hears of it."""

    __slots__ = ("_connection", "_left")

    def __init__(
        self,
        connection: Any,
        socks: tuple[_socket.socket, _socket.socket | None],
        ways: tuple[Way | None, Way | None],
        held: list[memoryview | None],
    ) -> None:
        self._connection = connection
        self._left = 1  # sockets still open, and one until all ends have begun
        for sock, way, to_backend in zip(socks, ways, (False, True), strict=True):
            if sock is None:
                continue
            if way is not None:
                way(sock)
                continue
            self._left += 1
            sent: Callable[[int], None] = partial(connection.counters.sent_late, to_backend)
            Linger(sock, held[to_backend], connection.loop, sent, self._gone)
        self._gone()

    def _gone(self) -> None:
        self._left -= 1
        if not self._left:
            self._connection.server.closed_one(self._connection)
