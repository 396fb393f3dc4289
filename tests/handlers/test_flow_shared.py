"""`bandwidth` with ``shared`` through the proxy: a connection that is gone books nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.laws.helpers import Acceptor
from tests.support import Program, proxy, receive, reset

SOON = 4.0  # seconds; what was booked takes ten times as long
Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def backend() -> Iterator[Acceptor]:
    with Acceptor() as backend:
        yield backend


@pytest.fixture
def shared(backend: Acceptor) -> Iterator[Program]:
    """A proxy with one line of 5 KB/s upstream, for all together."""
    options = {"rate": 5, "shared": "yes", "stream": "upstream"}
    arguments = [word for key, value in options.items()
                 for word in (f"--handlers.bandwidth.{key}", value)]  # fmt: skip
    with proxy(backend, "--behavior", "100:bandwidth", *arguments) as vaurien:
        yield vaurien


def book(vaurien: Program, backend: Acceptor) -> Ends:
    """Both ends of a connection that has booked the line for 40 s."""
    client = vaurien.dial()
    server = backend.accept()
    client.sendall(bytes(200_000))
    receive(server, 1)  # it is under way
    return client, server


def test_the_next_client_waits_for_nobody_who_has_gone(shared: Program, backend: Acceptor) -> None:
    for sock in book(shared, backend):
        reset(sock)
    with shared.dial() as client, backend.accept() as server:
        begun = time.monotonic()
        client.sendall(b"x" * 100)
        assert receive(server, 100) == b"x" * 100
        assert time.monotonic() - begun < SOON


def test_who_waits_already_moves_up_when_somebody_goes(shared: Program, backend: Acceptor) -> None:
    gone = book(shared, backend)
    with contextlib.closing(gone[0]), shared.dial() as client, backend.accept() as server:
        begun = time.monotonic()
        client.sendall(b"x" * 100)
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it waits its turn
            server.recv(1)
        for sock in gone:
            reset(sock)
        server.settimeout(None)
        assert receive(server, 100) == b"x" * 100
        assert time.monotonic() - begun < SOON
