"""The measures of proxies that inject faults: what a fault costs, and how true it is.

All faults act on what comes from the backend. Where a number is to be compared with the same
proxy's without the fault, both run side by side and take turns, so that both see the same machine.
"""

from __future__ import annotations

import gc
import math
import select
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import harmonic_mean, median

from .measures import (
    Effort,
    Measure,
    Metric,
    Values,
    connect,
    quantile,
    redis_benchmark,
    round_trips,
    stream,
)
from .peers import Fault, Setup, Subject
from .processes import Address, RunError, cpu_seconds, memory
from .streamer import ENDLESS, ask

LOADED = 20
"""Milliseconds of latency while requests/s are measured."""

DELAYS = (1, 10, 100)
"""Milliseconds of latency whose error is measured."""

RATES = {10: "10 KB/s", 1000: "1 MB/s", 100_000: "100 MB/s"}
"""Bandwidths whose accuracy is measured, in KB/s of 1,000 bytes."""

STORING = 5
"""Seconds of latency that streams are stored for."""

STREAMS = 10
"""Connections that stream into it."""

NEVER = "0.000001"
"""A share, in percent, too small to come up."""

TURNS = 3
"""How often proxies take turns with a load."""

ENGINE = {
    "noop": "a fault that does nothing",
    "unpicked": "a fault never picked",
    "none": "no fault",
}
"""The faults that show what the machinery of faults costs."""


