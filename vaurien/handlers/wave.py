"""The flow handler whose delay rises and falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import pi, sin
from typing import Any

from vaurien.flow import EOF, OPEN, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.options import Bounded, milliseconds, number

period_ms = Bounded(number, "milliseconds", 1, 1e9)

#: A wave's value, from -1 to 1, for its phase, from 0 to 1; each begins at or rises from 0.
_WAVES: dict[str, Callable[[float], float]] = {
    "sine": lambda phase: sin(2 * pi * phase),
    "saw": lambda phase: 2 * ((phase + 0.5) % 1) - 1,
    "square": lambda phase: 1.0 if phase < 0.5 else -1.0,
    "triangle": lambda phase: 1 - 4 * abs((phase + 0.25) % 1 - 0.5),
}


class Wave(FlowHandler):
    """Delays by a base latency plus waves: sine, saw, square and triangle, added up.

    Each has an amplitude (0 turns it off) and a period in ms. Their time begins with the
    connection. A delay below 0 counts as 0; nothing is lost or reordered.
    """

    name = "wave"
    wants_begin = False
    options: Any = {
        "latency": ("Base delay in ms", milliseconds, 100),
        **{
            f"{wave}_{word}": (f"{text} of the {wave} wave in ms", type_, default)
            for wave in _WAVES
            for word, text, type_, default in (
                ("amplitude", "Amplitude", milliseconds, 50 if wave == "sine" else 0),
                ("period", "Period", period_ms, 60_000),
            )
        },
    }

    _opened = 0.0

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is OPEN:
            self._opened = now
        yield self.delay(now) if isinstance(event, Data) or event is EOF else 0, event

    def delay(self, now: float) -> float:
        """The delay at `now`, in seconds."""
        delay = self.options("latency")
        for wave, value in _WAVES.items():
            if amplitude := self.options(f"{wave}_amplitude"):
                period = self.options(f"{wave}_period") / 1000
                delay += amplitude * value((now - self._opened) / period % 1)
        return max(0.0, delay) / 1000  # type: ignore[no-any-return]
