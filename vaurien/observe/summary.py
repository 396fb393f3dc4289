"""What the handlers did: counted while they do it, told as a table.

Law: pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor, inf, log2
from typing import NamedTuple

_BATCH = 256
_NOTHING = -10_000  # the bucket of what is shorter than a microsecond
_STEPS = 64  # buckets for each doubling: a quantile is off by 0.6 % at most


class Histogram:
    """Durations in seconds, counted in buckets that grow by 1.1 %."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._new: list[float] = []  # not yet counted: many at a time take less
        self._least, self._most = inf, 0.0

    def add(self, seconds: float) -> None:
        """Take in one duration."""
        self._new.append(seconds)
        if len(self._new) >= _BATCH:
            self._count()

    @property
    def count(self) -> int:
        """How many there are."""
        self._count()
        return sum(self._buckets.values())

    def _count(self) -> None:
        buckets = self._buckets
        self._least = min(self._least, *self._new) if self._new else self._least
        self._most = max(self._most, *self._new) if self._new else self._most
        for seconds in self._new:
            bucket = floor(log2(seconds) * _STEPS) if seconds > 1e-6 else _NOTHING
            buckets[bucket] = buckets.get(bucket, 0) + 1
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


class Stats:
    """What one handler did since the start."""

    def __init__(self) -> None:
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
