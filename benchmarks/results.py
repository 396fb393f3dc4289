"""The numbers of a run, and the medians, spreads, ratios and targets that come of them.

Ratios are taken within a round, where the peers saw much the same machine, and their median is the
ratio; a ratio of two medians would carry the machine's drift from round to round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles

from .control import NATIVE, SHARED
from .measures import Measure, Metric, Round
from .peers import NO_FLAGS, Peer


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, the least and the most of them, and the quartiles' distance."""

    median: float
    low: float
    high: float
    middle: float


@dataclass(frozen=True)
class Target:
    """What Vaurien is to reach in a metric: a bound, as a multiple of `against` if there is one."""

    metric: str
    against: str | None
    bound: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Outcome:
    """What became of a target."""

    target: Target
    got: Spread
    met: bool


SUBJECT = "vaurien"
"""The spec that the targets are for."""

RIVAL = "toxiproxy"
"""The spec that the metrics with faults are compared with, whatever else is."""

_BULK = tuple(
    f"{name}-{way}" for name in ("bulk-64", "bulk", "bulk-1024") for way in ("to", "from")
)
_HIGHER = ("requests-1", "requests-50", "pipeline-16", "connections", *_BULK)
_WEB = ("wrk-latency", "wrk-delay-20", "wrk-delay", "wrk-handler", "wrk-late-1000")
_LOWER = ("latency-added-p50", "latency-added-p99", "idle")
_FAULTS = ("fault-latency-50", "fault-latency-1000", "fault-bulk")
_RATES = (10, 1000, 100_000)  # KB/s

TARGETS = (
    Target("requests-1", "haproxy", 0.9, at_least=True),
    Target("requests-50", "haproxy", 0.9, at_least=True),
    Target("pipeline-16", "haproxy", 0.9, at_least=True),
    Target("connections", "haproxy", 0.8, at_least=True),
    *(Target(metric, "haproxy", 1.0, at_least=True) for metric in _BULK),
    Target("idle", None, 4.0, at_least=False),
    *(Target(metric, "toxiproxy", 1.0, at_least=True) for metric in _HIGHER),
    *(Target(metric, "toxiproxy", 1.0, at_least=False) for metric in _LOWER),
    *(Target(metric, "toxiproxy", 1.0, at_least=True) for metric in _FAULTS),
    *(Target(f"fault-delay-{asked}-p50", None, 0.5, at_least=False) for asked in (1, 10, 100)),
    *(Target(f"fault-bandwidth-{rate}", None, 98, at_least=True) for rate in _RATES),
    *(Target(f"fault-bandwidth-{rate}", None, 102, at_least=False) for rate in _RATES),
    *(Target(f"{metric}-part", None, 0.9, at_least=True) for metric in _WEB),
    *(Target(f"{metric}-journal-part", None, 0.7, at_least=True) for metric in _WEB),
    *(Target(f"{metric}-lacking", None, 0.0, at_least=False) for metric in _WEB),
    Target("wrk-latency-plain-cpu-part", None, 2.0, at_least=False),
    Target("wrk-delay-20-plain-part", None, 0.5, at_least=True),
    Target("wrk-late-1000", "toxiproxy", 0.9, at_least=True),
    Target("wrk-late-1000-cpu", "toxiproxy", 1.0, at_least=False),
    Target("fault-bulk-unpicked", None, 0.95, at_least=True),
    Target("fault-stored", "toxiproxy", 1.0, at_least=False),
    *(Target(f"control-{key}-p99", None, 10, at_least=False) for key in {**SHARED, **NATIVE}),
)


@dataclass(frozen=True)
class Results:
    """All that a run has measured, on what machine, and what went wrong.

    `others` is what else the machine did before each round, in percent of its CPU time.
    """

    facts: dict[str, str]
    peers: Sequence[Peer]
    measures: Sequence[Measure]
    against: Sequence[str]
    rounds: list[Round] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def plain(self) -> list[Metric]:
        """The metrics of measures without faults, in their order."""
        return [each for measure in self.measures if not measure.faulty for each in measure.metrics]

    @property
    def faulty(self) -> list[Metric]:
        """The metrics of measures with faults, in their order."""
        return [each for measure in self.measures if measure.faulty for each in measure.metrics]

    @property
    def faulty_against(self) -> list[str]:
        """The peers that the metrics with faults are compared with."""
        able = [peer.spec for peer in self.peers if peer.faults]
        return [spec for spec in dict.fromkeys((RIVAL, *self.against)) if spec in able]

    def value(self, spec: str, metric: str) -> Spread | None:
        """A peer's value in a metric; None if there is none."""
        return spread(each[spec][metric] for each in self.rounds if metric in each.get(spec, ()))

    def ratio(self, spec: str, metric: str, against: str) -> Spread | None:
        """A peer's value as a multiple of another's, by the rounds in which that is above zero.

        None also for a metric in which neither more nor less is better.
        """
        if metric in {each.key for each in (*self.plain, *self.faulty) if each.higher is None}:
            return None
        return spread(
            each[spec][metric] / each[against][metric]
            for each in self.rounds
            if metric in each.get(spec, ()) and each.get(against, {}).get(metric, 0.0) > 0
        )

    def outcomes(self) -> list[Outcome]:
        """The targets for which there are numbers, and what became of them."""
        found = []
        for target in TARGETS:
            if target.against is None:
                got = self.value(SUBJECT, target.metric)
            else:
                got = self.ratio(SUBJECT, target.metric, target.against)
            if got is not None:
                found.append(Outcome(target, got, target.met(got.median)))
        return found

    def _compared(self, against: str) -> list[Metric]:
        """The metrics that are compared with a peer."""
        plain = self.plain if against in self.against else []
        return plain + (self.faulty if against in self.faulty_against else [])

    def as_json(self) -> dict[str, object]:
        """Everything, for a machine to read."""
        metrics = {metric.key: metric for metric in (*self.plain, *self.faulty)}
        specs = [peer.spec for peer in self.peers]
        bases = dict.fromkeys((*self.against, *self.faulty_against))
        return {
            "facts": self.facts,
            "peers": {
                peer.spec: {"label": peer.label, **_without_paths(peer.settings)}
                for peer in self.peers
            },
            "metrics": {key: asdict(metric) for key, metric in metrics.items()},
            "values": {
                key: _known({spec: self.value(spec, key) for spec in specs}) for key in metrics
            },
            "ratios": {
                base: {
                    metric.key: _known({spec: self.ratio(spec, metric.key, base) for spec in specs})
                    for metric in self._compared(base)
                }
                for base in bases
            },
            "targets": [asdict(each) for each in self.outcomes()],
            "rounds": self.rounds,
            "failures": self.failures,
            "others": self.others,
        }


def spread(values: Iterable[float]) -> Spread | None:
    """What there is to say of some values; None if there are none."""
    found = list(values)
    if not found:
        return None
    first, _, third = quantiles(found, method="inclusive") if len(found) > 1 else [0.0] * 3
    return Spread(median(found), min(found), max(found), third - first)


def _known(spreads: dict[str, Spread | None]) -> dict[str, dict[str, float]]:
    return {spec: asdict(each) for spec, each in spreads.items() if each is not None}


def _without_paths(settings: Mapping[str, str]) -> dict[str, str]:
    """What was measured, and not where on the machine it lay."""
    return {key: value for key, value in settings.items() if key not in NO_FLAGS}
