"""Messages over real sockets: pipelines, pieces, answers of handlers, in the order of requests."""

from __future__ import annotations

import itertools
import socket
import threading
from typing import Any

import pytest

from tests.lines import Busy, ByWord, Lost, Other, Said
from tests.relay.rig import Wire, specification, wire
from tests.support import receive, receive_all, wait_for
from vaurien import MessageHandler
from vaurien.counts import Directions

EVERYTHING = "100:byword", specification(ByWord)


def test_a_pipeline_goes_up_as_it_came_and_its_answers_come_down_so() -> None:
    with wire() as w:
        w.send(b"one\ntwo\nthree\n")
        w.at_backend(b"one\ntwo\nthree\n")
        w.answer(b"1\n2\n")
        w.at_client(b"1\n2\n")
        w.answer(b"3\n")
        w.at_client(b"3\n")
        ended = w.served.wait_ended(3)
        w.no_more()
    assert [(e.exchange, e.end, e.from_client, e.from_backend) for e in ended] == [
        (1, "answered", 4, 2),
        (2, "answered", 4, 2),
        (3, "answered", 6, 2),
    ]
    assert [(e.exchange, e.handlers) for e in w.served.began] == [(1, ()), (2, ()), (3, ())]


def test_what_nobody_touches_travels_as_one() -> None:
    """So that a pipeline costs one send, and not one for each of its requests."""
    with wire() as w:
        w.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        w.send(b"x\n" * 1000)
        wait_for(lambda: len(w.server.recv(4000, socket.MSG_PEEK)) == 2000)
        flow = w.served.loop.call(
            lambda: next(iter(w.served.proxy._server.connections.values())).up
        )
        assert flow.received == flow.sent == 2000


@pytest.mark.parametrize("by", [1, 2, 3, 7])
def test_one_exchange_over_many_chunks(by: int) -> None:
    talk = b"many 3 of these, in a line that is longer than what is kept of one" * 3 + b"\nnext\n"
    answer = b"first\nsecond\nthird\nnext\n"
    with wire("100:said", specification(Said)) as w:
        for start in range(0, len(talk), by):
            w.send(talk[start : start + by])
            w.wait_received(up=min(start + by, len(talk)))
        w.at_backend(talk)
        for start in range(0, len(answer), by):
            w.answer(answer[start : start + by])
            w.wait_received(down=min(start + by, len(answer)))
        w.at_client(b"said of 1\nsaid of 2\n")
        assert [(e.exchange, e.from_client, e.from_backend) for e in w.served.wait_ended(2)] == [
            (1, len(talk) - 5, len(answer) - 5),
            (2, 5, 5),
        ]
        w.no_more()


def test_an_answer_in_place_of_the_backend_s() -> None:
    with wire("100:busy", specification(Busy, text="no SUMMARY")) as w:
        w.send(b"get this\nget that\n")
        w.at_client(b"no get this\nno get that\n")
        ended = w.served.wait_ended(2)
        w.no_more()
    assert [(e.fired, e.from_client, e.from_backend) for e in ended] == [
        (("busy",), 9, 0),
        (("busy",), 9, 0),
    ]


def test_a_request_in_place_of_another() -> None:
    with wire("100:other", specification(Other)) as w:
        w.send(b"many 3\nplain\n")
        w.at_backend(b"other many 3\nother plain\n")
        w.answer(b"a single line\nanother\n")
        w.at_client(b"a single line\nanother\n")
        assert [e.end for e in w.served.wait_ended(2)] == ["answered"] * 2
        w.no_more()


def test_an_answer_is_replaced_once_it_is_there_in_full() -> None:
    with wire("100:said", specification(Said)) as w:
        w.send(b"many 2\n")
        w.at_backend(b"many 2\n")
        w.answer(b"one\n")
        wait_for(lambda: w.served.totals().received.downstream == 4)
        assert w.served.totals().sent.downstream == 0
        w.answer(b"two\n")
        w.at_client(b"said of 1\n")
        w.no_more()


