"""A side: one socket of a connection, and its only owner.

Laws: nobody else reads it, writes it or closes it. What the socket does not take is held here, and
nothing overtakes it. A side knows nothing of the other one, nor of exchanges.

It is the same for TCP and for unix sockets, and in memory for tests: what differs is in the socket
and in the loop that it is given. The pump binds `recv_into` and `send` once (they are the socket's
own), since a call more for each chunk would cost more than all the bookkeeping.
"""

from __future__ import annotations

import _socket
from typing import Protocol

from vaurien.errors import RAISED
from vaurien.net.loop import READ, WRITE, Loop, Watcher


class Feeder(Protocol):
    """Who sends through a side, and is told what becomes of it."""

    def drained(self) -> None:
        """Nothing is held any more."""

    def sink_broke(self, n: int) -> None:
        """It takes nothing any more, nor the last `n` bytes."""

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours."""


class Side:
    """One socket: read by watchers' callbacks, written at once, held where that is not enough."""

    __slots__ = ("_loop", "_writer", "feeder", "held", "reader", "recv_into", "send", "sock")

    def __init__(self, sock: _socket.socket, loop: Loop) -> None:
        self.sock, self._loop = sock, loop
        self.recv_into, self.send = sock.recv_into, sock.send
        self.reader: Watcher = loop.io(sock.fileno(), READ)
        self._writer: Watcher | None = None  # made when it first falls behind
        self.held: memoryview | None = None  # what it did not take yet
        self.feeder: Feeder | None = None  # set by who sends through it

    def __repr__(self) -> str:
        held = f", {len(self.held)} held" if self.held is not None else ""
        return f"<Side {self.sock.fileno()}{held}>"

    # Writing

    def write(self, data: bytes | memoryview) -> None:
        """Send `data` behind what is held, and hold what the socket does not take."""
        if self.held is not None:
            self.hold(data)
            return
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            assert self.feeder is not None
            self.feeder.sink_broke(len(data))
            return
        if sent != len(data):
            self.hold(memoryview(data)[sent:])

    def hold(self, rest: bytes | memoryview) -> None:
        """Keep `rest`, behind what is held already, until the socket takes it."""
        if self.held is not None:
            rest = b"".join((self.held, rest))
        self.held = memoryview(rest)
        if self._writer is None:
            self._writer = self._loop.io(self.sock.fileno(), WRITE)
        if not self._writer.active:
            self._writer.start(self._writable)

    def keep(self) -> None:
        """Copy what is held: the memory behind it is about to be used again."""
        if self.held is not None:
            self.held = memoryview(bytes(self.held))

    def drop(self) -> int:
        """Forget what is held; how many bytes that were."""
        dropped = len(self.held) if self.held is not None else 0
        self.held = None
        if self._writer is not None:
            self._writer.stop()
        return dropped

    def _writable(self) -> None:
        feeder = self.feeder
        try:
            held = self.held
            assert feeder is not None and held is not None
            try:
                rest = held[self.send(held) :]
            except BlockingIOError:
                return
            except OSError:
                feeder.sink_broke(0)
                return
            if rest:
                self.held = rest
                return
            self.drop()
            feeder.drained()
        except RAISED:
            feeder.crashed()  # type: ignore[union-attr]

    # Ending

    def shutdown(self) -> bool:
        """Send FIN; False if the peer has gone already."""
        try:
            self.sock.shutdown(_socket.SHUT_WR)
        except OSError:
            return False
        return True

    def let_go(self) -> None:
        """Give the watchers back to the loop; the socket stays open, what is held stays held."""
        self.reader.stop()
        self.reader.close()
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None
        # Without the circles they are gone at once, and the garbage collector has nothing to do.
        self.feeder = None
