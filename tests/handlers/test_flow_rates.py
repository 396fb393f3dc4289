"""The handlers that spread data over time: bandwidth, slicer, trickle."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import Flow, draws, joined, near, times
from tests.rivals.differences import differs
from vaurien.flow import EOF, OPEN, Data, Event
from vaurien.handlers.bandwidth import Bandwidth
from vaurien.handlers.slicer import Slicer
from vaurien.handlers.trickle import Trickle
from vaurien.testing import play

TICK = 1e-9  # seconds: rounding


def sizes(left: list[tuple[float, Event]]) -> list[int]:
    """How large the pieces are."""
    return [len(event.data) for _, event in left if isinstance(event, Data)]


# bandwidth


def test_a_piece_leaves_when_the_line_has_sent_it() -> None:
    # 100 KB/s: 10 ms are 1000 bytes
    left = play([Bandwidth({"rate": 100})], [(0, Data(bytes(2500))), (0, EOF)])
    assert left == near(
        [(0.01, bytes(1000)), (0.02, bytes(1000)), (0.025, bytes(500)), (0.025, EOF)]
    )


@pytest.mark.parametrize("shared", [True, False])
@differs("left-out")
def test_an_unlimited_rate_is_no_limit(shared: bool) -> None:
    stage = Bandwidth({"rate": "unlimited", "shared": shared})
    left = play([stage], [(0, Data(bytes(2500))), (0, EOF)])
    assert left == [(0, Data(bytes(2500))), (0, EOF)]


@pytest.mark.parametrize("shared", [True, False])
def test_a_rate_of_0_lets_nothing_pass(shared: bool) -> None:
    # as in Toxiproxy: Testcontainers cuts connections so
    stage = Bandwidth({"rate": 0, "shared": shared})
    assert play([stage], [(0, Data(bytes(2500))), (0, EOF)]) == []


def test_an_end_with_nothing_before_it_passes_a_rate_of_0() -> None:
    assert play([Bandwidth({"rate": 0})], [(3, EOF)]) == [(3, EOF)]


@pytest.mark.parametrize("change", ["rate", "unlimited", "remove"])
def test_what_a_rate_of_0_holds_goes_on_when_it_is_changed_or_removed(change: str) -> None:
    stage = Bandwidth({"rate": 0})
    flow = Flow(stage)
    flow.push(b"abc")
    flow.run(60)
    assert flow.left == []
    if change == "remove":
        flow.remove(stage)
    else:
        flow.update(stage, rate=change if change == "unlimited" else 100)
    flow.run(60)
    assert flow.left == [(60, Data(b"abc"))]
    flow.push(b"d")
    flow.run(61)
    assert flow.data == b"abcd"


def test_a_kilobyte_is_1000_bytes() -> None:
    left = play([Bandwidth({"rate": 1})], [(0, Data(bytes(1000)))])
    assert left[-1][0] == pytest.approx(1)


def test_the_default_is_100_kb_a_second() -> None:
    assert play([Bandwidth()], [(0, Data(bytes(100)))]) == near([(0.001, bytes(100))])


def test_idle_time_earns_no_credit() -> None:
    left = play([Bandwidth({"rate": 100})], [(0, Data(bytes(1000))), (60, Data(bytes(2000)))])
    assert times(left) == pytest.approx([0.01, 60.01, 60.02])


def test_pieces_wait_for_the_line_one_after_another() -> None:
    left = play([Bandwidth({"rate": 100})], [(0, Data(bytes(500)))] * 4)
    assert times(left) == pytest.approx([0.005, 0.01, 0.015, 0.02])


def test_the_end_of_the_flow_takes_no_time_of_the_line() -> None:
    assert play([Bandwidth({"rate": 1})], [(3, EOF)]) == [(3, EOF)]


@given(
    st.floats(0.001, 1e6),
    st.lists(st.tuples(st.floats(0, 0.1), st.binary(min_size=1, max_size=3000)), max_size=5),
)
@settings(deadline=None, max_examples=60)
@differs("bandwidth-pieces")
def test_no_piece_is_more_than_10_ms_of_the_line_and_no_byte_is_early_or_late(
    rate: float, parts: list[tuple[float, bytes]]
) -> None:
    speed, now, free = rate * 1000, 0.0, 0.0
    events: list[tuple[float, Event]] = []
    expected: list[float] = []  # when the line has sent each byte
    for wait, data in parts:
        now += wait
        free = max(now, free)
        expected += [free + n / speed for n in range(1, len(data) + 1)]
        free += len(data) / speed
        events.append((now, Data(data)))
    left = play([Bandwidth({"rate": rate})], events)
    assert joined(left) == b"".join(data for _, data in parts)
    at = 0
    for (time, _), size in zip(left, sizes(left), strict=True):
        assert size == 1 or size / speed <= 0.01 * (1 + TICK)
        at += size
        assert time == pytest.approx(expected[at - 1], rel=1e-9, abs=TICK)


def test_each_connection_has_a_line_of_its_own() -> None:
    shared: dict[Any, Any] = {}
    for _ in range(2):
        stage = Bandwidth({"rate": 1}, False, None, shared)
        assert play([stage], [(0, Data(b"x"))]) == near([(0.001, b"x")])


def test_a_shared_line_sends_for_one_connection_after_the_other() -> None:
    shared: dict[Any, Any] = {}
    one, two = (Flow(Bandwidth({"rate": 1, "shared": True}, False, None, shared)) for _ in range(2))
    one.push(bytes(10))
    two.push(bytes(10))
    one.push(bytes(10))
    for flow in (one, two):
        flow.run(1)
    assert times(one.left) == pytest.approx([0.01, 0.03])
    assert times(two.left) == pytest.approx([0.02])


def test_a_shared_line_is_another_one_in_the_other_direction() -> None:
    shared: dict[Any, Any] = {}
    for to_backend in (False, True):
        stage = Bandwidth({"rate": 1, "shared": True}, to_backend, None, shared)
        assert play([stage], [(0, Data(b"x"))]) == near([(0.001, b"x")])


def test_an_update_of_bandwidth_frees_the_line_of_what_it_passed_on() -> None:
    # What is held goes on at once, so nothing after it has to wait for it (law 8: its clock
    # starts anew).
    stage = Bandwidth({"rate": 1})
    flow = Flow(stage)
    flow.push(bytes(100_000))
    flow.run(1)
    flow.update(stage, rate=100)
    assert len(flow.data) == 100_000
    flow.push(bytes(1000))
    flow.run(200)
    assert flow.left[-1] == near([(1.01, bytes(1000))])[0]


def test_an_update_of_a_shared_line_frees_it_too() -> None:
    shared: dict[Any, Any] = {}
    stages = [Bandwidth({"rate": 1, "shared": True}, False, None, shared) for _ in range(2)]
    flows = [Flow(stage) for stage in stages]
    flows[0].push(bytes(100_000))
    for flow, stage in zip(flows, stages, strict=True):
        flow.run(1)
        flow.update(stage, rate=100)
    flows[1].push(bytes(1000))
    flows[1].run(200)
    assert flows[1].left == near([(1.01, bytes(1000))])


def test_a_connection_that_opens_does_not_free_a_shared_line() -> None:
    shared: dict[Any, Any] = {}
    first, second = (Bandwidth({"rate": 1, "shared": True}, False, None, shared) for _ in range(2))
    flow = Flow(first)
    flow.push(bytes(100))
    flow = Flow(second)
    flow.push(bytes(10))
    flow.run(1)
    assert flow.left == near([(0.11, bytes(10))])


def test_a_removal_of_bandwidth_lets_all_go_at_once() -> None:
    stage = Bandwidth({"rate": 1})
    flow = Flow(stage)
    flow.push(bytes(range(250)))
    flow.run(0.1)
    flow.remove(stage)
    assert flow.data == bytes(range(250))
    assert len(flow.left) == 11  # what had left, and all else as one


# slicer


def test_data_is_cut_into_pieces_with_a_delay_between_them() -> None:
    left = play([Slicer({"average_size": 10, "delay": 5000})], [(0, Data(bytes(25)))])
    assert left == near([(0, bytes(10)), (0.005, bytes(10)), (0.01, bytes(5))])


def test_the_delay_is_kept_between_the_pieces_of_two_chunks() -> None:
    stage = Slicer({"average_size": 10, "delay": 5000})
    left = play([stage], [(0, Data(bytes(20))), (0.006, Data(bytes(10))), (1, Data(bytes(10)))])
    assert times(left) == pytest.approx([0, 0.005, 0.01, 1])


def test_without_a_delay_pieces_go_at_once_each_on_its_own() -> None:
    left = play([Slicer({"average_size": 1})], [(0, Data(b"abc")), (0, EOF)])
    assert left == [(0, Data(b"a")), (0, Data(b"b")), (0, Data(b"c")), (0, EOF)]


def test_the_delay_of_a_slicer_is_in_microseconds() -> None:
    left = play([Slicer({"average_size": 1, "delay": 1})], [(0, Data(b"ab"))])
    assert times(left) == pytest.approx([0, 1e-6])


@differs("slicer-sizes")
def test_the_size_of_a_piece_is_uniform() -> None:
    stage = Slicer({"average_size": 10, "size_variation": 3}, False, draws())
    counts = Counter(sizes(play([stage], [(0, Data(bytes(200_000)))]))[:-1])
    n = counts.total()
    assert set(counts) == set(range(7, 14))
    for size, count in counts.items():
        assert abs(count - n / 7) < 4 * sqrt(n / 7), (size, counts)


def test_a_piece_has_at_least_one_byte() -> None:
    stage = Slicer({"average_size": 1, "size_variation": 100})
    left = play([stage], [(0, Data(bytes(5000)))])
    assert min(sizes(left)) == 1
    assert len(joined(left)) == 5000


def test_an_update_of_a_slicer_frees_it_of_what_it_passed_on() -> None:
    stage = Slicer({"average_size": 1, "delay": 1_000_000})
    flow = Flow(stage)
    flow.push(bytes(100))
    flow.run(1.5)
    flow.update(stage, delay=0)
    flow.push(b"x")
    flow.run(200)
    assert flow.left[-1] == near([(1.5, b"x")])[0]


# trickle


def test_a_chunk_is_spread_evenly_over_the_duration() -> None:
    left = play([Trickle({"duration": 1000})], [(0, Data(b"abcde")), (0, EOF)])
    assert left == near([(0, b"a"), (0.25, b"b"), (0.5, b"c"), (0.75, b"d"), (1, b"e"), (1, EOF)])


@given(
    st.sampled_from([0, 0.5, 1, 2, 3, 7, 10, 99.5, 100]),
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 500)), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_pieces_of_a_chunk_are_at_least_1_ms_apart(
    duration: float, parts: list[tuple[float, int]]
) -> None:
    now, events = 0.0, []
    for number, (wait, n) in enumerate(parts):
        now += wait
        events.append((now, Data(bytes([number]) * n)))
    left = play([Trickle({"duration": duration})], events)
    assert joined(left) == b"".join(event.data for _, event in events)
    for number in range(len(parts)):
        mine = [time for time, event in left if isinstance(event, Data) and event.data[0] == number]
        assert all(b - a >= 0.001 - TICK for a, b in pairwise(mine))
        assert mine[-1] - mine[0] <= duration / 1000 + TICK


def test_pieces_of_two_chunks_are_at_least_1_ms_apart_too() -> None:
    left = play([Trickle({"duration": 10})], [(0, Data(bytes(50)))] * 3)
    assert len(joined(left)) == 150
    assert all(b - a >= 0.001 - TICK for a, b in pairwise(times(left)))


def test_a_long_chunk_takes_no_longer_than_a_short_one() -> None:
    left = play([Trickle({"duration": 100})], [(0, Data(bytes(65536)))])
    assert times(left)[0] == 0
    assert times(left)[-1] == pytest.approx(0.1)
    assert len(left) == 101
    assert max(sizes(left)) - min(sizes(left)) <= 1


def test_a_duration_of_0_passes_at_once() -> None:
    assert play([Trickle({"duration": 0})], [(0, Data(b"abc"))]) == [(0, Data(b"abc"))]


def test_an_update_of_trickle_frees_it_of_what_it_passed_on() -> None:
    stage = Trickle({"duration": 60_000})
    flow = Flow(stage)
    flow.push(b"abc", b"def")
    flow.run(1)
    flow.update(stage, duration=0)
    flow.push(b"x")
    flow.run(200)
    assert flow.left[-1] == near([(1, b"x")])[0]


@pytest.mark.parametrize("stage", [Bandwidth(), Slicer(), Trickle()])
def test_other_events_than_data_pass(stage: Any) -> None:
    assert list(stage.on(EOF, 5)) == [(0, EOF)]
    assert all(event is OPEN for _, event in stage.on(OPEN, 5))
