"""No call of the engine does more than a bounded number of pieces; what is left is due at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import Answers, Flow, near, scripted
from vaurien.flow import EOF, OPEN, WAKE, Close, Data, Event
from vaurien.flow.handler import PIECES, FlowHandler
from vaurien.handlers.latency import Latency
from vaurien.handlers.slicer import Slicer

MOST = 4 * PIECES  # pieces: what waits, what comes in and what follows, each bounded for itself


class Bounded(Flow):
    """A flow whose loop gives the chain some pieces at a time, and looks how many it makes."""

    most = 0  # pieces that one call has made

    def run(self, until: float) -> None:
        while (deadline := self.chain.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.chain.advance(self.now, PIECES)
            self._collect()
        self.now = until

    def feed(self, data: bytes) -> None:
        """As the pump does."""
        self.chain.feed(data, self.exchange, self.now)
        self._collect()

    def _collect(self) -> None:
        self.most = max(self.most, len(self.chain.out))
        super()._collect()


def slicer(size: int, delay: float = 0) -> Slicer:
    """Cuts into pieces of `size`, `delay` microseconds apart."""
    made: Slicer = Slicer({"average_size": size, "delay": delay})
    return made


DATA = bytes(range(256)) * 256


def test_a_chunk_that_is_fed_is_cut_some_pieces_at_a_time() -> None:
    flow = Bounded(slicer(1))
    flow.feed(DATA)
    assert flow.most <= MOST
    assert flow.chain.deadline == 0  # at once
    flow.feed(DATA)
    flow.push(EOF)
    flow.run(1)
    assert flow.data == DATA * 2
    assert flow.left[-1] == (0, EOF)
    assert flow.most <= MOST
    assert flow.chain.held == 0


def test_what_a_stage_holds_that_a_later_one_cuts_is_cut_some_pieces_at_a_time() -> None:
    flow = Bounded(scripted(lambda event, _now: [(1, event)]))
    flow.feed(DATA)
    flow.insert(slicer(1))
    flow.run(2)
    assert flow.data == DATA
    assert flow.most <= MOST


@pytest.mark.parametrize("change", ["remove", "update"])
def test_what_a_change_lets_go_goes_some_pieces_at_a_time(change: str) -> None:
    held = Latency({"latency": 1e6})
    flow = Bounded(held, slicer(1))
    for start in range(0, len(DATA), 500):
        flow.push(DATA[start : start + 500])
    flow.push(EOF)
    flow.run(1)
    (flow.remove if change == "remove" else flow.update)(held)
    assert flow.most <= MOST
    assert 0 < len(flow.data) < len(DATA)
    flow.push(b"more")  # behind the end: it goes nowhere
    flow.run(1)
    assert flow.data == DATA
    assert flow.left[-1] == (1, EOF)
    assert flow.most <= MOST
    assert flow.chain.held == 0


def test_pieces_that_are_due_together_go_some_at_a_time() -> None:
    stage = slicer(1, 1)
    flow = Bounded(stage)
    flow.feed(DATA)
    flow.now = 60  # the loop was held up
    while flow.chain.advance(flow.now, PIECES):
        assert len(flow.chain.out) <= MOST
        flow._collect()
    flow._collect()
    assert flow.data == DATA
    assert flow.most <= MOST


def test_what_comes_while_more_is_due_waits_behind_it_and_no_clock_runs_backwards() -> None:
    seen: list[float] = []

    def answer(event: Event, now: float) -> Answers:
        seen.append(now)
        return [(1, WAKE)] if event is OPEN else [] if event is WAKE else [(0, event)]

    first, last = slicer(1, 1), scripted(answer)
    flow = Bounded(first, last)
    for start in range(0, 5000, 500):
        flow.push(DATA[start : start + 500])
    flow.now = 60
    flow.push(b"late")
    assert b"late" not in flow.data
    flow.run(61)
    assert flow.data == DATA[:5000] + b"late"
    assert seen == sorted(seen)


def test_an_alarm_that_sets_itself_at_once_holds_nobody_up() -> None:
    stage = scripted(lambda event, _now: [(0, WAKE)] if event in (OPEN, WAKE) else [(0, event)])
    flow = Flow(stage)
    assert flow.chain.advance(0, PIECES)  # and it comes back
    assert len(stage.seen) <= 2 * PIECES


def test_a_close_by_a_stage_that_is_taken_away_waits_for_what_is_still_let_go() -> None:
    class Leaving(FlowHandler):
        name = "leaving"

        def on(self, event: Event, now: float) -> Answers:
            yield 0 if event is OPEN else 1e6, event

        def removed(self, now: float) -> Answers:
            yield 0, Data(b"bye")
            yield 0, Close()

    stage = Leaving()
    flow = Bounded(stage, slicer(1))
    flow.feed(DATA[:5000])
    flow.remove(stage)
    assert flow.chain.final is None
    flow.run(0)
    assert flow.data == DATA[:5000] + b"bye"
    assert flow.left[-1] == (0, Close())


def test_a_stage_that_comes_gets_nothing_of_what_is_let_go_before_it() -> None:
    held, added = Latency({"latency": 1e6}), scripted()
    flow = Bounded(held, slicer(1))
    flow.feed(DATA[:5000])
    flow.remove(held)
    flow.insert(added, 0)
    flow.run(0)
    assert [event for _, event in added.seen] == [OPEN]
    assert flow.data == DATA[:5000]


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0, 0.1, 2]), st.sampled_from("fpriu"), st.integers(0, 3)),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=40)
def test_bounds_change_no_byte_and_no_order(script: list[tuple[float, str, int]]) -> None:
    """Whatever is fed and changed meanwhile, with far more pieces than a call may do."""
    flow = Bounded(Latency({"latency": 1000}), slicer(3), Latency({"latency": 500}), slicer(2, 10))
    given_ = b""
    for number, (wait, what, place) in enumerate(script):
        flow.run(flow.now + wait)
        staged = flow.chain.staged
        if what == "f":
            flow.feed(DATA[number : number + 6000])
            given_ += DATA[number : number + 6000]
        elif what == "p":
            flow.push(DATA[number : number + 900])
            given_ += DATA[number : number + 900]
        elif what == "r" and staged:
            flow.remove(staged[place % len(staged)].stage)
        elif what == "u" and staged:
            flow.update(staged[place % len(staged)].stage)
        elif what == "i":
            flow.insert(slicer(3, 5) if place % 2 else Latency(), min(place, len(staged)))
        waiting = [event for event in flow.chain.waiting() if isinstance(event, Data)]
        assert flow.chain.inside == sum(len(event.data) for event in waiting)
        assert flow.chain.inside + len(flow.data) == len(given_)
    flow.push(EOF)
    flow.run(1000)
    assert flow.data == given_
    assert flow.left[-1][1] is EOF
    assert [time for time, _ in flow.left] == sorted(time for time, _ in flow.left)
    assert flow.chain.held == 0
    assert flow.most <= MOST


class Working(FlowHandler):
    """Has much to do for each byte, and makes one piece of them; counts what it does at a time."""

    name = "working"
    done = 0

    def on(self, event: Event, now: float) -> Answers:
        if event is OPEN:
            self.chunk = PIECES
        if isinstance(event, Data):
            self.done += len(event.data)
        yield 0, event


@pytest.mark.parametrize("held", [False, True])
def test_work_is_counted_by_what_a_stage_wants_at_a_time_whatever_it_makes_of_it(
    held: bool,
) -> None:
    working = Working()
    before = Latency({"latency": 1000})
    flow = Bounded(*([before] if held else []), working)
    if held:  # many pieces that are due together, none of which is too large
        for start in range(0, 20_000, 100):
            flow.push(DATA[start : start + 100])
    else:
        flow.feed(DATA[:20_000])
        assert 0 < working.done <= 4 * PIECES
    flow.now = 2
    last = working.done
    while flow.chain.advance(2, PIECES):
        assert 0 < working.done - last <= 2 * PIECES
        last = working.done
    flow._collect()
    assert flow.data == DATA[:20_000]


def test_pieces_that_many_stages_pass_on_are_bounded_too() -> None:
    class Passing(FlowHandler):
        name = "passing"
        runs = 0

        def on(self, event: Event, now: float) -> Answers:
            Passing.runs += 1
            yield 0, event

    flow = Bounded(slicer(1), *(Passing() for _ in range(100)))
    Passing.runs = 0
    flow.feed(DATA[:2000])  # 200,000 runs
    assert Passing.runs <= 8 * PIECES
    most, last = 0, Passing.runs
    while flow.chain.advance(0, PIECES):
        most, last = max(most, Passing.runs - last), Passing.runs
    assert most <= 2 * PIECES
    flow._collect()
    assert flow.data == DATA[:2000]
    assert Passing.runs == 200_000


def test_a_small_chain_is_done_at_once() -> None:
    stage = Latency({"latency": 1000})
    flow = Bounded(stage)
    flow.push(b"a", b"b", EOF)
    flow.run(0.5)
    flow.remove(stage)
    assert flow.left == near([(0.5, b"ab"), (0.5, EOF)])
    assert flow.chain.deadline is None
