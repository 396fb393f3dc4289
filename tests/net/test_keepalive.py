"""Peers that vanish without a word: TCP keepalive, on both sides."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.control.served import Served
from tests.laws.helpers import Acceptor, own, wait_said, write_module
from tests.support import Backend, dial, echo, proxy, receive, wait_for

TCP_REPAIR = 19  # tcp(7): with it, a close sends nothing

TELLING = """
class Telling(BaseHandler):
    name = "telling"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        for name, sock in (("client", client_sock), ("backend", backend_sock)):
            options = [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                options.append(sock.getsockopt(socket.IPPROTO_TCP, option))
            say(name, *options)
        return False
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), "1 15 15"), (("--keepalive", 7), "1 7 7"), (("--keepalive", 0), "0 7200 75")],
)
def test_both_sides_are_asked_whether_they_are_there(
    tmp_path: Path, arguments: Sequence[object], expected: str
) -> None:
    write_module(tmp_path, TELLING)
    with (
        Backend(echo) as backend,
        own(backend, tmp_path, "Telling", *arguments) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        for side in ("client", "backend"):
            found = wait_said(vaurien, side, 1)
            if arguments[1:] == (0,):  # the rest is the system's own
                found, expected = [found[0][0]], expected[0]
            assert found == [expected]


def vanish(sock: socket.socket) -> None:
    """Close without a FIN or RST."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("this user may not make a socket vanish (CAP_NET_ADMIN)")
    sock.close()


@pytest.mark.parametrize("who", ["client", "backend"])
def test_a_connection_whose_peer_has_vanished_ends(who: str) -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--keepalive", 1) as vaurien,
    ):
        before = vaurien.descriptors()
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(vaurien.dial())
            server = stack.enter_context(backend.accept())
            client.sendall(b"x")
            assert receive(server, 1) == b"x"
            gone, left = (client, server) if who == "client" else (server, client)
            vanish(gone)
            with contextlib.suppress(ConnectionResetError):
                assert left.recv(1) == b""
            wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")


@pytest.mark.long
def test_a_client_of_the_api_that_has_vanished_ends() -> None:
    with Backend(echo) as backend, Served("--distant", backend.address, "--keepalive", 1) as served:
        before = served.descriptors()
        with dial(served.api.address) as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100)
            vanish(client)
        wait_for(lambda: served.descriptors() <= before, "its descriptor is given back")


@pytest.mark.needs("signal.SIGHUP")
def test_a_reload_has_new_connections_asked_otherwise(tmp_path: Path) -> None:
    write_module(tmp_path, TELLING)
    config = tmp_path / "v.ini"
    config.write_text("[vaurien]\nkeepalive = 7\n")
    with (
        Backend(echo) as backend,
        own(backend, tmp_path, "Telling", "--config", config) as vaurien,
    ):
        config.write_text("[vaurien]\nkeepalive = 9\n")
        vaurien.send_signal(signal.SIGHUP)
        vaurien.wait_log("reload: .*")
        with vaurien.dial() as client:
            client.sendall(b"x")
            for side in ("client", "backend"):
                assert wait_said(vaurien, side, 1) == ["1 9 9"]
        config.write_text("[vaurien]\nkeepalive = 0\n")
        vaurien.send_signal(signal.SIGHUP)
        wait_for(lambda: vaurien.text.count("reload: ") == 2, "the second reload")
        with vaurien.dial() as client:
            client.sendall(b"x")
            for side in ("client", "backend"):
                assert wait_said(vaurien, side, 2)[1].startswith("0")
