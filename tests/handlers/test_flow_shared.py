"""`bandwidth` with ``shared`` through the proxy: a connection that is gone books nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support import Backend, Program, exchange, proxy, receive, reset

SOON = 4.0  # seconds; what was booked takes ten times as long


@pytest.fixture
def shared(echo_backend: Backend) -> Iterator[Program]:
    """A proxy with one line of 5 KB/s upstream, for all together."""
    options = {"rate": 5, "shared": "yes", "stream": "upstream"}
    arguments = [word for key, value in options.items()
                 for word in (f"--handlers.bandwidth.{key}", value)]  # fmt: skip
    with proxy(echo_backend, "--behavior", "100:bandwidth", *arguments) as vaurien:
        yield vaurien


def book(vaurien: Program) -> socket.socket:
    """A client that has booked the line for 40 s."""
    client = vaurien.dial()
    client.sendall(bytes(200_000))
    receive(client, 1)  # it is under way
    return client


def test_the_next_client_waits_for_nobody_who_has_gone(shared: Program) -> None:
    reset(book(shared))
    with shared.dial() as client:
        begun = time.monotonic()
        assert exchange(client, b"x" * 100) == b"x" * 100
        assert time.monotonic() - begun < SOON


def test_who_waits_already_moves_up_when_somebody_goes(shared: Program) -> None:
    gone = book(shared)
    with contextlib.closing(gone), shared.dial() as client:
        begun = time.monotonic()
        client.sendall(b"x" * 100)
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it waits its turn
            client.recv(1)
        reset(gone)
        client.settimeout(None)
        assert receive(client, 100) == b"x" * 100
        assert time.monotonic() - begun < SOON
