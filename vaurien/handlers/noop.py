"""The flow handler that does nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import Event
from vaurien.flow.handler import FlowHandler


class Noop(FlowHandler):
    """Passes everything on, through the engine: it shows what an idle toxic costs."""

    name = "noop"
    wants_begin = False
    options: Any = {}

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        yield 0, event