def test_an_answer_is_lost_and_the_next_one_comes() -> None:
    with wire(*EVERYTHING) as w:
        w.send(b"a lost\nb\n")
        w.at_backend(b"a lost\nb\n")
        w.answer(b"nobody gets this\nbut this\n")
        w.at_client(b"but this\n")
        w.no_more()


def test_a_mixed_pipeline_is_answered_in_order() -> None:
    """All orders of four kinds: whatever stands before or behind, each answer is in its place."""
    kinds = ("pass", "busy", "said", "lost", "other")
    with wire(*EVERYTHING) as w:
        for order in itertools.permutations(kinds, 4):
            w.send(b"".join(b"%c %s\n" % (97 + i, k.encode()) for i, k in enumerate(order)))
            up, down, wanted = b"", b"", b""
            for i, kind in enumerate(order):
                letter = b"%c" % (97 + i)
                if kind != "busy":
                    up += b"other\n" if kind == "other" else letter + b" " + kind.encode() + b"\n"
                    down += b"to " + letter + b"\n"
                if kind in ("busy", "said"):
                    wanted += kind.encode() + b" " + letter + b"\n"
                elif kind != "lost":
                    wanted += b"to " + letter + b"\n"
            w.at_backend(up)
            w.answer(down)
            w.at_client(wanted)
        ended = w.served.wait_ended(4 * 120)
        assert [e.exchange for e in ended] == list(range(1, 481))
        w.no_more()


def test_a_made_answer_waits_for_those_before_it() -> None:
    with wire(*EVERYTHING) as w:
        w.send(b"a\nb busy\nc\n")
        w.at_backend(b"a\nc\n")
        assert w.served.totals().sent.downstream == 0
        w.answer(b"to a\n")
        w.at_client(b"to a\nbusy b\n")
        w.answer(b"to c\n")
        w.at_client(b"to c\n")
        w.no_more()


@pytest.mark.parametrize("early", [False, True])
def test_a_made_answer_waits_for_the_rest_of_its_request_unless_it_is_early(early: bool) -> None:
    with wire("100:busy", specification(Busy, text="busy", early=early)) as w:
        w.send(b"x" * 1000)
        if early:
            w.at_client(b"busy\n")
        wait_for(lambda: w.served.totals().received.upstream == 1000)
        assert w.served.totals().sent.downstream == (5 if early else 0)
        assert not w.served.ended
        w.send(b"\n")
        if not early:
            w.at_client(b"busy\n")
        (ended,) = w.served.wait_ended(1)
        assert (ended.from_client, ended.from_backend) == (1001, 0)
        w.no_more()


def test_an_answer_that_comes_before_its_request_is_complete() -> None:
    with wire() as w:
        w.send(b"x" * 1000)
        w.at_backend(b"x" * 1000)
        w.answer(b"too long\n")
        w.at_client(b"too long\n")
        assert not w.served.ended
        w.send(b"y\nnext\n")
        w.at_backend(b"y\nnext\n")
        w.answer(b"fine\n")
        w.at_client(b"fine\n")
        assert [e.from_client for e in w.served.wait_ended(2)] == [1002, 5]
        w.no_more()


def test_a_pushed_line_belongs_to_nobody_and_passes() -> None:
    with wire("100:said", specification(Said)) as w:
        w.answer(b"!hello\n")
        w.at_client(b"!hello\n")
        w.send(b"many 2\nquiet\n")
        w.at_backend(b"many 2\nquiet\n")
        w.answer(b"one\n!news\ntwo\n")
        w.at_client(b"!news\nsaid of 1\n")
        w.no_more()


