"""R5 to R9, R12, R13 and R15 of rivals.md, over real sockets."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.laws.helpers import MB, Acceptor, Flood, assert_fin, digest_of, threads
from tests.rivals.differences import differs
from tests.rivals.driver import Driven, Rig
from tests.support import (
    PATIENCE,
    Backend,
    echo,
    exchange,
    receive,
    receive_all,
    resident,
    wait_for,
)

EARLY = 0.002  # seconds
CROWD = 40  # connections; R8's number

#: Every toxic, with options that nobody could overlook.
LOUD: dict[str, dict[str, Any]] = {
    "latency": {"latency": 60_000},
    "bandwidth": {"rate": 1},
    "slicer": {"average_size": 1, "delay": 1e6},
    "slow_close": {"delay": 60_000},
    "timeout": {"timeout": 1},
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 1},
    "noop": {},
    "corrupt": {"chance": 100},
    "cut": {"how": "reset"},
    "truncate": {"bytes": 1},
    "blackhole": {},
    "pause": {},
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig
        assert "Traceback" not in rig.text, rig.text


def spoilt(socks: list[socket.socket]) -> list[bool]:
    """Which of the connections a toxic hits that corrupts."""
    for sock in socks:
        sock.sendall(b"UUUU")
    return [receive(sock, 4) != b"UUUU" for sock in socks]


@contextlib.contextmanager
def crowd(driven: Driven, n: int = CROWD) -> Iterator[list[socket.socket]]:
    """Some open connections, numbered in their order."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(n):
            socks.append(stack.enter_context(driven.dial()))
            assert exchange(socks[-1], b"x") == b"x"
        yield socks


@differs("polite-ends")
def test_r5_toxicity_0_does_nothing_at_all(rig: Rig) -> None:
    flood = Flood(8 * MB)
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        threads() as pool,
    ):
        for stream in ("upstream", "downstream"):
            for kind, options in LOUD.items():
                driven.add(kind, f"{kind}_{stream}", stream=stream, toxicity=0, **options)
        with driven.dial() as client, backend.accept() as server:
            client.sendall(b"request")
            assert receive(server, 7) == b"request"
            sent = pool.submit(flood.send, server)
            assert digest_of(client, flood.size) == (flood.size, flood.digest())
            sent.result(PATIENCE)
            server.shutdown(socket.SHUT_WR)
            assert_fin(client)
            client.shutdown(socket.SHUT_WR)
            assert receive_all(server) == b""
        assert not any(one["fired"] for one in driven.stats.values()), driven.stats


