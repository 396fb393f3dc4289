"""The servers behind the peers: one Redis, one iperf3 and one streamer for the whole run."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .peers import ROOT
from .processes import Address, free_address, started

HOSTS = [f"127.0.0.{number}" for number in range(1, 17)]
"""Where Redis listens: 16 addresses, the most it takes; `measures.py` says what they are for."""

TOOLS = ("redis-server", "redis-benchmark", "iperf3")
"""What a run needs on PATH, whatever the peers."""


@dataclass(frozen=True)
class Backends:
    """Addresses of the servers; `next` takes turns with those that a kind of backend has."""

    turns: dict[str, itertools.cycle[Address]]

    def next(self, kind: str) -> Address:
        """The address for the next measurement."""
        return next(self.turns[kind])


def missing() -> list[str]:
    """The tools that are not on PATH."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


@contextmanager
def running(scratch: Path) -> Iterator[Backends]:
    """Run the backends until the block ends."""
    with ExitStack() as stack:
        port = free_address().port
        redis = [Address(host, port) for host in HOSTS]
        argv = ["redis-server", "--port", str(port), "--bind", *HOSTS]
        argv += ["--save", "", "--appendonly", "no", "--maxclients", "12000", "--dir", str(scratch)]
        stack.enter_context(started(argv, redis[:1], scratch / "redis.log"))
        iperf3 = free_address()
        argv = ["iperf3", "-s", "-B", iperf3.host, "-p", str(iperf3.port)]
        stack.enter_context(started(argv, [iperf3], scratch / "iperf3.log"))
        streamer = free_address()
        argv = [sys.executable, "-m", "benchmarks.streamer", streamer.host, str(streamer.port)]
        stack.enter_context(started(argv, [streamer], scratch / "streamer.log", ROOT))
        servers = {"redis": redis, "iperf3": [iperf3], "streamer": [streamer]}
        yield Backends({kind: itertools.cycle(turns) for kind, turns in servers.items()})
