"""``--on-connect``: who meets a client before its first byte, and what the client sees of it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.laws.helpers import Acceptor, seed_for, tcp_state, threads, unused_port
from tests.rivals.driver import Driven, Rig
from tests.support import (
    PATIENCE,
    Backend,
    dial,
    echo,
    exchange,
    proxy,
    receive,
    receive_all,
    wait_for,
)

EARLY = 0.002  # seconds
SOON = 0.9
ESTABLISHED = 1  # from linux/tcp_states.h


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig
        assert "Traceback" not in rig.text, rig.text


def assert_refused(driven: Driven) -> None:
    """A client is reset, as it connects or at its first use."""
    with contextlib.ExitStack() as stack, pytest.raises(ConnectionResetError):
        receive_all(stack.enter_context(driven.dial()))


def test_refuse_resets_the_client_and_dials_nobody(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, on_connect="100:refuse") as driven,
    ):
        for _ in range(3):
            assert_refused(driven)
        assert backend.accepted == 0
        driven.wait_connections(0)
        assert driven.stats["refuse"] == {"picked": 3, "fired": 3, "bytes": 0}


def test_weights_are_shares_of_the_clients_and_the_rest_is_let_in(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, on_connect="30:refuse,20:dial_fail", seed=5) as driven,
    ):
        for _ in range(60):
            with contextlib.suppress(ConnectionError), driven.dial() as client:
                client.sendall(b"x")
                client.recv(1)
        stats = driven.stats
        assert 8 <= stats["refuse"]["picked"] <= 28
        assert 4 <= stats["dial_fail"]["picked"] <= 22
        met = stats["refuse"]["picked"] + stats["dial_fail"]["picked"]
        assert backend.accepted == 60 - met


def test_meeting_draws_apart_from_the_exchanges(rig: Rig) -> None:
    # The same connection, the same weights: other dice.
    with (
        Backend(echo) as backend,
        rig.proxy(
            backend,
            "50:latency",
            on_connect="50:slow_accept",
            seed=1,
            latency__latency=0,
            slow_accept__delay=0,
        ) as driven,
    ):
        pairs = set()
        for _ in range(12):
            before = {name: one["picked"] for name, one in driven.stats.items()}
            with driven.dial() as client:
                exchange(client, b"x")
            after = {name: one["picked"] for name, one in driven.stats.items()}
            pairs.add(tuple(after[name] - before[name] for name in sorted(after)))
        assert len(pairs) > 2


def test_slow_accept_dials_later_and_loses_nothing_of_what_was_sent(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend, on_connect="100:slow_accept", slow_accept__delay=300) as driven,
        threads() as pool,
    ):
        start = time.monotonic()
        with driven.dial() as client:
            assert time.monotonic() - start < 0.3, "the system has completed the handshake"
            sent = pool.submit(client.sendall, b"x" * 3_000_000)
            with backend.accept() as server:
                assert 0.3 - EARLY <= time.monotonic() - start < 0.3 + SOON
                assert receive(server, 3_000_000) == b"x" * 3_000_000
                server.sendall(b"response")
                assert receive(client, 8) == b"response"
            sent.result(PATIENCE)


def test_a_slow_accept_that_the_client_does_not_wait_for_is_given_up(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, on_connect="100:slow_accept", slow_accept__delay=200) as driven,
    ):
        with driven.dial() as client:
            driven.wait_connections(1)
            client.close()
        driven.wait_connections(0)


def test_unanswered_accepts_reads_and_never_answers_nor_dials(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, on_connect="100:unanswered") as driven,
    ):
        with driven.dial() as client:
            client.sendall(b"x" * 5_000_000)  # more than all buffers hold
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert tcp_state(client) == ESTABLISHED
            assert driven.connections == 1
        driven.wait_connections(0)
        assert backend.accepted == 0


def test_unanswered_ends_with_the_idle_timeout(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, on_connect="100:unanswered", timeout=0.4) as driven,
        driven.dial() as client,
    ):
        client.sendall(b"hello?")
        assert receive_all(client) == b""
        driven.wait_connections(0)


def test_dial_fail_is_what_a_client_sees_of_a_backend_that_is_down(rig: Rig) -> None:
    def seen(driven: Driven) -> bytes:
        with driven.dial() as client:
            return receive_all(client)

    down = Acceptor()
    down.stop_listening()
    with (
        Backend(echo) as backend,
        rig.proxy(backend, on_connect="100:dial_fail") as failing,
        rig.proxy(down) as really,
    ):
        assert seen(failing) == seen(really) == b""
        assert backend.accepted == 0
        failing.wait_connections(0)


@pytest.mark.parametrize("name", ["refuse", "slow_accept"])
def test_exact_points_count_clients_of_the_whole_proxy(rig: Rig, name: str) -> None:
    words: dict[str, Any] = {f"{name}__after": 2, f"{name}__times": 1, f"{name}__every": 2}
    with (
        Backend(echo) as backend,
        rig.proxy(
            backend,
            on_connect=f"100:{name}",
            **words,
        ) as driven,
    ):
        met = []
        for number in range(1, 8):
            fired = driven.stats[name]["fired"]
            with contextlib.suppress(ConnectionError), driven.dial() as client:
                client.sendall(b"x")
                client.recv(1)
            driven.wait_connections(0)
            if driven.stats[name]["fired"] > fired:
                met.append(number)
        assert met == [4]


def test_networks_say_who_is_met(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(
            backend, on_connect="100:refuse", refuse__clients="127.0.0.0/8,!127.0.0.5"
        ) as driven,
    ):
        assert_refused(driven)
        host, port = driven.address.rsplit(":", 1)
        spared = socket.create_connection((host, int(port)), PATIENCE, ("127.0.0.5", 0))
        with spared as client:
            assert exchange(client, b"hello") == b"hello"


def connects(address: str) -> bool:
    with contextlib.suppress(ConnectionRefusedError), dial(address):
        return True
    return False


def test_down_is_refused_by_the_system(rig: Rig) -> None:
    with Backend(echo) as backend, rig.proxy(backend, on_connect="100:down") as driven:
        for _ in range(3):
            assert not connects(driven.address)


def test_down_since_and_until_goes_down_and_comes_up_at_the_same_address(
    echo_backend: Backend,
) -> None:
    options = ("--on-connect", "100:down", "--handlers.down.since", 0.8)
    with proxy(echo_backend, *options, "--handlers.down.until", 1.6) as vaurien:
        with vaurien.dial() as client:
            assert exchange(client, b"up") == b"up"
            wait_for(lambda: not connects(vaurien.address), "it is down")
            assert exchange(client, b"stays") == b"stays", "who is connected stays"
            wait_for(lambda: connects(vaurien.address), "it is up again")
            with vaurien.dial() as another:
                assert exchange(another, b"new") == b"new"
        vaurien.wait_log(r"down until 1.6 s")
        vaurien.wait_log(r"default: up\b")
        assert vaurien.stop() == 0
        assert "never fired" not in vaurien.text


def test_down_until_says_so_and_then_listens(echo_backend: Backend) -> None:
    options = ("--on-connect", "100:down", "--handlers.down.until", 0.7)
    with proxy(echo_backend, *options) as vaurien:
        wait_for(lambda: connects(vaurien.address), "it is up")
        with vaurien.dial() as client:
            assert exchange(client, b"hello") == b"hello"
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text


def test_an_address_that_is_taken_is_refused_though_it_is_to_be_down(
    echo_backend: Backend,
) -> None:
    with Backend(echo) as other:
        program = proxy(echo_backend, "--on-connect", "100:down", "--local", other.address)
        program.spawn()
        try:
            if program.process.poll() is None:
                with contextlib.suppress(AssertionError):
                    wait_for(lambda: program.process.poll() is not None)
            assert program.process.poll() == 1, program.text
        finally:
            program.__exit__()


def test_the_port_of_a_listener_that_is_down_is_kept_from_others(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--on-connect", "100:down") as vaurien,
        socket.socket() as other,
    ):
        host, port = vaurien.address.rsplit(":", 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))
        assert unused_port() != int(port)


def test_a_seed_repeats_who_is_met(rig: Rig) -> None:
    seed = seed_for("50:refuse", {})
    found = []
    for _ in range(2):
        with (
            Backend(echo) as backend,
            rig.proxy(backend, on_connect="50:refuse", seed=seed) as driven,
        ):
            met = []
            for _ in range(20):
                try:
                    with driven.dial() as client:
                        met.append(exchange(client, b"x") != b"x")
                except ConnectionError:
                    met.append(True)
            found.append(met)
    assert found[0] == found[1]
    assert len(set(found[0])) == 2
