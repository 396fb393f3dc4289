"""Accepting: descriptors that run out (R14), a full proxy, clients in numbers."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path

from tests.laws.helpers import Acceptor
from tests.support import Backend, Program, clients, echo, exchange, proxy, receive, wait_for


def computed(pid: int) -> float:
    """The seconds that a process has computed so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def limit_descriptors(vaurien: Program, n: int) -> None:
    """From now on the process may have no more than `n` files open."""
    _, hard = resource.prlimit(vaurien.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(vaurien.pid, resource.RLIMIT_NOFILE, (n, hard))


def test_running_out_of_descriptors_pauses_accepting_and_goes_on() -> None:
    with (
        Backend(echo) as backend,
        proxy(backend, "--connect-timeout", 60) as vaurien,
        contextlib.ExitStack() as stack,
    ):
        first = stack.enter_context(vaurien.dial())
        assert exchange(first, b"before") == b"before"
        limit_descriptors(vaurien, vaurien.descriptors() + 21)
        with clients(vaurien.address, 60) as many:
            for client in many:
                client.sendall(b"hello")
            vaurien.wait_log("accepting pauses.*open files")
            assert vaurien.process.poll() is None
            assert exchange(first, b"meanwhile") == b"meanwhile"

            # It waits rather than spins: within a second of ours it computes a part of one.
            before = computed(vaurien.pid)
            many[-1].settimeout(1)
            with contextlib.suppress(TimeoutError):
                many[-1].recv(5)
            assert computed(vaurien.pid) - before < 0.5

        limit_descriptors(vaurien, 1000)
        for _ in range(3):
            with vaurien.dial() as client:
                assert exchange(client, b"after") == b"after"
        assert exchange(first, b"still") == b"still"


def test_whoever_waited_while_descriptors_had_run_out_is_served() -> None:
    with Backend(echo) as backend, proxy(backend, "--connect-timeout", 60) as vaurien:
        limit_descriptors(vaurien, vaurien.descriptors() + 20)
        with clients(vaurien.address, 30) as many:
            for client in many:
                client.sendall(b"hello")
            vaurien.wait_log("accepting pauses")
            limit_descriptors(vaurien, 1000)
            for client in many:
                assert receive(client, 5) == b"hello"


def test_running_out_of_descriptors_while_dialling_is_waited_out() -> None:
    # An odd number is left: one client is accepted whose dial finds none.
    with Backend(echo) as backend, proxy(backend, "--connect-timeout", 60) as vaurien:
        full = vaurien.descriptors() + 3
        limit_descriptors(vaurien, full)
        with vaurien.dial() as first:
            assert exchange(first, b"first") == b"first"
            with vaurien.dial() as second:
                second.sendall(b"second")
                wait_for(lambda: vaurien.descriptors() == full, "the second is accepted")
                first.close()
                assert receive(second, 6) == b"second"


def test_a_full_proxy_pauses_accepting_until_one_has_gone() -> None:
    with Acceptor() as backend, proxy(backend, "--max-connections", 2) as vaurien:
        first = vaurien.dial()
        first_server = backend.accept()
        with vaurien.dial() as second, backend.accept() as server, vaurien.dial() as third:
            third.sendall(b"third")
            for number in range(20):
                second.sendall(b"%2d" % number)
                assert receive(server, 2) == b"%2d" % number
            assert backend.accepted == 2
            first.close()
            first_server.close()
            with backend.accept() as third_server:
                assert receive(third_server, 5) == b"third"
                assert backend.accepted == 3


def test_a_client_that_resets_before_it_is_accepted_is_no_error() -> None:
    with Backend(echo) as backend, proxy(backend) as vaurien:
        for _ in range(200):
            sock = vaurien.dial()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        with vaurien.dial() as client:
            assert exchange(client, b"hello") == b"hello"
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text
        assert "error" not in vaurien.text.lower()


def test_connections_are_numbered_in_the_order_of_accepting() -> None:
    with (
        Backend(echo) as backend,
        proxy(backend, "--behavior", "100:delay") as vaurien,
        clients(vaurien.address, 20) as many,
    ):
        for client in many[::-1]:
            client.sendall(b"x")
        for number in range(1, 21):
            vaurien.wait_log(rf"connection {number}, exchange 1: delay")
