"""HTTP by wrk before nginx: what a fault costs with the defaults that users have.

Elsewhere Vaurien runs with `--log-level=warning`, so that the path of bytes is what is measured.
Here it logs as it does out of the box, to a file; beside that it runs with `--log-level=warning`,
and with `--journal` as well as its log. All of them, and one without a fault, run side by side and
one after the other, so that what is compared has seen the same machine.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .measures import LOAD_TIMEOUT, Effort, Measure, Metric, Values
from .peers import Fault, Setup, Subject
from .processes import Address, RunError, cpu_seconds, run

CONNECTIONS = 50
MANY = 1000
LATE = 20
"""Milliseconds of latency with `MANY` connections."""

SETTLED = 0.002
"""CPU seconds within a twentieth of a second, below which a proxy has nothing left to do."""

JOURNAL = "journal.jsonl"


def load(
    name: str, connections: int, seconds: int, subjects: Sequence[Subject], _: Effort
) -> Values:
    """Requests/s and microseconds of CPU each for each setup, and the ratios between them."""
    rates: dict[str, float] = {}
    costs: dict[str, float] = {}
    values: Values = {}
    for subject in subjects:
        key = subject.setup.key
        before = cpu_seconds(subject.pid) if subject.pid else 0.0
        written = _lines(subject.scratch / JOURNAL)
        count, rates[key] = wrk(subject.address, connections, seconds)
        if subject.pid:
            costs[key] = (_settled(subject.pid) - before) / count * 1e6
        fault = subject.setup.fault
        if key == "journal" and fault is not None and fault.share == "100":
            path = subject.scratch / JOURNAL
            values[f"{name}-lacking"] = 100 * lacking(path, written, count)
    for key in rates.keys() - {"plain"}:
        values[_key(name, key)] = rates[key]
        if key in costs:
            values[f"{_key(name, key)}-cpu"] = costs[key]
        if key in ("default", "journal") and "quiet" in rates:
            values[f"{_key(name, key)}-part"] = rates[key] / rates["quiet"]
    if "plain" in costs:
        values[f"{name}-plain-part"] = rates["default"] / rates["plain"]
        values[f"{name}-plain-cpu-part"] = costs["default"] / costs["plain"]
    return values


def wrk(address: Address, connections: int, seconds: int) -> tuple[int, float]:
    """How many requests were answered, and how many in a second; RunError if any went wrong."""
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", f"http://{address}/"]
    return parse(run(argv, LOAD_TIMEOUT))


def parse(said: str) -> tuple[int, float]:
    """Requests and requests/s from what wrk prints; RunError if it tells of errors."""
    count = re.search(r"^ *(\d+) requests in", said, re.MULTILINE)
    rate = re.search(r"^Requests/sec: *([\d.]+)", said, re.MULTILINE)
    wrong = re.search(r"Socket errors:.*|Non-2xx.*", said)
    if wrong or not (count and rate and int(count[1])):
        raise RunError(f"wrk said {wrong[0] if wrong else said!r}")
    return int(count[1]), float(rate[1])


def lacking(journal: Path, before: int, count: int) -> float:
    """The share of so many exchanges that a journal lacks, once it stops growing.

    `before` is how many lines it had.
    """
    lines = -1
    while lines != (lines := _lines(journal)):
        time.sleep(0.2)
    return max(0.0, 1 - (lines - before) / count)


def _lines(path: Path) -> int:
    """How many lines a file has; none if it is not there."""
    if not path.exists():
        return 0
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def _settled(pid: int) -> float:
    """The CPU seconds of a process once what it has put off, such as its log, is done."""
    used = cpu_seconds(pid)
    for _ in range(40):
        time.sleep(0.05)
        before, used = used, cpu_seconds(pid)
        if used - before < SETTLED:
            break
    return used


def _key(name: str, setup: str) -> str:
    return name if setup == "default" else f"{name}-{setup}"


_LOGGING: dict[str, str | None] = {"log-level": None}
_MODES = {
    "default": ("", _LOGGING),
    "quiet": (", log-level warning", {}),
    "journal": (", with a journal", {**_LOGGING, "journal": f"{{scratch}}/{JOURNAL}"}),
}
"""The words for the table, and Vaurien's flags beside the fault's."""


def _measure(
    name: str,
    title: str,
    fault: Fault | None,
    connections: int = CONNECTIONS,
    seconds: int = 1,
    plain: bool = True,
) -> Measure:
    """A measure with `fault` in each of the modes, and without it if `plain`."""
    setups = [
        Setup(fault, key, flags, only_vaurien=key != "default", one_core=True)
        for key, (_, flags) in _MODES.items()
    ]
    metrics = []
    for key, (words, _) in _MODES.items():
        full, own = f"wrk, {title}{words}", _key(name, key)
        metrics.append(Metric(own, full, "requests/s", higher=True))
        metrics.append(Metric(f"{own}-cpu", f"{full}: CPU", "µs/request", higher=False))
        if key != "quiet":
            metrics.append(
                Metric(f"{own}-part", full, "multiple of log-level warning", higher=True)
            )
    if fault is not None and fault.share == "100":  # of another share nobody knows how many
        metrics.append(
            Metric(f"{name}-lacking", f"wrk, {title}: lacking in the journal", "%", higher=None)
        )
    if plain:
        setups.append(Setup(None, "plain", _LOGGING))
        full = f"wrk, {title}"
        metrics.append(Metric(f"{name}-plain-part", full, "multiple of untouched", higher=True))
        metrics.append(
            Metric(f"{name}-plain-cpu-part", f"{full}: CPU", "multiple of untouched", higher=False)
        )
    take = partial(load, name, connections, seconds)
    return Measure(name, "http", take, tuple(metrics), setups=tuple(setups), rounds=3)


WEB = {
    measure.name: measure
    for measure in (
        _measure("wrk-plain", "untouched", None, plain=False),
        _measure("wrk-latency", "100:latency of 0", Fault("latency", {"latency": 0})),
        _measure("wrk-delay-20", "20:delay of 0", Fault("delay", {"sleep": 0}, "20")),
        _measure("wrk-delay", "100:delay of 0", Fault("delay", {"sleep": 0})),
        _measure("wrk-handler", "an own socket handler", Fault("passing_on.PassingOn")),
        _measure(
            "wrk-late-1000",
            f"latency of {LATE} ms, {MANY:,} connections",
            Fault("latency", {"latency": LATE}),
            connections=MANY,
            seconds=2,
            plain=False,
        ),
    )
}
