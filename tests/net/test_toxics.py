"""Toxics on connections that are in the middle of something: no byte is lost, none comes twice."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.laws.helpers import MB, Acceptor, Flood, digest_of, threads, write_module
from tests.rivals.driver import Driven, Rig
from tests.support import PATIENCE, Backend, echo, exchange, receive, receive_all, wait_for

EARLY = 0.002  # seconds

#: Toxics that lose nothing.
LOSSLESS: dict[str, dict[str, Any]] = {
    "latency": {"latency": 3, "jitter": 3},
    "bandwidth": {"rate": 1e6},
    "slicer": {"average_size": 20_000, "size_variation": 10_000},
    "noop": {},
    "slow_close": {"delay": 10},
    "trickle": {"duration": 1},
    "wave": {"latency": 2, "sine_amplitude": 1, "sine_period": 10},
    "pause": {"time": 5},
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig
        assert "Traceback" not in rig.text, rig.text


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("own")
    write_module(
        directory,
        """
class Plain(BaseHandler):
    name = "plain"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        self._pass(client_sock, backend_sock, to_backend)


class TakeOver(BaseHandler):
    name = "takeover"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not to_backend:
            client_sock.sendall(data)
            return
        backend_sock.sendall(data)
        left = len(data)
        while left and (data := backend_sock.recv(left)):
            left -= len(data)
            client_sock.sendall(data)
