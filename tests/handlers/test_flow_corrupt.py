"""Corrupt: which bits it flips."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import Flow, draws, joined, pieces
from vaurien.flow import EOF, Begin, Data
from vaurien.handlers.corrupt import Corrupt
from vaurien.testing import play

LONG = 200_000


def flips(data: bytes, **options: Any) -> list[int]:
    """What was changed in each byte, as a mask."""
    seed = options.pop("seed", 1)
    left = play([Corrupt(options, False, draws("corrupt", seed))], [(0, Data(data)), (0, EOF)])
    assert [event for _, event in left][-1] is EOF
    return [a ^ b for a, b in zip(data, joined(left), strict=True)]


def test_each_byte_is_spoilt_by_its_chance_and_in_one_bit() -> None:
    for chance in (0.1, 1, 30):
        masks = [mask for mask in flips(bytes(LONG), chance=chance) if mask]
        p = chance / 100
        assert abs(len(masks) - LONG * p) < 4 * sqrt(LONG * p * (1 - p))
        assert all(mask.bit_count() == 1 for mask in masks)


def test_bytes_are_spoilt_each_on_its_own() -> None:
    masks = flips(bytes(LONG), chance=30)
    both = sum(bool(a and b) for a, b in pairwise(masks))
    assert abs(both - LONG * 0.09) < 5 * sqrt(LONG * 0.09)


def test_each_bit_is_as_likely() -> None:
    counts = Counter(flips(bytes(40_000), chance=100))
    assert set(counts) == {1 << bit for bit in range(8)}
    for count in counts.values():
        assert abs(count - 5000) < 4 * sqrt(5000)


def test_a_chance_of_0_spoils_nothing_and_of_100_each_byte() -> None:
    assert not any(flips(bytes(1000), chance=0))
    assert all(flips(bytes(1000), chance=100))


def test_the_default_is_one_byte_of_a_hundred() -> None:
    assert 800 < sum(map(bool, flips(bytes(100_000)))) < 1200


@pytest.mark.parametrize("offset", [0, 7, 99])
def test_only_the_byte_at_the_offset_is_spoilt(offset: int) -> None:
    masks = flips(bytes(100), offset=offset, chance=100)
    assert [at for at, mask in enumerate(masks) if mask] == [offset]


def test_an_offset_behind_the_data_spoils_nothing() -> None:
    assert not any(flips(bytes(100), offset=100))


def test_the_offset_counts_in_each_exchange() -> None:
    events: list[Any] = []
    for number in range(1, 4):
        events += [(number, Begin(number)), (number, Data(bytes(2))), (number, Data(bytes(3)))]
    data = joined(play([Corrupt({"offset": 3})], events))
    assert [at for at, byte in enumerate(data) if byte] == [3, 8, 13]


@given(st.lists(st.integers(0, 300), max_size=8), st.sampled_from([0.5, 5, 60, 100]))
@settings(deadline=None, max_examples=60)
def test_how_data_is_cut_changes_no_flip(cuts: list[int], chance: float) -> None:
    data = bytes(300)
    left = play(
        [Corrupt({"chance": chance}, False, draws("corrupt"))],
        [(0, Data(piece)) for piece in pieces(data, *cuts)],
    )
    assert list(joined(left)) == flips(data, chance=chance)


def test_flips_follow_from_the_seed_and_differ_between_exchanges() -> None:
    assert flips(bytes(500), chance=5) == flips(bytes(500), chance=5)
    assert flips(bytes(500), chance=5) != flips(bytes(500), chance=5, seed=2)
    flow = Flow(Corrupt({"chance": 5}, False, draws("corrupt")))
    for number in (1, 2):
        flow.begin(number)
        flow.push(bytes(500))
    assert flow.data[:500] != flow.data[500:]


def test_the_data_that_came_in_is_not_changed_itself() -> None:
    data = Data(bytes(50))
    play([Corrupt({"chance": 100})], [(0, data)])
    assert data.data == bytes(50)


@pytest.mark.parametrize("before", [{"chance": 0}, {"offset": 3}, {"chance": 0.001}])
def test_an_update_counts_from_then_on(before: dict[str, Any]) -> None:
    # a long download is one exchange: nobody would wait for the next
    stage = Corrupt(before)
    flow = Flow(stage)
    flow.begin(1)
    flow.push(bytes(10))
    stage.options = Corrupt({"chance": 100}).options
    flow.chain.update(flow.place(stage), 0)
    flow.push(bytes(20))
    assert all(flow.data[10:])
