"""What is counted: what was received and is neither dropped nor held was sent, live."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.laws.helpers import MB, Acceptor, Flood, digest_of, threads, unused_port, write_module
from tests.rivals.driver import Driven, Rig
from tests.support import PATIENCE, Backend, echo, exchange, receive, receive_all, reset, wait_for
from vaurien.counts import Directions, Totals

OWN = """
class Plain(BaseHandler):
    name = "plain"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        self._pass(client_sock, backend_sock, to_backend)


class Half(BaseHandler):
    '''Passes on the first half of what it gets, twice the first byte, and forgets the rest.'''
    name = "half"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        sink = backend_sock if to_backend else client_sock
        if data:
            sink.sendall(data[: len(data) // 2] + data[:1])


class Eager(BaseHandler):
    '''Does not block.'''
    name = "eager"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = client_sock, backend_sock
        if not to_backend:
            source, sink = backend_sock, client_sock
        data = source.recv(65536)
        sink.settimeout(0)
        while data:
            try:
                data = data[sink.send(data):]
            except BlockingIOError:
                gevent.sleep(0.001)


class Takes(BaseHandler):
    '''The request, the answer: all in one call.'''
    name = "takes"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not data:
            return
        backend_sock.sendall(data)
        left = len(data)
        while left:
            answer = backend_sock.recv(left)
            left -= len(answer)
            client_sock.sendall(answer)


class Raises(BaseHandler):
    name = "raises"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        raise RuntimeError
"""
FLOWS = """
from vaurien.handlers import FlowHandler


class Picky(FlowHandler):
    name = "picky"
    options = {}
    wants_begin = True

    def on(self, event, now):
        raise RuntimeError
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("own")
    write_module(directory, OWN, "totalsown")
    (directory / "totalsflow.py").write_text(FLOWS)
    return directory


def fill(sock: socket.socket) -> int:
    """Send until nobody takes any more; how many bytes that were."""
    n = 0
    sock.settimeout(0.5)
    try:
        while True:
            n += sock.send(b"x" * 65536)
    except TimeoutError:
        sock.settimeout(PATIENCE)
        return n


def accepted(driven: Driven, n: int) -> bool:
    """Whether it has accepted `n` connections."""
    return driven.totals.connections == n


def moved(driven: Driven, received: tuple[int, int], sent: tuple[int, int]) -> Totals:
    """The totals, once they say so; upstream first."""
    want = (Directions(*received), Directions(*sent))

    def said() -> bool:
        totals = driven.totals
        return (totals.received, totals.sent) == want

    try:
        wait_for(said)
    except AssertionError:
        totals = driven.totals
        assert (totals.received, totals.sent) == want
    return driven.totals


@pytest.mark.parametrize(
    "behavior",
    [
        "100:dummy",
        "100:latency",
        "100:noop",
        "100:slicer",
        "100:delay",
        "100:totalsown.Plain",
        "100:totalsown.Eager",
        "100:totalsown.Takes",
        "100:latency+totalsown.Plain",
        "100:latency+totalsown.Takes",
    ],
)
def test_what_is_lossless_sends_what_it_receives_while_the_connection_is_open(
    rig: Rig, own: Path, behavior: str
) -> None:
    words = {"latency__latency": 3} if "latency" in behavior else {}
    words |= {"delay__sleep": 0} if "delay" in behavior else {}
    with Backend(echo) as backend, rig.proxy(backend, behavior, path=own, **words) as driven:
        with driven.dial() as first, driven.dial() as second:
            for number in range(1, 6):
                exchange(first, b"x" * 1000)
                exchange(second, b"y" * 10)
                totals = moved(driven, (1010 * number,) * 2, (1010 * number,) * 2)
                assert totals.exchanges == 2 * number
                assert totals.connections_open == 2
            first.shutdown(socket.SHUT_WR)
            assert first.recv(1) == b""
            driven.wait_connections(1)
            moved(driven, (5050, 5050), (5050, 5050))
        driven.wait_connections(0)
        totals = moved(driven, (5050, 5050), (5050, 5050))
        assert (totals.exchanges, totals.connections) == (10, 2)


@pytest.mark.parametrize("behavior", ["100:dummy", "100:noop", "100:totalsown.Plain"])
def test_megabytes_are_counted_to_the_byte(rig: Rig, own: Path, behavior: str) -> None:
    flood = Flood(8 * MB)

    def send(sock: socket.socket) -> None:
        flood.send(sock)
        sock.shutdown(socket.SHUT_WR)

    with (
        Backend(echo) as backend,
        rig.proxy(backend, behavior, path=own) as driven,
        driven.dial() as client,
        threads() as pool,
    ):
        sent = pool.submit(send, client)
        assert digest_of(client) == (flood.size, flood.digest())
        sent.result(PATIENCE)
        moved(driven, (flood.size,) * 2, (flood.size,) * 2)


def test_what_latency_holds_is_received_and_not_yet_sent(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(
            backend, "100:latency", latency__latency=400, latency__stream="upstream"
        ) as driven,
        driven.dial() as client,
    ):
        client.sendall(b"x" * 100)
        moved(driven, (100, 0), (0, 0))
        assert receive(client, 100) == b"x" * 100
        moved(driven, (100, 100), (100, 100))


def test_what_a_slow_reader_does_not_take_is_received_and_not_yet_sent(rig: Rig) -> None:
    with Acceptor() as backend, rig.proxy(backend) as driven, driven.dial() as client:
        server = backend.accept()
        sent = fill(client)
        totals = driven.totals
        assert 0 < totals.received.upstream - totals.sent.upstream <= 65536
        assert totals.received.upstream <= sent
        assert receive(server, sent) == b"x" * sent
        moved(driven, (sent, 0), (sent, 0))


@pytest.mark.parametrize(
    ("behavior", "words", "passed"),
    [
        ("100:truncate", {"truncate__bytes": 30}, 30),
        ("100:limit_data", {"limit_data__bytes": 30}, 30),
        ("100:hang", {}, 0),
        ("100:totalsown.Half", {}, None),
    ],
)
def test_what_handlers_drop_is_received_and_not_sent(
    rig: Rig, own: Path, behavior: str, words: dict[str, Any], passed: int | None
) -> None:
    with Acceptor() as backend, rig.proxy(backend, behavior, path=own, **words) as driven:
        with driven.dial() as client:
            server = backend.accept()
            client.sendall(b"q" * 4)
            there = b""
            if passed is None:
                there = receive(server, 3)
            elif "hang" not in behavior:
                there = receive(server, 4)
            moved(driven, (4, 0), (len(there), 0))  # before: what comes first is of no exchange
            server.sendall(b"x" * 100)
            answer = 51 if passed is None else passed
            assert receive(client, answer) == b"x" * answer
            moved(driven, (4, 100), (len(there), answer))
            reset(client)
            reset(server)
        driven.wait_connections(0)
        moved(driven, (4, 100), (len(there), answer))


def test_what_error_adds_is_sent_and_was_never_received(rig: Rig) -> None:
    with Backend(echo) as backend, rig.proxy(backend, "100:error", error__inject=True) as driven:
        with driven.dial() as client:
            exchange(client, b"x" * 50, 150)
            moved(driven, (50, 50), (50, 150))
        driven.wait_connections(0)
        moved(driven, (50, 50), (50, 150))


def test_a_half_closed_connection_goes_on_counting(rig: Rig) -> None:
    with Acceptor() as backend, rig.proxy(backend) as driven, driven.dial() as client:
        server = backend.accept()
        client.sendall(b"x" * 10)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"x" * 10
        for number in range(1, 4):
            server.sendall(b"y" * 1000)
            assert receive(client, 1000) == b"y" * 1000
            moved(driven, (10, 1000 * number), (10, 1000 * number))


def test_what_is_lost_to_a_reset_is_not_sent(rig: Rig) -> None:
    with Acceptor() as backend, rig.proxy(backend) as driven:
        client = driven.dial()
        server = backend.accept()
        fill(client)
        got = receive(server, 1000)
        reset(server)
        driven.wait_connections(0)
        client.close()
        totals = driven.totals
        lost = totals.received.upstream - totals.sent.upstream
        assert len(got) <= totals.sent.upstream < totals.received.upstream
        assert lost <= 65536 * 2


def test_what_is_held_at_a_polite_end_is_sent_then(rig: Rig) -> None:
    with Acceptor() as backend, rig.proxy(backend, timeout=1) as driven:  # idle: a polite end
        with driven.dial() as client:
            server = backend.accept()
            fill(client)
            totals = driven.totals
            held = totals.received.upstream - totals.sent.upstream
            assert held > 0
            assert client.recv(1) == b""  # the end has come, though not for the backend
            receive_all(server)
        driven.wait_connections(0)
        assert driven.totals.sent.upstream == driven.totals.received.upstream


@pytest.mark.parametrize("behavior", ["100:totalsown.Raises", "100:totalsflow.Picky"])
def test_what_a_handler_that_raises_was_given_is_not_sent(
    rig: Rig, own: Path, behavior: str
) -> None:
    with Backend(echo) as backend, rig.proxy(backend, behavior, path=own) as driven:
        with driven.dial() as client:
            client.sendall(b"x" * 10)
            receive_all(client)
        driven.wait_connections(0)
        totals = moved(driven, (10, 0), (0, 0))
        assert totals.handler_errors == 1
        assert totals.internal_errors == 0


def test_clients_that_refuse_meets_are_counted_and_others_not(rig: Rig) -> None:
    for behavior, refused in (("refuse", 3), ("dial_fail", 0), ("slow_accept", 0)):
        with (
            Backend(echo) as backend,
            rig.proxy(backend, on_connect=f"100:{behavior}", slow_accept__delay=1) as driven,
        ):
            for number in range(3):
                with contextlib.suppress(ConnectionError), driven.dial() as client:
                    client.sendall(b"x")
                    client.recv(1)
                wait_for(partial(accepted, driven, number + 1))
            driven.wait_connections(0)
            assert (driven.totals.connections, driven.totals.refused) == (3, refused)


def test_failed_dials_are_counted(rig: Rig) -> None:
    with Acceptor() as backend:
        backend.address = f"127.0.0.1:{unused_port()}"
        with rig.proxy(backend) as driven, driven.dial() as client:
            assert client.recv(1) == b""
            assert driven.totals.failed_dials == 1
            assert driven.totals.refused == 0


def test_what_toxics_did_stays_by_their_types_when_they_go(rig: Rig) -> None:
    with Backend(echo) as backend, rig.proxy(backend, "100:noop") as driven:
        for number in range(1, 4):
            driven.add("latency", name=f"mine {number}", latency=1)
            driven.add("noop", name=f"other {number}")
            with driven.dial() as client:
                exchange(client, b"x")
            driven.wait_connections(0)
            driven.remove(f"mine {number}")
            driven.remove(f"other {number}")
            assert driven.done == {"noop": driven.done["noop"], "latency": number}
        assert set(driven.stats) == {"noop"}


@pytest.mark.parametrize("seed", range(3))
def test_numbers_hold_while_toxics_come_and_go_in_the_middle_of_a_stream(
    rig: Rig, own: Path, seed: int
) -> None:
    flood = Flood(4 * MB, seed)
    dice = random.Random(seed)

    def send(sock: socket.socket) -> None:
        flood.send(sock)
        sock.shutdown(socket.SHUT_WR)

    behavior = ("100:dummy", "100:totalsown.Plain", "50:slicer,50:totalsown.Plain")[seed]
    with (
        Backend(echo) as backend,
        rig.proxy(backend, behavior, path=own, seed=seed) as driven,
        driven.dial() as client,
        threads() as pool,
    ):
        sent = pool.submit(send, client)
        got = pool.submit(digest_of, client)
        before = driven.totals
        for _ in range(100):
            if got.done():
                break
            kind = dice.choice(["latency", "slicer", "noop", "pause"])
            driven.add(kind, stream=dice.choice(["upstream", "downstream", "both"]))
            totals = driven.totals
            for way in ("received", "sent"):
                for one, other in zip(getattr(before, way), getattr(totals, way), strict=True):
                    assert one <= other, "a counter went down"
            assert all(s <= r for s, r in zip(totals.sent, totals.received, strict=True)), (
                "more was sent than received"
            )
            before = totals
            driven.remove(kind)
        sent.result(PATIENCE)
        assert got.result(PATIENCE) == (flood.size, flood.digest())
        moved(driven, (flood.size,) * 2, (flood.size,) * 2)


def test_numbers_hold_while_the_behavior_changes_in_the_middle_of_a_stream(rig: Rig) -> None:
    flood = Flood(6 * MB)
    behaviors = ("100:dummy", "100:latency", "100:noop", "100:slicer")

    def send(sock: socket.socket) -> None:
        flood.send(sock)
        sock.shutdown(socket.SHUT_WR)

    with (
        Backend(echo) as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        threads() as pool,
    ):
        sent = pool.submit(send, client)
        got = pool.submit(digest_of, client)
        before, done = driven.totals, driven.done
        for number in range(60):
            if got.done():
                break
            driven.behave(behaviors[number % 4], latency__latency=5)
            totals = driven.totals
            pairs = [
                (a, b)
                for way in ("received", "sent")
                for a, b in zip(getattr(before, way), getattr(totals, way), strict=True)
            ]
            pairs += [(n, driven.done[name]) for name, n in done.items()]
            assert all(a <= b for a, b in pairs), "a counter went down"
            assert totals.sent.upstream <= totals.received.upstream
            assert totals.sent.downstream <= totals.received.downstream
            before, done = totals, driven.done
        sent.result(PATIENCE)
        assert got.result(PATIENCE) == (flood.size, flood.digest())
        moved(driven, (flood.size,) * 2, (flood.size,) * 2)
