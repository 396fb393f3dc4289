"""Law 6: memory is bounded: a slow reader stops the reading of its peer, and of nobody else."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from tests.laws.helpers import MB, Acceptor, Flood, digest_of, own, threads, write_module
from tests.support import PATIENCE, Backend, Pipe, Program, proxy, receive, receive_all, resident

STALLED = 5  # connections whose reader reads nothing
GROWTH = 16 * MB  # what the proxy may grow meanwhile: some watermarks, and the interpreter's own
WAYS = {
    "pump": ("100:dummy",),
    "before": ("100:delay", "--handlers.delay.sleep", 0),
    "after": ("100:delay", "--handlers.delay.sleep", 0, "--handlers.delay.before", "no"),
}


def send_until_stuck(sock: socket.socket, block: bytes) -> int:
    """Send until nothing is taken for a second: how many bytes went."""
    sock.settimeout(1)
    n = 0
    with contextlib.suppress(TimeoutError):
        while True:
            n += sock.send(block)
            assert n < 1000 * MB, "it takes whatever comes"
    sock.settimeout(PATIENCE)
    return n


def passing(backend: Backend, way: str) -> Program:
    """A Vaurien that passes everything on."""
    return proxy(backend, "--behavior", *WAYS[way])


@pytest.mark.parametrize("stalled", ["client", "backend"])
@pytest.mark.parametrize("way", WAYS)
def test_a_stalled_reader_costs_bounded_memory_and_stops_nobody_else(
    way: str, stalled: str
) -> None:
    block = b"".join(Flood(MB).blocks())
    with (
        Acceptor() as backend,
        passing(backend, way) as vaurien,
        contextlib.ExitStack() as stack,
        threads() as pool,
    ):
        pairs = [
            (stack.enter_context(vaurien.dial()), stack.enter_context(backend.accept()))
            for _ in range(STALLED + 1)
        ]
        for client, server in pairs:
            client.sendall(b"?")
            assert receive(server, 1) == b"?"
            server.sendall(b"!")
            assert receive(client, 1) == b"!"
        (client, server), *others = pairs
        before = resident(vaurien.pid)
        senders = [pair[stalled == "client"] for pair in others]
        stuck = [pool.submit(send_until_stuck, sock, block) for sock in senders]
        sent = [future.result() for future in stuck]
        assert resident(vaurien.pid) - before < GROWTH

        client.sendall(b"still there?")
        assert receive(server, 12) == b"still there?"
        server.sendall(b"yes")
        assert receive(client, 3) == b"yes"

        # Whoever goes on reading gets all of it; what goes the other way was never held up.
        for pair, n in zip(others, sent, strict=True):
            reader, sender = pair if stalled == "client" else pair[::-1]
            reader.sendall(b"other way")
            assert receive(sender, 9) == b"other way"
            sender.shutdown(socket.SHUT_WR)
            got, made = 0, bytearray()
            while data := reader.recv(1 << 20):
                got += len(data)
                made += data if len(made) < 3 * MB else b""
            assert got == n
            assert bytes(made[: 2 * MB]) == (block * 2)[: len(made)]


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_reader_slows_only_its_own_peer(way: str) -> None:
    flood = Flood(20 * MB)
    with (
        Acceptor() as backend,
        passing(backend, way) as vaurien,
        vaurien.dial() as slow,
        backend.accept() as slow_server,
        vaurien.dial() as fast,
        backend.accept() as fast_server,
        threads() as pool,
    ):
        slow.sendall(b"?")
        assert receive(slow_server, 1) == b"?"
        stuck = pool.submit(flood.send, slow_server)
        assert len(receive(slow, 1000)) == 1000
        fast.sendall(b"?")
        assert receive(fast_server, 1) == b"?"
        sent = pool.submit(flood.send, fast_server)
        assert digest_of(fast, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)
        assert receive(slow, flood.size - 1000) == b"".join(flood.blocks())[1000:]
        stuck.result(PATIENCE)


def test_many_idle_connections_cost_little_memory(echo_backend: Backend) -> None:
    n = 500
    with proxy(echo_backend) as vaurien, contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as warm:
            for _ in range(50):
                warm.enter_context(vaurien.dial()).sendall(b"x")
        before = resident(vaurien.pid)
        for _ in range(n):
            client = stack.enter_context(vaurien.dial())
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert (resident(vaurien.pid) - before) / n < 16_384


def test_a_log_that_nobody_reads_costs_bounded_memory(
    tmp_path: Path, echo_backend: Backend
) -> None:
    # A traceback holds the handler's variables, and those the bytes it has read.
    size, n = 60_000, 1500
    write_module(
        tmp_path,
        f"""
