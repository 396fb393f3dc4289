"""The built-in handlers that end or hang: ``blackout``, ``abort``, ``reset``, ``hang``."""

from __future__ import annotations

import contextlib
import select
import socket
from pathlib import Path

import pytest

from tests.laws.helpers import CLOSED, MB, Acceptor, assert_fin, seed_for, tcp_state, threads
from tests.support import PATIENCE, Backend, exchange, proxy, receive, receive_all, wait_for


def readable(sock: socket.socket) -> bool:
    """Whether there is something to read on `sock` within a moment, an end included."""
    return bool(select.select([sock], [], [], 0.3)[0])


def test_blackout_closes_the_client_at_once_and_passes_nothing_on() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:blackout") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert_fin(client)
        assert receive_all(server) == b""


def test_blackout_leaves_other_exchanges_alone(echo_backend: Backend) -> None:
    behavior = "50:blackout"
    seed = seed_for(behavior, {(1, 1): 1, (1, 2): 1, (1, 3): 0, (2, 1): 1})
    with (
        proxy(echo_backend, "--behavior", behavior, "--seed", seed) as vaurien,
        vaurien.dial() as client,
        vaurien.dial() as other,
    ):
        assert exchange(client, b"1") == b"1"
        assert exchange(client, b"2") == b"2"
        client.sendall(b"3")
        assert_fin(client)
        assert exchange(other, b"1") == b"1"


@pytest.mark.parametrize("size", [7, 5 * MB])
def test_abort_lets_the_backend_have_the_request_and_the_client_no_response(size: int) -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:abort") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        sent = pool.submit(client.sendall, b"r" * size)
        assert receive(server, size) == b"r" * size
        sent.result(PATIENCE)
        assert not readable(client), "it is cut at the response, not at the request"
        server.sendall(b"response")
        assert_fin(client)
        assert receive_all(server) == b""


def test_abort_of_a_client_that_half_closed() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:abort") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"request"
        with contextlib.suppress(ConnectionError):
            server.sendall(b"response")
        assert client.recv(1) == b""


def test_reset_sends_a_real_rst_to_the_client() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:reset") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert tcp_state(client) == CLOSED
        assert receive_all(server) == b"", "nothing of the request is passed on"


def test_reset_resets_though_the_client_has_half_closed() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:reset") as vaurien,
    ):
        for _ in range(20):
            with (
                vaurien.dial() as client,
                backend.accept(),
                pytest.raises(OSError, match=r"reset|Broken|not connected"),
            ):
                _send_and_wait(client)


def test_reset_on_a_unix_socket_closes(tmp_path: Path, echo_backend: Backend) -> None:
    with (
        proxy(
            echo_backend, "--behavior", "100:reset", "--local", f"unix:{tmp_path}/here"
        ) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"request")
        with contextlib.suppress(ConnectionResetError):  # Linux: of bytes nobody has read
            assert client.recv(1) == b""
        assert "Traceback" not in vaurien.text


def test_hang_reads_and_never_answers() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:hang") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        # Far more than all buffers between hold: it is read.
        pool.submit(client.sendall, b"r" * 60 * MB).result(PATIENCE)
        server.sendall(b"greeting")
        assert not readable(client)
        assert not readable(server), "nothing of the request is passed on"
        assert tcp_state(client) != CLOSED


def test_hang_hangs_nobody_else(echo_backend: Backend) -> None:
    behavior = "50:hang"
    seed = seed_for(behavior, {(1, 1): 0, (2, 1): 1, (2, 2): 1, (3, 1): 1})
    with (
        proxy(echo_backend, "--behavior", behavior, "--seed", seed) as vaurien,
        vaurien.dial() as client,
        vaurien.dial() as other,
    ):
        client.sendall(b"request")
        assert exchange(other, b"1") == b"1"
        assert exchange(other, b"2") == b"2"
        with vaurien.dial() as third:
            assert exchange(third, b"1") == b"1"
        assert not readable(client)


def test_hang_is_over_when_the_client_has_gone() -> None:
    with Acceptor() as backend, proxy(backend, "--behavior", "100:hang") as vaurien:
        before = vaurien.descriptors()
        for _ in range(3):
            with vaurien.dial() as client, backend.accept() as server:
                client.sendall(b"request")
                server.sendall(b"something")
                client.close()
                assert receive_all(server) == b""
        wait_for(lambda: vaurien.descriptors() <= before, "all descriptors are given back")


def test_hang_ends_with_the_idle_timeout() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:hang", "--timeout", 0.5) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"request")
        assert_fin(client)


def _send_and_wait(client: socket.socket) -> None:
    client.sendall(b"x" * 100_000)
    client.shutdown(socket.SHUT_WR)
    client.recv(1)
