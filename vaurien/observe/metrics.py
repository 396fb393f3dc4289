"""The metrics: what there is to know in numbers, declared once, for Prometheus and for statsd.

Laws: label sets are fixed, and no value of a label but a proxy's name is a client's choice; a
counter of a proxy never goes down; what is shown is read from the data path's own numbers when
it is asked for, and nothing is counted for it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import vaurien
from vaurien.counts import DELAYS, Counts, Directions, Done, Totals
from vaurien.observe.watchdog import LAGS, Lag


class Proxy(Protocol):
    """A proxy, as far as its numbers go; `vaurien.Proxy` is one."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> object: ...

    @property
    def plan(self) -> Any: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def connections(self) -> int: ...

    def totals(self) -> Totals: ...

    def done(self) -> Mapping[str, Done]: ...


#: The text format that every Prometheus and its kin reads.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
Value = int | float | Counts
Sample = tuple[Labels, Value]


class Drops(Protocol):
    """A journal or a log: it counts the lines that it could not take."""

    @property
    def dropped(self) -> int: ...


@dataclass(frozen=True)
class Seen:
    """One proxy at one moment."""

    name: str
    local: str
    distant: str
    enabled: bool
    totals: Totals
    done: Mapping[str, Done]


@dataclass(frozen=True)
class Snapshot:
    """All numbers at one moment."""

    proxies: Sequence[Seen]
    lag: Lag | None
    journal_dropped: int
    log_dropped: int


@dataclass(frozen=True, eq=False)
class Family:
    """One metric: its name as exposed, kind (counter, gauge, histogram or info), labels, source.

    A histogram has its `bounds`. statsd gets those that have a `short` name there.
    """

    name: str
    kind: str
    help: str
    labels: Labels
    read: Callable[[Snapshot], Iterable[Sample]]
    bounds: tuple[float, ...] = ()
    short: str = ""


def _of(get: Callable[[Seen], int]) -> Callable[[Snapshot], Iterator[Sample]]:
    """A number of each proxy."""
    return lambda snapshot: (((seen.name,), get(seen)) for seen in snapshot.proxies)


def _by_handler(get: Callable[[Done], Value]) -> Callable[[Snapshot], Iterator[Sample]]:
    """A number of each handler of each proxy."""
    return lambda snapshot: (
        ((seen.name, handler), get(done))
        for seen in snapshot.proxies
        for handler, done in seen.done.items()
    )


def _by_direction(
    get: Callable[[Totals], Directions], places: bool = False
) -> Callable[[Snapshot], Iterator[Sample]]:
    """A number of each proxy in each direction; with `places`, labelled as Toxiproxy does."""

    def read(snapshot: Snapshot) -> Iterator[Sample]:
        for seen in snapshot.proxies:
            for direction, n in zip(Directions._fields, get(seen.totals), strict=True):
                if places:
                    yield (direction, seen.name, seen.local, seen.distant), n
                else:
                    yield (seen.name, direction), n

    return read


_PROXY = ("proxy",)
_HANDLER = ("proxy", "handler")
_DIRECTION = ("proxy", "direction")
_TOXIPROXY = ("direction", "proxy", "listener", "upstream")

