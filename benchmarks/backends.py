"""The servers behind the peers: a Redis, an iperf3, an nginx and a streamer for the whole run."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .peers import ROOT
from .processes import Address, free_address, started

HOSTS = [f"127.0.0.{number}" for number in range(1, 17)]
"""Where Redis listens: 16 addresses, the most it takes; `measures.py` says what they are for."""

TOOLS = {
    "redis": ("redis-server", "redis-benchmark"),
    "iperf3": ("iperf3",),
    "http": ("nginx", "wrk"),
    "streamer": (),
}
"""What each kind of backend, and the load before it, needs on PATH."""

PACKAGES = {
    "redis-server": "redis",
    "redis-benchmark": "redis",
    "iperf3": "iperf3",
    "nginx": "nginx-light",
    "wrk": "wrk",
}
"""The Debian package that has a tool."""


@dataclass(frozen=True)
class Backends:
    """Addresses of the servers; `next` takes turns with those that a kind of backend has."""

    turns: dict[str, itertools.cycle[Address]]

    def next(self, kind: str) -> Address:
        """The address for the next measurement."""
        return next(self.turns[kind])


def missing(kind: str) -> list[str]:
    """The tools for a kind of backend that are not on PATH."""
    return [tool for tool in TOOLS[kind] if shutil.which(tool) is None]


@contextmanager
def running(scratch: Path, kinds: Iterable[str]) -> Iterator[Backends]:
    """Run the backends of these kinds until the block ends."""
    with ExitStack() as stack:
        turns = {}
        for kind in kinds:
            argv, addresses = _COMMANDS[kind](scratch)
            stack.enter_context(started(argv, addresses[:1], scratch / f"{kind}.log", ROOT))
            turns[kind] = itertools.cycle(addresses)
        yield Backends(turns)


def _redis(scratch: Path) -> tuple[list[str], list[Address]]:
    port = free_address().port
    argv = ["redis-server", "--port", str(port), "--bind", *HOSTS]
    argv += ["--save", "", "--appendonly", "no", "--maxclients", "12000", "--dir", str(scratch)]
    return argv, [Address(host, port) for host in HOSTS]


def _iperf3(_: Path) -> tuple[list[str], list[Address]]:
    address = free_address()
    return ["iperf3", "-s", "-B", address.host, "-p", str(address.port)], [address]


def _http(scratch: Path) -> tuple[list[str], list[Address]]:
    """An nginx that answers each request with two bytes and keeps its connections."""
    address = free_address()
    config = scratch / "http.conf"
    temporary = "".join(
        f"  {kind}_temp_path {scratch}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off;\nworker_processes 1;\npid {scratch}/http.pid;\nerror_log stderr crit;\n"
        "events { worker_connections 4096; }\n"
        f"http {{\n  access_log off;\n  keepalive_requests 1000000000;\n{temporary}"
        f'  server {{ listen {address} backlog=4096; location / {{ return 200 "ok"; }} }}\n}}\n'
    )
    return ["nginx", "-p", str(scratch), "-e", "stderr", "-c", str(config)], [address]


def _streamer(_: Path) -> tuple[list[str], list[Address]]:
    address = free_address()
    argv = [sys.executable, "-m", "benchmarks.streamer", address.host, str(address.port)]
    return argv, [address]


_COMMANDS: dict[str, Callable[[Path], tuple[list[str], list[Address]]]] = {
    "redis": _redis,
    "iperf3": _iperf3,
    "http": _http,
    "streamer": _streamer,
}
