"""The halves of sentences that all errors and the log are made of."""

from __future__ import annotations

import pytest

from vaurien.errors import many
from vaurien.relay.counters import Counters


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 lines were dropped"), (1, "1 line was dropped"), (2, "2 lines were dropped")],
)
def test_one_is_not_many(number: int, text: str) -> None:
    assert f"{many(number, 'line', 'was', 'were')} dropped" == text


def test_a_proxy_counts_in_words_that_agree() -> None:
    assert str(Counters(connections=1, failed_dials=1)) == "1 connection, 1 failed dial"
    assert str(Counters(connections=2, crashes=3)) == "2 connections, 3 internal errors"
