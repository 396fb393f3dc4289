"""What a framer is: it says which exchange each byte of a connection belongs to.

Laws: pure. A framer changes no byte, drops none and adds none: the data of the pieces that come out
of `feed` are, joined, what went in, but for a tail that it keeps because it cannot know yet whose
that is. The tail is bounded: a framer that keeps more than 64 KiB is given no more. It raises
`FramingError` at bytes that it does not understand.

A framer need not care about anything else. The caller remembers what has not come out yet, so that
when a side ends, or a framer gives up or has a bug, those bytes go on as they came and the
connection is plain ``tcp`` from there. It only says where messages begin and end, and never decides
about them: so it can be tested with bytes alone, and a bug in it cannot change any.

Exchanges are numbered from 1 in the order of their requests. What belongs to none, such as a
greeting or a message that a server pushes, is of exchange 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class FramingError(Exception):
    """What came is not of this protocol; its text says why."""


class Piece(NamedTuple):
    """Some bytes of one message, at least one.

    `first` and `last` say whether its first and its last byte are among them, `length` how many
    bytes the message has in all, None if that is not known (yet). `summary` is a short name of
    the request, such as ``GET /x``, on the first piece of it only.
    """

    data: bytes
    exchange: int
    first: bool = True
    last: bool = True
    length: int | None = None
    summary: str = ""


class Framer(Protocol):
    """Reads both directions of one connection."""

    def feed(self, to_backend: bool, data: bytes) -> Iterable[Piece]:
        """The pieces of the next `data` of one direction, in order; FramingError.

        It is read to its end at once, so it may be a generator; the pieces before a FramingError
        count. After one it is not called again. A piece of an answer belongs to the oldest request
        that waits for one, and answers come in the order of their requests.
        """

    def instead(self, exchange: int, data: bytes) -> None:
        """In place of the request of `exchange` the backend gets `data`.

        What it answers is framed as an answer to that; if `data` is empty, no answer will come.
        This is called before anything of that answer is fed, and perhaps before the rest of the
        request, which comes all the same.
        """