@differs("reset-peer-open")
def test_r6_reset_peer_added_to_an_open_connection_sends_a_rst(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
        driven.dial() as silent,
        backend.accept() as silent_server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        driven.add("reset_peer", timeout=50)
        assert not select.select([client, silent], [], [], 0.3)[0]  # nothing was sent since
        for sock, other in ((client, server), (silent, silent_server)):
            other.sendall(b"response")
            for one in (sock, other):
                with pytest.raises(ConnectionResetError):
                    one.recv(1)


@differs("timeout-clock")
def test_r7_timeout_fires_after_1_s_though_a_byte_comes_every_200_ms(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        start = time.monotonic()
        driven.add("timeout", timeout=1000)
        with contextlib.suppress(ConnectionError):
            while not select.select([client], [], [], 0.2)[0]:
                assert time.monotonic() - start < 2
                server.sendall(b".")
                client.sendall(b".")
        assert client.recv(1) == b""
        assert 1 - EARLY <= time.monotonic() - start < 2


@differs("toxicity-once")
def test_r8_adding_changing_and_removing_a_toxic_redraws_no_other_toxics_dice(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, seed=3) as driven,
        crowd(driven) as socks,
    ):
        driven.add("corrupt", toxicity=0.5, chance=100)
        hit = spoilt(socks)
        assert 5 < sum(hit) < CROWD - 5
        driven.add("latency", toxicity=0.5, latency=1)
        assert spoilt(socks) == hit
        driven.update("latency", toxicity=0.9, latency=2)
        assert spoilt(socks) == hit
        driven.add("noop", stream="upstream", toxicity=0.3)
        driven.remove("latency")
        assert spoilt(socks) == hit
        driven.update("corrupt", toxicity=0.5, chance=99.99)
        assert spoilt(socks) == hit
        driven.remove("corrupt")
        assert not any(spoilt(socks))
        driven.add("corrupt", toxicity=0.5, chance=100)
        assert spoilt(socks) == hit


def test_r9_adding_a_toxic_releases_no_bytes_that_another_holds(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        driven.add("latency", latency=1000)
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        start = time.monotonic()
        server.sendall(b"response")
        for wait, kind in enumerate(("noop", "bandwidth", "slow_close")):
            assert not select.select([client], [], [], 0.1)[0]
            driven.add(kind, stream="both" if wait else "downstream")
        driven.update("noop", toxicity=0.5)
        driven.remove("slow_close")
        assert receive(client, 8) == b"response"
        assert 1 - EARLY <= time.monotonic() - start < 2


def test_r12_seconds_of_latency_before_a_streaming_backend_cost_bounded_memory(rig: Rig) -> None:
    n = 5
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        contextlib.ExitStack() as stack,
        threads() as pool,
    ):
        driven.add("latency", latency=5000)
        pairs = [
            (stack.enter_context(driven.dial()), stack.enter_context(backend.accept()))
            for _ in range(n)
        ]
        before = resident(rig.pid)
        sent = []
        for client, server in pairs:
            client.sendall(b"?")
            assert receive(server, 1) == b"?"
            sent.append(pool.submit(server.sendall, b"x" * 40 * MB))
        servers = [server for _, server in pairs]
        wait_for(lambda: not select.select([], servers, [], 0.5)[1], "all senders are held up")
        # Each flow holds --max-held, 1 MiB, and what its objects take; Toxiproxy's held 33 MB.
        assert resident(rig.pid) - before < n * 2.5 * MB
        driven.remove("latency")
        for client, _ in pairs:
            assert len(receive(client, 40 * MB)) == 40 * MB
        for future in sent:
            future.result(PATIENCE)


def test_r13_the_seed_repeats_decisions_under_concurrency_and_events_differ() -> None:
    runs = []
    with Backend(echo) as backend:
        for seed in (7, 7, 8):
            with (
                Rig() as rig,
                rig.proxy(backend, "40:corrupt", seed=seed, corrupt__chance=50) as driven,
                crowd(driven, 0),
                contextlib.ExitStack() as stack,
                threads() as pool,
            ):
                socks = []
                for n in range(1, 13):
                    socks.append(stack.enter_context(driven.dial()))
                    driven.wait_connections(n)  # so that the numbers are in order

                def talk(sock: socket.socket) -> tuple[bytes, ...]:
                    return tuple(exchange(sock, bytes(32)) for _ in range(8))

                runs.append(list(pool.map(talk, socks)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    answers = [answer for connection in runs[0] for answer in connection if any(answer)]
    assert len(set(answers)) == len(answers) > 20


def test_r15_a_reader_stalled_for_over_5_s_during_a_removal_loses_no_byte(rig: Rig) -> None:
    flood = Flood(30 * MB)
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        driven.add("latency", latency=100)
        driven.add("slicer", average_size=5000)
        client.sendall(b"?")
        assert receive(server, 1) == b"?"
        sent = pool.submit(flood.send, server)
        wait_for(lambda: not select.select([], [server], [], 0.3)[1], "the sender is held up")
        start = time.monotonic()
        driven.remove("latency")
        driven.update("slicer", average_size=7000)
        driven.add("bandwidth", rate=1e6)
        driven.remove("slicer")
        nobody_reads = threading.Event()
        assert not nobody_reads.wait(5.1 - (time.monotonic() - start))
        assert not sent.done()
        assert digest_of(client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)