""",
        "toxicown",
    )
    return directory


def change(driven: Driven, dice: random.Random, there: dict[str, str]) -> None:
    """Add, change or remove a toxic at random; `there` are those that are, with their stream."""
    kind = dice.choice(list(LOSSLESS))
    options = LOSSLESS[kind]
    if kind not in there:
        there[kind] = dice.choice(["downstream", "upstream", "both"])
        driven.add(kind, stream=there[kind], toxicity=dice.choice([0.5, 1]), **options)
    elif dice.random() < 0.5:
        driven.update(kind, stream=there[kind], toxicity=dice.choice([0, 0.5, 1]), **options)
    else:
        driven.remove(kind)
        del there[kind]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "behavior",
    ["100:dummy", "100:toxicown.Plain", "40:latency,40:bandwidth+toxicown.Plain"],
    ids=["pump", "socket", "mixed"],
)
def test_changes_in_the_middle_of_streams_lose_and_reorder_nothing(
    rig: Rig, own: Path, behavior: str, seed: int
) -> None:
    words: dict[str, Any] = {}
    if "latency" in behavior:
        words = {"latency__latency": 2, "bandwidth__rate": 1e6}
    flood = Flood(5 * MB, seed)
    dice = random.Random(seed)

    def send(sock: socket.socket) -> None:
        flood.send(sock)
        sock.shutdown(socket.SHUT_WR)

    with (
        Backend(echo) as backend,
        rig.proxy(backend, behavior, path=own, seed=seed, **words) as driven,
        contextlib.ExitStack() as stack,
        threads() as pool,
    ):
        socks = [stack.enter_context(driven.dial()) for _ in range(3)]
        sent = [pool.submit(send, sock) for sock in socks]
        got = [pool.submit(digest_of, sock) for sock in socks]
        there: dict[str, str] = {}
        changes = 0
        while not all(future.done() for future in got) and changes < 400:
            change(driven, dice, there)
            changes += 1
        assert [future.result(PATIENCE) for future in got] == [(flood.size, flood.digest())] * 3
        for future in sent:
            future.result(PATIENCE)
        driven.wait_connections(0)
        assert changes > 10
    assert backend.errors == []


@pytest.mark.parametrize("behavior", ["100:toxicown.TakeOver", "50:toxicown.TakeOver,25:latency"])
def test_changes_between_requests_and_responses_keep_each_answer_right(
    rig: Rig, own: Path, behavior: str
) -> None:
    dice = random.Random(5)
    words: dict[str, Any] = {"latency__latency": 2} if "latency" in behavior else {}
    with (
        Backend(echo) as backend,
        rig.proxy(backend, behavior, path=own, seed=1, **words) as driven,
        contextlib.ExitStack() as stack,
    ):
        socks = [stack.enter_context(driven.dial()) for _ in range(3)]
        there: dict[str, str] = {}
        for number in range(60):
            asked = {
                sock: b"%d " % dice.randrange(10**6) * dice.choice([1, 9000]) for sock in socks
            }
            for sock, word in asked.items():
                sock.sendall(word)
                change(driven, dice, there)
            for sock, word in asked.items():
                assert receive(sock, len(word)) == word, number


def test_an_end_that_waits_behind_a_slow_reader_survives_toxics_that_come_and_go(rig: Rig) -> None:
    flood = Flood(6 * MB)
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"?")
        assert receive(server, 1) == b"?"

        def send_and_close() -> None:
            flood.send(server)
            server.shutdown(socket.SHUT_WR)

        sent = pool.submit(send_and_close)
        wait_for(lambda: sent.done() or not select.select([], [server], [], 0.2)[1])
        driven.add("latency", latency=10)
        assert len(receive(client, MB)) == MB
        driven.remove("latency")
        driven.add("slow_close", delay=10)
        rest = receive_all(client)
        assert len(rest) == flood.size - MB
        assert rest == b"".join(flood.blocks())[MB:]
        sent.result(PATIENCE)


def test_a_toxic_acts_on_connections_that_come_later_from_their_first_byte(rig: Rig) -> None:
    with Acceptor() as backend, rig.proxy(backend) as driven:
        driven.add("corrupt", "up", stream="upstream", offset=0)
        driven.add("corrupt", "down", offset=1)
        with driven.dial() as client, backend.accept() as server:
            server.sendall(b"greeting")  # before the client has spoken
            got = receive(client, 8)
            assert got != b"greeting" and got[2:] == b"eeting" and got[:1] == b"g"
            client.sendall(b"request")
            got = receive(server, 7)
            assert got != b"request" and got[1:] == b"equest"
            assert driven.stats["toxic down"]["fired"] <= 1


def test_toxicity_is_the_share_of_connections_that_are_hit_each_for_good(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, seed=1) as driven,
        contextlib.ExitStack() as stack,
    ):
        driven.add("corrupt", toxicity=0.3, chance=100)
        socks = [stack.enter_context(driven.dial()) for _ in range(100)]
        hits = [[exchange(sock, b"UUUU") != b"UUUU" for sock in socks] for _ in range(3)]
        assert hits[0] == hits[1] == hits[2]
        assert 15 <= sum(hits[0]) <= 45


def test_a_toxic_that_comes_while_a_handler_holds_the_request_acts_on_the_answer(
    rig: Rig,
) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, "100:delay", delay__sleep=0.3) as driven,
        driven.dial() as client,
    ):
        start = time.monotonic()
        client.sendall(b"request")
        wait_for(lambda: driven.stats["delay"]["picked"])
        driven.add("latency", latency=300)
        assert receive(client, 7) == b"request"
        assert time.monotonic() - start >= 0.6 - EARLY
        driven.remove("latency")
        start = time.monotonic()
        assert exchange(client, b"again") == b"again"
        assert 0.3 - EARLY <= time.monotonic() - start < 0.6


def test_what_a_toxic_did_is_counted(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
    ):
        driven.add("latency", "my own", latency=1)
        for _ in range(3):
            assert exchange(client, b"hello") == b"hello"
        client.close()
        driven.wait_connections(0)
        assert driven.stats["toxic my own"]["fired"] == 3
        assert driven.stats["toxic my own"]["bytes"] == 30


def test_a_toxic_gone_leaves_the_connection_as_if_it_had_not_been(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        for kind in ("pause", "blackhole", "latency"):
            driven.add(kind, stream="both")
            driven.remove(kind)
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"request"
        server.sendall(b"response")
        server.shutdown(socket.SHUT_WR)
        assert receive(client, 8) == b"response"
        assert client.recv(1) == b""
        driven.wait_connections(0)
