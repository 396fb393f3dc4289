"""What happened: a table at exit and on SIGUSR1, a warning of what never fired, ``--strict``."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.laws.helpers import Acceptor, write_module
from tests.support import Backend, Program, exchange, proxy, receive, wait_for

HEAD = ["handler", "picked", "fired", "bytes", "added p50", "added p99"]
Row = list[str]


def tables(text: str) -> list[dict[str, Row]]:
    """The tables in what the program said: the cells of each handler's row."""
    found: list[dict[str, Row]] = []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if cells == HEAD:
            found.append({})
        elif found and len(cells) == len(HEAD):
            found[-1][cells[0]] = cells[1:]
    return found


def milliseconds(cell: str) -> float:
    number, unit = cell.split()
    assert unit == "ms"
    return float(number)


def ended(program: Program, code: int = 0) -> dict[str, Row]:
    """Stop it; the table that it tells."""
    assert program.stop() == code, program.text
    (table,) = tables(program.text)
    return table


def test_the_table_tells_what_each_handler_did(tmp_path: Path, echo_backend: Backend) -> None:
    write_module(
        tmp_path,
        """
class Sleepy(BaseHandler):
    name = "sleepy"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        gevent.sleep(0.03)
        self._pass(client_sock, backend_sock, to_backend)
        """,
    )
    options = (
        *("--behavior", "100:latency+own.Sleepy", "--handlers.latency.latency", 100),
        *("--handlers.latency.every", 2, "--on-connect", "100:slow_accept"),
        *("--handlers.slow_accept.delay", 1, "--handlers.slow_accept.times", 1, "--strict"),
    )
    with proxy(echo_backend, *options, cwd=tmp_path) as program:
        with program.dial() as one, program.dial() as two:
            for client in (one, two):
                for _ in range(4):
                    assert exchange(client, b"hello") == b"hello"
        table = ended(program)
        assert "never fired" not in program.text
    assert list(table) == ["latency", "sleepy", "slow_accept"]
    # every=2: of the 8 exchanges that it was picked for, 4 were harmed, and their bytes counted
    assert table["latency"][:3] == ["8", "4", "40"]
    assert table["sleepy"][:3] == ["8", "8", "80"]
    assert table["slow_accept"][:2] == ["2", "1"]
    p50, p99 = map(milliseconds, table["latency"][3:])
    assert 98 <= p50 <= p99 < 110, "the time that was added, not the time that it took"
    p50, p99 = map(milliseconds, table["sleepy"][3:])
    assert 29 <= p50 <= p99 < 500


@pytest.mark.needs("signal.SIGUSR1")
def test_the_table_is_told_on_sigusr1_while_all_goes_on(echo_backend: Backend) -> None:
    options = ("--behavior", "100:latency,0:error", "--handlers.latency.latency", 1)
    with proxy(echo_backend, *options) as program, program.dial() as client:
        for n in range(1, 3):
            for _ in range(3):
                assert exchange(client, b"hello") == b"hello"
            program.send_signal(signal.SIGUSR1)
            wait_for(lambda n=n: len(tables(program.text)) == n and tables(program.text)[-1])  # type: ignore[misc]
            row = tables(program.text)[-1]["latency"]
            assert row[0] == str(3 * n)
            assert row[1] in (str(3 * n - 1), str(3 * n)), "the last one may not be over yet"
        client.close()
        assert program.stop() == 0, "without --strict, what never fired is no error"
        assert "never fired: error" in program.text
        assert len(tables(program.text)) == 3
        assert tables(program.text)[-1]["latency"][:3] == ["6", "6", "60"]


def test_what_is_still_open_at_exit_counts_and_adds_no_time_if_it_hung(
    echo_backend: Backend,
) -> None:
    with proxy(echo_backend, "--behavior", "100:hang") as program, program.dial() as client:
        client.sendall(b"request")
        program.wait_log("exchange 1")
        row = ended(program)["hang"]
        assert row[0] == row[1] == "1"
        assert row[3:] == ["-", "-"] or milliseconds(row[4]) < 1000


def test_what_never_fired_is_named_in_a_warning_and_strict_makes_it_exit_3(
    echo_backend: Backend,
) -> None:
    options = (
        *("--behavior", "50:latency,0:error,50:corrupt", "--handlers.corrupt.chance", 0),
        *("--handlers.latency.latency", 1, "--on-connect", "0:refuse"),
    )
    with proxy(echo_backend, *options, "--strict") as program:
        with program.dial() as client:
            for _ in range(30):
                assert exchange(client, b"hello") == b"hello"
        table = ended(program, 3)
    (warning,) = [line for line in program.log if "never fired" in line]
    assert "WARNING" in warning
    assert "latency" not in warning
    for name in ("error", "corrupt", "refuse"):
        assert re.search(rf"\b{name}\b", warning)
    assert table["error"] == ["0", "0", "0", "-", "-"]
    assert int(table["corrupt"][0]) > 3 and table["corrupt"][1] == "0"


@pytest.mark.needs("signal.SIGUSR1")
def test_without_handlers_there_is_nothing_to_tell(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--strict") as program:
        with program.dial() as client:
            exchange(client, b"hello")
        program.send_signal(signal.SIGUSR1)
        program.wait_log("no handler")
        assert program.stop() == 0
        assert tables(program.text) == []
        assert "never fired" not in program.text


def test_the_table_goes_where_the_log_goes_whatever_its_level(tmp_path: Path) -> None:
    file = tmp_path / "log"
    options = ("--behavior", "100:reset", "--log-level", "critical", "--log-output", file)
    with Acceptor() as backend, proxy(backend, *options) as program:
        with program.dial() as client:
            client.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                receive(client, 1)
        assert program.stop() == 0
        assert program.text == ""
    (table,) = tables(file.read_text())
    assert table["reset"][:2] == ["1", "1"]
