"""What is measured, and how: each measure is given running peers and returns numbers.

Here are the measures of proxies that pass on what comes; those of faults are in `faults.py`.

Where the ports go. A closed connection keeps its client's port for 60 s (TIME_WAIT, on both hops of
a proxy), and Linux takes one half of the 28,000 ports first; after some 14,000 connections to one
address the rate halves, and the kernel's search for ports is what is measured. So the runs are
short (5,000 connections), a peer is started anew, on a fresh port, for each measure, and the
backends take turns with their addresses (see `backends.py`).
"""

from __future__ import annotations

import csv
import gc
import json
import math
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from .peers import Setup, Subject
from .processes import Address, RunError, cpu_seconds, memory, run

Values = dict[str, float]
"""Key of a metric -> value, in the metric's unit."""

Round = dict[str, Values]
"""Spec of a peer -> its values in one round."""

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"

LOAD_TIMEOUT = 60.0
"""Seconds after which a load generator is given up."""


@dataclass(frozen=True)
class Effort:
    """How much is done for a number.

    Seconds of load, new connections at most, MiB of bulk, round trips, idle connections;
    seconds of trips that a latency holds up, the trips at most, seconds at a bandwidth, seconds of
    streams into a latency; how often each operation of the control API is made.
    """

    seconds: float = 0.7
    connections: int = 5000
    bulk: int = 512
    trips: int = 3000
    idle: int = 2000
    delayed_seconds: float = 1.5
    delayed_trips: int = 500
    limited_seconds: float = 4.0
    stored_seconds: float = 3.0
    operations: int = 100


@dataclass(frozen=True)
class Metric:
    """One row of a table.

    `higher` says whether more is better; None if neither more nor less is, and `unit` says what is.
    Such a one is no quantity to take a multiple of.
    """

    key: str
    title: str
    unit: str
    higher: bool | None


@dataclass(frozen=True)
class Measure:
    """One thing that is done to a peer, and the metrics that come of it.

    The peer is started once for each of `setups`, all at the same time. `take` gets them in this
    order, without those that only Vaurien has if the peer is another. `compare` adds values that
    need those of all peers of a round. `optional` measures are made when asked for. `rounds` is in
    how many of a complete run it is made, at most. `fresh` ones need a peer that was just started,
    `controlled` ones its control API.
    """

    name: str
    backend: str
    take: Callable[[Sequence[Subject], Effort], Values]
    metrics: tuple[Metric, ...]
    compare: Callable[[Round], None] | None = None
    optional: bool = False
    setups: tuple[Setup, ...] = (Setup(),)
    rounds: float = math.inf
    fresh: bool = False
    controlled: bool = False

    @property
    def faulty(self) -> bool:
        """Whether it needs a peer that can inject faults, or be controlled, which the same can."""
        return any(each.fault for each in self.setups) or self.controlled


def load(
    key: str,
    options: Sequence[str],
    warm_up: int,
    new: bool,
    subjects: Sequence[Subject],
    effort: Effort,
) -> Values:
    """Operations/s with redis-benchmark, and microseconds of the peer's CPU time for each.

    `warm_up` operations go first; their rate tells how many to make for `effort.seconds`. If each
    is a `new` connection it is `effort.connections` at most.
    """
    (subject,) = subjects
    expected = redis_benchmark(subject.address, options, warm_up) * effort.seconds
    count = max(warm_up, int(min(expected, effort.connections) if new else expected))
    before = cpu_seconds(subject.pid) if subject.pid else 0.0
    values = {key: redis_benchmark(subject.address, options, count)}
    if subject.pid:
        values[f"{key}-cpu"] = (cpu_seconds(subject.pid) - before) / count * 1e6
    return values


