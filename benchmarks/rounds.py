"""The rounds of a run: what is measured when, and with whom beside it.

In each round each measure is made once for every peer, in an order drawn anew, and each peer is
started for that measurement alone: neither the machine's drift nor a neighbour nor the luck of one
process sticks to one peer. With more than one turn the peers of a measure are all started at once
and take turns with short loads; each turn counts as a round. That compares closer on a machine that
others use too, whose speed changes within seconds.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from . import backends, machine, peers, report
from .backends import Backends
from .measures import Effort, Measure, Round
from .peers import Peer, Subject
from .processes import RunError
from .results import Results

QUIET = 10.0
"""Percent of the CPU time that others may use without a word about it."""


@dataclass(frozen=True)
class Plan:
    """How often, with how much effort, in which order, and where.

    `core` is the one that peers are kept to, None for any. `sparing` leaves out measures that do
    not need all rounds.
    """

    rounds: int
    turns: int = 1
    effort: Effort = field(default_factory=Effort)
    order: random.Random = field(default_factory=random.Random)
    core: int | None = None
    sparing: bool = True


def run(results: Results, plan: Plan) -> None:
    """Make all the measurements, telling of each on stderr; what fails is noted and skipped."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="vaurien-bench-")))
        kinds = {each.backend for each in results.measures}
        servers = stack.enter_context(backends.running(scratch, kinds))
        bench = _Bench(results, plan, servers, scratch)
        for number in range(1, plan.rounds + 1):
            results.others.append(machine.busy(0.5))
            if results.others[-1] > QUIET:
                print(f"others use {results.others[-1]:.0f}% of the CPU time", file=sys.stderr)
            turns: list[Round] = [{} for _ in range(plan.turns)]
            results.rounds.extend(turns)
            for measure in results.measures:
                if number <= measure.rounds or not plan.sparing:
                    bench.measure(measure, turns[:1] if measure.fresh else turns, number)


def able(measure: Measure, wanted: Sequence[Peer]) -> list[Peer]:
    """The peers that a measure makes sense for."""
    return [
        peer
        for peer in wanted
        if measure.name not in peer.skips and (peer.faults or not measure.faulty)
    ]


@dataclass
class _Bench:
    """What all measurements of a run have in common."""

    results: Results
    plan: Plan
    servers: Backends
    scratch: Path
    begun: float = field(default_factory=time.monotonic)

    def measure(self, measure: Measure, turns: Sequence[Round], number: int) -> None:
        """Fill in the values of a measure for each turn of a round."""
        wanted = able(measure, self.results.peers)
        where = f"round {number}, {measure.name}"
        try:
            with ExitStack() as stack:
                up = {}
                if len(turns) > 1:
                    for peer in wanted:
                        up[peer.spec] = stack.enter_context(self._started(measure, peer))
                for values in turns:
                    self._turn(measure, wanted, up, values, where)
        except (RunError, OSError) as failure:  # one of those that take turns did not come or go
            self._failed(where, failure)

    def _turn(
        self,
        measure: Measure,
        wanted: Sequence[Peer],
        up: Mapping[str, Sequence[Subject]],
        values: Round,
        where: str,
    ) -> None:
        for peer in self.plan.order.sample(wanted, len(wanted)):
            running = (
                nullcontext(up[peer.spec]) if peer.spec in up else self._started(measure, peer)
            )
            try:
                with running as subjects:
                    made = measure.take(subjects, self.plan.effort)
                values.setdefault(peer.spec, {}).update(made)
                told = ", ".join(f"{key} {report.number(made[key])}" for key in made)
                self._tell(f"{where}, {peer.label}: {told}")
            except (RunError, OSError) as failure:
                self._failed(f"{where}, {peer.label}", failure)
        if measure.compare is not None:
            measure.compare(values)

    @contextmanager
    def _started(self, measure: Measure, peer: Peer) -> Iterator[list[Subject]]:
        """Run a peer in each of a measure's setups."""
        with ExitStack() as stack:
            subjects = []
            for setup in measure.setups:
                if setup.only_vaurien and not peer.is_vaurien:
                    continue
                home = Path(stack.enter_context(TemporaryDirectory(dir=self.scratch)))
                backend = self.servers.next(measure.backend)
                running = peers.running(
                    peer, backend, home, setup, measure.controlled, self.plan.core
                )
                subjects.append(stack.enter_context(running))
            yield subjects

    def _failed(self, where: str, failure: Exception) -> None:
        self.results.failures.append(f"{where}: {failure}")
        self._tell(f"{where}: FAILED: {failure}")

    def _tell(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun:4.0f} s, {text}", file=sys.stderr)
