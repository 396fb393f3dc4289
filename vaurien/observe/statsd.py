"""The metrics for statsd: once a second, what has changed, by UDP.

Laws: sending never waits; it is no error if no server listens. The numbers are those of
`vaurien.observe.metrics`, and no others. What is counted is told, though its proxy has gone since.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any

import gevent

from vaurien import services
from vaurien.address import Address
from vaurien.counts import Counts
from vaurien.errors import UsageError
from vaurien.observe.metrics import FAMILIES, Labels, Metrics, Proxy, Snapshot, look

log = logging.getLogger("vaurien")

PREFIX = "vaurien"
PERIOD = 1.0  # seconds between two sendings
_SIZE = 1432  # bytes of a datagram: what an Ethernet frame takes
_BAD = re.compile(r"[^A-Za-z0-9_-]")  # in a name each means something to statsd or to Graphite

Key = tuple[str, Labels]


def parse(text: str, where: str) -> Address:
    """The address of a statsd server; UsageError if it is none, or its package is missing."""
    try:
        target = services.parse(text, where, transport="udp")
    except UsageError as error:
        raise UsageError(str(error).replace(" or unix:PATH", "")) from None
    if target.path or not target.port:
        raise UsageError(
            f"{where}: {text!r} is not a UDP address; write HOST:PORT, such as localhost:8125"
        )
    try:
        import statsd  # noqa: F401
    except ImportError:
        raise UsageError(
            f"{where}: the package 'statsd' is not installed; pip install 'vaurien[statsd]'"
        ) from None
    return target


@dataclass
class _Told:
    """What was told so far of counters and of durations."""

    counted: dict[Key, float] = field(default_factory=dict)
    timed: dict[Key, Counts] = field(default_factory=dict)

    def tell(self, snapshot: Snapshot, pipe: Any) -> None:
        """Send what is new in `snapshot`."""
        counted: dict[Key, float] = {}
        timed: dict[Key, Counts] = {}
        for family in FAMILIES:
            if not family.short or family.kind == "gauge":
                continue
            for labels, value in family.read(snapshot):
                key, stat = (family.short, labels), _name(family.short, labels)
                if isinstance(value, Counts):
                    timed[key] = value
                    if (added := _mean(value, self.timed.get(key))) is not None:
                        pipe.timing(stat, added * 1000)
                else:
                    counted[key] = value
                    if new := value - self.counted.get(key, 0):
                        pipe.incr(stat, new)
        self.counted, self.timed = counted, timed

    def take_out(self, proxy: str) -> _Told:
        """What was told of one proxy, which is known here no more."""
        mine = [key for key in (*self.counted, *self.timed) if key[1][:1] == (proxy,)]
        return _Told(
            {key: self.counted.pop(key) for key in mine if key in self.counted},
            {key: self.timed.pop(key) for key in mine if key in self.timed},
        )


class Statsd:
    """Sends `metrics` to `target`; UsageError naming `where` if its name does not resolve."""

    def __init__(self, target: Address, metrics: Metrics, where: str = "--statsd") -> None:
        self._metrics = metrics
        self._client = _client(target, where)
        self._told = _Told()
        #: Those that have gone, and what was told of each, until all is.
        self._gone: list[tuple[Proxy, _Told]] = []
        self._gauges: set[str] = set()
        self._greenlet: Any = None

    def start(self) -> None:
        """Send from now on."""
        self._greenlet = gevent.spawn(self._send_always)

    def leave(self, proxy: Proxy) -> None:
        """`proxy` is there no more; what it has counted and nobody was told is sent next."""
        self._gone.append((proxy, self._told.take_out(proxy.name)))

    def stop(self) -> None:
        """Send what is left, and no more."""
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None
            self._try()
            self._client.close()

    def _send_always(self) -> None:
        while True:
            gevent.sleep(PERIOD)
            self._try()

    def _try(self) -> None:
        try:
            self.send()
        except Exception:
            log.exception("statsd: some numbers were not sent")

    def send(self) -> None:
        """Send what has changed since the last time, and all gauges."""
        snapshot = self._metrics.snapshot()
        gauges = {
            _name(family.short, labels): value
            for family in FAMILIES
            if family.short and family.kind == "gauge"
            for labels, value in family.read(snapshot)
        }
        if snapshot.lag is not None:
            gauges["loop_lag"] = round(snapshot.lag.worst * 1000, 3)
        with self._client.pipeline() as pipe:
            for proxy, told in self._gone:
                told.tell(Snapshot([look(proxy)], None, 0, 0), pipe)
            self._gone = [one for one in self._gone if one[0].connections]
            self._told.tell(snapshot, pipe)
            for stat in self._gauges - set(gauges):  # of proxies that are gone
                pipe.gauge(stat, 0)
            for stat, number in gauges.items():
                pipe.gauge(stat, number)
        self._gauges = set(gauges)


def _client(target: Address, where: str) -> Any:
    """A client of the package; its socket does not block."""
    import statsd

    families = (True,) if ":" in target.host else (False, True)
    for ipv6 in families:
        try:
            client = statsd.StatsClient(target.host, target.port, PREFIX, _SIZE, ipv6)
        except OSError as error:
            reason = error
        else:
            client._sock.setblocking(False)  # else a full buffer would hold up the loop
            return client
    raise UsageError(
        f"{where}: {target.host!r} does not resolve ({reason.strerror or reason});"
        " give the address of a statsd server"
    ) from None


def _name(short: str, labels: Labels) -> str:
    """``default.received_bytes.upstream``: the proxy stands first."""
    first, rest = labels[:1], labels[1:]
    return ".".join(_BAD.sub("_", word) for word in (*first, short, *rest))


def _mean(now: Counts, before: Counts | None) -> float | None:
    """The mean in seconds of the durations that are new; None if there are none."""
    n, seconds = now.cumulative[-1], now.sum
    if before is not None and before.cumulative[-1] <= n:
        n, seconds = n - before.cumulative[-1], seconds - before.sum
    return seconds / n if n else None
