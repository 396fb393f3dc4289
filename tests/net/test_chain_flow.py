"""Flow handlers over real sockets: what each does to an exchange, alone and before others.

Their arithmetic is tested in virtual time (tests/flow, tests/handlers); here is what the two ends
see. A delay is never shorter than asked; how much longer it is, is the machine's affair.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.laws.helpers import (
    MB,
    Acceptor,
    Flood,
    assert_fin,
    digest_of,
    seed_for,
    threads,
    write_module,
)
from tests.rivals.driver import Driven, Rig
from tests.support import (
    PATIENCE,
    Backend,
    echo,
    exchange,
    proxy,
    receive,
    receive_all,
    reset,
    resident,
    wait_for,
)

EARLY = 0.002  # seconds: how early a timestamp of ours may be
SOON = 0.9  # seconds: what is not delayed takes less, on any machine

#: A handler that asks the backend itself, and one that does little.
OWN = """
class Ask(BaseHandler):
    name = "ask"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if to_backend and data:
            backend_sock.sendall(data)
            answer = b""
            while len(answer) < len(data):
                piece = backend_sock.recv(len(data) - len(answer))
                if not piece:
                    return False
                answer += piece
            client_sock.sendall(answer.upper())
        elif data:
            client_sock.sendall(data)


class Plain(BaseHandler):
    name = "plain"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        self._pass(client_sock, backend_sock, to_backend)
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig
        assert "Traceback" not in rig.text, rig.text


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("own")
    write_module(directory, OWN, "chained")
    return directory


class Pair:
    """A client and the backend's end of its connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    def ask(self, request: bytes, answer: bytes | None = None) -> None:
        """Send `request`, wait for it at the backend, and let that send `answer`."""
        self.client.sendall(request)
        assert receive(self.server, len(request)) == request
        if answer is not None:
            self.server.sendall(answer)

    def took(self, answer: bytes) -> float:
        """How long it takes until the backend's `answer` has come to the client."""
        start = time.monotonic()
        self.server.sendall(answer)
        assert receive(self.client, len(answer)) == answer
        return time.monotonic() - start


