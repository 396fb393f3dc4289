"""What stages share: a line gives back what is not sent when somebody leaves, and rests only when
nobody waits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import Answers, Flow, near, times
from vaurien.errors import HandlerRaised
from vaurien.flow import EOF, OPEN, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.flow.line import Line
from vaurien.handlers.bandwidth import Bandwidth

RATE = 1  # KB/s: 10 bytes take 10 ms
SPEED = 1000.0 * RATE  # bytes per second
ROUNDING = 1e-6  # seconds


class Shared:
    """Connections that share one line, in one virtual time."""

    def __init__(self) -> None:
        self.shared: dict[Any, Any] = {}
        self.flows: list[Flow] = []
        self.told: list[Flow] = []  # whose deadline has come nearer by itself
        self.now = 0.0

    def open(self) -> Flow:
        """One more connection."""
        flow = Flow()
        flow.now = self.now
        flow.insert(Bandwidth({"rate": RATE, "shared": True}, False, None, self.shared))
        flow.chain.sooner = lambda: self.told.append(flow)
        self.flows.append(flow)
        return flow

    def run(self, until: float) -> None:
        """Let time pass for all together, as in a loop: whoever is due first goes first."""
        while True:
            due = [(f.chain.deadline, n) for n, f in enumerate(self.flows) if f.chain.deadline]
            at, n = min(due, default=(until + 1, 0))
            assert at is not None
            if at > until:
                break
            self.flows[n].run(at)
        for flow in self.flows:
            flow.run(until)
        self.now = until

    def close(self, flow: Flow) -> None:
        """A connection ends."""
        flow.chain.close(self.now)
        self.flows.remove(flow)


def test_what_a_connection_that_is_gone_had_booked_is_given_back() -> None:
    line = Shared()
    gone = line.open()
    gone.push(bytes(14_000))  # 14 s of the line
    line.run(1)
    line.close(gone)
    other = line.open()
    other.push(bytes(100))
    line.run(20)
    assert times(other.left)[-1] == pytest.approx(1.1)


def test_who_waits_behind_a_connection_that_is_gone_moves_up() -> None:
    line = Shared()
    gone, other = line.open(), line.open()
    gone.push(bytes(14_000))
    other.push(bytes(100), EOF)
    assert other.chain.deadline == pytest.approx(14.01)
    line.run(1)
    line.close(gone)
    assert other in line.told
    assert other.chain.deadline == pytest.approx(1.01)
    line.run(20)
    assert other.left[-1] == near([(1.1, EOF)])[0]


def test_all_who_wait_move_up_by_what_was_before_them_and_no_more() -> None:
    line = Shared()
    first, gone, second, third = (line.open() for _ in range(4))
    first.push(bytes(100))
    gone.push(bytes(1000))
    second.push(bytes(100))
    gone.push(bytes(1000))
    third.push(bytes(100))
    line.run(0.05)
    line.close(gone)
    line.run(9)
    ends = [times(flow.left)[-1] for flow in (first, second, third)]
    assert ends == pytest.approx([0.1, 0.2, 0.3])


def test_what_comes_after_somebody_has_left_waits_for_those_who_stay() -> None:
    line = Shared()
    gone, other, late = line.open(), line.open(), line.open()
    gone.push(bytes(1000))
    other.push(bytes(500))
    line.run(0.5)
    line.close(gone)
    late.push(bytes(100))
    line.run(9)
    assert times(other.left)[-1] == pytest.approx(1.0)
    assert times(late.left)[-1] == pytest.approx(1.1)


@pytest.mark.parametrize("change", ["remove", "update"])
def test_a_change_on_an_open_connection_gives_back_what_goes_on_at_once(change: str) -> None:
    line = Shared()
    changed, other = line.open(), line.open()
    changed.push(bytes(14_000))
    other.push(bytes(100))
    line.run(1)
    stage = changed.chain.staged[0].stage
    (changed.remove if change == "remove" else changed.update)(stage)
    assert len(changed.data) == 14_000
    line.run(20)
    assert times(other.left)[-1] == pytest.approx(1.1)


def test_the_first_who_waits_is_told_and_no_other() -> None:
    # to tell all who wait of each who leaves would take long where many do
    line = Shared()
    gone = line.open()
    gone.push(bytes(1000))
    waiting = [line.open() for _ in range(100)]
    for flow in waiting:
        flow.push(bytes(10))
    line.close(gone)
    assert line.told == waiting[:1]
    line.run(2)
    assert [times(flow.left) for flow in waiting] == [
        pytest.approx([0.01 * (n + 1)]) for n in range(100)
    ]


def test_who_is_alone_has_one_ticket_however_much_it_sends() -> None:
    line = Shared()
    flow = line.open()
    for _ in range(1000):
        flow.push(b"x")
    assert len(line.shared[False]._tickets) == 1
    assert repr(line.shared[False]) == "<Line for which 1 wait>"
    line.run(2)
    assert not line.shared[False]._tickets
    assert repr(line.shared[False]) == "<Line for which 0 wait>"


def test_what_has_been_given_back_is_forgotten_when_nobody_is_before_it() -> None:
    line = Shared()
    for _ in range(100):
        gone, other = line.open(), line.open()
        gone.push(bytes(100))
        other.push(bytes(10))
        line.close(gone)
        line.run(line.now + 1)
        line.close(other)
    shared: Line = line.shared[False]
    assert not shared._tickets
    assert not shared._places


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0.003, 0.05, 0.5]),
            st.sampled_from(["open", "push", "push", "push", "close", "update", "end"]),
            st.integers(0, 5),
            st.integers(1, 120),
        ),
        max_size=25,
    )
)
@settings(deadline=None, max_examples=150)
def test_a_line_never_sends_faster_than_its_rate(
    script: list[tuple[float, str, int, int]],
) -> None:
    line = Shared()
    alive = [line.open(), line.open()]
    everyone = list(alive)
    at_once: set[tuple[int, int]] = set()  # what an update has let go: of which flow, its place
    for wait, what, which, n in script:
        line.run(line.now + wait)
        flow = alive[which % len(alive)]
        if what == "open":
            alive.append(line.open())
            everyone.append(alive[-1])
        elif what == "push" and not flow.chain.ended:
            flow.push(bytes(n))
        elif what == "end":
            flow.push(EOF)
        elif what == "update":
            before = len(flow.left)
            flow.update(flow.chain.staged[0].stage)
            at_once |= {(id(flow), index) for index in range(before, len(flow.left))}
        elif what == "close" and len(alive) > 1:
            alive.remove(flow)
            line.close(flow)
    line.run(line.now + 100)
    for flow in alive:
        assert flow.chain.held == 0
        assert [time for time, _ in flow.left] == sorted(time for time, _ in flow.left)
    sent = sorted(
        (time, len(event.data))
        for flow in everyone
        for index, (time, event) in enumerate(flow.left)
        if isinstance(event, Data) and (id(flow), index) not in at_once
    )
    for (before_, _), (time, n) in pairwise(sent):
        assert time - before_ >= n / SPEED - ROUNDING


def test_a_line_rests_for_nothing_while_somebody_waits() -> None:
    line = Shared()
    flows = [line.open() for _ in range(6)]
    for _ in range(10):
        for flow in flows:
            flow.push(bytes(10))
    for n, flow in enumerate(flows[::2]):
        line.run(0.05 * (n + 1))
        line.close(flow)
    line.run(9)
    sent = sorted(time for flow in flows for time, event in flow.left if isinstance(event, Data))
    assert [b - a for a, b in pairwise(sent)] == pytest.approx([0.01] * (len(sent) - 1))
    assert all(len(flow.data) == 100 for flow in flows[1::2])


# `closed`, which any handler may have


class Counting(FlowHandler):
    """Counts in what it shares how many are there."""

    name = "counting"
    error: BaseException | None = None

    def on(self, event: Event, now: float) -> Answers:
        if event is OPEN:
            self.shared["open"] = self.shared.get("open", 0) + 1
        yield 5, event

    def closed(self, now: float) -> None:
        self.shared["open"] -= 1
        self.shared["closed at"] = now
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("how", ["close", "remove"])
def test_a_stage_is_told_once_when_it_is_over(how: str) -> None:
    shared: dict[Any, Any] = {}
    stages = [Counting(None, False, None, shared) for _ in range(2)]
    flow = Flow(*stages)
    flow.push(b"a")
    flow.run(1)
    if how == "remove":
        flow.remove(stages[0])
        assert shared == {"open": 1, "closed at": 1}
    flow.chain.close(2)
    flow.chain.close(3)
    assert shared == {"open": 0, "closed at": 2}


def test_nothing_goes_through_a_chain_that_is_closed() -> None:
    flow = Flow(Counting())
    flow.push(b"a")
    flow.chain.close(1)
    flow.push(b"b", EOF)
    flow.chain.feed(bytes(200_000), flow.exchange, 2)
    flow.run(9)
    assert flow.left == []
    assert flow.chain.held == 0
    assert not flow.chain.busy


@pytest.mark.parametrize("error", [KeyError("oh"), SystemExit(3)])
def test_one_stage_that_raises_when_it_is_over_keeps_no_other_from_it(error: BaseException) -> None:
    shared: dict[Any, Any] = {}
    stages = [Counting(None, False, None, shared) for _ in range(3)]
    stages[0].error = error
    flow = Flow(*stages)
    with pytest.raises(HandlerRaised) as caught:
        flow.chain.close(1)
    assert caught.value.handler is stages[0]
    assert caught.value.__cause__ is error
    assert shared["open"] == 0
