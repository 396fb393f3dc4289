"""Law 4: half-close is symmetrical, and a polite end is a FIN whatever still comes in.

The same promises hold for the pump and for a handler that passes everything on.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.laws.helpers import (
    CLOSE_WAIT,
    Acceptor,
    Flood,
    assert_fin,
    digest_of,
    full_listener,
    own,
    tcp_state,
    threads,
    unused_port,
    wait_said,
    write_module,
)
from tests.rivals.differences import differs
from tests.support import PATIENCE, Backend, Program, proxy, receive, receive_all, wait_for

#: Ways to pass everything on: they must not differ.
PASSING = {
    "pump": ("100:dummy",),
    "before": ("100:delay", "--handlers.delay.sleep", 0),
    "after": ("100:delay", "--handlers.delay.sleep", 0, "--handlers.delay.before", "no"),
}
R4_REPLY = 1_000_001  # bytes; Toxiproxy passes none of them


def passing(backend: Backend, way: str, *arguments: object) -> Program:
    """A Vaurien that passes everything on."""
    return proxy(backend, "--behavior", *PASSING[way], *arguments)


@pytest.mark.parametrize("way", PASSING)
@differs("half-close")
def test_the_reply_to_a_client_that_half_closed_arrives_whole(way: str) -> None:
    reply = b"".join(Flood(R4_REPLY).blocks())
    with (
        Acceptor() as backend,
        passing(backend, way) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"request"
        sent = pool.submit(server.sendall, reply)
        assert receive(client, R4_REPLY) == reply
        sent.result(PATIENCE)
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""


@pytest.mark.parametrize("way", PASSING)
def test_the_reply_to_a_client_that_half_closed_at_once_arrives_whole(way: str) -> None:
    # The end is there before the backend has answered a dial, and before a handler was called.
    def answer(sock: socket.socket) -> None:
        assert receive_all(sock) == b"request"
        sock.sendall(b"r" * R4_REPLY)

    with Backend(answer) as backend, passing(backend, way) as vaurien:
        for _ in range(20):
            with vaurien.dial() as client:
                client.sendall(b"request")
                client.shutdown(socket.SHUT_WR)
                assert len(receive_all(client)) == R4_REPLY
        assert backend.errors == []


@pytest.mark.parametrize("way", PASSING)
def test_what_is_sent_to_a_backend_that_half_closed_arrives_whole(way: str) -> None:
    flood = Flood(R4_REPLY)
    with (
        Acceptor() as backend,
        passing(backend, way) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
        assert tcp_state(client) == CLOSE_WAIT
        got = pool.submit(digest_of, server, flood.size)
        flood.send(client)
        assert got.result(PATIENCE) == (flood.size, flood.digest())
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b""


@pytest.mark.parametrize("way", PASSING)
def test_the_end_of_one_side_leaves_the_other_open(way: str) -> None:
    with (
        Acceptor() as backend,
        passing(backend, way) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"1")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"1"
        assert tcp_state(server) == CLOSE_WAIT
        for i in range(100):  # one by one: each goes through before the next is sent
            server.sendall(b"%d" % i)
            assert receive(client, len(b"%d" % i)) == b"%d" % i


@pytest.mark.parametrize("way", PASSING)
def test_an_end_without_a_byte_before_it_is_passed_on(way: str) -> None:
    with Acceptor() as backend, passing(backend, way) as vaurien:
        with vaurien.dial() as client, backend.accept() as server:
            client.shutdown(socket.SHUT_WR)
            assert_fin(server)
            server.sendall(b"late greeting")
            assert receive(client, 13) == b"late greeting"
        with vaurien.dial() as client, backend.accept() as server:
            server.shutdown(socket.SHUT_WR)
            assert_fin(client)
            client.sendall(b"late request")
            assert receive(server, 12) == b"late request"


def test_a_connection_whose_sides_have_both_ended_is_gone(echo_backend: Backend) -> None:
    with proxy(echo_backend) as vaurien:
        before = vaurien.descriptors()
        for first in (True, False):
            for _ in range(10):
                with vaurien.dial() as client:
                    client.sendall(b"x")
                    if first:
                        client.shutdown(socket.SHUT_WR)
                    assert receive(client, 1) == b"x"
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")


ENDING = """
class ReturnsFalse(BaseHandler):
    name = "returnsfalse"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        return False


