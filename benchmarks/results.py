"""The numbers of a run, and the medians, spreads, ratios and targets that come of them.

Ratios are taken within a round, where the peers saw much the same machine, and their median is the
ratio; a ratio of two medians would carry the machine's drift from round to round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from .measures import Measure, Metric, Round
from .peers import Peer


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the least and the most of them."""

    median: float
    low: float
    high: float


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

_HIGHER = ("requests-1", "requests-50", "pipeline-16", "connections", "bulk-to", "bulk-from")
_LOWER = ("latency-added-p50", "latency-added-p99", "idle")

TARGETS = (
    Target("requests-1", "haproxy", 0.9, at_least=True),
    Target("requests-50", "haproxy", 0.9, at_least=True),
    Target("pipeline-16", "haproxy", 0.9, at_least=True),
    Target("connections", "haproxy", 0.8, at_least=True),
    Target("bulk-to", "haproxy", 1.0, at_least=True),
    Target("bulk-from", "haproxy", 1.0, at_least=True),
    Target("idle", None, 4.0, at_least=False),
    *(Target(metric, "toxiproxy", 1.0, at_least=True) for metric in _HIGHER),
    *(Target(metric, "toxiproxy", 1.0, at_least=False) for metric in _LOWER),
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
    def metrics(self) -> list[Metric]:
        """The metrics of all measures, in their order."""
        return [metric for measure in self.measures for metric in measure.metrics]

    def value(self, spec: str, metric: str) -> Spread | None:
        """A peer's value in a metric; None if there is none."""
        return spread(each[spec][metric] for each in self.rounds if metric in each.get(spec, ()))

    def ratio(self, spec: str, metric: str, against: str) -> Spread | None:
        """A peer's value as a multiple of another's, by the rounds in which that is above zero."""
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

    def as_json(self) -> dict[str, object]:
        """Everything, for a machine to read."""
        keys = [metric.key for metric in self.metrics]
        specs = [peer.spec for peer in self.peers]
        return {
            "facts": self.facts,
            "peers": {peer.spec: {"label": peer.label, **peer.settings} for peer in self.peers},
            "metrics": {metric.key: asdict(metric) for metric in self.metrics},
            "values": {
                key: _known({spec: self.value(spec, key) for spec in specs}) for key in keys
            },
            "ratios": {
                against: {
                    key: _known({spec: self.ratio(spec, key, against) for spec in specs})
                    for key in keys
                }
                for against in self.against
            },
            "targets": [asdict(each) for each in self.outcomes()],
            "rounds": self.rounds,
            "failures": self.failures,
            "others": self.others,
        }


def spread(values: Iterable[float]) -> Spread | None:
    """Median, least and most; None if there are none."""
    found = list(values)
    return Spread(median(found), min(found), max(found)) if found else None


def _known(spreads: dict[str, Spread | None]) -> dict[str, dict[str, float]]:
    return {spec: asdict(each) for spec, each in spreads.items() if each is not None}
