"""The flow handler that has an exchange wait before its request, or before its response."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import OPEN, Begin, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.options import seconds


class Delay(FlowHandler):
    """Adds a delay before the backend is called.

    The request waits once, before its first byte goes on; with ``before`` set to no, the response
    waits instead. What comes meanwhile goes on behind it. Nothing is lost or reordered.
    ``stream``, where it is given, chooses the direction in place of ``before``.
    """

    name = "delay"
    stream_by = "before"
    options: Any = {
        "sleep": ("Delay in seconds", seconds, 1),
        "before": ("If True adds before the backend is called. Otherwise after", bool, True),
    }

    _waits = True  # the present exchange has not waited yet

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if type(event) is Data:
            if not self._waits:
                return ((0, event),)
            self._waits = False
            return ((self.options("sleep"), event),)
        if event is OPEN or type(event) is Begin:
            self._waits = True
        return ((0, event),)
