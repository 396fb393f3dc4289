"""The flow handler that holds everything for a while."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from vaurien.flow import OPEN, Begin, Event
from vaurien.flow.handler import FlowHandler
from vaurien.options import milliseconds


class Pause(FlowHandler):
    """Holds the flow and loses nothing: it goes on after ``time`` ms, or when this is removed.

    The time counts from the beginning of each exchange that the handler is picked for; for a toxic,
    from when it comes to the connection. When ``--max-held`` bytes are held, no more is read from
    the sender.
    """

    name = "pause"
    options: Any = {"time": ("How long in ms; 0 until it is removed", milliseconds, 0)}

    _until = inf

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is OPEN or (isinstance(event, Begin) and not self.pinned):
            self._until = now + self.options("time") / 1000 if self.options("time") else inf
        yield max(0.0, self._until - now), event