class ReadsAndReturnsFalse(BaseHandler):
    name = "readsandreturnsfalse"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        self._get_data(client_sock, backend_sock, to_backend)
        return False


class Raises(BaseHandler):
    name = "raises"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        raise ValueError("on purpose")


class ClosesClient(BaseHandler):
    name = "closesclient"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        client_sock.close()


class ClosesBackend(BaseHandler):
    name = "closesbackend"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        backend_sock.close()
"""

POLITE = [
    "100:own.ReturnsFalse",
    "100:own.ReadsAndReturnsFalse",
    "100:own.Raises",
    "100:own.ClosesClient",
    "100:own.ClosesBackend",
    "100:blackout",
]


def assert_polite(client: socket.socket) -> None:
    """The proxy ends politely: FIN, and more bytes within the linger second bring no RST."""
    with contextlib.suppress(BrokenPipeError):
        assert client.recv(1) == b""
        assert tcp_state(client) == CLOSE_WAIT
        client.sendall(b"more " * 1000)
        assert tcp_state(client) == CLOSE_WAIT, "bytes after the FIN brought a RST"
        return
    raise AssertionError("RST")


@pytest.mark.parametrize("behavior", POLITE)
def test_a_polite_end_is_no_reset_though_bytes_are_unread(tmp_path: Path, behavior: str) -> None:
    # More than the proxy reads at a time waits in its socket when the handler ends the connection.
    write_module(tmp_path, ENDING)
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", behavior, cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"x" * 200_000)
        assert_polite(client)
        assert_polite(server)


def test_a_polite_end_after_the_response_began_is_no_reset() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:abort") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        client.sendall(b"x" * 100_000)
        server.sendall(b"y" * 100_000)
        assert_polite(client)
        with contextlib.suppress(TimeoutError):
            receive(server, 100_000)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_the_end_for_idleness_is_polite() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--timeout", 0.3) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"1")
        assert receive(server, 1) == b"1"
        assert_polite(client)
        assert_polite(server)


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """A backend that refuses."""
    yield f"127.0.0.1:{unused_port()}"


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """A backend that does not answer a connect."""
    with full_listener() as (host, port):
        yield f"{host}:{port}"


@pytest.mark.parametrize("distant", [refusing, hanging])
def test_the_end_after_a_failed_dial_is_polite(
    distant: Callable[[], contextlib.AbstractContextManager[str]],
) -> None:
    with (
        distant() as address,
        proxy(address, "--connect-timeout", 0.5) as vaurien,
        vaurien.dial() as client,
    ):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b"x" * 100_000)
        assert_polite(client)


def test_a_polite_end_closes_after_a_second_whatever_the_client_does() -> None:
    with Acceptor() as backend, proxy(backend, "--behavior", "100:blackout") as vaurien:
        before = vaurien.descriptors()
        with vaurien.dial() as client, backend.accept() as server:
            client.sendall(b"x")
            assert_fin(client)
            assert_fin(server)  # neither closes its own side
            wait_for(lambda: vaurien.descriptors() == before, "both sockets are closed")


def test_what_a_handler_sent_before_a_polite_end_comes_first(tmp_path: Path) -> None:
    write_module(
        tmp_path,
        """
class Farewell(BaseHandler):
    name = "farewell"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        client_sock.sendall(b"f" * 300_000)
        say("sent")
        return False
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Farewell") as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x" * 200_000)
        wait_said(vaurien, "sent")
        assert receive_all(client) == b"f" * 300_000