@dataclass(frozen=True)
class Load:
    """A run of redis-benchmark: requests, the seconds they took, the peer's CPU seconds."""

    count: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Requests/s."""
        return self.count / self.seconds


def load(subject: Subject, connections: int, count: int) -> Load:
    """Make so many requests over so many connections."""
    assert subject.pid is not None, "direct injects no faults"
    before = cpu_seconds(subject.pid)
    rate = redis_benchmark(subject.address, ["-c", str(connections)], count)
    return Load(count, count / rate, cpu_seconds(subject.pid) - before)


def steady_load(
    key: str, connections: int, seconds: float, subjects: Sequence[Subject], effort: Effort
) -> Values:
    """Requests/s with a latency, and microseconds of the peer's CPU time for each.

    What a short run takes is subtracted from what a long one takes. The opening of the connections,
    which redis-benchmark counts in, is in both.
    """
    (subject,) = subjects
    few = 5 * connections
    usual = load(subject, connections, few).rate
    short = load(subject, connections, few)
    long = load(subject, connections, few + int(usual * seconds * effort.seconds))
    count, took = long.count - short.count, long.seconds - short.seconds
    if took <= 0:
        raise RunError(f"{long.count} requests took no longer than {short.count}: too short a run")
    return {key: count / took, f"{key}-cpu": (long.cpu - short.cpu) / count * 1e6}


def delay_error(subjects: Sequence[Subject], effort: Effort) -> Values:
    """Milliseconds by which a latency holds a trip up longer than asked for: p50 and p99.

    One request is in flight. A trip through the latency and one through the same proxy without it
    take turns; the median of the latter is subtracted, and what was asked for.
    """
    values = {}
    *delayed, plain = subjects
    for asked, subject in zip(DELAYS, delayed, strict=True):
        trips = min(effort.delayed_trips, math.ceil(effort.delayed_seconds * 1000 / asked))
        errors = _errors(asked, trips, subject.address, plain.address)
        for name, share in (("p50", 0.50), ("p99", 0.99)):
            values[f"fault-delay-{asked}-{name}"] = quantile(errors, share)
    return values


def _errors(asked: int, trips: int, delayed: Address, plain: Address) -> list[float]:
    with connect(delayed) as slow, connect(plain) as fast:
        times: list[int] = []
        usual: list[int] = []
        round_trips(slow, 3, 0.0)
        round_trips(fast, 100, 0.0)
        gc.disable()
        try:
            for _ in range(trips):
                times += round_trips(slow, 1, 0.0)
                usual += round_trips(fast, 1, 0.0)
        finally:
            gc.enable()
    return [(each - median(usual)) / 1e6 - asked for each in times]


def bandwidth(subjects: Sequence[Subject], effort: Effort) -> Values:
    """Bytes/s from the backend, in percent of what was asked for, at each of `RATES`.

    The time is from asking for some seconds' worth of bytes to the last of them. The lower rates,
    which keep nobody busy, are measured at the same time; the highest takes two fifths as long.
    """
    seconds = [*[effort.limited_seconds] * (len(RATES) - 1), effort.limited_seconds * 0.4]
    *low, high = (
        partial(transfer, subject.address, int(rate * 1000 * worth))
        for subject, rate, worth in zip(subjects, RATES, seconds, strict=True)
    )
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(each) for each in low]
        took = [each.result() for each in waiting]
    took.append(high())
    return {
        f"fault-bandwidth-{rate}": 100 * worth / each
        for rate, worth, each in zip(RATES, seconds, took, strict=True)
    }


def transfer(address: Address, count: int) -> float:
    """Seconds from asking the streamer behind the address for so many bytes to the last of them."""
    room = bytearray(1 << 18)
    with connect(address) as sock:
        begun = time.perf_counter()
        ask(sock, count)
        left = count
        while left:
            came = sock.recv_into(room)
            if not came:
                raise RunError(f"a stream of {count} bytes ended {left} early")
            left -= came
        return time.perf_counter() - begun


def bulk(subjects: Sequence[Subject], effort: Effort) -> Values:
    """MB/s from the backend: through a latency of 0, past a fault that never comes up, without any.

    They take turns with half the bulk, after 64 MiB to warm up.
    """
    size = f"{effort.bulk // 2}M"
    for subject in subjects:
        stream(subject.address, "-n", "64M", "-R")
    turns = [
        [stream(subject.address, "-n", size, "-R") for subject in subjects] for _ in range(TURNS)
    ]
    through, past, plain = map(harmonic_mean, zip(*turns, strict=True))
    return {
        "fault-bulk": through,
        "fault-bulk-plain": plain,
        "fault-bulk-part": through / plain,
        "fault-bulk-unpicked": past / plain,
    }


def engine(subjects: Sequence[Subject], effort: Effort) -> Values:
    """Requests/s through `ENGINE`, the last of which is the yardstick, and CPU time for each.

    They take turns.
    """
    usual = min(load(subject, 50, 5000).rate for subject in subjects)
    count = max(1000, int(usual * effort.seconds / 2))
    turns = [[load(subject, 50, count) for subject in subjects] for _ in range(TURNS)]
    sums = {
        key: Load(TURNS * count, sum(one.seconds for one in runs), sum(one.cpu for one in runs))
        for key, runs in zip(ENGINE, zip(*turns, strict=True), strict=True)
    }
    *faulty, plain = sums
    values = {f"fault-engine-{key}": sums[key].rate / sums[plain].rate for key in faulty}
    for key, run in sums.items():
        values[f"fault-engine-{key}-cpu"] = run.cpu / run.count * 1e6
    return values


def stored(subjects: Sequence[Subject], effort: Effort) -> Values:
    """MiB the proxy grows by, at the most, for each of some streams into a long latency.

    The backend streams as fast as it can, the client reads all that comes. Proportional size (Pss).
    """
    (subject,) = subjects
    assert subject.pid is not None, "direct injects no faults"
    room = bytearray(1 << 18)
    before = most = memory(subject.pid)
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(subject.address)) for _ in range(STREAMS)]
        for sock in socks:
            ask(sock, ENDLESS)
        end = time.monotonic() + effort.stored_seconds
        while time.monotonic() < end:
            readable, _, _ = select.select(socks, [], [], 0.1)
            for sock in readable:
                if not sock.recv_into(room):
                    raise RunError("an endless stream ended")
            most = max(most, memory(subject.pid))
    return {"fault-stored": (most - before) / STREAMS / 2**20}


def _latency(milliseconds: int, share: str = "100") -> Setup:
    return Setup(Fault("latency", {"latency": milliseconds}, share))


def _steady_load(connections: int, seconds: float, rounds: float) -> Measure:
    """A measure with a latency; `seconds` of load, as a multiple of the usual."""
    name = f"fault-latency-{connections}"
    title = f"latency of {LOADED} ms, {connections:,} connections"
    return Measure(
        name,
        "redis",
        partial(steady_load, name, connections, seconds),
        (
            Metric(name, title, "requests/s", higher=True),
            Metric(f"{name}-cpu", f"{title}: CPU", "µs/request", higher=False),
        ),
        setups=(_latency(LOADED),),
        rounds=rounds,
    )


FAULTS = {
    measure.name: measure
    for measure in (
        _steady_load(50, 1.0, rounds=3),
        _steady_load(1000, 1.5, rounds=3),
        Measure(
            "fault-delay",
            "redis",
            delay_error,
            tuple(
                Metric(
                    f"fault-delay-{asked}-{key}",
                    f"latency of {asked} ms: error, {key}",
                    "ms, 0 is best",
                    higher=None,
                )
                for asked in DELAYS
                for key in ("p50", "p99")
            ),
            setups=(*map(_latency, DELAYS), Setup()),
            rounds=2,
        ),
        Measure(
            "fault-bandwidth",
            "streamer",
            bandwidth,
            tuple(
                Metric(
                    f"fault-bandwidth-{rate}",
                    f"bandwidth of {title}",
                    "% of it, 100 is best",
                    higher=None,
                )
                for rate, title in RATES.items()
            ),
            setups=tuple(Setup(Fault("bandwidth", {"rate": rate})) for rate in RATES),
            rounds=2,
        ),
        Measure(
            "fault-bulk",
            "iperf3",
            bulk,
            (
                Metric("fault-bulk", "bulk, latency of 0", "MB/s", higher=True),
                Metric("fault-bulk-plain", "bulk, no fault", "MB/s", higher=True),
                Metric(
                    "fault-bulk-part", "bulk, latency of 0", "multiple of no fault", higher=True
                ),
                Metric(
                    "fault-bulk-unpicked",
                    f"bulk, {ENGINE['unpicked']}",
                    "multiple of no fault",
                    higher=True,
                ),
            ),
            setups=(_latency(0), _latency(0, NEVER), Setup()),
            rounds=3,
        ),
        Measure(
            "fault-engine",
            "redis",
            engine,
            (
                *(
                    Metric(
                        f"fault-engine-{key}",
                        f"50 connections, {ENGINE[key]}",
                        "multiple of no fault",
                        higher=True,
                    )
                    for key in ENGINE
                    if key != "none"
                ),
                *(
                    Metric(
                        f"fault-engine-{key}-cpu",
                        f"50 connections, {title}: CPU",
                        "µs/request",
                        higher=False,
                    )
                    for key, title in ENGINE.items()
                ),
            ),
            setups=(Setup(Fault("noop")), _latency(0, NEVER), Setup()),
            rounds=3,
        ),
        Measure(
            "fault-stored",
            "streamer",
            stored,
            (
                Metric(
                    "fault-stored",
                    f"latency of {STORING} s before a stream: memory",
                    "MiB/connection",
                    higher=False,
                ),
            ),
            setups=(_latency(STORING * 1000),),
            rounds=2,
            fresh=True,
        ),
    )
}
