"""The framer of plain TCP: where an exchange begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaurien.protocols.tcp import Tcp

#: Who spoke, letter by letter, and the number of the exchange after each.
TALKS = {
    "": [],
    "c": [1],
    "ccc": [1, 1, 1],
    "cb": [1, 1],
    "cbc": [1, 1, 2],
    "cbbbc": [1, 1, 1, 1, 2],
    "cbcbcb": [1, 1, 2, 2, 3, 3],
    "b": [0],
    "bbc": [0, 0, 1],
    "bcbc": [0, 1, 1, 2],
    "ccbbccbb": [1, 1, 1, 1, 2, 2, 2, 2],
}


def listen(framer: Tcp, who: str) -> bool:
    """One piece of bytes; whether it began an exchange."""
    if who == "c":
        return framer.client_bytes()
    framer.backend_bytes()
    return False


@pytest.mark.parametrize("talk", TALKS)
def test_exchanges_begin_with_client_bytes_after_backend_bytes(talk: str) -> None:
    framer = Tcp()
    numbers = []
    for who in talk:
        listen(framer, who)
        numbers.append(framer.exchange)
    assert numbers == TALKS[talk]


@given(st.text("cb"))
def test_an_exchange_begins_exactly_where_its_number_changes(talk: str) -> None:
    framer, before, last = Tcp(), 0, "b"
    for who in talk:
        began = listen(framer, who)
        assert began == (who == "c" and last == "b")
        assert framer.exchange == before + began
        before, last = framer.exchange, who


@given(st.text("cb"))
def test_answered_says_that_the_next_client_bytes_begin_an_exchange(talk: str) -> None:
    framer = Tcp()
    for who in talk:
        answered = framer.answered
        assert listen(framer, who) == (answered and who == "c")


def test_connections_do_not_count_together() -> None:
    one, other = Tcp(), Tcp()
    one.client_bytes()
    assert (one.exchange, other.exchange) == (1, 0)