def redis_benchmark(address: Address, options: Sequence[str], count: int) -> float:
    """PINGs/s over `count` of them."""
    where = ["-h", address.host, "-p", str(address.port)]
    what = ["-t", "ping_mbulk", "--csv", "-n", str(count)]
    said = run(["redis-benchmark", *where, *what, *options], LOAD_TIMEOUT)
    try:
        [row] = csv.DictReader(said.splitlines())
        return float(row["rps"])
    except (ValueError, KeyError):
        raise RunError(f"redis-benchmark said {said!r}") from None


def bulk(name: str, block: int, subjects: Sequence[Subject], effort: Effort) -> Values:
    """MB/s (10**6 bytes) of one TCP stream, as received, to the backend and then from it.

    Both ends write and read `block` KiB at a time. 64 MiB go before each, to warm up. Beside it
    milliseconds of the peer's CPU time for a GB.
    """
    (subject,) = subjects
    values = {}
    size = f"{block}K"
    for key, options in ((f"{name}-to", []), (f"{name}-from", ["-R"])):
        stream(subject.address, "-n", "64M", "-l", size, *options)
        before = cpu_seconds(subject.pid) if subject.pid else 0.0
        values[key] = stream(subject.address, "-n", f"{effort.bulk}M", "-l", size, *options)
        if subject.pid:
            used = cpu_seconds(subject.pid) - before
            values[f"{key}-cpu"] = used / (effort.bulk * 2**20) * 1e12
    return values


def stream(address: Address, *options: str) -> float:
    """MB/s of one run of iperf3.

    Its server takes one test at a time, and may learn of the end of the one before a little later
    than we do: behind a proxy the connections end one after the other.
    """
    argv = ["iperf3", "-J", "-c", address.host, "-p", str(address.port), *options]
    for _ in range(20):
        said = json.loads(run(argv, LOAD_TIMEOUT))
        if "error" not in said:
            return float(said["end"]["sum_received"]["bits_per_second"]) / 8e6
        if "busy" not in said["error"]:
            break
        time.sleep(0.1)
    raise RunError(f"iperf3: {said['error']}")


