"""statsd: what arrives by UDP, once a second; and that nobody has to listen."""

from __future__ import annotations

import re
import select
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cli.helpers import refused
from tests.control.helpers import Api
from tests.laws.helpers import unused_port
from tests.support import Backend, Program, exchange, proxy, wait_for

LINE = re.compile(r"vaurien\.([\w.-]+):([\d.]+)\|(c|g|ms)")


class Server:
    """A statsd server: `counters` are summed, `gauges` are the last, `timings` are all."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self.counters: dict[str, float] = defaultdict(float)
        self.gauges: dict[str, float] = {}
        self.timings: dict[str, list[float]] = defaultdict(list)
        self.datagrams: list[bytes] = []

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def read(self) -> Server:
        """Take in what has come."""
        while select.select([self._sock], [], [], 0)[0]:
            data = self._sock.recv(65536)
            self.datagrams.append(data)
            for line in data.decode().splitlines():
                match = LINE.fullmatch(line)
                assert match, f"{line!r} is nothing for statsd"
                name, number, kind = match[1], float(match[2]), match[3]
                if kind == "c":
                    self.counters[name] += number
                elif kind == "g":
                    self.gauges[name] = number
                else:
                    self.timings[name].append(number)
        return self

    def has(self, counter: str, n: float) -> bool:
        """Whether a counter has come to `n`."""
        return self.read().counters[counter] == n


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def sends(backend: Backend, to: str, *arguments: object) -> Program:
    """A proxy that sends its numbers to `to`."""
    return proxy(backend, "--statsd", to, *arguments)


def test_the_deltas_of_all_numbers_arrive_while_it_runs(
    server: Server, echo_backend: Backend
) -> None:
    behavior = ("--behavior", "100:latency", "--handlers.latency.latency", "20")
    with sends(echo_backend, server.address, *behavior) as program, program.dial() as client:
        for number in range(1, 3):
            for _ in range(5):
                exchange(client, b"x" * 100)
            wait_for(partial(server.has, "default.received_bytes.upstream", 500 * number))
        wait_for(lambda: server.read().counters["default.sent_bytes.downstream"] == 1000)
        wait_for(lambda: server.read().counters["default.fired.latency"] == 9)
        assert server.counters["default.connections"] == 1
        assert server.counters["default.exchanges"] == 10
        assert server.counters["default.picked.latency"] == 10
        assert server.gauges["default.connections_open"] == 1
        assert server.gauges["default.enabled"] == 1
        assert server.timings["default.delay_added.latency"]
        assert all(19 < one < 21 for one in server.timings["default.delay_added.latency"])
        assert 0 <= server.gauges["loop_lag"] < 1000
        client.close()
        wait_for(lambda: server.read().gauges["default.connections_open"] == 0)
        wait_for(lambda: server.read().counters["default.fired.latency"] == 10)


def test_what_happened_last_is_sent_at_the_end(server: Server, echo_backend: Backend) -> None:
    with sends(echo_backend, server.address) as program:
        with program.dial() as client:
            exchange(client, b"x" * 100)
        assert program.stop() == 0
    server.read()
    assert server.counters["default.received_bytes.upstream"] == 100
    assert server.gauges["default.connections_open"] == 0


def test_nothing_is_sent_twice(server: Server, echo_backend: Backend) -> None:
    with sends(echo_backend, server.address) as program, program.dial() as client:
        exchange(client, b"x")
        wait_for(lambda: server.read().counters["default.exchanges"] == 1)
        seen = len(server.datagrams)
        wait_for(lambda: len(server.read().datagrams) >= seen + 2)
        assert server.counters["default.exchanges"] == 1
        assert not any(b"|c" in data for data in server.datagrams[seen:])


def test_what_a_proxy_has_counted_is_told_though_it_is_deleted_and_made_anew(
    server: Server, echo_backend: Backend
) -> None:
    with Api("--statsd", server.address, "--drain", 0) as api:

        def pass_through(*sizes: int) -> None:
            """A proxy, deleted at once, for each size; so many bytes pass through it."""
            for size in sizes:
                with api.proxy(echo_backend, "p") as made, made.dial() as client:
                    exchange(client, b"x" * size)

        def told() -> tuple[float, ...]:
            counters = server.read().counters
            return tuple(
                counters[f"p.{name}"]
                for name in ("received_bytes.upstream", "sent_bytes.downstream", "connections",
                             "exchanges")
            )  # fmt: skip

        pass_through(100, 150, 20)  # within one period, or across its end
        wait_for(lambda: told() == (270, 270, 3, 3))
        with api.proxy(echo_backend, "p") as made, made.dial() as client:
            exchange(client, b"x" * 1000)
            wait_for(lambda: told() == (1270, 1270, 4, 4))
            exchange(client, b"x" * 5000)  # just before the end
        pass_through(10_000)  # more than the one before had counted
        wait_for(lambda: told() == (16_270, 16_270, 5, 6))
        wait_for(lambda: server.read().gauges["p.connections_open"] == 0)
        seen = len(server.datagrams)
        wait_for(lambda: len(server.read().datagrams) >= seen + 2)
        assert told() == (16_270, 16_270, 5, 6)
        assert api.stop() == 0


def test_durations_of_a_proxy_that_has_gone_are_told(server: Server, echo_backend: Backend) -> None:
    with Api("--statsd", server.address) as api:
        delayed = {"behavior": "100:latency"}
        with api.proxy(echo_backend, "p", **delayed) as made, made.dial() as client:
            api.ask(
                "POST",
                f"{made.path}/behavior",
                {**delayed, "handlers": {"latency": {"latency": 20}}},
            )
            exchange(client, b"x")
        wait_for(lambda: server.read().timings["p.delay_added.latency"])
        assert server.counters["p.fired.latency"] == 1


def test_datagrams_fit_into_a_frame(server: Server, echo_backend: Backend) -> None:
    with sends(echo_backend, server.address, "--behavior", "5:delay,5:error,5:latency,5:reset"):
        wait_for(lambda: len(server.read().datagrams) >= 2)
    assert all(len(data) <= 1472 for data in server.datagrams)


def test_bytes_pass_though_nobody_listens(echo_backend: Backend) -> None:
    with (
        sends(echo_backend, f"127.0.0.1:{unused_port()}") as program,
        program.dial() as client,
    ):
        until = time.monotonic() + 2.5  # two sendings, the second of which gets ECONNREFUSED
        while time.monotonic() < until:
            assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0
        assert "statsd" not in program.text


def test_the_address_may_be_a_name(server: Server, echo_backend: Backend) -> None:
    port = server.address.rpartition(":")[2]
    with sends(echo_backend, f"localhost:{port}"):
        wait_for(lambda: server.read().gauges)


@pytest.mark.parametrize("wrong", ["nohost", "unix:/tmp/x", "localhost:0", "localhost:x", "[::1"])
def test_a_wrong_address_is_refused_before_anything_listens(wrong: str) -> None:
    told = refused("--statsd", wrong)
    assert "--statsd" in told
    assert "unix:PATH" not in told


def test_a_name_that_nobody_knows_is_refused() -> None:
    told = refused("--statsd", "no.such.host.invalid:8125", "--local", "127.0.0.1:0")
    assert "does not resolve" in told


def test_without_its_package_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "statsd.py").write_text("raise ImportError\n")
    told = refused("--statsd", "localhost:8125", cwd=tmp_path, env={"PYTHONPATH": path(tmp_path)})
    assert "pip install 'vaurien[statsd]'" in told


def path(first: Path) -> str:
    """A search path with `first` before all others, and then this checkout."""
    return f"{first}:{Path(__file__).parents[2]}"