class Raises(BaseHandler):
    name = "raises"
    options = {{}}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = b""
        while len(data) < {size}:
            data += self._get_data(client_sock, backend_sock, to_backend)
        raise ValueError("on purpose")
        """,
    )
    with (
        Pipe() as pipe,
        own(echo_backend, tmp_path, "Raises", stderr=pipe.writer) as vaurien,
    ):

        def provoke(times: int) -> None:
            for _ in range(times):
                with vaurien.dial() as client:
                    client.sendall(b"x" * size)
                    assert receive_all(client) == b""

        provoke(100)
        before = resident(vaurien.pid)
        provoke(n)
        assert resident(vaurien.pid) - before < n * size / 3


def test_a_handler_that_does_not_read_costs_bounded_memory(tmp_path: Path) -> None:
    write_module(
        tmp_path,
        """
class Blind(BaseHandler):
    name = "blind"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        pass
        """,
    )
    block = b"x" * MB
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Blind") as vaurien,
        vaurien.dial() as client,
        vaurien.dial() as other,
    ):
        other.sendall(b"x")
        before = resident(vaurien.pid)
        send_until_stuck(client, block)
        assert resident(vaurien.pid) - before < GROWTH


# What a chain holds (R12 itself is in tests/rivals)


@pytest.mark.parametrize(
    "options",
    [
        ("100:pause", "--handlers.pause.stream", "both"),
        ("100:latency+chain.Plain", "--handlers.latency.latency", 60_000),
        ("100:slicer", "--handlers.slicer.average_size", 1, "--handlers.slicer.delay", 1e6),
    ],
    ids=lambda options: options[0][4:],
)
def test_what_a_chain_holds_is_bounded_by_max_held(
    tmp_path: Path, options: tuple[object, ...]
) -> None:
    n, held = 5, 256 * 1024
    write_module(
        tmp_path,
        """
class Plain(BaseHandler):
    name = "plain"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        self._pass(client_sock, backend_sock, to_backend)
        """,
        "chain",
    )
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", *options, "--max-held", held, cwd=tmp_path) as vaurien,
        contextlib.ExitStack() as stack,
        threads() as pool,
    ):
        pairs = [
            (stack.enter_context(vaurien.dial()), stack.enter_context(backend.accept()))
            for _ in range(n)
        ]
        for client, _ in pairs:
            client.sendall(b"?")
        vaurien.wait_log(f"connection {n}, exchange 1")
        before = resident(vaurien.pid)
        stuck = [pool.submit(send_until_stuck, server, b"x" * MB) for _, server in pairs]
        assert sum(future.result() for future in stuck) > n * held
        # what is held, one chunk more, and what the interpreter keeps for itself
        assert resident(vaurien.pid) - before < n * (held + 65536) * 2 + 4 * MB


def test_max_held_caps_a_delayed_flow_at_held_bytes_over_latency() -> None:
    size = MB
    took = []
    for held in (100_000, 16 * MB):
        options = ("--behavior", "100:latency", "--handlers.latency.latency", 100)
        with (
            Acceptor() as backend,
            proxy(backend, *options, "--max-held", held) as vaurien,
            vaurien.dial() as client,
            backend.accept() as server,
            threads() as pool,
        ):
            client.sendall(b"?")
            assert receive(server, 1) == b"?"
            start = time.monotonic()
            sent = pool.submit(server.sendall, bytes(size))
            assert receive(client, size) == bytes(size)
            took.append(time.monotonic() - start)
            sent.result(PATIENCE)
    capped, free = took
    assert capped >= size / (100_000 + 65536) * 0.1 * 0.9  # one chunk may be over the mark
    assert free < capped / 2


@pytest.mark.parametrize("held", [1, 1000])
def test_a_max_held_that_is_tiny_slows_but_loses_nothing(held: int) -> None:
    flood = Flood(3 * MB)
    options = ("--behavior", "100:latency+slicer", "--handlers.latency.latency", 1)
    with (
        Acceptor() as backend,
        proxy(backend, *options, "--max-held", held) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"?")
        assert receive(server, 1) == b"?"
        sent = pool.submit(flood.send, server)
        assert digest_of(client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)
