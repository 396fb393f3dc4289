"""The flow handler that throttles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import Data, Event
from vaurien.handlers.flow import FlowHandler
from vaurien.options import Bounded, number

PIECE = 0.01  # seconds: how much of the line's time a piece may take

rate = Bounded(number, "KB/s", 0.001, 1e9)


class Bandwidth(FlowHandler):
    """Lets data through at a rate, in pieces of at most 10 ms' worth.

    Each piece leaves when the line has sent it, one after another; idle time earns no credit.
    With ``shared``, all connections of the proxy share one line in each direction.
    """

    name = "bandwidth"
    options: Any = {
        "rate": ("Rate in KB/s; 1 KB is 1000 bytes", rate, 100),
        "shared": ("One line for the whole proxy, not one for each connection", bool, False),
    }

    _free = 0.0  # when the line falls free

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if not isinstance(event, Data):
            yield 0, event
            return
        speed = self.options("rate") * 1000
        size = max(1, int(speed * PIECE))
        data, n = event.data, len(event.data)
        shared = self.options("shared")
        start = max(now, self.shared.get(self.to_backend, 0.0) if shared else self._free)
        free = start + n / speed
        if shared:
            self.shared[self.to_backend] = free
        else:
            self._free = free
        for end in range(size, n, size):
            yield start + end / speed - now, Data(data[end - size : end])
        last = (n - 1) // size * size
        yield free - now, Data(data[last:]) if last else event
