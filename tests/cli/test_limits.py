"""--timeout, --connect-timeout, --max-connections, --backlog: what they end, what they do not."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import (
    Backend,
    Program,
    clients,
    exchange,
    parse_address,
    proxy,
    receive_all,
    wait_for,
)


def hears(sock: socket.socket, seconds: float) -> bool:
    """Whether something comes within `seconds`: bytes, or the end."""
    return bool(select.select([sock], [], [], seconds)[0])


# --timeout


def test_an_idle_connection_ends_politely_after_the_timeout(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--timeout", 1) as program, program.dial() as client:
        start = time.monotonic()
        assert exchange(client, b"hello") == b"hello"
        assert client.recv(1) == b""
        assert 0.9 <= time.monotonic() - start < 8
        program.wait_log("connection 1 .*idle")


def test_a_connection_that_never_said_anything_ends_after_the_timeout(
    echo_backend: Backend,
) -> None:
    with proxy(echo_backend, "--timeout", 0.5) as program, program.dial() as client:
        start = time.monotonic()
        assert client.recv(1) == b""
        assert 0.4 <= time.monotonic() - start < 8


def test_the_backend_of_an_idle_connection_is_let_go(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--timeout", 0.5) as program:
        before = program.descriptors()
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"
            assert client.recv(1) == b""
        wait_for(lambda: program.descriptors() == before, "all descriptors closed")


def test_a_connection_at_work_outlives_the_timeout(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--timeout", 1) as program, program.dial() as client:
        start = time.monotonic()
        while time.monotonic() - start < 2.5:
            assert exchange(client, b"hello") == b"hello"
            assert not hears(client, 0.1), "it ended"


def test_bytes_of_one_side_are_enough_to_outlive_the_timeout() -> None:
    def drip(sock: socket.socket) -> None:
        sock.recv(1)
        for _ in range(25):
            sock.sendall(b".")
            select.select([sock], [], [], 0.1)

    with (
        Backend(drip) as backend,
        proxy(backend, "--timeout", 1) as program,
        program.dial() as client,
    ):
        client.sendall(b"?")
        assert receive_all(client) == b"." * 25


def test_a_handler_that_hangs_ends_with_the_timeout(echo_backend: Backend) -> None:
    arguments = ("--timeout", 0.5, "--behavior", "100:hang")
    with proxy(echo_backend, *arguments) as program, program.dial() as client:
        client.sendall(b"hello")
        assert client.recv(1) == b""
        assert "Traceback" not in program.text


def test_an_idle_connection_stays_without_a_timeout(echo_backend: Backend) -> None:
    with proxy(echo_backend) as program, program.dial() as client:
        assert exchange(client, b"hello") == b"hello"
        assert not hears(client, 1.5)
        assert exchange(client, b"again") == b"again"


# --connect-timeout


@pytest.fixture
def full() -> Iterator[str]:
    """The address of a backend whose backlog is full, so that a connect hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        hanging = stack.enter_context(socket.socket())
        hanging.settimeout(0.3)
        with pytest.raises(TimeoutError):
            hanging.connect(address)
        yield f"127.0.0.1:{address[1]}"


def test_a_backend_that_never_accepts_is_given_up(full: str) -> None:
    with proxy(full, "--connect-timeout", 0.7) as program, program.dial() as client:
        start = time.monotonic()
        assert client.recv(1) == b""
        assert 0.6 <= time.monotonic() - start < 8
        program.wait_log(rf"WARNING.*connection 1: .*{full}.*0\.7 s")


def test_one_slow_dial_holds_up_no_other(full: str) -> None:
    with proxy(full, "--connect-timeout", 1.5) as program, clients(program.address, 20) as socks:
        start = time.monotonic()
        for sock in socks:
            assert sock.recv(1) == b""
        assert time.monotonic() - start < 8, "they waited one after the other"


def test_a_client_that_leaves_a_hanging_dial_is_forgotten(full: str) -> None:
    with proxy(full, "--connect-timeout", 0.7) as program:
        before = program.descriptors()
        with program.dial():
            wait_for(lambda: program.descriptors() == before + 2, "the dial")
        wait_for(lambda: program.descriptors() == before, "all descriptors closed")


def test_a_hanging_dial_does_not_hold_up_the_end(full: str) -> None:
    with proxy(full, "--connect-timeout", 50) as program:
        before = program.descriptors()
        with program.dial() as client:
            wait_for(lambda: program.descriptors() == before + 2, "the dial")
            start = time.monotonic()
            assert program.stop() == 0
            assert client.recv(1) == b""
            assert time.monotonic() - start < 5


# --max-connections, --backlog


def test_when_full_accepting_pauses_and_goes_on(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--max-connections", 2) as program,
        clients(program.address, 4) as (one, two, three, four),
    ):
        for sock in (one, two):
            assert exchange(sock, b"hello") == b"hello"
        for sock in (three, four):  # the system lets them connect
            sock.sendall(b"hello")
        assert not hears(three, 0.5)
        assert echo_backend.accepted == 2
        two.close()
        assert three.recv(5) == b"hello"
        assert exchange(one, b"again") == b"again"
        assert not hears(four, 0.3)
        three.close()
        assert four.recv(5) == b"hello"
        assert echo_backend.accepted == 4


def test_failed_dials_leave_room_for_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with proxy(address, "--max-connections", 1) as program:
        for _ in range(5):
            with program.dial() as client:
                assert client.recv(1) == b""


def test_many_come_and_go_through_few_places(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--max-connections", 3) as program:
        for _ in range(10):
            with clients(program.address, 3) as socks:
                for sock in socks:
                    assert exchange(sock, b"hello") == b"hello"


def test_a_full_proxy_ends_when_it_is_told_to(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--max-connections", 1, "--drain", 30) as program,
        clients(program.address, 2) as (one, _),
    ):
        assert exchange(one, b"hello") == b"hello"
        start = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - start < 10


def test_the_backlog_is_as_long_as_told(echo_backend: Backend) -> None:
    def connected(program: Program, n: int, stack: contextlib.ExitStack) -> list[socket.socket]:
        socks = [stack.enter_context(socket.socket()) for _ in range(n)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex(parse_address(program.address))
        return [sock for sock in socks if select.select([], [sock], [], 0.1)[1]]

    with (
        proxy(echo_backend, "--max-connections", 1, "--backlog", 2) as program,
        program.dial() as first,
        contextlib.ExitStack() as stack,
    ):
        assert exchange(first, b"hello") == b"hello"
        assert len(connected(program, 8, stack)) == 3  # Linux: one more than asked for, listen(2)


# --spin


def computing(pid: int) -> float:
    """The seconds of computing that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_spinning_answers_and_ends_when_nothing_comes(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--spin", 2000) as program, program.dial() as client:
        for _ in range(200):
            assert exchange(client, b"hello") == b"hello"
        before = computing(program.pid)
        assert not hears(client, 1)
        assert computing(program.pid) - before < 0.5
        assert exchange(client, b"again") == b"again"
        assert program.stop() == 0
