"""The ledger: which exchanges are open, where each direction is, in which order they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaurien.behavior import Dice, Exchange
from vaurien.exchange.ledger import Ledger

DICE = Dice(1, "test")


def exchange(number: int) -> Exchange:
    """One of connection 1."""
    return Exchange(DICE, 1, number)


@given(st.lists(st.sampled_from(["begin", "answered", "end"])))
def test_exchanges_end_in_the_order_in_which_they_began(steps: list[str]) -> None:
    ledger, begun, answered, over = Ledger(), 0, 0, 0
    for step in steps:
        if step == "begin":
            begun += 1
            ledger.begin(exchange(begun))
        elif step == "answered" and answered < begun:
            answered += 1
            ledger.answered()
        elif step == "end" and over < begun:
            over += 1
            answered = max(answered, over)  # a connection's end ends what was not answered too
            assert ledger.end().number == over
        up, down, newest = ledger.up, ledger.down, ledger.newest
        assert (up.number if up else None) == (begun if answered < begun else None)
        assert (down.number if down else None) == (answered + 1 if answered < begun else None)
        assert (newest.number if newest else None) == (begun if over < begun else None)
        assert len(ledger) == begun - over


def test_an_exchange_has_what_was_read_between_its_beginning_and_its_end() -> None:
    ledger = Ledger()
    one = exchange(1)
    ledger.begin(one, 100, 50)
    assert ledger.end(130, 90) is one
    assert (one.from_client, one.from_backend) == (30, 40)


def test_nobody_is_answered_when_none_is_open() -> None:
    with pytest.raises(IndexError):
        Ledger().answered()


def test_it_says_what_is_open() -> None:
    ledger = Ledger()
    for number in (1, 2, 3):
        ledger.begin(exchange(number))
    assert repr(ledger) == "<Ledger of [1, 2, 3]>"
    ledger.answered()
    assert repr(ledger) == "<Ledger of [2, 3], leaving [1]>"
