"""Stall: what packet loss does to a stream."""

from __future__ import annotations

from itertools import pairwise
from math import log2, sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import Flow, Left, draws, joined, near, pieces, times
from vaurien.behavior import Dice, Exchange
from vaurien.flow import EOF, Begin, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.stall import Stall
from vaurien.handlers.truncate import Truncate
from vaurien.testing import play

MANY = 10_000
FAR = 10_000.0  # seconds between packets, more than any stall here


def stalls(n: int = MANY, seed: int = 1, **options: Any) -> list[float]:
    """How long each of so many packets stalls, in ms."""
    stage = Stall({"packet": 10, **options}, False, draws("stall", seed))
    left = play([stage], [(number * FAR, Data(bytes(10))) for number in range(n)])
    return [round(time % FAR * 1000, 3) for time in times(left)]


def share(sample: list[bool]) -> float:
    """How many of them are so."""
    return sum(sample) / len(sample)


def test_without_loss_nothing_stalls() -> None:
    assert set(stalls(200, loss=0)) == {0}


def test_the_share_of_packets_that_stall_is_the_loss() -> None:
    for loss in (1, 20):
        p = loss / 100
        sample = stalls(loss=loss)
        assert abs(share([one > 0 for one in sample]) - p) < 4 * sqrt(p * (1 - p) / MANY)


def test_losses_come_each_on_its_own() -> None:
    lost = [one > 0 for one in stalls(loss=20)]
    after = [b for a, b in pairwise(lost) if a]
    assert abs(share(after) - 0.2) < 4 * sqrt(0.16 / len(after))


def test_a_packet_that_is_lost_again_stalls_twice_as_long_up_to_a_bound() -> None:
    sample = stalls(loss=50, rto=200, max_rto=500)
    allowed = [0, 200, 600, 1100, 1600, 2100, 2600]  # 200, 400, and 500 from then on
    assert set(allowed) <= set(sample)
    for number, bound in enumerate(allowed):
        p = 0.5**number
        assert abs(share([one >= bound for one in sample]) - p) < 4 * sqrt(p / MANY)


def test_the_first_stall_is_bounded_too() -> None:
    assert min(one for one in stalls(500, loss=50, rto=200, max_rto=50) if one) == 50


def test_defaults_are_those_of_linux() -> None:
    sample = set(stalls(5000, loss=30))
    assert {0, 200, 600, 1400} <= sample


def test_gilbert_elliott_loses_in_bursts() -> None:
    sample = stalls(model="gilbert-elliott", loss=50, go_bad=2, go_good=20)
    lost = [one > 0 for one in sample]
    after = [b for a, b in pairwise(lost) if a]
    losses = sum(round(log2(one / 200 + 1)) for one in sample)  # 200, 200 + 400, ...
    # of all packets, those sent again included, the share that finds the line bad, and is lost
    assert losses / (MANY + losses) == pytest.approx(2 / 22 * 0.5, rel=0.15)
    assert share(after) > 5 * share(lost)


def test_a_good_line_that_never_turns_bad_loses_nothing() -> None:
    assert set(stalls(500, model="gilbert-elliott", loss=100, go_bad=0)) == {0}


def test_a_bad_line_that_always_turns_good_stalls_every_other_packet() -> None:
    sample = stalls(10, model="gilbert-elliott", loss=100, go_bad=100, go_good=100)
    # bad and lost, good when it is sent again; the next one finds it bad again
    assert sample == [200] * 10


def test_a_lost_packet_holds_all_that_is_behind_it() -> None:
    stage = Stall({"loss": 100, "model": "gilbert-elliott", "go_bad": 100, "go_good": 100})
    left = play([stage], [(0, Data(b"a")), (0.1, Data(b"b")), (0.15, EOF)], until=10)
    assert left == near([(0.2, b"a"), (0.2, b"b"), (0.2, EOF)])


def test_what_is_before_a_lost_packet_is_not_held() -> None:
    for seed in range(20):
        stage = Stall({"loss": 50, "packet": 10}, False, draws("stall", seed))
        left = play([stage], [(0, Data(bytes(20)))])
        if len(left) == 2 and not left[0][0]:  # the second packet only was lost
            assert left[0][1] == Data(bytes(10))
            assert left[1][0] >= 0.2
            return
    raise AssertionError("in no case was the second packet the first to be lost")


def due(left: list[tuple[float, Event]]) -> list[float]:
    """When each byte left."""
    return [time for time, event in left if isinstance(event, Data) for _ in event.data]


@given(st.integers(1, 300), st.lists(st.integers(1, 300), max_size=6), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_how_data_is_cut_changes_no_stall_and_loses_no_byte(
    n: int, cuts: list[int], seed: int
) -> None:
    data = bytes(range(256)) * 2
    options = {"loss": 30, "packet": 17}
    whole = play([Stall(options, False, draws("s", seed))], [(0, Data(data[:n]))])
    cut = play(
        [Stall(options, False, draws("s", seed))],
        [(0, Data(piece)) for piece in pieces(data[:n], *cuts)],
    )
    assert joined(whole) == joined(cut) == data[:n]
    assert due(whole) == pytest.approx(due(cut))


def test_when_everything_is_lost_nothing_comes_until_it_is_removed() -> None:
    stage = Stall({"loss": 100})
    flow = Flow(stage)
    flow.push(b"abc", b"def", EOF)
    flow.run(1e8)
    assert flow.left == []
    flow.remove(stage)
    assert flow.left == [(1e8, Data(b"abcdef")), (1e8, EOF)]


def test_when_everything_was_lost_an_update_heals_the_line() -> None:
    stage = Stall({"loss": 100})
    flow = Flow(stage)
    flow.push(b"abc")
    flow.run(1)
    flow.update(stage, loss=0)
    flow.push(b"def")
    flow.run(1e6)
    assert flow.left == [(1, Data(b"abc")), (1, Data(b"def"))]


def test_the_end_of_the_flow_is_no_packet() -> None:
    assert play([Stall({"loss": 100})], [(0, EOF)]) == [(0, EOF)]


def test_other_stages_change_no_stall() -> None:
    # law 8: also those behind it that want to know where exchanges begin
    def lefts(*behind: FlowHandler) -> Left:
        flow = Flow(Stall({"loss": 30, "packet": 10}, False, draws("stall")), *behind)
        for number in range(1, 40):
            flow.exchange = Exchange(Dice(1, "test"), 1, number)
            if flow.chain.wants_begin:  # the proxy spares it if nobody does
                flow.push(Begin(number))
            flow.push(bytes(7), at=number * FAR)
        flow.run(1e9)
        return flow.left

    assert lefts() == lefts(Truncate({"bytes": 1000}))
