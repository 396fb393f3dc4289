"""The flow handler that throttles."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from vaurien.flow import OPEN, Data, Event
from vaurien.flow.handler import CHUNK, PIECES, FlowHandler
from vaurien.flow.line import Line
from vaurien.options import Bounded, number

WORTH = 0.01  # seconds: how much of the line's time a piece may take

UNLIMITED = "unlimited"  # the word for a rate without a limit


class _Rate(Bounded):
    """A rate, which may be without a limit."""

    def __call__(self, value: object) -> Any:
        return inf if value in (UNLIMITED, inf) else super().__call__(value)


rate = _Rate(number, "KB/s", 0, 1e9)


class Bandwidth(FlowHandler):
    """Lets data through at a rate, in pieces of at most 10 ms' worth.

    Each piece leaves when the line has sent it, one after another; idle time earns no credit. With
    a ``rate`` of 0 nothing passes, until the handler is changed or removed.
    With ``shared``, all connections of the proxy share one line in each direction.
    """

    name = "bandwidth"
    wants_begin = False
    options: Any = {
        "rate": ("Rate in KB/s, or unlimited; 1 KB is 1000 bytes", rate, 100),
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
        if not 0 < speed < inf:
            yield 0 if speed else inf, event
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
        moves = 0 < self._speed < inf
        self._size = max(1, int(self._speed * WORTH)) if moves else CHUNK
        self.chunk = min(CHUNK, PIECES * self._size)
        self.turn = None
        if moves and self.options("shared"):  # one line for each direction
            self.turn = self.shared.setdefault(self.to_backend, Line()).join()
