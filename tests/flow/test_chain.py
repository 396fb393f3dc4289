"""The engine of flow handlers: order, clocks, ends, what is held, and changes while it runs."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

import vaurien.flow
from tests.flow.helpers import (
    Answers,
    Flow,
    Scripted,
    draws,
    holding,
    joined,
    near,
    passes,
    scripted,
)
from vaurien.errors import HandlerRaised
from vaurien.flow import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.chain import PIECE, Place
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.latency import Latency
from vaurien.handlers.noop import Noop
from vaurien.handlers.slicer import Slicer


def at_data(*answers: tuple[float, Event]) -> Scripted:
    """A stage that answers each piece of data with `answers`, and passes on all else."""

    def answer(event: Event, _now: float) -> Answers:
        return answers if isinstance(event, Data) else [(0, event)]

    return scripted(answer)


# Order


def test_an_empty_chain_passes_everything_at_once() -> None:
    flow = Flow()
    flow.push(b"a", b"b", EOF)
    assert flow.left == [(0, Data(b"a")), (0, Data(b"b")), (0, EOF)]
    assert flow.chain.held == 0


def test_a_short_delay_waits_for_the_long_one_before_it() -> None:
    flow = Flow(holding(0.5, 0.1, 0.9, 0))
    flow.push(b"a", b"b", b"c", b"d", EOF)
    flow.run(2)
    assert flow.left == near([(0.5, b"a"), (0.5, b"b"), (0.9, b"c"), (0.9, b"d"), (0.9, EOF)])


def test_later_data_keeps_its_place_behind_what_an_earlier_stage_held() -> None:
    flow = Flow(holding(0.5, 0), holding(0, 0.3))
    flow.push(b"a", b"b")
    flow.run(2)
    assert flow.left == near([(0.5, b"a"), (0.8, b"b")])


def test_what_is_due_at_the_same_time_leaves_in_order() -> None:
    flow = Flow(holding(0.2, 0.2, 0.2))
    flow.push(b"a", b"b", b"c")
    flow.run(1)
    assert joined(flow.left) == b"abc"


def test_the_answers_to_one_event_leave_in_the_order_of_answering() -> None:
    flow = Flow(at_data((0.3, Data(b"1")), (0.1, Data(b"2")), (0.4, Data(b"3"))))
    flow.push(b"x")
    flow.run(1)
    assert flow.left == near([(0.3, b"1"), (0.3, b"2"), (0.4, b"3")])


def test_delays_of_stages_add_up() -> None:
    flow = Flow(holding(0.1), holding(0.2), holding(0.4))
    flow.push(b"a")
    flow.run(1)
    assert flow.left == near([(0.7, b"a")])


def test_delays_overlap_as_on_a_long_line() -> None:
    flow = Flow(holding(1))
    for tenth in range(5):
        flow.push(b"a", at=tenth / 10)
    flow.run(3)
    assert [time for time, _ in flow.left] == pytest.approx([1, 1.1, 1.2, 1.3, 1.4])


def test_an_end_in_its_place_waits_for_what_is_before_it() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(0, Close())] if event is EOF else [(0.5 if isinstance(event, Data) else 0, event)]

    flow = Flow(scripted(answer))
    flow.push(b"a", EOF)
    flow.run(1)
    assert flow.left == near([(0.5, b"a"), (0.5, Close())])


def test_a_dropped_event_goes_nowhere() -> None:
    later = scripted()
    flow = Flow(at_data(), later)
    flow.push(b"a")
    assert flow.left == []
    assert later.seen == [(0, OPEN)]
    assert flow.chain.held == 0


def test_empty_data_is_no_event() -> None:
    later = scripted()
    flow = Flow(at_data((0, Data(b"")), (0.1, Data(b""))), later)
    flow.push(b"a", b"")
    flow.run(1)
    assert flow.left == []
    assert later.seen == [(0, OPEN)]


# The ends


def test_the_end_of_the_flow_leaves_once() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(0, EOF), (0, EOF), (0.1, EOF)] if event is EOF else [(0, event)]

    flow = Flow(scripted(answer))
    flow.push(EOF)
    flow.run(1)
    assert flow.left == [(0, EOF)]
    assert flow.chain.ended


def test_no_data_leaves_after_the_end_of_the_flow() -> None:
    flow = Flow(at_data((0, EOF), (0, Data(b"late"))))
    flow.push(b"a", b"b", EOF)
    assert flow.left == [(0, EOF)]
    assert flow.chain.held == 0


def test_a_reset_jumps_the_queue_and_drops_what_is_held_everywhere() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(0, Reset("client"))] if event == Data(b"!") else [(0, event)]

    flow = Flow(holding(0, 0, 5), scripted(answer), holding(9))
    flow.push(b"held by the third", b"!")
    assert flow.left == [(0, Reset("client"))]
    assert flow.chain.held == 0
    assert flow.chain.deadline is None
    assert not flow.chain.busy


def test_a_reset_drops_what_is_ready_to_leave() -> None:
    flow = Flow(at_data((0, Data(b"a")), (0, Reset())))
    flow.push(b"x")
    assert flow.left == [(0, Reset())]
    assert flow.chain.held == 0


@pytest.mark.parametrize("end", [Reset(), Close()])
def test_what_a_stage_answers_after_an_end_is_not_even_held(end: Event) -> None:
    flow = Flow(at_data((0, end), (1, Data(b"late")), (2, WAKE)))
    flow.push(b"x")
    assert flow.left == [(0, end)]
    assert flow.chain.held == 0
    assert not flow.chain.busy


def test_a_reset_answered_with_a_delay_comes_after_that_delay() -> None:
    # It does not wait for what is held before it, but for its own time.
    flow = Flow(at_data((0.2, Data(b"a")), (9, Data(b"b")), (0.5, Reset())))
    flow.push(b"x")
    flow.run(10)
    assert flow.left == near([(0.2, b"a"), (0.5, Reset())])


@pytest.mark.parametrize("end", [Close(), Close("client"), Reset(), Reset("backend")])
def test_nothing_leaves_after_a_close_or_a_reset(end: Event) -> None:
    def answer(event: Event, _now: float) -> Answers:
        if event is OPEN:
            return [(0.5, WAKE)]
        return [(0, end), (0, Data(b"late")), (0, EOF)] if event is WAKE else [(0, event)]

    flow = Flow(holding(0, 0.7), scripted(answer))
    flow.push(b"a", b"b", at=0.1)
    flow.push(b"c", EOF, at=0.6)
    flow.run(2)
    flow.push(b"d", EOF)
    assert flow.left == near([(0.1, b"a"), (0.5, end)])


def test_a_close_goes_through_the_stages_behind_in_order() -> None:
    flow = Flow(at_data((0, Data(b"a")), (0, Close())), holding(0.4))
    flow.push(b"x")
    flow.run(1)
    assert flow.left == near([(0.4, b"a"), (0.4, Close())])


# Alarms


def test_an_alarm_comes_back_to_its_stage_only() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(0.5, WAKE)] if event is OPEN else [] if event is WAKE else [(0, event)]

    before, stage, after = scripted(), scripted(answer), scripted()
    flow = Flow(before, stage, after)
    flow.run(1)
    assert stage.seen == [(0, OPEN), (0.5, WAKE)]
    assert before.seen == after.seen == [(0, OPEN)]
    assert flow.left == []


def test_an_alarm_never_holds_up_data() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(5, WAKE), (0, event)] if isinstance(event, Data) else [(0, event)]

    flow = Flow(scripted(answer))
    flow.push(b"a", b"b", EOF)
    assert joined(flow.left) == b"ab"
    assert flow.chain.empty
    assert flow.chain.held == 0
    assert flow.chain.busy  # somebody waits for an alarm


def test_an_alarm_does_not_wait_for_held_data() -> None:
    def answer(event: Event, _now: float) -> Answers:
        if isinstance(event, Data):
            return [(5, event), (1, WAKE)]
        return [] if event is WAKE else [(0, event)]

    stage = scripted(answer)
    flow = Flow(stage)
    flow.push(b"a")
    flow.run(2)
    assert stage.seen[-1] == (1, WAKE)
    assert flow.left == []


def test_each_alarm_asked_for_comes_once() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(0.2, WAKE), (0.1, WAKE), (0.2, WAKE)] if event is OPEN else []

    stage = scripted(answer)
    Flow(stage).run(1)
    assert stage.seen[1:] == [(0.1, WAKE), (0.2, WAKE), (0.2, WAKE)]


# Time


def test_the_deadline_is_when_the_next_thing_is_due() -> None:
    flow = Flow(holding(0.5, 0.9))
    assert flow.chain.deadline is None
    flow.push(b"a", b"b")
    assert flow.chain.deadline == 0.5
    flow.run(0.5)
    assert flow.chain.deadline == 0.9
    flow.run(0.9)
    assert flow.chain.deadline is None


def test_what_is_held_for_ever_has_no_deadline() -> None:
    flow = Flow(holding(inf))
    flow.push(b"a", b"b", EOF)
    assert flow.chain.deadline is None
    flow.run(1e12)
    assert flow.left == []
    assert flow.chain.held == 2 + 2 * PIECE


def test_a_late_advance_gives_each_stage_the_time_when_it_was_due() -> None:
    second, third = holding(0.2), scripted()
    flow = Flow(holding(0.1, 0.3), second, third)
    flow.push(b"a", b"b")
    flow.jump(60)
    assert second.seen[1:] == near([(0.1, b"a"), (0.3, b"b")])
    assert third.seen[1:] == near([(0.3, b"a"), (0.5, b"b")])
    assert joined(flow.left) == b"ab"


def test_a_late_advance_gives_an_alarm_the_time_when_it_was_due() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(1, WAKE), (0.25, Data(b"tick"))] if event in (OPEN, WAKE) else []

    stage, last = scripted(answer), scripted()
    flow = Flow(stage, last)
    flow.jump(3.5)
    assert stage.seen == [(0, OPEN), (1, WAKE), (2, WAKE), (3, WAKE)]
    assert [time for time, _ in last.seen[1:]] == [0.25, 1.25, 2.25, 3.25]


def test_what_is_due_goes_before_what_is_pushed_late() -> None:
    last = scripted()
    flow = Flow(holding(0.1, 0), last)
    flow.push(b"a")
    flow.now = 5
    flow.push(b"b")
    assert last.seen[1:] == near([(0.1, b"a"), (5, b"b")])


def test_the_delay_counts_from_when_the_event_came_to_the_stage() -> None:
    flow = Flow(holding(0.25))
    flow.push(b"a", at=100)
    assert flow.chain.deadline == 100.25


@pytest.mark.parametrize("delay", [-1, -1e-9, nan, -inf])
def test_a_negative_or_nan_delay_is_refused(delay: float) -> None:
    flow = Flow(at_data((delay, Data(b"a"))))
    with pytest.raises(HandlerRaised) as caught:
        flow.push(b"x")
    assert isinstance(caught.value.__cause__, ValueError)


# What is held


def test_held_counts_each_byte_and_each_piece() -> None:
    flow = Flow(holding(0.1, 0.2), holding(0.5))
    flow.push(b"abc", b"de", EOF)
    assert flow.chain.held == 5 + 2 * PIECE
    flow.run(0.15)  # the first has gone to the second stage
    assert flow.chain.held == 5 + 2 * PIECE
    flow.run(0.65)
    assert flow.chain.held == 2 + PIECE
    flow.run(1)
    assert flow.chain.held == 0
    assert flow.chain.empty


def test_held_counts_what_is_ready_to_leave() -> None:
    flow = Flow()
    flow.chain.push(Data(b"abc"), flow.exchange, 0)
    assert flow.chain.held == 3 + PIECE
    assert not flow.chain.empty
    assert flow.chain.take() == (Data(b"abc"), flow.exchange)
    assert flow.chain.held == 0


@pytest.mark.parametrize("delay", [0, 0.5])
def test_held_counts_data_that_a_stage_doubles(delay: float) -> None:
    flow = Flow(scripted(lambda event, _now: [(0, event), (delay, event)]))
    flow.push(b"abc")
    assert flow.chain.held == (3 + PIECE if delay else 0)
    flow.run(1)
    assert flow.data == b"abcabc"
    assert flow.chain.held == 0


def test_held_counts_data_that_a_stage_keeps_for_later() -> None:
    kept: list[Event] = []

    def answer(event: Event, _now: float) -> Answers:
        if isinstance(event, Data):
            kept.append(event)
            return [(1, WAKE)]
        return [(0.5, kept.pop(0))] if event is WAKE else [(0, event)]

    flow = Flow(scripted(answer))
    flow.push(b"abc", b"de")
    assert flow.chain.held == 0  # the stage has them
    flow.run(1)
    assert flow.chain.held == 5 + 2 * PIECE
    flow.run(2)
    assert flow.data == b"abcde"
    assert flow.chain.held == 0


def test_held_counts_nothing_of_what_follows_an_end() -> None:
    flow = Flow(at_data((0, Data(b"a")), (0, EOF), (0.5, Data(b"late")), (0, Close())))
    flow.push(b"x", b"y")
    flow.run(1)
    assert flow.left == near([(0, b"a"), (0, EOF), (0.5, Close())])
    assert flow.chain.held == 0


def test_alarms_and_ends_hold_no_bytes() -> None:
    flow = Flow(scripted(lambda event, _now: [(1, WAKE), (1, event)] if event is EOF else []))
    flow.push(EOF)
    assert flow.chain.held == 0
    assert not flow.chain.empty


def test_flush_gives_all_that_is_held_in_order() -> None:
    flow = Flow(holding(3, 1), holding(0.5))
    flow.push(b"a", b"b")
    flow.run(3.1)  # both came to the second stage, at 3
    flow.push(b"c", b"d")
    flow.chain.push(EOF, flow.exchange, 3.1)
    assert flow.chain.flush(True) == b"abcd"
    assert flow.chain.held == 0
    assert not flow.chain.busy


def test_flush_gives_what_is_further_on_first_though_it_is_due_later() -> None:
    flow = Flow(holding(0, 1), holding(9))
    flow.push(b"first", b"second")
    assert flow.chain.flush(True) == b"firstsecond"


def test_flush_of_what_is_ready_drops_the_rest() -> None:
    flow = Flow(holding(0, 5))
    for data in (b"a", b"b"):
        flow.chain.push(Data(data), flow.exchange, 0)
    assert flow.chain.flush(False) == b"a"
    assert flow.chain.held == 0
    assert flow.chain.deadline is None


# Who is picked


def test_a_stage_gets_the_exchanges_only_that_it_was_picked_for() -> None:
    stage = scripted()
    flow = Flow()
    flow.insert(stage, pinned=False)
    flow.begin(1)
    flow.push(b"a")
    flow.begin(2, stage)
    flow.push(b"b")
    flow.begin(3)
    flow.push(b"c", EOF)
    assert [event for _, event in stage.seen] == [OPEN, Begin(2), Data(b"b")]
    assert flow.data == b"abc"


def test_a_pinned_stage_gets_all_exchanges() -> None:
    stage = scripted()
    flow = Flow(stage)
    flow.begin(1)
    flow.push(b"a")
    flow.begin(2, stage)
    flow.push(b"b")
    assert [event for _, event in stage.seen] == [OPEN, Begin(1), Data(b"a"), Begin(2), Data(b"b")]


def test_a_stage_that_is_gone_round_is_not_overtaken() -> None:
    stage, last = holding(1), scripted()
    flow = Flow()
    flow.insert(stage, pinned=False)
    flow.insert(last)
    flow.begin(1, stage)
    flow.push(b"a")
    flow.begin(2)
    flow.push(b"b", EOF, at=0.5)
    flow.run(2)
    flow.begin(3)
    flow.push(b"c")
    assert flow.left == near([(1, b"a"), (1, b"b"), (1, EOF)])
    assert [event for _, event in stage.seen] == [OPEN, Begin(1), Data(b"a")]


def test_a_stage_that_holds_nothing_is_gone_round_at_once() -> None:
    stage = holding(1)
    flow = Flow()
    flow.insert(stage, pinned=False)
    flow.begin(1, stage)
    flow.push(b"a")
    flow.run(1)
    flow.begin(2)
    flow.push(b"b")
    assert flow.left == near([(1, b"a"), (1, b"b")])
    assert flow.chain.empty


def test_an_alarm_comes_in_another_exchange_too() -> None:
    stage = scripted(lambda event, _now: [(1, WAKE)] if isinstance(event, Begin) else [])
    flow = Flow()
    flow.insert(stage, pinned=False)
    flow.begin(1, stage)
    flow.begin(2)
    flow.run(2)
    assert stage.seen[-1] == (1, WAKE)


# Changes while it runs


def test_removing_a_slot_passes_on_what_it_holds_at_once_in_order() -> None:
    gone = holding(5, 1, 9)
    flow = Flow(gone)
    flow.push(b"a", b"b", b"c", EOF)
    flow.run(0.5)
    flow.remove(gone)
    assert flow.left == near([(0.5, b"abc"), (0.5, EOF)])
    assert flow.chain.held == 0
    assert flow.chain.deadline is None
    flow.push(b"x", at=20)
    assert flow.data == b"abc"  # the flow has ended


def test_a_removal_releases_nothing_of_other_stages() -> None:
    # R9, law 8
    first, gone, last = holding(2), holding(3), holding(4)
    flow = Flow(first, gone, last)
    flow.push(b"last", at=0)
    flow.push(b"gone", at=4)
    flow.push(b"first", at=5.5)
    flow.run(6.5)  # at 5 the last stage got the first piece, at 6 the second one the second
    flow.remove(gone)
    assert flow.left == []
    flow.run(20)
    assert flow.left == near([(9, b"last"), (10.5, b"gone"), (11.5, b"first")])


def test_what_a_removal_passes_on_goes_to_the_next_stage() -> None:
    gone, last = holding(5), scripted()
    flow = Flow(gone, last)
    flow.push(b"a")
    flow.run(1)
    flow.remove(gone)
    assert last.seen == near([(0, OPEN), (1, b"a")])


@pytest.mark.parametrize("change", ["remove", "update"])
def test_small_pieces_that_a_change_passes_on_go_on_as_one(change: str) -> None:
    # each would cost the loop a turn of each later stage, and a send
    slicer = Slicer({"average_size": 10, "delay": 1e6})
    flow = Flow(slicer)
    flow.push(b"x" * 1000, b"y" * 1000)
    assert flow.chain.held == 2000 - 10 + 199 * PIECE
    (flow.remove if change == "remove" else flow.update)(slicer)
    assert flow.left[1:] == [(0, Data(b"x" * 990 + b"y" * 1000))]
    assert flow.chain.held == 0


def test_what_a_change_passes_on_as_one_is_no_more_than_later_stages_want_at_a_time() -> None:
    gone, next_, last = holding(5), holding(9), scripted(passes)
    next_.chunk, last.chunk = 4, 3
    flow = Flow(gone, next_, last)
    flow.push(b"ab", b"cd", b"ef", b"g")
    flow.remove(gone)
    flow.run(flow.now)  # chunks as small as these say that there is much to do for a byte
    assert [event for _, event in next_.seen[1:]] == [Data(b"abc"), Data(b"def"), Data(b"g")]
    assert flow.chain.held == 7 + 3 * PIECE


def test_what_a_change_passes_on_keeps_exchanges_apart() -> None:
    gone, late = holding(5), holding(0)
    flow = Flow(gone)
    flow.insert(late, pinned=False)
    flow.begin(1)
    flow.push(b"a", b"b")
    flow.begin(2, late)
    flow.push(b"c", b"d")
    flow.begin(3)
    flow.push(b"e")
    flow.remove(gone)
    assert [event for _, event in flow.left if type(event) is Data] == [
        Data(b"ab"),
        Data(b"cd"),
        Data(b"e"),
    ]
    assert [event for _, event in late.seen if type(event) is Data] == [Data(b"cd")]


def test_the_alarms_of_a_removed_stage_are_gone() -> None:
    gone = scripted(lambda _event, _now: [(1, WAKE)])
    flow = Flow(gone)
    flow.remove(gone)
    flow.run(2)
    assert gone.seen == [(0, OPEN)]
    assert not flow.chain.busy


@pytest.mark.parametrize("change", ["remove", "update"])
def test_the_alarms_of_other_stages_come_in_order_after_a_change(change: str) -> None:
    due = [(n * 37 % 101) / 10 + 1 for n in range(100)]  # each once, in disorder
    gone = scripted(
        lambda event, _now: [(one + 0.05, WAKE) for one in due[::2]] if event is OPEN else []
    )
    stay = scripted(lambda event, _now: [(one, WAKE) for one in due] if event is OPEN else [])
    flow = Flow(gone, stay)
    (flow.remove if change == "remove" else flow.update)(gone)
    flow.jump(20)
    assert [time for time, event in stay.seen if event is WAKE] == sorted(due)


class Leaving(FlowHandler):
    """Says good-bye."""

    name = "leaving"

    def on(self, event: Event, now: float) -> Answers:
        return [(5, event)]

    def removed(self, now: float) -> Answers:
        return [(0, Data(b"bye")), (0, Close("client"))]


def test_what_follows_a_removal_comes_behind_what_was_held() -> None:
    gone = Leaving()
    flow = Flow(gone, holding(1))
    flow.push(b"a")
    flow.remove(gone)
    flow.run(9)
    assert flow.left == near([(1, b"a"), (1, b"bye"), (1, Close("client"))])


def test_an_insertion_gives_open_at_once_and_releases_nothing() -> None:
    # R9: a toxic added releases no bytes that another one holds
    first, added = holding(2), scripted()
    flow = Flow(first)
    flow.push(b"a")
    flow.run(0.3)
    flow.insert(added)
    assert added.seen == [(0.3, OPEN)]
    assert flow.left == []
    assert first.seen == near([(0, OPEN), (0, b"a")])
    flow.run(3)
    assert added.seen[1:] == near([(2, b"a")])
    assert flow.left == near([(2, b"a")])


def test_a_stage_inserted_before_the_others_gets_what_is_read_from_then_on() -> None:
    first, added = holding(2), scripted()
    flow = Flow(first)
    flow.push(b"a")
    flow.insert(added, 0)
    flow.push(b"b")
    flow.run(3)
    assert [event for _, event in added.seen] == [OPEN, Data(b"b")]
    assert flow.data == b"ab"


def test_only_the_stage_that_is_new_gets_open() -> None:
    stages = [scripted() for _ in range(3)]
    flow = Flow(*stages)
    flow.push(b"a")
    assert [[event for _, event in stage.seen].count(OPEN) for stage in stages] == [1, 1, 1]


def test_open_does_not_leave_a_stage() -> None:
    last = scripted()
    flow = Flow(last)
    flow.insert(scripted(), 0)
    assert last.seen == [(0, OPEN)]
    assert flow.left == []


class Counting(FlowHandler):
    """Numbers what passes, holds it, and has an alarm."""

    name = "counting"
    options: Any = {"hold": ("Seconds", float, 5)}
    passed = 0
    opened: tuple[float, ...] = ()
    woken: tuple[float, ...] = ()

    def on(self, event: Event, now: float) -> Answers:
        if event is OPEN:
            self.opened += (now,)
            yield 2, WAKE
        elif event is WAKE:
            self.woken += (now,)
        elif isinstance(event, Data):
            self.passed += 1
            yield self.options("hold"), Data(event.data + b"%d" % self.passed)


def test_an_update_passes_on_what_is_held_and_keeps_the_state() -> None:
    stage = Counting()
    flow = Flow(stage)
    flow.push(b"a", b"b")
    flow.run(1)
    flow.update(stage, hold=0.5)
    assert flow.left == near([(1, b"a1b2")])
    flow.push(b"c")
    flow.run(9)
    assert flow.left[1:] == near([(1.5, b"c3")])


def test_an_update_restarts_the_clock_and_forgets_old_alarms() -> None:
    stage = Counting()
    flow = Flow(stage)
    flow.run(1.5)
    flow.update(stage)
    flow.run(9)
    assert stage.opened == (0, 1.5)
    assert stage.woken == (3.5,)


def test_an_update_restarts_no_other_stage() -> None:
    # law 8: a change to one changes nothing about another
    first, stage = Noop(), Counting()
    flow = Flow(first, stage)
    flow.run(1.5)
    flow.update(first)
    flow.run(9)
    assert stage.opened == (0,)
    assert stage.woken == (2,)


def test_an_update_releases_nothing_of_other_stages() -> None:
    first, stage, last = holding(7), Counting(), holding(7)
    flow = Flow(first, stage, last)
    flow.push(b"a")
    flow.run(1)
    flow.update(stage, hold=0)
    assert flow.left == []
    assert [event for _, event in last.seen] == [OPEN]
    flow.run(20)
    assert flow.left == near([(14, b"a1")])


@pytest.mark.parametrize("change", ["remove", "update"])
def test_a_reset_by_what_a_change_passes_on_leaves_nothing_held(change: str) -> None:
    held, last = holding(5), at_data((0, Reset()))
    flow = Flow(held, last)
    flow.push(b"abc", b"de", b"f")
    (flow.remove if change == "remove" else flow.update)(held)
    assert flow.left == [(0, Reset())]
    assert flow.chain.held == 0
    assert not flow.chain.busy


# Draws


class Drawing(FlowHandler):
    """Writes its draws down."""

    name = "drawing"
    drawn: list[float]
    greets = False  # whether it draws at OPEN too

    def on(self, event: Event, now: float) -> Answers:
        if isinstance(event, Data) or (event is OPEN and self.greets):
            self.drawn.append(self.draw("number"))
        yield 0, event


def drawing(name: str = "drawing", seed: int = 1) -> Drawing:
    """A stage that draws a number for each piece of data."""
    stage: Drawing = Drawing(None, False, draws(name, seed))
    stage.drawn = []
    return stage


def test_adding_or_removing_a_stage_changes_no_other_draw() -> None:
    # R8, law 8
    alone, accompanied = drawing(), drawing()
    plain, busy = Flow(alone), Flow(accompanied)
    other, third = drawing("other"), drawing("third")
    for number in range(1, 21):
        for flow in (plain, busy):
            flow.begin(number)
            flow.push(b"a", b"b")
        if number == 5:
            busy.insert(other, 0)
        if number == 10:
            busy.insert(third)
        if number == 15:
            busy.remove(other)
    assert alone.drawn == accompanied.drawn
    assert len(set(alone.drawn)) == 40
    assert not set(alone.drawn) & {*other.drawn, *third.drawn}


def test_the_draws_of_a_stage_follow_from_the_seed_and_its_name() -> None:
    runs = [drawing(), drawing(), drawing(seed=2), drawing("other")]
    for stage in runs:
        flow = Flow(stage)
        for number in range(1, 6):
            flow.begin(number)
            flow.push(b"a", b"b")
    assert runs[0].drawn == runs[1].drawn
    assert not set(runs[0].drawn) & {*runs[2].drawn, *runs[3].drawn}


def test_the_draws_of_an_exchange_do_not_depend_on_those_before() -> None:
    first, second = drawing(), drawing()
    flow = Flow(first)
    flow.begin(1)
    flow.push(b"a", b"b", b"c")
    flow.begin(2)
    flow.push(b"a")
    flow = Flow(second)
    flow.begin(2)
    flow.push(b"a")
    assert first.drawn[-1:] == second.drawn


@pytest.mark.parametrize("greets", [False, True])
def test_an_update_repeats_no_draw(greets: bool) -> None:
    # The stage is updated in exchange 2, while some of exchange 1 is still on its way to it.
    before, stage = holding(0, 1), drawing()
    stage.greets = greets
    flow = Flow(before, stage)
    flow.begin(1)
    flow.push(b"a", b"b")
    flow.begin(2)
    flow.update(stage)
    flow.run(2)
    flow.push(b"c")
    flow.run(9)
    assert len(stage.drawn) == len(set(stage.drawn)) == 3 + 2 * greets


# What went wrong, and what was done


def raising(_event: Event, _now: float) -> Answers:
    raise KeyError("oh")


def raising_late(event: Event, _now: float) -> Answers:
    yield 0, event
    if isinstance(event, Data):
        raise KeyError("oh")


@pytest.mark.parametrize("answer", [raising_late, raising])
def test_a_stage_that_raises_is_named_by_its_key(
    answer: Callable[[Event, float], Answers],
) -> None:
    stage = scripted()
    flow = Flow(scripted())
    place = Place(stage, "the key", pinned=True)
    flow.chain.insert(1, place, 0)
    flow.chain.insert(2, Place(scripted(), "behind", pinned=True), 0)
    stage.answer = answer
    with pytest.raises(HandlerRaised) as caught:
        flow.push(b"a")
    assert caught.value.handler == "the key"
    assert isinstance(caught.value.__cause__, KeyError)


class Raising(FlowHandler):
    """Raises the given error at data, and when it is removed."""

    name = "raising"
    error: BaseException

    def on(self, event: Event, now: float) -> Answers:
        if isinstance(event, Data):
            raise self.error
        return [(0, event)]

    def removed(self, now: float) -> Answers:
        raise self.error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_stage_that_exits_is_one_that_raises(error: BaseException) -> None:
    stage = Raising()
    stage.error = error
    flow = Flow(stage)
    with pytest.raises(HandlerRaised) as at_data:
        flow.push(b"a")
    with pytest.raises(HandlerRaised) as at_removal:
        flow.remove(stage)
    assert at_data.value.__cause__ is at_removal.value.__cause__ is stage.error


def test_a_stage_that_raises_at_its_alarm_is_named_by_its_key() -> None:
    flow = Flow()

    def answer(event: Event, _now: float) -> Answers:
        if event is WAKE:
            raise KeyError("oh")
        return [(1, WAKE)]

    flow.chain.insert(0, Place(scripted(answer), "the key", pinned=True), 0)
    with pytest.raises(HandlerRaised) as caught:
        flow.run(2)
    assert caught.value.handler == "the key"


class Clinging(FlowHandler):
    """Cannot part."""

    name = "clinging"

    def on(self, event: Event, now: float) -> Answers:
        yield 0, event

    def removed(self, now: float) -> Answers:
        raise KeyError("oh")


def test_a_delayed_reset_of_a_removed_stage_is_gone() -> None:
    gone = at_data((1, Reset()), (2, Data(b"a")))
    flow = Flow(gone)
    flow.push(b"x")
    flow.remove(gone)
    flow.run(5)
    assert flow.left == [(0, Data(b"a"))]


def test_a_stage_that_raises_when_it_is_removed_is_named_by_its_key() -> None:
    stage = Clinging()
    flow = Flow(stage)
    with pytest.raises(HandlerRaised) as caught:
        flow.remove(stage)
    assert caught.value.handler is stage


def test_an_answer_that_is_no_list_is_an_error_of_the_stage() -> None:
    flow = Flow(at_data())
    flow.chain.staged[0].stage.answer = lambda _event, _now: None
    with pytest.raises(HandlerRaised):
        flow.push(b"a")


def test_an_exchange_knows_who_did_something_and_how_much_time_that_took() -> None:
    idle, slow, changing = Noop(), holding(0.2, 0.5, 0.1), at_data((0, Data(b"x")))
    flow = Flow(idle, slow, changing)
    exchange = flow.begin(1)
    flow.push(b"a", b"b", b"c", EOF)
    flow.run(1)
    assert exchange.added == {slow: pytest.approx(0.5), changing: 0}


def test_the_most_that_was_added_to_a_piece_counts() -> None:
    stage = holding(0.1, 0.5, 0.2)
    flow = Flow(stage)
    exchange = flow.begin(1)
    for second in range(3):
        flow.push(b"a", at=second)
    flow.run(9)
    assert exchange.added == {stage: 0.5}


def test_what_one_exchange_got_is_not_told_of_another() -> None:
    stage = holding(0.5, 0)
    flow = Flow(stage)
    first = flow.begin(1)
    flow.push(b"a")
    flow.run(1)
    second = flow.begin(2)
    flow.push(b"b")
    assert first.added == {stage: 0.5}
    assert second.added == {}


def test_dropping_adding_and_ending_are_something_done() -> None:
    adding = scripted(
        lambda event, _now: (
            [(0, Data(b"more")), (0, event)] if event == Data(b"a") else [(0, event)]
        )
    )
    dropping = scripted(lambda event, _now: [] if event == Data(b"a") else [(0, event)])
    ending = scripted(lambda event, _now: [(0, Close())] if event is EOF else [(0, event)])
    flow = Flow(adding, dropping, ending)
    exchange = flow.begin(1)
    flow.push(b"a", EOF)
    assert exchange.added == {adding: 0, dropping: 0, ending: 0}


def test_waiting_for_an_alarm_is_nothing_done() -> None:
    stage = scripted(lambda event, _now: [(1, WAKE), (0, event)] if event is not WAKE else [])
    flow = Flow(stage)
    exchange = flow.begin(1)
    flow.push(b"a", EOF)
    flow.run(3)
    assert exchange.added == {}


def test_what_is_held_for_ever_added_endless_time() -> None:
    stage = holding(inf)
    flow = Flow(stage)
    exchange = flow.begin(1)
    flow.push(b"a")
    assert exchange.added == {stage: inf}


# What it is


def test_the_engine_reads_in_a_quarter_of_an_hour() -> None:
    files = Path(vaurien.flow.__file__).parent.glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) < 1200


def test_a_chain_and_a_slot_say_in_one_line_what_they_are() -> None:
    stage = Latency({"latency": 500})
    flow = Flow(stage)
    flow.push(b"abc")
    assert repr(flow.place(stage)) == f"<Place 0: {stage!r}, 1 pending>"
    assert "\n" not in repr(stage)
    assert repr(flow.chain) == f"<Chain of 1: {3 + PIECE} held, deadline 0.5>"


def test_passes_is_what_noop_does() -> None:
    by_script, by_noop = Flow(scripted(passes)), Flow(Noop())
    for flow in (by_script, by_noop):
        flow.push(b"a", EOF)
    assert by_script.left == by_noop.left == [(0, Data(b"a")), (0, EOF)]
