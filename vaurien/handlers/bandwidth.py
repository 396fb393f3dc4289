"""The flow handler that throttles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import OPEN, Data, Event
from vaurien.flow.handler import CHUNK, PIECES, FlowHandler
from vaurien.flow.line import Line
from vaurien.options import Bounded, number

WORTH = 0.01  # seconds: how much of the line's time a piece may take

rate = Bounded(number, "KB/s", 0, 1e9)


class Bandwidth(FlowHandler):
    """Lets data through at a rate, in pieces of at most 10 ms' worth.

    Each piece leaves when the line has sent it, one after another; idle time earns no credit.
    With ``shared``, all connections of the proxy share one line in each direction.
    """

    name = "bandwidth"
    wants_begin = False
    options: Any = {
        "rate": ("Rate in KB/s, 0 for no limit; 1 KB is 1000 bytes", rate, 100),
        "shared": ("One line for the whole proxy, not one for each connection", bool, False),
    }

    _free = 0.0  # when the line falls free, if it is not shared
    _speed = 0.0  # bytes per second
    _size = 1  # bytes of a piece at most

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if not isinstance(event, Data):
            if event is OPEN:
                self._open()
            yield 0, event
            return
        data, n, speed, size = event.data, len(event.data), self._speed, self._size
        if not speed:
            yield 0, event
            return
        if self.turn is not None:
            start = self.turn.book(now, n / speed)
        else:
            start = max(now, self._free)
            self._free = start + n / speed
        for end in range(size, n, size):
            yield start + end / speed - now, Data(data[end - size : end])
        last = (n - 1) // size * size
        yield start + n / speed - now, Data(data[last:]) if last else event

    def _open(self) -> None:
        """It begins, or its options have changed, with which all that waited has gone on."""
        self._free = 0.0
        self._speed = self.options("rate") * 1000
        self._size = max(1, int(self._speed * WORTH))
        self.chunk = min(CHUNK, PIECES * self._size) if self._speed else CHUNK
        self.turn = None
        if self.options("shared"):  # one line for each direction
            self.turn = self.shared.setdefault(self.to_backend, Line()).join()
