"""What the handlers did: counted while they do it, told as a table.

Law: pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import floor, inf, log2
from typing import NamedTuple

_BATCH = 256
_NOTHING = -10_000  # the bucket of what is shorter than a microsecond
_STEPS = 64  # buckets for each doubling: a quantile is off by 0.6 % at most

#: The upper bounds in seconds of the buckets in which added delays are exposed.
DELAYS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counts(NamedTuple):
    """A histogram as Prometheus wants it: how many did not exceed each bound, and any; the sum."""

    cumulative: tuple[int, ...]
    sum: float


class Buckets:
    """Durations in seconds, counted in the buckets below some bounds, and above them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Take in one duration, in seconds; below a microsecond nothing counts."""
        self._counts[bisect_left(self.bounds, round(seconds, 6))] += 1
        self._sum += seconds

    def told(self) -> Counts:
        """What was counted so far."""
        return Counts(tuple(accumulate(self._counts)), self._sum)


class Histogram:
    """Durations in seconds, counted in buckets that grow by 1.1 %."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._new: list[float] = []  # not yet counted: many at a time take less
        self._least, self._most = inf, 0.0
        self._fixed = Buckets(DELAYS)

    def add(self, seconds: float) -> None:
        """Take in one duration, in seconds."""
        self._new.append(seconds)
        if len(self._new) >= _BATCH:
            self._count()

    @property
    def count(self) -> int:
        """How many there are."""
        self._count()
        return sum(self._buckets.values())

    def told(self) -> Counts:
        """How many did not exceed each of `DELAYS`, and their sum."""
        self._count()
        return self._fixed.told()

    def _count(self) -> None:
        buckets = self._buckets
        self._least = min(self._least, *self._new) if self._new else self._least
        self._most = max(self._most, *self._new) if self._new else self._most
        for seconds in self._new:
            bucket = floor(log2(seconds) * _STEPS) if seconds > 1e-6 else _NOTHING
            buckets[bucket] = buckets.get(bucket, 0) + 1
            self._fixed.add(seconds)
        self._new.clear()

    def quantile(self, share: float) -> float | None:
        """What `share` of the durations do not exceed, None if there are none."""
        left = share * self.count
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                middle = 2 ** ((bucket + 0.5) / _STEPS) if bucket > _NOTHING else 0.0
                return min(max(middle, self._least), self._most)
        return None


class Directions(NamedTuple):
    """A number of bytes for each flow: to the backend, and to the client."""

    upstream: int
    downstream: int


@dataclass(frozen=True)
class Totals:
    """What happened in a proxy since its start; all but `connections_open` only grow.

    `received` are the bytes read from the client (upstream) and the backend (downstream), `sent`
    those that the other side's socket has taken. What a handler reads or writes past the sockets it
    is lent, by their descriptor, is in neither.
    """

    connections_open: int
    connections: int
    refused: int
    failed_dials: int
    handler_errors: int
    internal_errors: int
    accept_errors: int
    exchanges: int
    received: Directions
    sent: Directions


class Done(NamedTuple):
    """What the handlers of one name did since the start of their proxy, see `Stats`."""

    picked: int
    fired: int
    bytes: int
    added: Counts

    def __add__(self, other: Done) -> Done:  # type: ignore[override]
        counts = zip(self.added.cumulative, other.added.cumulative, strict=True)
        added = Counts(tuple(map(sum, counts)), self.added.sum + other.added.sum)
        return Done(
            self.picked + other.picked,
            self.fired + other.fired,
            self.bytes + other.bytes,
            added,
        )


class Stats:
    """What one handler did since the start; `whole` is what it is a part of, and outlives it."""

    def __init__(self, whole: Stats | None = None) -> None:
        self.whole = whole
        self.picked = 0  # the draw chose it
        self.fired = 0  # it did something to an exchange
        self.bytes = 0  # of those exchanges, both ways
        self.added = Histogram()  # the most time that it added to a piece of an exchange

    def __repr__(self) -> str:
        return f"<Stats: picked {self.picked}, fired {self.fired}, {self.bytes} bytes>"

    def fire(self, added: float, bytes_: int) -> None:
        """It did something to an exchange, and added so many seconds; infinity does not count."""
        self.fired += 1
        self.bytes += bytes_
        if added < inf:
            self.added.add(added)
        if self.whole is not None:
            self.whole.fire(added, bytes_)

    def told(self) -> Done:
        """What it did so far."""
        return Done(self.picked, self.fired, self.bytes, self.added.told())


def table(stats: Mapping[str, Stats]) -> Iterable[str]:
    """The table that is told at exit: a line for each handler, below its heading."""
    rows: list[tuple[str, ...]] = [
        ("handler", "picked", "fired", "bytes", "added p50", "added p99")
    ]
    for name, one in stats.items():
        quantiles = (one.added.quantile(0.5), one.added.quantile(0.99))
        rows.append((name, str(one.picked), str(one.fired), str(one.bytes), *map(_time, quantiles)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join((first.ljust(widths[0]), *cells))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 0.9995:
        return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"
    return f"{seconds * 1000:.3g} ms"
