"""`vaurien.testing.play`: what it promises to those who write flow handlers."""

from __future__ import annotations

import doctest
from math import inf
from typing import Any

import pytest

import vaurien.testing
from tests.flow.helpers import Answers, near, scripted
from vaurien.errors import HandlerRaised
from vaurien.flow import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.latency import Latency
from vaurien.handlers.stall import Stall
from vaurien.testing import play


def test_the_example_in_its_documentation_holds() -> None:
    text = (vaurien.testing.__doc__ or "").partition("::\n")[2]
    code = "\n".join(line[4:] for line in text.splitlines())
    assert "assert play" in code
    exec(code, {})
    assert doctest.testmod(vaurien.testing).failed == 0


def test_without_stages_all_leaves_as_it_came() -> None:
    events: list[tuple[float, Event]] = [(0, Data(b"a")), (2, Data(b"b")), (3, EOF)]
    assert play([], events) == events


def test_without_events_nothing_leaves() -> None:
    assert play([Latency()], []) == []


def test_each_stage_gets_open_at_0_and_then_the_events_at_their_times() -> None:
    stages = [scripted(), scripted()]
    play(stages, [(1, Begin(1)), (1.5, Data(b"a")), (2, EOF)])
    for stage in stages:
        assert stage.seen == [(0, OPEN), (1, Begin(1)), (1.5, Data(b"a")), (2, EOF)]


def test_begin_does_not_leave() -> None:
    assert play([scripted()], [(0, Begin(1)), (1, Begin(2)), (1, Data(b"a"))]) == [(1, Data(b"a"))]


def test_stages_stand_in_the_order_given() -> None:
    def adding(what: bytes) -> FlowHandler:
        return scripted(
            lambda event, _now: [(0, Data(event.data + what) if isinstance(event, Data) else event)]
        )

    assert play([adding(b"1"), adding(b"2")], [(0, Data(b"x"))]) == [(0, Data(b"x12"))]


def test_alarms_ring_before_during_and_after_the_events() -> None:
    def answer(event: Event, _now: float) -> Answers:
        return [(1, WAKE), (0, Data(b"tick"))] if event in (OPEN, WAKE) else [(0, event)]

    left = play([scripted(answer)], [(1.5, Data(b"a"))], until=3)
    assert left == near([(0, b"tick"), (1, b"tick"), (1.5, b"a"), (2, b"tick"), (3, b"tick")])


def test_what_is_due_after_until_is_not_played() -> None:
    events = [(0.0, Data(b"a")), (1.0, Data(b"b")), (9.0, Data(b"c"))]
    assert play([Latency({"latency": 1500})], events, until=2) == near([(1.5, b"a")])


def test_what_is_held_for_ever_does_not_leave() -> None:
    assert play([Stall({"loss": 100})], [(0, Data(b"a"))], until=inf) == []


@pytest.mark.parametrize("end", [Close("client"), Reset()])
def test_nothing_leaves_after_an_end_which_leaves_once(end: Event) -> None:
    stage = scripted(lambda event, _now: [(0, end if event == Data(b"!") else event)])
    events: list[tuple[float, Event]] = [
        (0, Data(b"a")),
        (1, Data(b"!")),
        (2, Data(b"b")),
        (3, EOF),
    ]
    assert play([stage], events) == [(0, Data(b"a")), (1, end)]


def test_an_end_at_open_is_all_there_is() -> None:
    stage = scripted(lambda event, _now: [(0, Reset())] if event is OPEN else [(0, event)])
    assert play([stage], [(0, Data(b"a")), (1, EOF)]) == [(0, Reset())]


def test_events_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="1"):
        play([], [(2, Data(b"a")), (1, Data(b"b"))])


def test_a_stage_that_raises_is_told() -> None:
    def answer(_event: Event, _now: float) -> Answers:
        raise KeyError("oh")

    stage = scripted(answer)
    with pytest.raises(HandlerRaised) as caught:
        play([stage], [(0, Data(b"a"))])
    assert caught.value.handler is stage
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_game_can_be_played_again() -> None:
    def once() -> list[Any]:
        stages = [Latency({"latency": 50, "jitter": 50}), Stall({"loss": 30})]
        events: list[tuple[float, Event]] = []
        for number in range(20):
            events += [(number, Begin(number)), (number, Data(b"a"))]
        return play(stages, events)

    assert once() == once()
    assert len({round(time % 1, 6) for time, _ in once()}) > 10
