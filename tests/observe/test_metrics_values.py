"""What goes wrong is in the metrics: each is made to happen, then they are read as scrapers do."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.control.farms import Farm
from tests.laws.helpers import write_module
from tests.observe.test_metrics import Samples, parsed, value
from tests.support import Backend, clients, dial, echo, exchange, receive_all, wait_for

OWN = """
import time
from vaurien.handlers import BaseHandler as Base


class Raises(Base):
    name = "raises"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        raise RuntimeError("as it should")


class Computes(Base):
    name = "computes"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        until = time.monotonic() + 0.6
        while to_backend and time.monotonic() < until:
            pass
        (backend_sock if to_backend else client_sock).sendall(data)


class Spoils(Base):
    name = "spoils"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        gevent.getcurrent()._give_up = None  # what belongs to Vaurien itself
"""
SECTION = "[proxy:{0}]\nlocal = 127.0.0.1:0\ndistant = {1}\nbehavior = 100:{2}\n"


class Noisy(Farm):
    """One whose log is full of the faults that are wanted."""

    def __enter__(self) -> Noisy:
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(AssertionError, *error)

    def samples(self) -> Samples:
        """What a scraper reads now."""
        answer = self.api.call("GET", "/metrics")
        assert answer.status == 200
        return parsed(answer.body.decode())

    def of(self, name: str, proxy: str) -> float:
        """A number of a proxy."""
        return value(self.samples(), f"vaurien_{name}_total", proxy=proxy)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as made:
        yield made


@pytest.fixture(scope="module")
def shared(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noisy]:
    """One for all: a proxy for each fault, and ``good``, which has none."""
    directory = tmp_path_factory.mktemp("values")
    write_module(directory, OWN)
    ini = directory / "farm.ini"
    names = {"raises": "Raises", "computes": "Computes", "spoils": "Spoils"}
    sections = [SECTION.format(name, backend.address, f"own.{cls}") for name, cls in names.items()]
    sections += [SECTION.format(name, backend.address, "dummy") for name in ("good", "refuses")]
    sections += ["on-connect = 100:refuse\n"]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        sections += [SECTION.format("away", f"127.0.0.1:{nobody.getsockname()[1]}", "dummy")]
        ini.write_text("".join(sections))
        with Noisy("--config", ini, ready=len(names) + 3, cwd=directory) as made:
            yield made


def ended(address: str) -> None:
    """A client whose connection ends, whatever it says."""
    with suppress(ConnectionError), dial(address) as sock:
        sock.sendall(b"hello")
        assert receive_all(sock) == b""


@pytest.mark.parametrize(
    ("proxy", "metric"),
    [
        ("away", "failed_dials"),
        ("refuses", "connections_refused"),
        ("raises", "handler_errors"),
        ("spoils", "internal_errors"),
    ],
)
def test_each_connection_that_fails_is_counted_where_it_belongs(
    shared: Noisy, proxy: str, metric: str
) -> None:
    metrics = ("failed_dials", "connections_refused", "handler_errors", "internal_errors")
    for n in range(1, 4):
        ended(shared.proxies[proxy])
        wait_for(lambda: shared.of("connections", proxy) == n)  # noqa: B023
        wait_for(lambda: shared.of(metric, proxy) == n, metric)  # noqa: B023
    assert {name: shared.of(name, proxy) for name in metrics if name != metric} == {
        name: 0 for name in metrics if name != metric
    }
    assert {name: shared.of(name, "good") for name in metrics} == dict.fromkeys(metrics, 0)


def test_a_handler_that_holds_the_loop_moves_the_lag(shared: Noisy) -> None:
    def late() -> tuple[float, float]:
        """How many beats came over a quarter of a second late, and the lag in all."""
        samples, name = shared.samples(), "vaurien_loop_lag_seconds"
        every, quick = (value(samples, f"{name}_bucket", le=le) for le in ("+Inf", "0.25"))
        assert every == value(samples, f"{name}_count")
        return every - quick, value(samples, f"{name}_sum")

    times, seconds = late()
    with dial(shared.proxies["computes"]) as client:
        for n in range(1, 3):
            assert exchange(client, b"hello") == b"hello"
            wait_for(lambda: late()[0] >= times + n, "a late beat")  # noqa: B023
    assert late()[1] >= seconds + 2 * 0.45


def test_errors_of_accept_are_counted(shared: Noisy) -> None:
    assert shared.of("accept_errors", "good") == 0  # and by now the API's connection is open
    soft, hard = resource.prlimit(shared.pid, resource.RLIMIT_NOFILE)
    with clients(shared.proxies["good"], 3) as socks:
        for sock in socks:
            exchange(sock, b"hello")
        resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, (shared.descriptors(), hard))
        try:
            with dial(shared.proxies["good"]) as late:
                wait_for(lambda: shared.of("accept_errors", "good") >= 2, "errors of accept")
                resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, (soft, hard))
                assert exchange(late, b"hello") == b"hello"
        finally:
            resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert shared.text.count("good: accepting pauses") == 1  # told once, and each 10 s from then on
    assert shared.of("accept_errors", "raises") == 0


@contextmanager
def reader(path: Path) -> Iterator[Callable[[], None]]:
    """A pipe at `path` with somebody who reads; what is given has him go."""
    os.mkfifo(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    with closing(file):
        yield file.close


def test_lines_that_nobody_takes_are_counted(backend: Backend, tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    with (
        reader(journal) as close_journal,
        reader(log) as close_log,
        Noisy(
            *("--distant", backend.address, "--local", "127.0.0.1:0", "--behavior", "100:noop"),
            *("--journal", journal, "--log-output", log),
            ready=1,
        ) as vaurien,
        dial(vaurien.proxies["default"]) as client,
    ):

        def dropped() -> tuple[float, ...]:
            samples = vaurien.samples()
            names = ("vaurien_journal_dropped_total", "vaurien_log_dropped_total")
            return tuple(value(samples, name) for name in names)

        def five_exchanges() -> None:  # each is a line of both
            for _ in range(5):
                exchange(client, b"hello")

        five_exchanges()
        assert dropped() == (0, 0)
        close_journal()
        while not (before := dropped()[0]):
            exchange(client, b"hello")
        five_exchanges()
        assert dropped() == (before + 5, 0)
        close_log()
        while not (before := dropped()[1]):
            exchange(client, b"hello")
        lost, _ = dropped()
        five_exchanges()
        assert dropped() == (lost + 5, before + 5)