@contextlib.contextmanager
def pair(rig: Rig, behavior: str, **words: Any) -> Iterator[Pair]:
    with (
        Acceptor() as backend,
        rig.proxy(backend, behavior, **words) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        yield Pair(client, server)


def quiet(*socks: socket.socket, seconds: float = 0.12) -> bool:
    """Whether there is nothing to read, not even an end, for a while."""
    return not select.select(socks, [], [], seconds)[0]


def assert_rst(sock: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        receive_all(sock)


# Each family alone


def test_latency_delays_the_response_and_not_the_request(rig: Rig) -> None:
    with pair(rig, "100:latency", latency__latency=300) as ends:
        start = time.monotonic()
        ends.ask(b"request")
        assert time.monotonic() - start < 0.3
        assert 0.3 - EARLY <= ends.took(b"response") < 0.3 + SOON


@pytest.mark.parametrize("stream", ["upstream", "both"])
def test_latency_delays_the_streams_that_it_is_told(rig: Rig, stream: str) -> None:
    with pair(rig, "100:latency", latency__latency=250, latency__stream=stream) as ends:
        start = time.monotonic()
        ends.ask(b"request")
        assert 0.25 - EARLY <= time.monotonic() - start < 0.25 + SOON
        took = ends.took(b"response")
        assert took >= 0.25 - EARLY if stream == "both" else took < 0.25


def test_wave_delays_by_its_base_and_its_waves(rig: Rig) -> None:
    words = {"latency": 100, "sine_amplitude": 0, "square_amplitude": 200}
    with pair(rig, "100:wave", **{f"wave__{word}": n for word, n in words.items()}) as ends:
        ends.ask(b"request")
        assert 0.3 - EARLY <= ends.took(b"response") < 0.3 + SOON


def test_bandwidth_has_its_rate_and_idle_time_earns_no_credit(rig: Rig) -> None:
    with pair(rig, "100:bandwidth", bandwidth__rate=500) as ends:
        for _ in range(2):
            ends.ask(b"request")
            assert 0.2 - EARLY <= ends.took(b"x" * 100_000) < 0.22 + SOON / 3
            assert quiet(ends.client)


def test_connections_share_a_line_of_bandwidth_only_if_told_so(rig: Rig) -> None:
    for shared, least, most in (("yes", 0.4, 0.8), ("no", 0.2, 0.39)):
        with (
            Backend(echo) as backend,
            rig.proxy(
                backend, "100:bandwidth", bandwidth__rate=500, bandwidth__shared=shared
            ) as driven,
            driven.dial() as one,
            driven.dial() as two,
            threads() as pool,
        ):
            exchange(one, b"x"), exchange(two, b"x")
            start = time.monotonic()
            both = [pool.submit(exchange, sock, b"x" * 100_000) for sock in (one, two)]
            assert [len(future.result(PATIENCE)) for future in both] == [100_000] * 2
            assert least - EARLY <= time.monotonic() - start < most


def test_slicer_cuts_into_pieces_with_a_pause_between_them(rig: Rig) -> None:
    with pair(rig, "100:slicer", slicer__average_size=10, slicer__delay=20_000) as ends:
        ends.ask(b"request", bytes(100))
        start, pieces = time.monotonic(), 0
        got = b""
        while len(got) < 100:
            got += ends.client.recv(100)
            pieces += 1
        assert pieces >= 8  # the network may join some
        assert time.monotonic() - start >= 0.15


def test_trickle_spreads_a_chunk_over_its_duration(rig: Rig) -> None:
    with pair(rig, "100:trickle", trickle__duration=300) as ends:
        ends.ask(b"request")
        start = time.monotonic()
        ends.server.sendall(bytes(range(50)))
        first = ends.client.recv(50)
        assert len(first) < 50 and time.monotonic() - start < 0.3
        assert first + receive(ends.client, 50 - len(first)) == bytes(range(50))
        assert 0.3 - EARLY <= time.monotonic() - start < 0.3 + SOON


def test_stall_holds_some_exchanges_for_an_rto_or_more_and_loses_nothing(rig: Rig) -> None:
    with pair(rig, "100:stall", stall__loss=50, stall__rto=100, seed=3) as ends:
        times = []
        for number in range(12):
            ends.ask(b"request")
            times.append(ends.took(b"response %d" % number))
        assert min(times) < 0.1 <= max(times) + EARLY


def test_pause_holds_and_lets_go_after_its_time(rig: Rig) -> None:
    with pair(rig, "100:pause", pause__time=300) as ends:
        ends.ask(b"request", b"first ")
        start = time.monotonic()
        assert quiet(ends.client)
        ends.server.sendall(b"second")
        assert receive(ends.client, 12) == b"first second"
        assert time.monotonic() - start < 0.3 + SOON
        assert ends.took(b"third") < SOON


def test_blackhole_drops_the_response_and_leaves_the_connection_open(rig: Rig) -> None:
    with pair(rig, "100:blackhole") as ends:
        ends.ask(b"request", b"response")
        assert quiet(ends.client, ends.server)
        ends.ask(b"another", b"response")
        assert quiet(ends.client, ends.server)


def test_blackhole_upstream_drops_the_request_only(rig: Rig) -> None:
    with pair(rig, "100:blackhole", blackhole__stream="upstream") as ends:
        ends.client.sendall(b"request")
        assert quiet(ends.server)
        ends.server.sendall(b"unasked")
        assert receive(ends.client, 7) == b"unasked"


def test_truncate_gives_the_beginning_of_the_response_and_then_the_end(rig: Rig) -> None:
    with pair(rig, "100:truncate", truncate__bytes=10) as ends:
        ends.ask(b"request", b"0123456789abc")
        assert receive_all(ends.client) == b"0123456789"


def test_a_handler_is_not_called_with_what_comes_after_a_truncated_flow(
    rig: Rig, own: Path
) -> None:
    # It could only fail to send it.
    behavior = "50:truncate,50:chained.Plain"
    seed = seed_for(behavior, {(1, 1): 0, (1, 2): 1, (1, 3): 1})
    with pair(rig, behavior, path=own, seed=seed, truncate__bytes=4) as ends:
        ends.ask(b"request", b"response")
        assert receive_all(ends.client) == b"resp"
        for _ in range(2):
            ends.ask(b"request", b"response")
            assert quiet(ends.server, seconds=0.1)
        assert "Traceback" not in rig.text, rig.text


def test_corrupt_flips_one_bit_at_an_offset_of_each_exchange(rig: Rig) -> None:
    with pair(rig, "100:corrupt", corrupt__offset=3) as ends:
        for _ in range(2):
            ends.ask(b"request", b"re")
            ends.server.sendall(b"sponse")
            got = receive(ends.client, 8)
            (at,) = [
                i for i, pair in enumerate(zip(got, b"response", strict=True)) if len({*pair}) > 1
            ]
            assert at == 3
            assert (got[3] ^ b"response"[3]).bit_count() == 1


def test_limit_data_closes_both_sides_politely_after_its_bytes(rig: Rig) -> None:
    with pair(rig, "100:limit_data", limit_data__bytes=10) as ends:
        ends.ask(b"request", b"01234")
        assert receive(ends.client, 5) == b"01234"
        ends.ask(b"request", b"56789abc")
        assert receive(ends.client, 5) == b"56789"
        assert_fin(ends.client)
        assert receive_all(ends.server) == b""


def test_slow_close_delays_the_end_and_not_the_data(rig: Rig) -> None:
    with pair(rig, "100:slow_close", slow_close__delay=300) as ends:
        ends.ask(b"request")
        start = time.monotonic()
        ends.server.sendall(b"response")
        ends.server.shutdown(socket.SHUT_WR)
        assert receive(ends.client, 8) == b"response"
        assert time.monotonic() - start < 0.3
        assert_fin(ends.client)
        assert 0.3 - EARLY <= time.monotonic() - start < 0.3 + SOON


@pytest.mark.parametrize("name", ["timeout", "reset_peer", "cut"])
def test_what_ends_after_a_time_does_so_though_data_flows_all_the_while(
    rig: Rig, name: str
) -> None:
    words = {f"{name}__{'time' if name == 'cut' else 'timeout'}": 500}
    with pair(rig, f"100:{name}", **words) as ends:
        start = time.monotonic()
        ends.ask(b"request")
        with contextlib.suppress(ConnectionError):
            while quiet(ends.client, seconds=0.02) or ends.client.recv(1):
                assert time.monotonic() - start < 0.5 + SOON
                ends.server.sendall(b".")
        assert time.monotonic() - start >= 0.5 - EARLY


# Ends: who sees what

SIDES = ["client", "backend", "both"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("how", ["fin", "reset"])
def test_cut_ends_the_side_named_as_told_and_the_other_with_a_fin(
    rig: Rig, how: str, side: str
) -> None:
    with pair(rig, "100:cut", cut__bytes=8, cut__how=how, cut__side=side) as ends:
        ends.ask(b"request", b"response and more")
        if how == "fin":  # the data before is let through
            assert receive_all(ends.client) == b"response"
            assert receive_all(ends.server) == b""
            return
        if side in ("client", "both"):
            assert_rst(ends.client)
        else:
            assert b"response".startswith(receive_all(ends.client))
        if side in ("backend", "both"):
            assert_rst(ends.server)
        else:
            assert receive_all(ends.server) == b""


@pytest.mark.parametrize("stream", ["downstream", "upstream", "both"])
def test_reset_resets_whom_its_stream_leads_to(rig: Rig, stream: str) -> None:
    with pair(rig, "100:reset", reset__stream=stream, reset__timeout=50) as ends:
        ends.ask(b"request")
        for sock, hit in (
            (ends.client, stream != "upstream"),
            (ends.server, stream != "downstream"),
        ):
            if hit:
                assert_rst(sock)
            else:
                assert receive_all(sock) == b""


@pytest.mark.parametrize("stream", ["downstream", "upstream", "both"])
def test_reset_peer_resets_both_when_data_has_come_in_its_stream(rig: Rig, stream: str) -> None:
    with pair(rig, "100:reset_peer", reset_peer__stream=stream, reset_peer__timeout=200) as ends:
        start = time.monotonic()
        if stream == "downstream":
            ends.ask(b"request")
            assert quiet(ends.client, ends.server, seconds=0.3)
            start = time.monotonic()
            ends.server.sendall(b"response")
        else:
            ends.client.sendall(b"request")
        assert_rst(ends.client)
        assert_rst(ends.server)
        assert 0.2 - EARLY <= time.monotonic() - start < 0.2 + SOON


def test_cut_upstream_counts_the_bytes_of_the_request(rig: Rig) -> None:
    with pair(rig, "100:cut", cut__bytes=5, cut__stream="upstream") as ends:
        ends.client.sendall(b"request")
        assert receive_all(ends.server) == b"reque"
        assert_fin(ends.client)


# Together


def test_a_flow_handler_acts_before_a_socket_handler(rig: Rig) -> None:
    with pair(rig, "100:latency+error", latency__latency=250) as ends:
        ends.ask(b"request")
        start = time.monotonic()
        ends.server.sendall(b"response")
        got = receive(ends.client, 8)
        assert len(got) == 8 and got != b"response"
        assert 0.25 - EARLY <= time.monotonic() - start < 0.25 + SOON


def test_delays_of_a_combination_add_up(rig: Rig) -> None:
    words = {"latency__latency": 200, "bandwidth__rate": 100}
    with pair(rig, "100:latency+bandwidth", **words) as ends:
        ends.ask(b"request")
        assert 0.4 - EARLY <= ends.took(b"x" * 20_000) < 0.4 + SOON


def test_a_cut_behind_a_latency_comes_after_the_bytes_before_it(rig: Rig) -> None:
    with pair(rig, "100:latency+cut", latency__latency=200, cut__bytes=4) as ends:
        ends.ask(b"request", b"response")
        start = time.monotonic()
        assert receive_all(ends.client) == b"resp"
        assert time.monotonic() - start >= 0.2 - 0.1


def test_a_handler_that_reads_the_other_side_itself_waits_for_what_delays_it(
    rig: Rig, own: Path
) -> None:
    with pair(rig, "100:latency+chained.Ask", path=own, latency__latency=250) as ends:
        for word in (b"first", b"second"):
            ends.ask(word)
            start = time.monotonic()
            ends.server.sendall(word)
            assert receive(ends.client, len(word)) == word.upper()
            assert 0.25 - EARLY <= time.monotonic() - start < 0.25 + SOON


TURNS = (
    "12:latency,12:chained.Ask,12:bandwidth+slicer,12:latency+delay,12:trickle+chained.Plain,"
    "12:stall+wave+corrupt,12:delay"
)
PIPELINED = TURNS.replace("12:chained.Ask,", "")  # which takes an answer for the answer to its own
QUICK: dict[str, Any] = {
    "latency__latency": 5,
    "latency__jitter": 5,
    "latency__stream": "both",
    "bandwidth__rate": 20_000,
    "bandwidth__stream": "both",
    "slicer__average_size": 3000,
    "delay__sleep": 0.002,
    "trickle__duration": 5,
    "trickle__stream": "upstream",
    "stall__loss": 5,
    "stall__rto": 5,
    "wave__latency": 3,
    "wave__sine_amplitude": 2,
    "wave__sine_period": 20,
    "corrupt__chance": 0,
}


@pytest.mark.parametrize("seed", [1, 2])
def test_exchanges_of_all_kinds_in_turn_pipelined_keep_every_byte_in_order(
    rig: Rig, own: Path, seed: int
) -> None:
    # Responses come while later requests are on their way, so that exchanges of all kinds overlap.
    # The client is a few requests ahead and no more: else all may go in one exchange.
    flood, size, sent, returned = Flood(6 * MB, seed), 10_007, [0], [0]

    def send(sock: socket.socket) -> None:
        for block in flood.blocks():
            for start in range(0, len(block), size):
                wait_for(lambda: sent[-1] - returned[-1] < 6 * size, "what was sent has come back")
                sock.sendall(block[start : start + size])
                sent.append(sent[-1] + len(block[start : start + size]))
        sock.shutdown(socket.SHUT_WR)

    with (
        Backend(echo) as backend,
        rig.proxy(backend, PIPELINED, path=own, seed=seed, **QUICK) as driven,
        driven.dial() as client,
        threads() as pool,
    ):
        sending = pool.submit(send, client)
        assert digest_of(client, note=returned.append) == (flood.size, flood.digest())
        sending.result(PATIENCE)
        driven.wait_connections(0)
        picked = [one["picked"] for one in driven.stats.values()]
        assert all(picked), driven.stats
    assert backend.errors == []


def test_requests_and_responses_of_all_kinds_in_turn_are_whole(rig: Rig, own: Path) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, TURNS, path=own, seed=1, **QUICK) as driven,
        driven.dial() as client,
    ):
        for number in range(80):
            word = b"%d " % number * (1 + number * 37 % 3000)
            client.sendall(word)
            assert receive(client, len(word)).lower() == word
        assert all(one["picked"] for one in driven.stats.values()), driven.stats


# Ends through a chain


@pytest.mark.parametrize("behavior", ["100:latency", "100:latency+chained.Plain"])
def test_a_half_close_comes_through_after_the_bytes_and_the_reply_is_whole(
    rig: Rig, own: Path, behavior: str
) -> None:
    words: dict[str, Any] = {"latency__latency": 100, "latency__stream": "both"}
    flood = Flood(2 * MB)
    with pair(rig, behavior, path=own, **words) as ends, threads() as pool:
        ends.client.sendall(b"request")
        ends.client.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        assert receive_all(ends.server) == b"request"
        assert time.monotonic() - start >= 0.05
        sent = pool.submit(flood.send, ends.server)
        assert digest_of(ends.client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)
        ends.server.shutdown(socket.SHUT_WR)
        assert receive_all(ends.client) == b""


def test_a_backend_that_half_closes_still_gets_what_the_client_sends(rig: Rig) -> None:
    words: dict[str, Any] = {"latency__latency": 100, "latency__stream": "both"}
    with pair(rig, "100:latency", **words) as ends:
        ends.ask(b"request", b"response")
        ends.server.shutdown(socket.SHUT_WR)
        assert receive_all(ends.client) == b"response"
        ends.client.sendall(b"more")
        ends.client.shutdown(socket.SHUT_WR)
        assert receive_all(ends.server) == b"more"


@pytest.mark.parametrize("who", ["client", "backend"])
def test_a_reset_comes_through_a_chain(rig: Rig, who: str) -> None:
    words: dict[str, Any] = {"latency__latency": 100, "latency__stream": "both"}
    with (
        Acceptor() as backend,
        rig.proxy(backend, "100:latency", **words) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        mine, other = (client, server) if who == "client" else (server, client)
        reset(mine)
        assert_rst(other)
        driven.wait_connections(0)


def test_what_a_reset_client_was_to_get_is_dropped_and_the_backend_reset(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend, "100:pause") as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        server.sendall(b"x" * MB)
        reset(client)
        assert_rst(server)
        driven.wait_connections(0)


@pytest.mark.parametrize("name", ["blackhole", "hang", "pause", "timeout"])
@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_connection_is_over_when_both_sides_are_gone_whatever_holds_the_end(
    rig: Rig, name: str, first: str
) -> None:
    words: dict[str, Any] = {"timeout__timeout": 0} if name == "timeout" else {}
    with (
        Acceptor() as backend,
        rig.proxy(backend, f"100:{name}", **words) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert name == "hang" or receive(server, 7) == b"request"
        wait_for(lambda: driven.stats[name]["picked"])
        if name != "pause":  # which would keep it for a client that has only half-closed
            server.sendall(b"response")
        one, other = (client, server) if first == "client" else (server, client)
        one.shutdown(socket.SHUT_WR)
        if first == "backend":
            assert quiet(client, seconds=0.1), "the end is held or dropped"
        elif name != "hang":
            assert receive_all(server) == b""
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        client.close()
        server.close()
        driven.wait_connections(0)


# Memory and time


def test_a_reader_that_is_slow_behind_a_chain_costs_bounded_memory_and_loses_nothing(
    rig: Rig,
) -> None:
    flood = Flood(40 * MB)
    with pair(rig, "100:latency", latency__latency=20) as ends, threads() as pool:
        ends.ask(b"request")
        before = resident(rig.pid)
        sent = pool.submit(flood.send, ends.server)
        wait_for(lambda: not select.select([], [ends.server], [], 0.3)[1], "the sender is held up")
        assert resident(rig.pid) - before < 12 * MB
        assert digest_of(ends.client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)


def test_drops_that_a_chain_lets_out_keep_a_connection_from_being_idle(rig: Rig) -> None:
    with pair(rig, "100:trickle", trickle__duration=900, timeout=0.3) as ends:
        ends.ask(b"request", bytes(100))
        assert receive_all(ends.client)[:100] == bytes(100)


def test_a_connection_whose_bytes_are_paused_is_idle(rig: Rig) -> None:
    with (
        Acceptor() as backend,
        rig.proxy(backend, "100:pause", timeout=0.4) as driven,
        driven.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        server.sendall(b"response")
        assert receive_all(client) in (b"", b"response")
        assert receive_all(server) == b""
        driven.wait_connections(0)


def test_held_bytes_still_come_through_while_draining() -> None:
    options = ("--behavior", "100:latency", "--handlers.latency.latency", 500, "--drain", 10)
    with (
        Acceptor() as backend,
        proxy(backend, *options) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        server.sendall(b"response")
        vaurien.send_signal(15)
        assert receive_all(client) == b"response"
        assert vaurien.wait() == 0
        assert " ended after" not in vaurien.text


def test_seeds_pick_what_the_engine_deals_with(rig: Rig) -> None:
    # dummy between two exchanges of a flow handler overtakes nothing that is still held.
    behavior = "50:latency"
    seed = seed_for(behavior, {(1, 1): 0, (1, 2): 1, (1, 3): 0})
    with pair(rig, behavior, seed=seed, latency__latency=300) as ends:
        start = time.monotonic()
        for number in range(1, 4):
            ends.ask(b"request %d" % number, b"response %d " % number)
        assert receive(ends.client, 33) == b"response 1 response 2 response 3 "
        assert time.monotonic() - start >= 0.3 - EARLY


CROWD = (
    "8:latency,8:bandwidth+slicer,8:latency+chained.Ask,8:trickle+chained.Plain,8:chained.Plain,"
    "6:truncate,6:limit_data,6:timeout,6:latency+cut,6:reset_peer,6:blackhole,6:hang,6:abort,"
    "6:latency+blackout"
)
CROWDED: dict[str, Any] = {
    **QUICK,
    "truncate__bytes": 500,
    "limit_data__bytes": 5000,
    "timeout__timeout": 20,
    # Both ways, as those below: if only an answer were swallowed, and the second half of a word
    # came after it, that half would be an exchange of its own, and be answered.
    "timeout__stream": "both",
    "cut__bytes": 10_000,
    "cut__how": "reset",
    "cut__side": "backend",
    "reset_peer__timeout": 10,
    "reset_peer__stream": "both",
    "blackhole__stream": "both",
}


def test_a_crowd_that_comes_and_goes_gets_right_bytes_and_leaves_nothing(
    rig: Rig, own: Path
) -> None:
    # Some clients reset, some leave in the middle or half-close; all kinds of handlers and toxics
    # at once. What comes is the beginning of the right answer, and in the end nothing is left.
    def visit(salt: int, driven: Driven) -> int:
        dice, whole = random.Random(salt), 0
        with contextlib.suppress(OSError), driven.dial() as client:
            client.settimeout(0.3)  # some are never answered
            for number in range(10):
                word = b"%d %d " % (salt, number) * dice.choice([1, 50, 5000])
                client.sendall(word[: len(word) // 2])
                whim = dice.random()
                if whim < 0.05:
                    reset(client)
                    return whole
                if whim < 0.1:
                    return whole
                client.sendall(word[len(word) // 2 :])
                if whim < 0.15:
                    client.shutdown(socket.SHUT_WR)
                got = receive(client, len(word)).lower()
                assert word.startswith(got)
                if got != word:
                    return whole
                whole += 1
        return whole

    with (
        Backend(echo) as backend,
        rig.proxy(backend, CROWD, path=own, seed=4, **CROWDED) as driven,
        threads() as pool,
    ):
        visits = [pool.submit(visit, salt, driven) for salt in range(200)]
        kinds = ("latency", "noop", "slow_close", "bandwidth")
        turns = itertools.cycle(kinds)
        while not all(visit.done() for visit in visits):
            kind = next(turns)
            driven.add(kind, f"toxic {kind}", stream="both", toxicity=0.5, **TOXIC.get(kind, {}))
            driven.update(kind, f"toxic {kind}", stream="both", **TOXIC.get(kind, {}))
            driven.remove(f"toxic {kind}")
        assert sum(visit.result() for visit in visits) > 80
        driven.wait_connections(0)
        assert all(one["picked"] for name, one in driven.stats.items() if "toxic" not in name)


TOXIC: dict[str, dict[str, Any]] = {
    "latency": {"latency": 2},
    "slow_close": {"delay": 5},
    "bandwidth": {"rate": 1e6},
}


def test_a_digest_here_tells_lost_bytes() -> None:
    # Else the checksums above would compare nothing with nothing.
    flood = Flood(3 * MB)
    assert sha256(b"".join(flood.blocks())).hexdigest() == flood.digest()
    assert sha256(b"".join(flood.blocks())[:-1]).hexdigest() != flood.digest()
