"""Messages with flow handlers, toxics and socket handlers; live changes; what is no message."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from typing import Any

import gevent
import pytest

from tests.lines import KEPT, Busy, ByWord, Said
from tests.relay.rig import Wire, builtin, specification, wire
from tests.support import ABORT, receive_all, wait_for
from vaurien.counts import Directions
from vaurien.handlers import BaseHandler
from vaurien.protocols.cutter import KEPT as MOST

BYWORD = specification(ByWord)
MIX = b"a\nb busy\nc said\nd lost\ne other\nf\n"
UP = b"a\nc said\nd lost\nother\nf\n"
DOWN = b"to a\nto c\nto d\nto e\nto f\n"
WANTED = b"to a\nbusy b\nsaid c\nto e\nto f\n"


def mixed(w: Wire, by: int = 1000) -> None:
    """A pipeline of all kinds, in order, whatever else acts on it."""
    for start in range(0, len(MIX), by):
        w.send(MIX[start : start + by])
    w.at_backend(UP)
    for start in range(0, len(DOWN), by):
        w.answer(DOWN[start : start + by])
    w.at_client(WANTED)


class Spans(BaseHandler):
    """One call for all: reads what comes, and answers from the backend, until the end."""

    name = "spans"
    options: Any = {}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        while request := client_sock.recv(1000):
            backend_sock.sendall(request)
            answer = backend_sock.recv(1000)
            client_sock.sendall(answer.upper())


class Sips(BaseHandler):
    """Takes three bytes in a call."""

    name = "sips"
    options: Any = {}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        source, sink = client_sock, backend_sock
        if not to_backend:
            source, sink = sink, source
        data = source.recv(3)
        if data:
            gevent.sleep(0)
            sink.sendall(data)


@pytest.mark.parametrize("by", [1000, 1, 4])
@pytest.mark.parametrize("stream", ["downstream", "upstream", "both"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("latency", {"latency": 5, "jitter": 3}),
        ("bandwidth", {"rate": 10}),
        ("slicer", {"average_size": 3, "delay": 100}),
    ],
)
def test_flow_handlers_act_on_each_exchange(
    name: str, options: dict[str, Any], stream: str, by: int
) -> None:
    both = f"100:{name}+byword"
    with wire(both, builtin(name, stream=stream, **options), BYWORD) as w:
        for _ in range(3):
            mixed(w, by)
        ended = w.served.wait_ended(18)
        w.no_more()
    assert [e.exchange for e in ended] == list(range(1, 19))
    assert {e.end for e in ended} == {"answered"}


def test_an_exchange_lasts_until_its_answer_has_left_the_chain() -> None:
    latency = builtin("latency", latency=50)
    with wire("100:latency+byword", latency, BYWORD) as w:
        w.send(b"a busy\nb\n")
        w.at_backend(b"b\n")
        w.answer(b"to b\n")
        w.at_client(b"busy a\nto b\n")
        first, second = w.served.wait_ended(2)
        w.no_more()
    assert first.fired == ("byword", "latency") and second.fired == ("latency",)
    assert first.seconds >= 0.05 and second.seconds >= 0.05


def test_a_handler_acts_on_its_own_answer_in_a_pipeline() -> None:
    """Half of the exchanges pass a handler that turns bits: their answers are spoilt, no others."""
    corrupt = builtin("corrupt", chance=100)
    with wire("50:corrupt", corrupt) as w:
        w.send(b"q\n" * 40)
        w.at_backend(b"q\n" * 40)
        w.answer(b"answer\n" * 40)
        got = b""
        while len(got) < 280:
            got += w.client.recv(1000)
        ended = w.served.wait_ended(40)
        w.no_more()
    answers = [got[i : i + 7] for i in range(0, 280, 7)]
    for answer, e in zip(answers, ended, strict=True):
        assert (answer != b"answer\n") == (e.handlers == ("corrupt",))
    assert 5 < sum(bool(e.handlers) for e in ended) < 35


@pytest.mark.parametrize("name", ["reset_peer", "cut"])
def test_a_handler_that_ends_the_connection(name: str) -> None:
    with wire(f"100:{name}", builtin(name)) as w:
        w.send(b"a\nb\n")
        if name == "reset_peer":  # it lets requests through, and an answer to none is no exchange's
            w.at_backend(b"a\nb\n")
        w.answer(b"to a\n")
        w.client.settimeout(5)
        try:
            assert receive_all(w.client) in (b"", b"to a\n")
        except ConnectionResetError:
            pass
        assert {e.end for e in w.served.wait_ended(1)} <= {"handler", "reset"}


@pytest.mark.parametrize("by", [1000, 1, 4])
def test_toxics_come_and_go_in_the_midst(by: int) -> None:
    with wire("100:byword", BYWORD) as w:
        for i in range(3):
            mixed(w, by)
            w.served.toxic("latency", latency=1, stream="downstream" if i else "upstream")
            mixed(w, by)
            w.served.toxic("slicer", average_size=2, delay=10)
            mixed(w, by)
            w.served.remove("latency")
            mixed(w, by)
            w.served.remove("slicer")
        assert [e.exchange for e in w.served.wait_ended(72) if e.exchange] == list(range(1, 73))
        w.no_more()


def test_a_toxic_that_is_there_from_the_start_acts_on_the_greeting_too() -> None:
    with wire() as w:
        w.served.toxic("latency", latency=20)
        w.answer(b"!hello\n")
        w.at_client(b"!hello\n")
        w.send(b"a\n")
        w.at_backend(b"a\n")
        w.answer(b"to a\n")
        w.at_client(b"to a\n")
        greeting, first = w.served.wait_ended(2)
        w.no_more()
    assert (greeting.exchange, greeting.end, greeting.from_backend) == (0, "next", 7)
    assert (first.exchange, first.end, first.from_backend) == (1, "answered", 5)
    assert greeting.fired == first.fired == ("latency",)


def test_what_a_toxic_holds_is_bounded_though_handlers_answer() -> None:
    with wire("100:byword", BYWORD, max_held=1 << 20) as w:
        w.served.toxic("latency", latency=1_000_000)
        w.client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            w.send(b"a big\n" * 1_000_000)
        connection = next(iter(w.served.proxy._server.connections.values()))
        held = w.served.loop.call(
            lambda: connection.down.waiting + connection.messages.turns.replies.made
        )
        assert 1 << 20 < held < 4 << 20
        w.served.remove("latency")
        w.client.settimeout(5)
        assert w.client.recv(10) == b"b" * 10


@pytest.mark.parametrize("by", [1000, 1, 4])
@pytest.mark.parametrize("before", [True, False])
def test_a_socket_handler_takes_what_messages_let_through(before: bool, by: int) -> None:
    delay = builtin("delay", sleep=0.001, before=before)
    with wire("100:byword+delay", BYWORD, delay) as w:
        for _ in range(3):
            mixed(w, by)
        ended = w.served.wait_ended(18)
        w.no_more()
    assert [e.exchange for e in ended] == list(range(1, 19))
    assert all("delay" in e.fired for e in ended if "byword" not in e.fired)


@pytest.mark.parametrize("by", [1000, 1, 4])
def test_a_socket_handler_that_takes_little_at_a_time(by: int) -> None:
    with wire("100:byword+sips", BYWORD, specification(Sips)) as w:
        for _ in range(2):
            mixed(w, by)
        ended = w.served.wait_ended(12)
        w.no_more()
    assert [e.exchange for e in ended] == list(range(1, 13))


def test_a_chain_before_a_socket_handler() -> None:
    latency, delay = builtin("latency", latency=3, stream="both"), builtin("delay", sleep=0.001)
    with wire("50:latency+byword+delay,50:byword", latency, BYWORD, delay) as w:
        for by in (1000, 1, 4):
            mixed(w, by)
        assert len(w.served.wait_ended(18)) == 18
        w.no_more()


def test_a_call_that_spans_exchanges_gets_them_one_by_one() -> None:
    with wire("100:byword+spans", BYWORD, specification(Spans)) as w:
        w.send(b"a\nb busy\nc\nd said\n")
        for letter in (b"a", b"c", b"d"):
            w.at_backend(letter + (b" said\n" if letter == b"d" else b"\n"))
            w.answer(b"to " + letter + b"\n")
            if letter == b"a":
                w.at_client(b"TO A\n")
        w.at_client(b"busy b\nTO C\nSAID D\n")
        w.client.shutdown(socket.SHUT_WR)
        assert receive_all(w.server) == b""
        ended = w.served.wait_ended(4)
    assert [(e.exchange, e.from_client) for e in ended] == [(1, 2), (2, 7), (3, 2), (4, 7)]


def test_half_a_request_at_the_end_reaches_a_call() -> None:
    with wire("100:spans", specification(Spans)) as w:
        w.send(b"a\nhalf")
        w.at_backend(b"a\n")
        w.answer(b"to a\n")
        w.at_client(b"TO A\n")
        w.client.shutdown(socket.SHUT_WR)
        w.at_backend(b"half")


# What is no message


def goes_on_as_tcp(w: Wire, caplog: pytest.LogCaptureFixture) -> str:
    """The one line that says so; what both send passes from now on."""
    for _ in range(2):
        w.send(b"\0any thing")
        w.at_backend(b"\0any thing")
        w.answer(b"\0what ever")
        w.at_client(b"\0what ever")
    lines = [r.getMessage() for r in caplog.records if "goes on as tcp" in r.getMessage()]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("by", [1000, 1, 4])
def test_what_the_client_sends_is_no_message(by: int, caplog: pytest.LogCaptureFixture) -> None:
    sent = b"a\nb\n\0no line\nat all"
    with wire() as w:
        for start in range(0, len(sent), by):
            w.send(sent[start : start + by])
        w.at_backend(sent)
        w.answer(b"to a\nto b\n!to all\nto whom?\n")
        w.at_client(b"to a\nto b\n!to all\nto whom?\n")
        assert "zero byte" in goes_on_as_tcp(w, caplog)
        w.no_more()


@pytest.mark.parametrize("by", [1000, 1, 4])
def test_what_the_backend_sends_is_no_message(by: int, caplog: pytest.LogCaptureFixture) -> None:
    sent = b"to a\n\0no line\nat all"
    with wire() as w:
        w.send(b"a\nb\nhalf")
        w.at_backend(b"a\nb\n")
        for start in range(0, len(sent), by):
            w.answer(sent[start : start + by])
        w.at_client(sent)
        w.at_backend(b"half")
        assert "zero byte" in goes_on_as_tcp(w, caplog)
        ended = w.served.wait_ended(2)
        assert [(e.exchange, e.end, e.from_client) for e in ended[:2]] == [
            (1, "answered", 2),
            (2, "next", 6),
        ]
        assert w.served.totals().sent == w.served.totals().received
        w.no_more()


def test_an_answer_to_nothing_is_no_message(caplog: pytest.LogCaptureFixture) -> None:
    with wire() as w:
        w.answer(b"too early\n")
        w.at_client(b"too early\n")
        assert "answer to nothing" in goes_on_as_tcp(w, caplog)
        w.no_more()


def test_what_is_no_message_waits_for_answers_that_are_due(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with wire("100:byword", BYWORD) as w:
        w.send(b"a\nb busy\nc said\n\0junk")
        w.at_backend(b"a\nc said\n")
        w.answer(b"to a\n")
        w.at_client(b"to a\nbusy b\n")
        w.answer(b"to c\n")
        w.at_client(b"said c\n")
        w.at_backend(b"\0junk")
        goes_on_as_tcp(w, caplog)
        w.no_more()


def test_behaviors_act_on_a_connection_that_is_tcp_now(caplog: pytest.LogCaptureFixture) -> None:
    with wire("100:latency", builtin("latency", latency=20, stream="both")) as w:
        w.send(b"\0")
        w.at_backend(b"\0")
        goes_on_as_tcp(w, caplog)
        w.no_more()
        ended = w.served.wait_ended(2)
    assert [(e.exchange, e.fired, e.end) for e in ended] == [
        (1, ("latency",), "next"),
        (2, ("latency",), "client"),
    ]


@pytest.mark.parametrize("handler", ["delay", "spans", "sips"])
def test_what_is_no_message_reaches_a_socket_handler(
    handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    specs = {
        "delay": builtin("delay", sleep=0.001),
        "spans": specification(Spans),
        "sips": specification(Sips),
    }
    with wire(f"100:{handler}", specs[handler]) as w:
        w.send(b"a\n\0junk")
        w.at_backend(b"a\n")
        if handler == "spans":
            w.answer(b"TO A\n")
            w.at_client(b"TO A\n")
        w.at_backend(b"\0junk")
        w.answer(b"\0WHAT")
        w.at_client(b"\0WHAT")
        wait_for(lambda: "goes on as tcp" in caplog.text)


def test_a_framer_with_a_bug_breaks_no_traffic(caplog: pytest.LogCaptureFixture) -> None:
    with wire(protocol="tests.lines.Broken") as w:
        w.send(b"a\nb\nc\nd\n")
        w.at_backend(b"a\nb\nc\nd\n")
        w.answer(b"to a\nto b\nto c\nto d\n")
        w.at_client(b"to a\nto b\nto c\nto d\n")
        assert "its framer raised" in goes_on_as_tcp(w, caplog)
        assert "KeyError: 3" in caplog.text
        assert w.served.totals().internal_errors == 0
        w.no_more()


def test_a_framer_that_keeps_all_is_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with wire(protocol="tests.lines.Keeps") as w:
        w.send(b"x" * (MOST + 1))
        w.at_backend(b"x" * (MOST + 1))
        assert "65,536" in goes_on_as_tcp(w, caplog)
        w.no_more()


# Live changes, points


def test_the_behavior_is_changed_between_and_within_exchanges() -> None:
    said, busy = specification(Said), specification(Busy)
    with wire("100:said", said) as w:
        w.send(b"a\n")
        w.at_backend(b"a\n")
        w.served.change("100:busy", busy)
        w.answer(b"to a\n")
        w.at_client(b"said of 1\n")
        w.send(b"b\n")
        w.at_client(b"busy\n")
        w.served.change("100:dummy")
        w.send(b"c\n")
        w.at_backend(b"c\n")
        w.answer(b"to c\n")
        w.at_client(b"to c\n")
        w.no_more()


def test_who_is_picked_no_more_acts_on_no_later_answer_of_an_open_exchange() -> None:
    delay, latency = builtin("delay", sleep=30, before=False), builtin("latency", latency=30_000)
    for name, one in (("delay", delay), ("latency", latency)):
        with wire(f"100:{name}", one) as w:
            w.send(b"a\nb\nc\n")
            w.at_backend(b"a\nb\nc\n")
            w.served.change("100:dummy")
            w.answer(b"to a\nto b\nto c\n")
            w.client.settimeout(5)
            w.at_client(b"to a\nto b\nto c\n")
            w.no_more()


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ({"after": 2}, "..bbbbb"),
        ({"times": 2}, "bb....."),
        ({"every": 3}, "..b..b."),
        ({"after": 1, "every": 2, "times": 2}, "..b.b.."),
    ],
)
@pytest.mark.parametrize("pipelined", [True, False])
def test_exact_points_count_messages(points: Any, wanted: str, pipelined: bool) -> None:
    with wire("100:busy", specification(Busy, text="b", **points)) as w:
        n = len(wanted)
        for requests in ["q\n" * n] if pipelined else ["q\n"] * n:
            w.send(requests.encode())
        for letter in wanted:
            if letter == ".":
                w.at_backend(b"q\n")
                w.answer(b".\n")
            w.at_client(letter.encode() + b"\n")
        assert [e.fired for e in w.served.wait_ended(n)] == [
            ("busy",) if letter == "b" else () for letter in wanted
        ]
        w.no_more()


def test_a_reset_client_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    latency = builtin("latency", latency=5, stream="both")
    delay = builtin("delay", sleep=0.001)
    for text in ("100:byword", "100:latency+byword", "100:byword+delay"):
        with wire(text, *(s for s in (latency, BYWORD, delay) if s.name in text)) as w:
            w.send(MIX * 20)
            w.server.recv(10)
            w.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            w.client.close()
            w.server.close()
            w.wait_gone()
            assert w.served.totals().internal_errors == 0
            begun = [b.exchange for b in w.served.began]
            assert sorted(e.exchange for e in w.served.ended) == begun
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_long_lines_travel_in_pieces() -> None:
    with wire("100:byword", BYWORD) as w:
        big = b"x" * 1_000_000
        w.send(big[: KEPT * 2])
        w.at_backend(big[: KEPT * 2])
        sender = threading.Thread(target=w.send, args=(big[KEPT * 2 :] + b"\n",))
        sender.start()
        w.at_backend(big[KEPT * 2 :] + b"\n")
        sender.join()
        sender = threading.Thread(target=w.answer, args=(big + b"\n",))
        sender.start()
        w.at_client(big + b"\n")
        sender.join()
        (ended,) = w.served.wait_ended(1)
        assert (ended.from_client, ended.from_backend) == (1_000_001, 1_000_001)
        assert w.served.totals().sent == Directions(1_000_001, 1_000_001)
        w.no_more()


def test_many_clients_at_once_each_in_order() -> None:
    with wire("30:byword,20:latency+byword", BYWORD, builtin("latency", latency=2)) as first:
        wires = [first, *(Wire(first.served, first.backend) for _ in range(5))]
        for w, _ in itertools.product(wires, range(3)):
            w.send(b"a\nb\nc\n")
        for w in wires:
            w.at_backend(b"a\nb\nc\n" * 3)
            w.answer(b"".join(b"to %d\n" % i for i in range(9)))
        for w in wires:
            w.at_client(b"".join(b"to %d\n" % i for i in range(9)))
            w.close()
