"""Sockets in memory, joined in pairs, for `vaurien.net.memory`.

Laws: they behave as TCP does on Linux, as far as the data path can see. What has come is read
before an end or a reset is seen. A close with something unread is a reset, and sending to one that
has closed brings one back. Nothing ever blocks.
"""

from __future__ import annotations

import _socket
import errno
import os
from itertools import count
from typing import Any

from vaurien.net.linger import ABORT

WINDOW = 65536  # bytes that one may send before the other has read any
_numbers = count(1_000_000)  # of descriptors; none is given twice, and none is the system's


class MemorySocket:
    """One of two sockets that are connected; it never blocks.

    `window` is how many bytes it takes that its owner has not read.
    """

    family, type, proto = _socket.AF_INET, _socket.SOCK_STREAM, 0

    def __init__(self, table: dict[int, MemorySocket], window: int = WINDOW) -> None:
        """`table` has the open ones by their descriptors."""
        self.peer: MemorySocket  # set when they are joined
        self.window = window
        self.inbox = bytearray()  # come, and not read yet
        self.fins = 0  # how many ends the peer has sent: one at most, or something is wrong
        self.error: int | None = None  # what the next call will say: a reset
        self.was_reset = False
        self._has_shut = False
        self._options: dict[tuple[int, int], Any] = {}
        self._table = table
        self._descriptor = next(_numbers)
        table[self._descriptor] = self

    def __repr__(self) -> str:
        words = [f"{len(self.inbox)} unread"]
        words += ["ended"] if self.fins else []
        words += ["reset"] if self.was_reset else []
        words += ["shut"] if self._has_shut else []
        words += ["closed"] if self.closed else []
        return f"<MemorySocket {self._descriptor}: {', '.join(words)}>"

    # What watchers ask

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._descriptor < 0

    @property
    def room(self) -> int:
        """How many bytes it takes now."""
        return max(0, self.window - len(self.inbox))

    @property
    def is_readable(self) -> bool:
        """Whether reading gives something: bytes, the end or an error."""
        return bool(self.inbox or self.fins or self.was_reset)

    @property
    def is_writable(self) -> bool:
        """Whether sending does something: it takes bytes, or raises."""
        return bool(self.was_reset or self._has_shut or self.peer.closed or self.peer.room)

    # What sockets have

    def fileno(self) -> int:
        return self._descriptor

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Read `nbytes` bytes at most, or as many as `buffer` takes."""
        with memoryview(buffer).cast("B") as view:
            data = self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Read `bufsize` bytes at most."""
        self._check()
        if self.inbox:
            data = bytes(self.inbox[:bufsize])
            if not flags & _socket.MSG_PEEK:
                del self.inbox[:bufsize]
            return data
        self._raise_error()
        if self.fins or self.was_reset:
            return b""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def send(self, data: Any, flags: int = 0) -> int:
        self._check()
        self._raise_error()
        if self.was_reset or self._has_shut:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        with memoryview(data).cast("B") as view:
            if self.peer.closed:  # which the system learns when the answer comes
                self.get_reset()
                return len(view)
            sent = min(len(view), self.peer.room)
            if view and not sent:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self.peer.inbox += view[:sent]
        return sent

    def shutdown(self, how: int) -> None:
        self._check()
        if self.was_reset:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        if how != _socket.SHUT_RD and not self._has_shut:
            self._has_shut = True
            self.peer.fins += 1

    def close(self) -> None:
        """Close; the peer gets a FIN, or a RST if SO_LINGER has it so or something is unread."""
        if self.closed:
            return
        linger = self._options.get((_socket.SOL_SOCKET, _socket.SO_LINGER))
        if linger == ABORT or self.inbox:
            self.peer.get_reset()
        elif not self._has_shut and not self.was_reset:
            self._has_shut = True
            self.peer.fins += 1
        del self._table[self._descriptor]
        self._descriptor = -1
        self.inbox.clear()

    def get_reset(self) -> None:
        """A RST has come: what was sent and is not read yet is gone, what has come is not."""
        if not self.was_reset and not self.closed:
            self.was_reset, self.error = True, errno.ECONNRESET

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._check()
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> Any:
        self._check()
        if (level, option) == (_socket.SOL_SOCKET, _socket.SO_ERROR):
            error, self.error = self.error, None
            return error or 0
        return self._options.get((level, option), bytes(buflen) if buflen else 0)

    def getpeername(self) -> Any:
        self._check()
        if self.was_reset:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return ("127.0.0.1", self.peer._descriptor)

    def getsockname(self) -> Any:
        self._check()
        return ("127.0.0.1", self._descriptor)

    def setblocking(self, flag: bool) -> None:
        assert not flag, "a socket in memory never blocks"

    def _check(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _raise_error(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise ConnectionResetError(error, os.strerror(error))


def pair(table: dict[int, MemorySocket], window: int = WINDOW) -> tuple[MemorySocket, MemorySocket]:
    """Two that are connected; each takes `window` bytes that its owner has not read."""
    one, other = MemorySocket(table, window), MemorySocket(table, window)
    one.peer, other.peer = other, one
    return one, other
