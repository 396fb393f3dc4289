"""The flow handler that lets data come drop by drop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import OPEN, Data, Event
from vaurien.flow.handler import PIECES, FlowHandler
from vaurien.options import milliseconds

APART = 0.001  # seconds between two pieces at least


class Trickle(FlowHandler):
    """Spreads each chunk of data over ``duration`` ms, in at most 500 pieces at least 1 ms apart.

    The first piece goes at once, the last one at the end of the duration; a chunk waits for the
    one before it.
    """

    name = "trickle"
    wants_begin = False
    options: Any = {"duration": ("How long a chunk takes in ms", milliseconds, 1000)}

    _free = 0.0  # when the next chunk may begin

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is OPEN:
            self._free = 0.0
        if not isinstance(event, Data):
            yield 0, event
            return
        data, n = event.data, len(event.data)
        duration = self.options("duration") / 1000
        start = max(now, self._free)
        self._free = start + duration + APART if duration else start
        pieces = min(n, int(duration / APART) + 1, PIECES)
        if pieces < 2:
            yield start + duration - now, event
            return
        for i in range(pieces):
            piece = data[i * n // pieces : (i + 1) * n // pieces]
            yield start + duration * i / (pieces - 1) - now, Data(piece)
