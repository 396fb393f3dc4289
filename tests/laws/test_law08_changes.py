"""Law 8: a change to one toxic changes nothing about another; what it holds goes on, in order.

That no dice are redrawn and nothing is released early is R8 and R9 (tests/rivals).
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.laws.helpers import MB, Acceptor, Flood, assert_fin, digest_of, threads
from tests.rivals.driver import Driven, Refused, Rig
from tests.support import PATIENCE, receive, receive_all

EARLY = 0.002  # seconds
SOON = 0.9


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig
        assert "Traceback" not in rig.text, rig.text


@contextlib.contextmanager
def open_one(rig: Rig) -> Iterator[tuple[Driven, Any, Any]]:
    """A proxy, and the two ends of a connection through it that has seen a request."""
    with (
        Acceptor() as backend,
        rig.proxy(backend) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        yield driven, client, server


def silent(sock: Any, seconds: float = 0.1) -> bool:
    return not select.select([sock], [], [], seconds)[0]


def test_a_removed_toxics_bytes_pass_on_at_once_in_order(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("latency", latency=60_000)
        server.sendall(b"one ")
        assert silent(client)
        server.sendall(b"two ")
        assert silent(client)
        start = time.monotonic()
        driven.remove("latency")
        server.sendall(b"three")
        assert receive(client, 13) == b"one two three"
        assert time.monotonic() - start < SOON


def test_what_a_removed_toxic_held_still_passes_the_next_one(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("latency", "long", latency=60_000)
        driven.add("latency", "short", latency=300)
        server.sendall(b"response")
        assert silent(client)
        start = time.monotonic()
        driven.remove("long")
        assert receive(client, 8) == b"response"
        assert 0.3 - EARLY <= time.monotonic() - start < 0.3 + SOON


def test_a_paused_flow_goes_on_when_the_pause_is_removed_and_has_lost_nothing(rig: Rig) -> None:
    flood = Flood(20 * MB)
    with open_one(rig) as (driven, client, server), threads() as pool:
        driven.add("pause")
        sent = pool.submit(flood.send, server)
        assert silent(client, 0.5)
        driven.remove("pause")
        assert digest_of(client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)


def test_a_blackhole_drops_until_it_is_removed(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("blackhole", stream="upstream")
        client.sendall(b"dropped")
        assert silent(server)
        driven.remove("blackhole")
        client.sendall(b"passed")
        assert receive(server, 6) == b"passed"


def test_an_update_passes_on_what_was_held(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("latency", latency=60_000)
        server.sendall(b"held ")
        assert silent(client)
        start = time.monotonic()
        driven.update("latency", latency=300)
        assert receive(client, 5) == b"held "
        assert time.monotonic() - start < 0.3
        start = time.monotonic()
        server.sendall(b"new")
        assert receive(client, 3) == b"new"
        assert 0.3 - EARLY <= time.monotonic() - start < 0.3 + SOON


def test_an_update_keeps_the_state(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("limit_data", bytes=100)
        server.sendall(b"0123")
        assert receive(client, 4) == b"0123"
        driven.update("limit_data", bytes=6)
        server.sendall(b"456789")
        assert receive(client, 3) == b"45"
        assert_fin(client)


@pytest.mark.parametrize(("kind", "word"), [("timeout", "timeout"), ("cut", "time")])
def test_an_update_restarts_the_clock(rig: Rig, kind: str, word: str) -> None:
    first: dict[str, Any] = {word: 600}
    second: dict[str, Any] = {word: 500}
    with open_one(rig) as (driven, client, _):
        start = time.monotonic()
        driven.add(kind, **first)
        assert silent(client, 0.3)
        driven.update(kind, **second)
        assert receive_all(client) == b""
        assert 0.8 - 2 * EARLY <= time.monotonic() - start < 0.8 + SOON


def test_a_new_toxic_gets_open_at_once_on_open_connections(rig: Rig) -> None:
    # Its clock runs though nothing is sent, before the first byte and after.
    with (
        open_one(rig) as (driven, client, _),
        driven.dial() as silent_one,
    ):
        driven.wait_connections(2)
        start = time.monotonic()
        driven.add("cut", time=300, stream="upstream")
        for sock in (client, silent_one):
            assert receive_all(sock) == b""
        assert 0.3 - EARLY <= time.monotonic() - start < 0.3 + SOON


def test_toxics_act_in_the_order_in_which_they_were_added(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("corrupt", offset=5)
        driven.add("limit_data", bytes=6)
        server.sendall(b"response")
        got = receive_all(client)
        assert got[:5] == b"respo" and len(got) == 6 and got[5:] != b"n"


def test_toxics_act_before_what_the_behavior_picks(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend, "100:error", seed=1) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        driven.add("latency", latency=250)
        driven.add("truncate", bytes=4)
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        start = time.monotonic()
        server.sendall(b"response")
        got = receive_all(client)
        assert len(got) == 4 and got != b"resp"
        assert time.monotonic() - start >= 0.25 - EARLY


def test_a_removed_timeout_closes_its_connections(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("timeout", timeout=0)
        server.sendall(b"dropped")
        assert silent(client)
        driven.remove("timeout")
        assert_fin(client)
        assert receive_all(server) == b""


@pytest.mark.parametrize("change", ["nothing", "hits", "misses"])
def test_a_toxic_acts_where_its_draw_is_below_its_toxicity_as_it_is_now(
    rig: Rig, change: str
) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("corrupt", toxicity=0 if change == "hits" else 1, chance=100)
        if change != "nothing":
            driven.update("corrupt", toxicity=1 if change == "hits" else 0, chance=100)
        server.sendall(b"response")
        assert (receive(client, 8) == b"response") == (change == "misses")


def test_what_is_no_toxic_is_refused_with_a_sentence(rig: Rig) -> None:
    with open_one(rig) as (driven, client, server):
        driven.add("latency", latency=0)
        wrongs: list[tuple[Callable[[], None], str]] = [
            (lambda: driven.add("latency"), "already exists"),
            (lambda: driven.remove("latncy"), "did you mean 'latency'?"),
            (lambda: driven.update("noop"), "there is no toxic 'noop'"),
            (lambda: driven.update("noop", "latency"), "keeps its type and stream"),
            (lambda: driven.update("latency", stream="upstream"), "keeps its type and stream"),
            (lambda: driven.add("latency", "new", toxicity=1.5), "toxicity 1.5"),
            (lambda: driven.add("latency", "new", toxicity=float("nan")), "toxicity nan"),
            (lambda: driven.add("latency", "new", jiter=3), "did you mean 'jitter'?"),
            (lambda: driven.add("latency", "new", latency=-1), "less than 0"),
            (lambda: driven.add("error", "new"), "not a flow handler"),
            (lambda: driven.add("refuse", "new"), "not a flow handler"),
        ]
        for wrong, words in wrongs:
            with pytest.raises(Refused, match=words.replace("?", r"\?")):
                wrong()
        server.sendall(b"response")
        assert receive(client, 8) == b"response"


def test_changes_do_not_wait_for_stalled_clients(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend, "100:latency", latency__latency=100) as driven,
        contextlib.ExitStack() as stack,
        threads() as pool,
    ):
        sent, ends = [], []
        for _ in range(5):
            client = stack.enter_context(driven.dial())
            server = stack.enter_context(backend.accept())
            client.sendall(b"?")
            assert receive(server, 1) == b"?"
            ends += [client, server]
            sent.append(pool.submit(server.sendall, bytes(20 * MB)))
        for kind in ("latency", "bandwidth", "pause", "slicer", "noop"):
            driven.add(kind, f"my {kind}")
            driven.update(kind, f"my {kind}")
            driven.remove(f"my {kind}")
        driven.add("reset_peer")  # which ends all of it
        driven.wait_connections(0)
        for future in sent:
            assert isinstance(future.exception(PATIENCE), (ConnectionError, type(None)))
