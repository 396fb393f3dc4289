"""Framers and what feeds them: no byte is lost, whatever they do."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lines import Broken, Keeps, Lines
from tests.protocols.checks import check_framer, feed
from vaurien.protocols.cutter import KEPT, Cutter
from vaurien.protocols.framer import Framer, FramingError, Piece
from vaurien.protocols.tcp import Tcp

TALK = [
    (False, b"!hello\n"),
    (True, b"one\nmany 2 of these\nquiet\n\nlast " + b"x" * 500 + b"\n"),
    (False, b"1\nfirst\n!pushed\nsecond\n"),
    (True, b"half"),
    (False, b"4\n" + b"y" * 500),
]


def test_lines_are_the_same_messages_however_they_are_cut() -> None:
    messages = check_framer(Lines, TALK, 100)
    assert [(m.exchange, m.summary, len(m.data), m.last) for m in messages] == [
        (0, "", 7, True),
        (1, "one", 4, True),
        (2, "many 2 of these", 16, True),
        (3, "quiet", 6, True),
        (4, "(empty)", 1, True),
        (5, "last " + "x" * 95, 506, True),
        (1, "", 2, True),
        (2, "", 13, True),
        (0, "", 8, True),
        (4, "", 2, True),
        (5, "", 500, False),
    ]


def test_a_framer_that_loses_a_byte_is_found() -> None:
    class Loses(Lines):
        def feed(self, to_backend: bool, data: bytes) -> Iterable[Piece]:  # type: ignore[override]
            return [one._replace(data=one.data[1:]) for one in super().feed(to_backend, data)]

    with pytest.raises(AssertionError):
        check_framer(Loses, [(True, b"one\ntwo\n")])


def test_a_framer_that_keeps_all_is_found() -> None:
    with pytest.raises(AssertionError, match="too much"):
        check_framer(Keeps, [(True, b"x" * (KEPT + 1))])


LINES = st.sampled_from([b"a\n", b"many 3\n", b"quiet\n", b"\n", b"x" * 300 + b"\n"])
JUNK = st.binary(max_size=50)


@given(st.lists(LINES), st.lists(st.sampled_from([b"p\n", b"!q\n", b"z" * 200 + b"\n"])))
def test_any_lines(requests: list[bytes], answers: list[bytes]) -> None:
    check_framer(Lines, [(True, b"".join(requests)), (False, b"".join(answers))], 100)


@given(st.lists(st.tuples(st.booleans(), JUNK)))
def test_junk(talk: list[tuple[bool, bytes]]) -> None:
    feed(Lines(), talk, 100)


@given(
    st.sampled_from([Lines, Broken, Keeps, Tcp]),
    st.lists(st.one_of(LINES, JUNK, st.just(b"y" * KEPT))),
)
def test_a_cutter_loses_nothing_whatever_its_framer_does(
    make: type[Framer], chunks: list[bytes]
) -> None:
    cutter = Cutter(make(), True)
    out = b""
    for i, chunk in enumerate(chunks):
        cutter.feed(chunk)
        if i % 2:
            out += b"".join(piece.data for piece in cutter.pieces)
            cutter.pieces.clear()
        assert len(cutter.kept) <= KEPT or cutter.error is not None
    assert out + cutter.rest() == b"".join(chunks)
    assert not cutter.pieces and not cutter.kept


def test_pieces_before_an_error_count() -> None:
    cutter = Cutter(Lines(), True)
    cutter.feed(b"one\ntwo\n\0junk\nmore\n")
    assert [piece.data for piece in cutter.pieces] == [b"one\n", b"two\n"]
    assert isinstance(cutter.error, FramingError)
    assert cutter.kept == b"\0junk\nmore\n"
    cutter.feed(b"and more")
    assert cutter.rest() == b"one\ntwo\n\0junk\nmore\nand more"


def test_tcp_cuts_nothing() -> None:
    framer = Tcp()
    talk = [(False, b"hi"), (True, b"a"), (True, b"b"), (False, b"c"), (True, b"d")]
    pieces = [piece for way, data in talk for piece in framer.feed(way, data)]
    assert [(p.data, p.exchange) for p in pieces] == [
        (b"hi", 0), (b"a", 1), (b"b", 1), (b"c", 1), (b"d", 2),
    ]  # fmt: skip


def test_the_example_s_framer_keeps_the_law() -> None:
    from examples.message_handlers import Lines as Example

    talk = [(True, b"one\ntwo\n\nfour\n"), (False, b"1\n2\n"), (True, b"ha"), (False, b"3\n4\n")]
    messages = check_framer(Example, talk)
    assert [m.exchange for m in messages] == [1, 2, 3, 4, 1, 2, 3, 4]
