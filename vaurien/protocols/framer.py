"""What a framer is: it says which exchange each byte of a connection belongs to.

Laws: pure. A framer changes no byte, drops none and adds none: the data of the pieces that come out
of `feed` are, joined, what went in, but for what it keeps because it cannot know yet whose they
are, and that is bounded. It raises `FramingError` where it meets what it does not understand; the
connection goes on as plain ``tcp`` from there, with `kept` first.

Exchanges are numbered from 1 in the order of their requests. What belongs to none, such as a
greeting or a message that a server pushes, is of exchange 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class FramingError(Exception):
    """What came is not of this protocol; its text says why."""


class Piece(NamedTuple):
    """Some bytes of one message.

    `first` and `last` say whether its first and its last byte are among them, `length` how many
    bytes the message has in all, None if that is not known (yet). `summary` is what people call the
    request, such as ``GET /x``, on the first piece of it only.
    """

    data: bytes
    exchange: int
    first: bool = True
    last: bool = True
    length: int | None = None
    summary: str = ""


class Framer(Protocol):
    """Reads both directions of one connection."""

    def feed(self, to_backend: bool, data: bytes) -> Sequence[Piece]:
        """The pieces of the next `data` of one direction, in order; FramingError.

        A piece of the answers belongs to the oldest request that waits for one.
        """

    def withheld(self, exchange: int) -> None:
        """The request of `exchange` does not reach the backend: no answer to it will come."""

    def kept(self, to_backend: bool) -> bytes:
        """What of one direction has not come out of `feed` yet; it is forgotten here."""
