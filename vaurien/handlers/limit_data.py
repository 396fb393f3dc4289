"""The flow handler that closes after some bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import Close, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.slicer import some_bytes


class LimitData(FlowHandler):
    """Closes the connection with a polite end (FIN) once ``bytes`` bytes have passed in all."""

    name = "limit_data"
    wants_begin = False
    options: Any = {"bytes": ("How many bytes may pass", some_bytes, 0)}

    _passed = 0

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if not isinstance(event, Data):
            yield 0, event
            return
        left = max(0, self.options("bytes") - self._passed)
        self._passed += len(event.data)
        yield 0, event if len(event.data) <= left else Data(event.data[:left])
        if len(event.data) >= left:
            yield 0, Close()
