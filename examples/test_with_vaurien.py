"""Tests of a program that talks to a server, with Vaurien between the two.

``python -m pytest examples/test_with_vaurien.py``, from the root of a checkout.
"""

import socket
import threading

import pytest

import vaurien


def fetch(address, tries=3, timeout=0.5):
    """The program that is tested: asks a server, and asks again if that fails."""
    for left in reversed(range(tries)):
        try:
            with socket.create_connection(address, timeout) as sock:
                sock.sendall(b"question\n")
                if answer := sock.recv(100):
                    return answer
        except OSError:
            if not left:
                raise
    return None


def serve(listener):
    """Its server."""
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            sock.recv(100)
            sock.sendall(b"answer\n")


@pytest.fixture(scope="module")
def proxy():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        with vaurien.start_proxy(distant=f"127.0.0.1:{port}", seed=1) as running:
            yield running
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def address(proxy):
    host, port = proxy.address.split(":")
    return host, int(port)


def test_it_gets_the_answer(address):
    assert fetch(address) == b"answer\n"


def test_it_survives_that_half_of_the_connections_are_reset(proxy, address):
    with proxy.client.with_behavior("50:reset"):
        assert fetch(address, tries=20) == b"answer\n"


def test_it_gives_up_on_a_server_that_hangs(proxy, address):
    with proxy.client.with_handler("hang"), pytest.raises(TimeoutError):
        fetch(address, tries=2, timeout=0.1)


def test_it_has_patience_with_a_slow_line(proxy, address):
    proxy.client.add_toxic("default", "latency", latency=100, ttl=10)
    assert fetch(address) == b"answer\n"
    proxy.client.reset()
