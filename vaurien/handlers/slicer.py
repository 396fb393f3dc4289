"""The flow handler that cuts data into small pieces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import OPEN, Data, Event
from vaurien.flow.handler import CHUNK, PIECES, FlowHandler
from vaurien.options import Bounded, number, whole

piece_bytes = Bounded(whole, "bytes", 1, 1 << 62)
some_bytes = Bounded(whole, "bytes", 0, 1 << 62)
microseconds = Bounded(number, "microseconds", 0, 1e12)


class Slicer(FlowHandler):
    """Cuts data into pieces, each sent on its own, with a delay between them.

    The size of a piece is uniform in ``average_size`` ± ``size_variation``, at least one byte.
    """

    name = "slicer"
    wants_begin = False
    options: Any = {
        "average_size": ("Size of a piece in bytes; 0 cuts nothing", some_bytes, 1024),
        "size_variation": ("How far a size may be off, in bytes", some_bytes, 0),
        "delay": ("Time between two pieces in microseconds", microseconds, 0),
    }

    _free = 0.0  # when the next piece may go

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is OPEN:
            self._free = 0.0
            self.chunk = min(CHUNK, PIECES * (self.options("average_size") or CHUNK))
        if not isinstance(event, Data) or not self.options("average_size"):
            yield 0, event
            return
        data, start = event.data, 0
        average, variation = self.options("average_size"), self.options("size_variation")
        due, delay = max(now, self._free), self.options("delay") / 1e6
        while start < len(data):
            size = average
            if variation:
                size = max(1, average - variation + int(self.draw("size") * (2 * variation + 1)))
            piece = data[start : start + size]
            yield due - now, Data(piece) if len(piece) < len(data) else event
            start += size
            due += delay
        self._free = due