@pytest.mark.long
def test_a_hundred_thousand_requests_in_one_write() -> None:
    n = 100_000
    with wire("50:busy", specification(Busy, text="b")) as w:

        def serve() -> None:
            while data := w.server.recv(1 << 16):
                w.server.sendall(b"p\n" * data.count(b"\n"))

        threads = [
            threading.Thread(target=serve),
            threading.Thread(target=w.send, args=(b"q\n" * n,)),
        ]
        for thread in threads:
            thread.start()
        got = receive(w.client, 2 * n)
        w.client.shutdown(socket.SHUT_WR)
        for thread in threads:
            thread.join()
        ended = w.served.wait_ended(n)
    assert [e.exchange for e in ended] == list(range(1, n + 1))
    assert got == b"".join(b"b\n" if e.fired else b"p\n" for e in ended)
    assert 0.48 * n < got.count(b"b") < 0.52 * n


def test_whoever_does_not_read_answers_that_are_made_is_not_read() -> None:
    with wire(*EVERYTHING, max_held=1 << 20) as w:
        sender = threading.Thread(target=w.send, args=(b"a big\n" * 100_000,))
        sender.start()

        def held() -> int:
            connection = next(iter(w.served.proxy._server.connections.values()))
            held = len(connection.down.sink.held or b"")
            return held + int(connection.messages.turns.replies.made)

        most = max(w.served.loop.call(held) for _ in range(200))
        assert most < 4 << 20, "answers of 1 MB, and 1 MiB that may wait"
        wait_for(lambda: w.served.loop.call(lambda: _up(w).source.reader.active) is False)
        begun = len(w.served.began)
        for _ in range(3):
            assert receive(w.client, 1_000_001) == b"b" * 1_000_000 + b"\n"
        wait_for(lambda: len(w.served.began) > begun)
        w.client.close()
        sender.join()


def _up(w: Wire) -> Any:
    return next(iter(w.served.proxy._server.connections.values())).up