def latency(key: str, pause: float, subjects: Sequence[Subject], effort: Effort) -> Values:
    """Microseconds for a PING's round trip, p50 and p99, through the peer and direct.

    Blocks of 50 trips through the peer and of 50 direct take turns, so that both see the same
    machine. With `pause` seconds before each trip everything has gone to sleep, and the trip pays
    for waking it.
    """
    (subject,) = subjects
    trips = effort.trips if not pause else effort.trips // 5
    with connect(subject.address) as through, connect(subject.backend) as direct:
        times: dict[socket.socket, list[int]] = {through: [], direct: []}
        for sock in times:
            round_trips(sock, trips // 10, 0.0)
        gc.disable()
        try:
            while len(times[direct]) < trips:
                for sock, taken in times.items():
                    taken += round_trips(sock, 50, pause)
        finally:
            gc.enable()
    values = {}
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        values[f"{key}-{name}"] = quantile(times[through], share) / 1000
        values[f"{key}-direct-{name}"] = quantile(times[direct], share) / 1000
    return values


def added_latency(key: str, values: Round) -> None:
    """Add the microseconds each peer adds: its trip less the median of the round's direct ones.

    Direct trips take 20 µs when client and backend happen to share a core and 70 when not; with a
    baseline of its own, each peer's result would depend on that luck.
    """
    for name in ("p50", "p99"):
        direct = f"{key}-direct-{name}"
        baselines = [each[direct] for each in values.values() if direct in each]
        for spec, each in values.items():
            if direct in each and spec != "direct":
                each[f"{key}-added-{name}"] = each[f"{key}-{name}"] - median(baselines)


def round_trips(sock: socket.socket, count: int, pause: float) -> list[int]:
    """Nanoseconds of each of `count` PINGs, one after the other."""
    taken = []
    for _ in range(count):
        if pause:
            time.sleep(pause)
        begun = time.perf_counter_ns()
        ping(sock)
        taken.append(time.perf_counter_ns() - begun)
    return taken


def idle(subjects: Sequence[Subject], effort: Effort) -> Values:
    """KiB that a connection holds after a PING: proportional size (Pss) of the peer's processes.

    The kernel's socket buffers are not in it. A tenth as many connections are open before the first
    look: they fill what the process has at hand since its start.
    """
    (subject,) = subjects
    assert subject.pid is not None, "direct has no process to look at"
    count = min(effort.idle, subject.peer.idle)
    with ExitStack() as stack:
        stack.enter_context(hold(subject.address, count // 10))
        time.sleep(0.3)
        before = memory(subject.pid)
        stack.enter_context(hold(subject.address, count))
        time.sleep(0.3)
        return {"idle": (memory(subject.pid) - before) / count / 1024}


def hold(address: Address, count: int) -> ExitStack:
    """Open connections, each of which makes one PING; closed on leaving what is returned."""
    with ExitStack() as stack:
        for _ in range(count):
            ping(stack.enter_context(connect(address)))
        return stack.pop_all()


def connect(address: Address) -> socket.socket:
    """A client socket that does not wait to fill packets.

    It blocks, for 10 s at most, in the kernel: Python's own timeouts would add a poll() to each
    recv().
    """
    sock = socket.create_connection(address, timeout=10)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
    return sock


def ping(sock: socket.socket) -> None:
    """One request and its response; raises RunError if it is not PONG."""
    sock.sendall(PING)
    said = sock.recv(64)
    if said != PONG:
        raise RunError(f"PING was answered with {said!r}")


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the others lie."""
    return sorted(values)[min(len(values) - 1, math.floor(share * len(values)))]


def _load(name: str, title: str, options: str, warm_up: int, new: bool = False) -> Measure:
    """A measure made with redis-benchmark, with its two metrics."""
    one = "connection" if new else "request"
    return Measure(
        name,
        "redis",
        partial(load, name, options.split(), warm_up, new),
        (
            Metric(name, title, f"{one}s/s", higher=True),
            Metric(f"{name}-cpu", f"{title}: CPU", f"µs/{one}", higher=False),
        ),
    )


def _bulk(name: str, block: int) -> Measure:
    """A measure made with iperf3 in blocks of so many KiB, with its metrics."""
    size = f"{block} KiB" if block < 1024 else f"{block // 1024} MiB"
    metrics = []
    for way in ("to", "from"):
        title = f"bulk {way} the backend, {size}"
        metrics.append(Metric(f"{name}-{way}", title, "MB/s", higher=True))
        metrics.append(Metric(f"{name}-{way}-cpu", f"{title}: CPU", "ms/GB", higher=False))
    return Measure(name, "iperf3", partial(bulk, name, block), tuple(metrics), rounds=3)


def _latency(name: str, title: str, pause: float, optional: bool = False) -> Measure:
    """A measure of round trips, with its four metrics."""
    metrics = tuple(
        Metric(f"{name}-{key}", f"{title}, {words}", "µs", higher=False)
        for key, words in (
            ("p50", "p50"),
            ("p99", "p99"),
            ("added-p50", "added p50"),
            ("added-p99", "added p99"),
        )
    )
    take, compare = partial(latency, name, pause), partial(added_latency, name)
    return Measure(name, "redis", take, metrics, compare, optional, rounds=3)


PLAIN = {
    measure.name: measure
    for measure in (
        _load("requests-1", "1 connection", "-c 1", 2000),
        _load("requests-50", "50 connections", "-c 50", 5000),
        _load("pipeline-16", "50 connections, pipelining 16", "-c 50 -P 16", 50_000),
        _load("connections", "new connections", "-c 50 -k 0", 500, new=True),
        _bulk("bulk", 128),
        _bulk("bulk-64", 64),
        _bulk("bulk-1024", 1024),
        _latency("latency", "round trip", 0.0),
        _latency("latency-paced", "round trip every 2 ms", 0.002, optional=True),
        Measure(
            "idle",
            "redis",
            idle,
            (Metric("idle", "an idle connection", "KiB", higher=False),),
            rounds=2,
            fresh=True,
        ),
    )
}