#: All metrics, in the order in which they are shown.
FAMILIES: tuple[Family, ...] = (
    Family("vaurien_info", "info", "The version that runs.", ("version",),
           lambda _: [((vaurien.__version__,), 1)]),
    Family("vaurien_proxy_enabled", "gauge", "1 if the proxy is enabled, 0 if it is disabled.",
           _PROXY, _of(lambda seen: int(seen.enabled)), short="enabled"),
    Family("vaurien_connections_open", "gauge", "Connections that are open.",
           _PROXY, _of(lambda seen: seen.totals.connections_open), short="connections_open"),
    Family("vaurien_connections_total", "counter", "Connections that were accepted.",
           _PROXY, _of(lambda seen: seen.totals.connections), short="connections"),
    Family("vaurien_connections_refused_total", "counter",
           "Accepted connections that the handler refuse has reset.",
           _PROXY, _of(lambda seen: seen.totals.refused), short="connections_refused"),
    Family("vaurien_failed_dials_total", "counter",
           "Connections whose backend could not be reached.",
           _PROXY, _of(lambda seen: seen.totals.failed_dials), short="failed_dials"),
    Family("vaurien_exchanges_total", "counter", "Exchanges that have begun.",
           _PROXY, _of(lambda seen: seen.totals.exchanges), short="exchanges"),
    Family("vaurien_picked_total", "counter",
           "Exchanges, or clients that connect, for which the behavior picked the handler.",
           _HANDLER, _by_handler(lambda done: done.picked), short="picked"),
    Family("vaurien_fired_total", "counter",
           "Exchanges to which the handler, or toxics of that type, did something, counted when"
           " they are over.",
           _HANDLER, _by_handler(lambda done: done.fired), short="fired"),
    Family("vaurien_delay_added_seconds", "histogram",
           "The most time that the handler added to a piece of an exchange to which it did"
           " something.",
           _HANDLER, _by_handler(lambda done: done.added), DELAYS, short="delay_added"),
    Family("vaurien_received_bytes_total", "counter",
           "Bytes read, from the client (upstream) and from the backend (downstream).",
           _DIRECTION, _by_direction(lambda totals: totals.received), short="received_bytes"),
    Family("vaurien_sent_bytes_total", "counter",
           "Bytes sent, to the backend (upstream) and to the client (downstream).",
           _DIRECTION, _by_direction(lambda totals: totals.sent), short="sent_bytes"),
    Family("vaurien_handler_errors_total", "counter", "Exceptions that handlers raised.",
           _PROXY, _of(lambda seen: seen.totals.handler_errors), short="handler_errors"),
    Family("vaurien_internal_errors_total", "counter",
           "Connections that ended because of an error in Vaurien itself.",
           _PROXY, _of(lambda seen: seen.totals.internal_errors), short="internal_errors"),
    Family("vaurien_accept_errors_total", "counter",
           "Errors of accept, such as too many open files; accepting pauses and goes on.",
           _PROXY, _of(lambda seen: seen.totals.accept_errors), short="accept_errors"),
    Family("vaurien_loop_lag_seconds", "histogram",
           "How late the event loop is, looked at ten times a second.",
           (), lambda snapshot: [((), snapshot.lag.buckets.told())] if snapshot.lag else [],
           LAGS),
    Family("vaurien_journal_dropped_total", "counter",
           "Lines of the journal that could not be written.",
           (), lambda snapshot: [((), snapshot.journal_dropped)], short="journal_dropped"),
    Family("vaurien_log_dropped_total", "counter", "Lines of the log that could not be written.",
           (), lambda snapshot: [((), snapshot.log_dropped)], short="log_dropped"),
    Family("toxiproxy_proxy_received_bytes_total", "counter",
           "As vaurien_received_bytes_total, by Toxiproxy's name and with its labels.",
           _TOXIPROXY, _by_direction(lambda totals: totals.received, places=True)),
    Family("toxiproxy_proxy_sent_bytes_total", "counter",
           "As vaurien_sent_bytes_total, by Toxiproxy's name and with its labels.",
           _TOXIPROXY, _by_direction(lambda totals: totals.sent, places=True)),
)  # fmt: skip


def look(proxy: Proxy) -> Seen:
    """A proxy's numbers as they are now."""
    return Seen(
        proxy.name,
        str(proxy.address),
        str(proxy.plan.distant),
        proxy.enabled,
        proxy.totals(),
        proxy.done(),
    )


