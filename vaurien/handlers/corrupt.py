"""The flow handler that flips bits."""

from __future__ import annotations

from collections.abc import Iterable
from math import log1p
from typing import Any

from vaurien.flow import OPEN, Begin, Data, Event
from vaurien.flow.handler import CHUNK, PIECES, FlowHandler
from vaurien.handlers.slicer import some_bytes
from vaurien.options import LARGEST, percent


class Corrupt(FlowHandler):
    """Flips one bit in some bytes: each by chance, or the one at an offset.

    ``offset`` counts from 0, in the data of each exchange; with it, ``chance`` has no effect.
    Which bits are flipped follows from the seed, and not from how the data was cut into pieces.
    """

    name = "corrupt"
    options: Any = {
        "chance": ("Chance of each byte, in percent", percent, 1),
        "offset": ("Flip a bit of the byte at this offset only", some_bytes, None),
    }

    _at = 0  # offset of the next byte in the exchange
    _next: int | None = None  # offset of the next byte to spoil

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if isinstance(event, Begin):
            self._at = 0
        if isinstance(event, Begin) or event is OPEN:
            self._next = None
        if event is OPEN and self.options("chance"):  # a flipped bit takes as long as a piece
            self.chunk = int(min(CHUNK, PIECES * 100 / self.options("chance")))
        if not isinstance(event, Data):
            yield 0, event
            return
        end = self._at + len(event.data)
        spoilt: bytearray | None = None
        if self._next is None:
            self._next = self._first()
        while self._next is not None and self._at <= self._next < end:
            spoilt = spoilt or bytearray(event.data)
            spoilt[self._next - self._at] ^= 1 << int(self.draw("bit") * 8)
            self._next = self._after(self._next)
        self._at = end
        yield 0, event if spoilt is None else Data(bytes(spoilt))

    def _first(self) -> int:
        offset = self.options("offset")
        return self._after(self._at - 1) if offset is None else offset

    def _after(self, offset: int) -> int:
        """The offset of the next byte to spoil: one draw for each, not one for each byte."""
        chance = self.options("chance") / 100
        if self.options("offset") is not None or not chance:
            return -1
        if chance >= 1:
            return offset + 1
        # A chance that is as good as none has gaps without end, which int() would not take.
        return offset + 1 + int(min(log1p(-self.draw("gap")) / log1p(-chance), LARGEST))
