"""The flow handler that delays the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import EOF, Close, Event
from vaurien.flow.handler import FlowHandler
from vaurien.options import milliseconds


class SlowClose(FlowHandler):
    """Delays the end of the flow; data passes untouched."""

    name = "slow_close"
    wants_begin = False
    options: Any = {"delay": ("Delay in ms", milliseconds, 1000)}

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        ends = event is EOF or isinstance(event, Close)
        yield self.options("delay") / 1000 if ends else 0, event
