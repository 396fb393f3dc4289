"""`python -m benchmarks`: the arguments and the rounds.

In each round each measure is made once for every peer, in an order drawn anew, and each peer is
started for that measurement alone: neither the machine's drift nor a neighbour nor the luck of one
process sticks to one peer.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from . import backends, machine, peers, report
from .backends import Backends
from .control import CONTROL
from .faults import FAULTS
from .measures import PLAIN, Effort, Measure, Round, Values
from .peers import PEERS, ROOT, Peer
from .processes import RunError
from .results import Results

MEASURES = {**PLAIN, **FAULTS, **CONTROL}

RESULTS = ROOT / "benchmarks" / "results.json"
TABLE = ROOT / "docs" / "benchmark-table.rst"

DEFAULT_PEERS = ",".join(PEERS)
DEFAULT_MEASURES = ",".join(name for name, measure in MEASURES.items() if not measure.optional)
LEAST_ROUNDS = 5

QUICK = Effort(
    seconds=0.3,
    bulk_seconds=1,
    trips=500,
    idle=500,
    delayed_seconds=1.0,
    delayed_trips=200,
    limited_seconds=2.0,
    operations=30,
)

QUIET = 10.0
"""Percent of the CPU time that others may use without a word about it."""

INTERRUPTED = 130


def main() -> int:
    """Run what the command line asks for.

    Returns 0, 1 when a measurement failed, 2 for arguments that make no sense, 130 when
    interrupted. A target that is missed is no failure: it is in the table.
    """
    parser = _parser()
    arguments = parser.parse_args()
    try:
        wanted = [peers.parse(spec) for spec in peers.split(arguments.peers)]
        against = [peers.parse(spec).spec for spec in peers.split(arguments.against)]
        measures = _chosen(arguments.measures)
    except ValueError as error:
        parser.error(str(error))
    missing = backends.missing()
    if missing:
        parser.error(f"not on PATH: {', '.join(missing)}")
    _prepare_process()
    versions = _versions(wanted)
    labels = {versions[peer.spec]: peer.label for peer in reversed(wanted) if peer.spec in versions}
    results = Results(
        machine.facts({label: said for said, label in reversed(labels.items()) if said}),
        [peer for peer in wanted if peer.spec in versions],
        measures,
        [spec for spec in against if spec in versions],
    )
    effort, rounds = (QUICK, 1) if arguments.quick else (Effort(), arguments.rounds)
    try:
        _run(results, rounds, effort, random.Random(arguments.seed))
    except KeyboardInterrupt:
        print(report.terminal(results))
        return INTERRUPTED
    print(report.terminal(results))
    complete = arguments.peers == DEFAULT_PEERS and arguments.measures == DEFAULT_MEASURES
    complete &= not arguments.quick and rounds >= LEAST_ROUNDS and not results.failures
    if complete:
        RESULTS.write_text(report.as_json(results), encoding="utf-8")
        TABLE.write_text(report.docs(results), encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(report.as_json(results), encoding="utf-8")
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures Vaurien against its peers. A complete run, with the default peers "
        f"and measures, at least {LEAST_ROUNDS} rounds and no failure, writes "
        f"{RESULTS.relative_to(ROOT)} and {TABLE.relative_to(ROOT)}.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--peers",
        default=DEFAULT_PEERS,
        metavar="PEER,...",
        help="Vaurien's take settings, most of them flags: vaurien:spin=0,'vaurien:spin=100;seed=7'"
        ", also vaurien:root=CHECKOUT and vaurien:python=INTERPRETER. Default: %(default)s",
    )
    parser.add_argument(
        "--measures",
        default=DEFAULT_MEASURES,
        metavar="MEASURE,...",
        help=f"out of {', '.join(MEASURES)}, also with * for several. Default: all but the "
        f"{', '.join(name for name, measure in MEASURES.items() if measure.optional)}",
    )
    parser.add_argument(
        "--against",
        default="haproxy,direct",
        metavar="PEER,...",
        help="the peers to make tables of ratios for. Default: %(default)s",
    )
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round, for a look")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the order of peers. Default: %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there, too")
    return parser


def _chosen(patterns: str) -> list[Measure]:
    """The measures that are asked for, each once; raises ValueError for a name of none."""
    found: dict[str, Measure] = {}
    for pattern in patterns.split(","):
        names = [name for name in MEASURES if fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(f"there is no measure {pattern!r}; there are {', '.join(MEASURES)}")
        found |= {name: MEASURES[name] for name in names}
    return list(found.values())


def _prepare_process() -> None:
    """Allow us and all that we start the most files, and let signals unwind what was begun."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _versions(wanted: Sequence[Peer]) -> dict[str, str]:
    """Spec -> version of the peers that can be run; the others are named on stderr."""
    found = {}
    for peer in wanted:
        try:
            found[peer.spec] = peers.version(peer)
        except RunError as failure:
            print(f"{peer.spec} is left out: {failure}", file=sys.stderr)
    return found


def _run(results: Results, rounds: int, effort: Effort, order: random.Random) -> None:
    """Make all the measurements, telling of each on stderr; what fails is noted and skipped."""
    begun = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="vaurien-bench-")))
        servers = stack.enter_context(backends.running(scratch))
        for number in range(1, rounds + 1):
            results.others.append(machine.busy(0.5))
            if results.others[-1] > QUIET:
                print(f"others use {results.others[-1]:.0f}% of the CPU time", file=sys.stderr)
            values: Round = {}
            results.rounds.append(values)
            for measure in results.measures:
                able = _able(measure, results.peers) if number <= measure.rounds else []
                for peer in order.sample(able, len(able)):
                    where = f"round {number}, {measure.name}, {peer.label}"
                    try:
                        made = _take(measure, peer, servers, scratch, effort)
                        values.setdefault(peer.spec, {}).update(made)
                        told = ", ".join(f"{key} {report.number(made[key])}" for key in made)
                    except (RunError, OSError) as failure:
                        told = f"FAILED: {failure}"
                        results.failures.append(f"{where}: {failure}")
                    print(f"{time.monotonic() - begun:4.0f} s, {where}: {told}", file=sys.stderr)
                if measure.compare is not None:
                    measure.compare(values)


def _able(measure: Measure, wanted: Sequence[Peer]) -> list[Peer]:
    """The peers that a measure makes sense for."""
    return [
        peer
        for peer in wanted
        if measure.name not in peer.skips and (peer.faults or not measure.faulty)
    ]


def _take(measure: Measure, peer: Peer, servers: Backends, scratch: Path, effort: Effort) -> Values:
    with ExitStack() as stack:
        subjects = []
        for fault in measure.faults:
            home = Path(stack.enter_context(TemporaryDirectory(dir=scratch)))
            backend = servers.next(measure.backend)
            subjects.append(
                stack.enter_context(peers.running(peer, backend, home, fault, measure.controlled))
            )
        return measure.take(subjects, effort)


if __name__ == "__main__":
    sys.exit(main())