def test_no_more_than_a_thousand_exchanges_are_open() -> None:
    n = 20_000
    with wire() as w:
        sender = threading.Thread(target=w.send, args=(b"q\n" * n,))
        sender.start()
        w.at_backend(b"q\n" * 1000)
        wait_for(lambda: w.served.loop.call(lambda: _up(w).source.reader.active) is False)
        assert len(w.served.began) == 1000
        w.answer(b"p\n")
        w.at_backend(b"q\n")
        w.at_client(b"p\n")
        for _ in range(n // 1000 - 1):
            w.answer(b"p\n" * 1000)
            w.at_client(b"p\n" * 1000)
            w.at_backend(b"q\n" * (1000 if _ < n // 1000 - 2 else 999))
        w.answer(b"p\n" * 999)
        w.at_client(b"p\n" * 999)
        sender.join()
        w.no_more()


def test_the_end_comes_behind_requests_that_wait() -> None:
    n = 5000
    with wire() as w:
        w.send(b"q\n" * n)
        w.client.shutdown(socket.SHUT_WR)
        w.at_backend(b"q\n" * 1000)
        for _ in range(4):
            w.answer(b"p\n" * 1000)
            w.at_client(b"p\n" * 1000)
            w.at_backend(b"q\n" * 1000)
        w.answer(b"p\n" * 1000)
        w.at_client(b"p\n" * 1000)
        assert receive_all(w.server) == b""


def test_half_a_request_at_the_end_goes_up() -> None:
    with wire(*EVERYTHING) as w:
        w.send(b"whole busy\nha")
        w.at_client(b"busy whole\n")
        w.client.shutdown(socket.SHUT_WR)
        assert receive_all(w.server) == b"ha"
        w.server.close()
        assert receive_all(w.client) == b""


def test_half_an_answer_at_the_end_comes_down() -> None:
    with wire() as w:
        w.send(b"a\nb\n")
        w.at_backend(b"a\nb\n")
        w.answer(b"whole\nha")
        w.server.close()
        assert receive_all(w.client) == b"whole\nha"
        w.client.close()
        ended = w.served.wait_ended(2)
        assert [(e.exchange, e.end) for e in ended] == [(1, "answered"), (2, "backend")]
    assert w.served.totals().sent == Directions(4, 8)


def test_each_open_exchange_has_its_end_when_the_connection_does() -> None:
    with wire(*EVERYTHING) as w:
        w.send(b"a\nb busy\nc said\nd lost\ne\n")
        w.at_backend(b"a\nc said\nd lost\ne\n")
        w.client.close()
        assert receive_all(w.server) == b""
        w.server.close()
        ended = w.served.wait_ended(5)
    assert [(e.exchange, e.end, e.from_client, e.fired) for e in ended] == [
        (1, "client", 2, ()),
        (2, "client", 7, ("byword",)),
        (3, "client", 7, ("byword",)),
        (4, "client", 7, ("byword",)),
        (5, "client", 2, ()),
    ]


def test_counts_are_of_what_was_read_and_sent() -> None:
    with wire(*EVERYTHING) as w:
        w.send(b"a busy\nb\nc other\nd said\n")
        w.at_backend(b"b\nother\nd said\n")
        w.answer(b"to b\nto c\nto d\n")
        w.at_client(b"busy a\nto b\nto c\nsaid d\n")
        w.served.wait_ended(4)
        totals = w.served.totals()
        assert totals.received == Directions(24, 15)
        assert totals.sent == Directions(15, 24)
        assert totals.exchanges == 4
        w.no_more()
    assert w.served.totals().exchanges == 4


@pytest.mark.parametrize("word", ["raise", "wrong"])
def test_a_message_handler_that_raises_ends_its_connection_only(
    word: str, caplog: pytest.LogCaptureFixture
) -> None:
    with wire(*EVERYTHING) as w:
        other = Wire(w.served, w.backend)
        w.send(b"a busy\nb %s\n" % word.encode())
        w.at_client(b"busy a\n")
        assert receive_all(w.client) == b""
        assert receive_all(w.server) == b""
        other.send(b"a\n")
        other.at_backend(b"a\n")
        other.close()
        ended = [e.end for e in w.served.wait_ended(2) if e.connection == 1]
        assert ended == ["answered", "error"]
    assert w.served.totals().handler_errors == 1
    assert w.served.totals().internal_errors == 0
    (record,) = [r for r in caplog.records if "raised" in r.getMessage()]
    assert "handler 'byword' raised" in record.getMessage()


def test_a_lost_answer_leaves_room() -> None:
    with wire("100:lost", specification(Lost)) as w:
        for _ in range(3):
            w.send(b"q\n" * 1000)
            w.at_backend(b"q\n" * 1000)
            w.answer(b"p\n" * 1000)
        assert len(w.served.wait_ended(3000)) == 3000
        assert w.served.totals().sent.downstream == 0
        w.no_more()


class Wrong(MessageHandler):
    """Answers as its request says."""

    name = "wrong"

    def on_request(self, request: Any) -> Any:
        """Text in place of bytes, an interrupt, or what is like bytes."""
        word = request.data.strip()
        if word == b"interrupt":
            raise KeyboardInterrupt
        texts: Any = {b"text": "text", b"none": None, b"like": bytearray(b"like\n")}
        return self.answer(texts[word])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (b"text", "on_request() gave answer('text'); its data is bytes, such as answer(b'text')"),
        (b"none", "on_request() gave answer(None); its data is bytes, such as answer(b'text')"),
        (b"interrupt", "KeyboardInterrupt"),
    ],
)
def test_what_a_handler_answers_that_cannot_be_ends_its_connection_only(
    word: bytes, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    with wire("100:wrong", specification(Wrong)) as w:
        w.send(word + b"\n")
        assert receive_all(w.client) == b""
        with w.served.dial() as other:
            other.sendall(b"like\n")
            assert receive(other, 5) == b"like\n"
    assert "handler 'wrong' raised" in caplog.text
    assert sentence in caplog.text
