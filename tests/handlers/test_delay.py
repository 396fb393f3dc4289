"""The built-in handler ``delay``: once for each exchange, with seconds as float."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.laws.helpers import MB, Acceptor
from tests.support import Backend, exchange, proxy, receive, run

SLEEP = 0.3
ALMOST = SLEEP * 0.95  # another process's clock


@pytest.mark.parametrize("before", [None, "yes", "no"])
def test_delay_waits_on_the_side_it_is_told(before: str | None) -> None:
    options = [] if before is None else ["--handlers.delay.before", before]
    with (
        Acceptor() as backend,
        proxy(
            backend, "--behavior", "100:delay", "--handlers.delay.sleep", SLEEP, *options
        ) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for _ in range(2):
            begun = time.monotonic()
            client.sendall(b"request")
            assert receive(server, 7) == b"request"
            arrived = time.monotonic()
            server.sendall(b"answer")
            assert receive(client, 6) == b"answer"
            ended = time.monotonic()
            slow, fast = arrived - begun, ended - arrived
            if before == "no":
                slow, fast = fast, slow
            assert slow >= ALMOST
            assert slow > fast


def test_delay_sleeps_a_second_unless_told_otherwise(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--behavior", "100:delay") as vaurien, vaurien.dial() as client:
        begun = time.monotonic()
        assert exchange(client, b"hello") == b"hello"
        assert time.monotonic() - begun >= 0.95


def test_delays_of_many_connections_go_side_by_side(echo_backend: Backend) -> None:
    n = 20
    with proxy(echo_backend, "--behavior", "100:delay", "--handlers.delay.sleep", SLEEP) as vaurien:
        socks = [vaurien.dial() for _ in range(n)]
        begun = time.monotonic()
        for sock in socks:
            sock.sendall(b"hello")
        for sock in socks:
            assert receive(sock, 5) == b"hello"
            sock.close()
        assert ALMOST <= time.monotonic() - begun < n * SLEEP / 2


def test_delay_loses_nothing_that_comes_while_it_waits(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--behavior", "100:delay", "--handlers.delay.sleep", SLEEP) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"one,")
        client.sendall(b"two,")
        client.sendall(b"three")
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 100) == b"one,two,three"


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "soon"])
def test_a_sleep_that_is_no_time_is_refused(wrong: str) -> None:
    done = run("--check", "--behavior", "100:delay", "--handlers.delay.sleep", wrong)
    assert done.returncode == 2
    assert "--handlers.delay.sleep" in done.stderr


@pytest.mark.parametrize("before", ["yes", "no"])
def test_an_exchange_waits_once_however_many_pieces_it_has(before: str) -> None:
    # Once for each 64 KiB it would be 46 times.
    size, options = 3 * MB, ("--handlers.delay.sleep", SLEEP, "--handlers.delay.before", before)
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:delay", *options) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for _ in range(2):
            begun = time.monotonic()
            sending = threading.Thread(target=client.sendall, args=(bytes(size),))
            sending.start()
            assert len(receive(server, size)) == size
            sending.join()
            answering = threading.Thread(target=server.sendall, args=(bytes(size),))
            answering.start()
            assert len(receive(client, size)) == size
            answering.join()
            assert ALMOST <= time.monotonic() - begun < 5 * SLEEP
