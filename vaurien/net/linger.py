"""The end of sockets: polite (FIN), or a reset (RST).

Law: a polite end passes on what is still held, sends FIN, discards what still comes in until EOF or
`LINGER` seconds, and only then closes: closing with unread bytes would be a reset.
"""

from __future__ import annotations

import _socket
import logging
import struct
from collections.abc import Callable
from typing import Any

from gevent.hub import get_hub

from vaurien.net.guard import guarded

log = logging.getLogger("vaurien")

LINGER = 1.0  # seconds
READ, WRITE = 1, 2

#: ``struct linger {1, 0}``: the next close sends RST and drops what was not yet sent, socket(7).
ABORT = struct.pack("ii", 1, 0)


def reset(sock: _socket.socket) -> None:
    """Close with a RST; on a unix socket, which knows none, with a plain close."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, ABORT)
    except OSError:
        pass  # the peer has gone already
    close(sock)


def close(sock: _socket.socket) -> None:
    """Close; what the system has to say about a peer that has gone is of no interest."""
    try:
        sock.close()
    except OSError:
        pass


class Linger:
    """A polite end of some sockets at once, each with what is still held for it.

    `ends` are a socket each, what is held for it, and whether it is the backend's. `done` is called
    once all are closed. `view` is where discarded bytes go. What is sent is added to `sent`, which
    has a number for the client and one for the backend.
    """

    __slots__ = ("done", "sent", "timer", "view", "waiting")

    def __init__(
        self,
        ends: list[tuple[_socket.socket, memoryview | None, bool]],
        view: memoryview,
        sent: list[int],
        done: Callable[[], None],
    ) -> None:
        self.view, self.sent, self.done = view, sent, done
        loop = get_hub().loop
        self.timer = loop.timer(LINGER)
        self.timer.start(self.finish)
        self.waiting = [_End(self, loop, *end) for end in ends]
        for end in list(self.waiting):
            end.start()

    def ended(self, end: _End) -> None:
        """One of the sockets has come to its end."""
        if end in self.waiting:
            self.waiting.remove(end)
        if not self.waiting:
            self.finish()

    def finish(self) -> None:
        """Close all now."""
        self.timer.stop()
        self.timer.close()
        for end in self.waiting:
            end.close()
        self.waiting = []
        self.done()


class _End:
    """One socket on its way out."""

    __slots__ = ("held", "linger", "reader", "sock", "to_backend", "writer")

    def __init__(
        self,
        linger: Linger,
        loop: Any,
        sock: _socket.socket,
        held: memoryview | None,
        to_backend: bool,
    ) -> None:
        self.linger, self.sock, self.held, self.to_backend = linger, sock, held, to_backend
        self.reader = loop.io(sock.fileno(), READ)
        self.writer = loop.io(sock.fileno(), WRITE) if held is not None else None

    def start(self) -> None:
        self.reader.start(self.readable)
        if self.writer is not None:
            self.writer.start(self.writable)
        else:
            self.fin()

    @guarded
    def readable(self) -> None:
        """Discard; at EOF or an error this end has come."""
        try:
            if self.sock.recv_into(self.linger.view):
                return
        except BlockingIOError:
            return
        except OSError:
            self.held = None
        self.reader.stop()
        if self.held is None:
            self.over()

    @guarded
    def writable(self) -> None:
        """Send what is held, then FIN."""
        assert self.writer is not None and self.held is not None
        try:
            sent = self.sock.send(self.held)
            self.linger.sent[self.to_backend] += sent
            self.held = self.held[sent:]
        except BlockingIOError:
            return
        except OSError:
            self.over()
            return
        if not self.held:
            self.held = None
            self.writer.stop()
            self.fin()

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this end at once."""
        log.exception("ending a connection: internal error")
        self.over()

    def fin(self) -> None:
        try:
            self.sock.shutdown(_socket.SHUT_WR)
        except OSError:  # it has gone already
            self.reader.stop()
        if not self.reader.active:
            self.over()

    def over(self) -> None:
        self.close()
        self.linger.ended(self)

    def close(self) -> None:
        self.reader.stop()
        self.reader.close()
        if self.writer is not None:
            self.writer.stop()
            self.writer.close()
        close(self.sock)
