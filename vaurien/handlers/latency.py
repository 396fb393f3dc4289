"""The flow handler that delays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, sqrt
from statistics import NormalDist
from typing import Any

from vaurien.errors import nearest
from vaurien.flow import EOF, OPEN, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.options import milliseconds, percent

_NORMAL = NormalDist()
_LONGEST = 1e6  # seconds; what is longer never comes
_LEAST = 1e-12  # draws this near to 0 or 1 count as this: their quantile may be infinite


def _pareto(u: float) -> float:
    """Pareto with the shape 3, moved to mean 0 and scaled as in netem's table (iproute2)."""
    return float((1 - u) ** (-1 / 3) - 1.5) * 4 / 3


#: What is added to the latency, in units of jitter, for a draw from 0 to 1.
_DISTRIBUTIONS: dict[str, Callable[[float], float]] = {
    "uniform": lambda u: 2 * u - 1,
    "normal": _NORMAL.inv_cdf,
    "pareto": _pareto,
    # a quarter normal, three quarters pareto, as in netem's table (iproute2)
    "paretonormal": lambda u: _NORMAL.inv_cdf(u) / 4 + 3 * _pareto(u) / 4,
    "lognormal": _NORMAL.inv_cdf,  # of the logarithm
}


class Samples:
    """Measured delays in ms, read from a file: numbers, separated by space or line."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, encoding="utf-8") as file:
                self.delays = sorted(milliseconds(word) for word in file.read().split())
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"holds something that is not a delay in ms: {error}") from None
        if not self.delays:
            raise ValueError("holds no delays")

    def __str__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Samples) and (self.path, self.delays) == (other.path, other.delays)

    __hash__ = None  # type: ignore[assignment]

    def at(self, u: float) -> float:
        """The delay below which the share `u` of the samples lies."""
        return float(self.delays[int(u * len(self.delays))])


def distribution(value: object) -> str | Samples:
    """A distribution's name, or the path of a file of samples (it has a ``/`` or a ``.``)."""
    text = str(value)
    if text in _DISTRIBUTIONS:
        return text
    if "/" in text or "." in text:
        return Samples(text)
    raise ValueError(
        f"is neither a file's path nor a distribution;"
        f" {nearest(text, _DISTRIBUTIONS, 'distributions')}"
    )


#: A request may name a distribution, but no file.
distribution.by_request = lambda value: not set("/.") & set(str(value))  # type: ignore[attr-defined]


class Latency(FlowHandler):
    """Delays each chunk of data, and the end of the flow, by latency ± jitter.

    The delay counts from the chunk's arrival. Nothing is lost or reordered: a chunk that draws a
    short delay waits for those before it. ``--max-held`` bounds what is on its way.

    ``jitter`` is the half width of the uniform distribution, the standard deviation of the normal
    one, the unit of the pareto and paretonormal ones (those of netem). With ``lognormal`` the
    median is ``latency`` and sigma is jitter / latency. A file of samples, whose path has a ``/``
    or a ``.`` in it, takes the place of both. ``correlation`` says how much a delay depends on the
    one before it; the distribution stays the same.
    """

    name = "latency"
    wants_begin = False
    options: Any = {
        "latency": ("Delay in ms", milliseconds, 100),
        "jitter": ("How far a delay may be off, in ms", milliseconds, 0),
        "distribution": (
            f"How jitter is distributed: {', '.join(_DISTRIBUTIONS)}; or the path of a file of"
            " delays in ms, in place of latency and jitter",
            distribution,
            "uniform",
        ),
        "correlation": ("How much a delay resembles the last one, in percent", percent, 0),
    }

    _last: float | None = None  # the last draw, as a normal deviate
    _fixed: float | None = None  # the delay, if it is always the same

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if type(event) is Data or event is EOF:
            return ((self.delay() if self._fixed is None else self._fixed, event),)
        if event is OPEN:
            varies = self.options("jitter") or isinstance(self.options("distribution"), Samples)
            self._fixed = None if varies else self.options("latency") / 1000
        return ((0, event),)

    def delay(self) -> float:
        """The next delay, in seconds, where it is not always the same."""
        latency, jitter = self.options("latency"), self.options("jitter")
        kind = self.options("distribution")
        if isinstance(kind, Samples):
            return kind.at(self._draw()) / 1000
        deviation = _DISTRIBUTIONS[kind](self._draw())
        if kind == "lognormal":
            if not latency:
                return 0.0
            sigma = min(jitter / latency, 1e9)  # a latency near 0 would make it infinite
            return min(_LONGEST, latency * exp(min(sigma * deviation, 99.0)) / 1000)  # type: ignore[no-any-return]
        return max(0.0, latency + jitter * deviation) / 1000  # type: ignore[no-any-return]

    def _draw(self) -> float:
        """A number from 0 to 1, as near to the last one as `correlation` says."""
        u = min(max(self.draw("delay"), _LEAST), 1 - _LEAST)
        rho = self.options("correlation") / 100
        if not rho:
            return u
        deviate = _NORMAL.inv_cdf(u)
        if self._last is not None:
            deviate = rho * self._last + sqrt(1 - rho * rho) * deviate
        self._last = deviate
        return min(max(_NORMAL.cdf(deviate), _LEAST), 1 - _LEAST)
