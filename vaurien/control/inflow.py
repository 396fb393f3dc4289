"""What clients of the API send, as it comes over the wire.

Laws: who sends faster than it is read gets no more of the loop than others, since reading gives
way after `TURN` seconds; so a `Timeout` around it comes in time, too. All that comes is counted,
framing included: no request can be longer than it is allowed to be.
"""

from __future__ import annotations

from io import BufferedReader, RawIOBase
from time import monotonic
from typing import Any

from vaurien.net.turn import give_way

TURN = 0.005  # seconds of reading until others are let in
_BUFFER = 8192  # bytes that are read at a time, and of which a reader takes them one by one


class TooMuch(Exception):
    """A request is longer than it may be. No OSError: those mean that the client has gone."""


class Inflow(RawIOBase):
    """The bytes of one client, to be read through `reader`."""

    def __init__(self, sock: Any) -> None:
        """`sock` is gevent's."""
        self._sock = sock
        self._left = 0  # bytes that may still come
        self._since = monotonic()  # when it gave way last
        self.reader = BufferedReader(self, _BUFFER)

    def allow(self, size: int) -> None:
        """From now on `size` bytes may come, and what has been read ahead; then `TooMuch`."""
        self._left = size

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes and read them; 0 at the end. `TooMuch` if there are more than allowed."""
        if monotonic() - self._since > TURN:
            give_way()
            self._since = monotonic()
        n = int(self._sock.recv_into(buffer))
        self._left -= n
        if self._left < 0:
            raise TooMuch
        return n


def discard(sock: Any) -> None:
    """Read what comes until the end, however fast it comes."""
    while sock.recv(65536):
        give_way()