class Metrics(Collector):
    """Tells all metrics of the `proxies` that are there when it is asked.

    It can be registered with a registry of prometheus-client; none is used by itself.
    """

    def __init__(
        self,
        proxies: Callable[[], Iterable[Proxy]],
        lag: Lag | None = None,
        journal: Drops | None = None,
        log: Drops | None = None,
    ) -> None:
        self._proxies, self._lag, self._journal, self._log = proxies, lag, journal, log

    def snapshot(self) -> Snapshot:
        """All numbers as they are now."""
        seen = [look(proxy) for proxy in self._proxies()]
        dropped = [0 if one is None else one.dropped for one in (self._journal, self._log)]
        return Snapshot(seen, self._lag, *dropped)

    def text(self) -> tuple[bytes, str]:
        """The metrics in Prometheus's plain text format, and its content type.

        That is the answer whatever a scraper would rather have: all read it.
        """
        return plain(self.snapshot()).encode(), CONTENT_TYPE

    def collect(self) -> Iterator[Metric]:
        """For prometheus-client's registries."""
        snapshot = self.snapshot()
        for family in FAMILIES:
            yield _metric(family, family.read(snapshot))


def _metric(family: Family, samples: Iterable[Sample]) -> Metric:
    """A family with its samples, as prometheus-client wants it."""
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [*map(_float, family.bounds), "+Inf"]
        for labels, value in samples:
            assert isinstance(value, Counts)
            histogram.add_metric(
                labels, list(zip(bounds, map(float, value.cumulative), strict=True)), value.sum
            )
        return histogram
    if family.kind == "info":
        info = InfoMetricFamily(family.name.removesuffix("_info"), family.help)
        for labels, _ in samples:
            info.add_metric((), dict(zip(family.labels, labels, strict=True)))
        return info
    cls = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = cls(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        assert not isinstance(value, Counts)
        made.add_metric(labels, value)
    return made


# The plain text is made here: prometheus-client takes 10 to 30 µs a line, which for a hundred
# proxies is 30 ms and more in which the loop does nothing else. A test holds one against the other.


def plain(snapshot: Snapshot) -> str:
    """The metrics in the plain text format."""
    lines: list[str] = []
    for family in FAMILIES:
        kind = "gauge" if family.kind == "info" else family.kind
        lines.append(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {kind}\n")
        if family.kind == "histogram":
            for labels, value in family.read(snapshot):
                assert isinstance(value, Counts)
                counts = value.cumulative
                lines.append(_histogram(family, labels) % (*counts, counts[-1], value.sum))
        else:
            known = _starts.setdefault(family.name, {})
            if len(known) > _KEPT:
                known.clear()
            lines += [
                f"{known.get(labels) or _start(known, family, labels)}{n}\n"
                for labels, n in family.read(snapshot)
            ]
    return "".join(lines)


def _begin(name: str, names: Labels, values: Labels) -> str:
    """What stands before a sample's number, such as ``name{proxy="default"}``, and a space.

    Labels are in the order of their names, as Go's client writes them, with ``le`` behind them.
    """
    if not names:
        return f"{name} "
    given = sorted(zip(names, values, strict=True), key=lambda pair: (pair[0] == "le", pair[0]))
    pairs = [f'{label}="{_escape(value)}"' for label, value in given]
    return f"{name}{{{','.join(pairs)}}} "


#: What stands before the numbers, by family and labels; of proxies that are gone, too.
_starts: dict[str, dict[Labels, str]] = {}
_KEPT = 20_000  # of each family at most


def _start(known: dict[Labels, str], family: Family, labels: Labels) -> str:
    start = known[labels] = _begin(family.name, family.labels, labels)
    return start


@lru_cache(maxsize=2_000)
def _histogram(family: Family, values: Labels) -> str:
    """The lines of a histogram, with places for the count of each bucket, of all, and the sum."""
    names, bounds = (*family.labels, "le"), [*map(_float, family.bounds), "+Inf"]
    starts = [_begin(f"{family.name}_bucket", names, (*values, bound)) for bound in bounds]
    starts.append(_begin(f"{family.name}_count", family.labels, values))
    starts = [f"{start.replace('%', '%%')}%d\n" for start in starts]
    last = _begin(f"{family.name}_sum", family.labels, values).replace("%", "%%")
    return "".join([*starts, f"{last}%r\n"])


def _escape(value: str) -> str:
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    value = value.encode(errors="backslashreplace").decode()  # a path that is no text
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _float(value: float) -> str:
    """A bound as prometheus-client writes it: ``1.0``."""
    return repr(float(value))
