"""A cutter: one direction of a connection, cut into pieces by a framer, whatever that does.

Laws: pure. No byte is lost, doubled or overtaken by a framer's fault: what was read and has not
come out of it is remembered here, as it came. After an error the framer is not asked again.
"""

from __future__ import annotations

from collections import deque

from vaurien.errors import RAISED
from vaurien.protocols.framer import Framer, FramingError, Piece

KEPT = 65536  # bytes that a framer may keep back until it knows whose they are


class Cutter:
    """Feeds `framer` with one direction; `pieces` are those that nobody has taken yet."""

    __slots__ = ("_framer", "_to_backend", "error", "kept", "pieces")

    def __init__(self, framer: Framer, to_backend: bool) -> None:
        self._framer, self._to_backend = framer, to_backend
        self.pieces: deque[Piece] = deque()
        self.kept = b""  # read, and not come out of the framer
        self.error: BaseException | None = None  # why nothing is cut any more

    def __repr__(self) -> str:
        state = f", {self.error!r}" if self.error is not None else ""
        return f"<Cutter: {len(self.pieces)} pieces, {len(self.kept)} bytes kept{state}>"

    def feed(self, data: bytes) -> None:
        """Cut `data`."""
        # Before the framer sees it: if that raises, nothing of `data` is lost.
        self.kept = self.kept + data if self.kept else data
        if self.error is not None:
            return
        pieces, out = self.pieces, 0
        try:
            for piece in self._framer.feed(self._to_backend, data):
                pieces.append(piece)
                out += len(piece.data)
        except RAISED as error:  # one of its own, or a bug: both end its work here
            self.error = error
        self.kept = self.kept[out:]
        if len(self.kept) > KEPT and self.error is None:
            self.error = FramingError(f"after {KEPT:,} bytes it is not clear yet what they are")

    def rest(self) -> bytes:
        """All that is left here, as it came; it is forgotten."""
        data = b"".join([*(piece.data for piece in self.pieces), self.kept])
        self.pieces.clear()
        self.kept = b""
        return data
