"""The end of sockets: a reset, or a polite one: what is held, then FIN, then patience.

Law: a polite end passes on what is still held, sends FIN, discards what still comes in until EOF,
and only then closes: closing with unread bytes would be a reset. What moves is let through, what
stands is not: it gives up when the peer has taken nothing for `LINGER` seconds, or has not ended
within `LINGER` seconds of our FIN.
"""

from __future__ import annotations

import _socket
import logging
import struct
from collections.abc import Callable
from typing import Any

from vaurien.net.guard import guarded
from vaurien.net.loop import READ, WRITE, Loop, Watcher

log = logging.getLogger("vaurien")

LINGER = 1.0  # seconds

#: ``struct linger {1, 0}``: the next close sends RST and drops what was not yet sent, socket(7).
ABORT = struct.pack("ii", 1, 0)


#: A way to end a socket: `close` or `reset`.
Way = Callable[[_socket.socket], None]


def reset(sock: Any) -> None:
    """Close a socket with a RST; a unix socket, which knows none, with a plain close."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, ABORT)
    except OSError:
        pass  # the peer has gone already
    close(sock)


def close(sock: Any) -> None:
    """Close a socket, whatever the system says."""
    try:
        sock.close()
    except OSError:
        pass


class Linger:
    """A polite end of one socket; it goes on by itself.

    `sent` is told how many bytes of what is `held` were sent, each time; `done` is called once the
    socket is closed.
    """

    __slots__ = ("_done", "_held", "_loop", "_reader", "_sent", "_sock", "_timer", "_writer")

    def __init__(
        self,
        sock: Any,
        held: memoryview | None,
        loop: Loop,
        sent: Callable[[int], None],
        done: Callable[[], None],
    ) -> None:
        self._sock, self._held, self._loop = sock, held, loop
        self._sent, self._done = sent, done
        self._timer: Watcher | None = None
        self._reader: Watcher = loop.io(sock.fileno(), READ)
        self._writer: Watcher | None = None
        self._reader.start(self._readable)
        self._wait()
        if held is not None:
            self._writer = loop.io(sock.fileno(), WRITE)
            self._writer.start(self._writable)
        else:
            self._fin()

    def __repr__(self) -> str:
        return f"<Linger of {self._sock.fileno()}, {len(self._held or b'')} held>"

    def _wait(self) -> None:
        """Have patience for `LINGER` seconds from now."""
        self._stop_timer()
        self._timer = self._loop.timer(LINGER)
        self._timer.start(self._over)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()

    @guarded
    def _readable(self) -> None:
        """Discard; at EOF or an error this end has come."""
        try:
            if self._sock.recv_into(self._loop.view):
                return
        except BlockingIOError:
            return
        except OSError:
            self._held = None
        self._reader.stop()
        if self._held is None:
            self._over()

    @guarded
    def _writable(self) -> None:
        """Send what is held, then FIN."""
        held = self._held
        assert self._writer is not None and held is not None
        try:
            n = self._sock.send(held)
        except BlockingIOError:
            return
        except OSError:
            self._over()
            return
        self._sent(n)
        self._held = held[n:] or None
        self._wait()
        if self._held is None:
            self._writer.stop()
            self._fin()

    def _fin(self) -> None:
        try:
            self._sock.shutdown(1)
        except OSError:  # it has gone already
            self._reader.stop()
        if not self._reader.active:
            self._over()

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this end at once."""
        log.exception("ending a connection: internal error")
        self._over()

    @guarded
    def _over(self) -> None:
        self._stop_timer()
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        close(self._sock)
        done, self._done = self._done, _nothing
        done()


def _nothing() -> None: ...
