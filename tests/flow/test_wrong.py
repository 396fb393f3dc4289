"""What a handler says or answers that cannot be is its own fault, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan
from typing import Any

import pytest

from tests.flow.helpers import Answers, Flow, passes, scripted
from vaurien.errors import HandlerRaised
from vaurien.flow import EOF, OPEN, WAKE, Begin, Data, Event
from vaurien.flow.handler import CHUNK, FlowHandler
from vaurien.flow.place import Refused


def at_data(answers: Any) -> FlowHandler:
    """A stage that answers data so."""
    return scripted(lambda event, _now: answers if isinstance(event, Data) else [(0, event)])


def told(caught: pytest.ExceptionInfo[HandlerRaised]) -> str:
    """The sentence that the log tells."""
    cause = caught.value.__cause__
    assert isinstance(cause, Refused)
    assert "\n" not in str(cause)
    return str(cause)


PAIRS = "it answers with pairs of a delay, 0 seconds or more, and an event"


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (None, f"answered None; {PAIRS}"),
        (5, f"answered 5; {PAIRS}"),
        ([Data(b"a")], f"answered Data(data=b'a'); {PAIRS}"),
        ([(0, Data(b"a"), 1)], f"answered (0, Data(data=b'a'), 1); {PAIRS}"),
        ([(-1, Data(b"a"))], f"answered (-1, Data(data=b'a')); {PAIRS}"),
        ([(nan, Data(b"a"))], f"answered (nan, Data(data=b'a')); {PAIRS}"),
        ([("1", Data(b"a"))], f"answered ('1', Data(data=b'a')); {PAIRS}"),
        ([(None, Data(b"a"))], f"answered (None, Data(data=b'a')); {PAIRS}"),
        ([(10**400, EOF)], PAIRS),
        ([(0, b"a")], f"answered (0, b'a'); {PAIRS}"),
        ([(0, None)], f"answered (0, None); {PAIRS}"),
        ([(1, "EOF")], f"answered (1, 'EOF'); {PAIRS}"),
        ([(0, Data)], PAIRS),
        ([(0, Data("text"))], "answered Data('text'); its data is bytes, such as Data(b'text')"),  # type: ignore[arg-type]
        ([(1, Data(None))], "answered Data(None); its data is bytes, such as Data(b'text')"),  # type: ignore[arg-type]
        ([(1, Data([1, 2]))], "answered Data([1, 2]); its data is bytes, such as Data(b'text')"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_an_answer_that_cannot_be_is_told_in_a_sentence(
    answers: Any, sentence: str, last: bool
) -> None:
    wrong = at_data(answers)
    flow = Flow(wrong) if last else Flow(wrong, scripted(passes))
    with pytest.raises(HandlerRaised) as caught:
        flow.push(b"x")
    assert caught.value.handler is wrong
    assert sentence in told(caught)


def test_what_a_handler_itself_raises_is_told_as_it_is() -> None:
    def answer(event: Event, _now: float) -> Answers:
        for _ in (1,):
            if isinstance(event, Data):
                raise TypeError("mine")
        return [(0, event)]

    flow = Flow(scripted(answer))
    with pytest.raises(HandlerRaised) as caught:
        flow.push(b"x")
    assert str(caught.value.__cause__) == "mine"


class Mistaken(FlowHandler):
    """Takes too few arguments."""

    name = "mistaken"

    def on(self, event: Event) -> Answers:  # type: ignore[override]
        return []


def test_an_on_of_another_signature_is_told_as_python_tells_it() -> None:
    with pytest.raises(HandlerRaised) as caught:
        Flow(Mistaken())
    assert "positional arguments" in str(caught.value.__cause__)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_is_like_bytes_becomes_bytes_that_do_not_change(kind: Any) -> None:
    mine = bytearray(b"abc")
    flow = Flow(at_data([(1, Data(kind(mine)))]))
    flow.push(b"x")
    mine[0] = 0
    flow.run(2)
    assert flow.left[-1][1] == Data(b"abc")
    (left,) = [event for _, event in flow.left if isinstance(event, Data)]
    assert type(left.data) is bytes
    assert flow.chain.held == 0


def test_an_event_changed_in_its_place_is_counted_as_it_is_then() -> None:
    def answer(event: Event, _now: float) -> Answers:
        if isinstance(event, Data):
            event.data += b" and more"
        return [(1, event)]

    flow = Flow(scripted(answer))
    flow.push(b"a")
    assert flow.chain.inside == len(b"a and more")
    flow.run(2)
    assert flow.data == b"a and more"
    assert flow.chain.held == 0


def test_an_event_changed_in_its_place_to_what_cannot_be_is_refused() -> None:
    def answer(event: Event, _now: float) -> Answers:
        if isinstance(event, Data):
            event.data = "text"  # type: ignore[assignment]
        return [(0, event)]

    flow = Flow(scripted(answer))
    with pytest.raises(HandlerRaised) as caught:
        flow.push(b"a")
    assert "Data('text')" in told(caught)


def test_a_delay_that_no_clock_reaches_is_never() -> None:
    flow = Flow(at_data([(2.0**64, EOF)]), at_data([(0, WAKE)]))
    flow.push(b"x")
    assert flow.chain.deadline is None
    flow.run(1e15)
    assert flow.left == []


class Setting(FlowHandler):
    """Sets an attribute of its own, at OPEN."""

    name = "setting"
    options: Any = {}
    sets: tuple[str, Any]

    def on(self, event: Event, now: float) -> Answers:
        if event is OPEN:
            setattr(self, *self.sets)
        yield 0, event


@pytest.mark.parametrize("value", [0, -1, 1.5, nan, "10", None, True, 2.0])
@pytest.mark.parametrize("change", ["insert", "update"])
def test_a_chunk_that_is_no_whole_number_from_1_on_is_refused(value: Any, change: str) -> None:
    # 0 would end the flow in silence: a read of no bytes is the end
    flow, stage = Flow(scripted()), Setting()
    stage.sets = ("chunk", 5)
    if change == "update":
        flow.insert(stage)
    stage.sets = ("chunk", value)
    with pytest.raises(HandlerRaised) as caught:
        flow.insert(stage) if change == "insert" else flow.update(stage)
    assert caught.value.handler is stage
    assert told(caught) == f"chunk is {value!r}; set it to a whole number of bytes from 1 on"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("wants_begin", "no", "wants_begin is 'no'; set it to True or False"),
        ("wants_begin", None, "wants_begin is None; set it to True or False"),
        ("turn", 1, "turn is 1; it is the engine's: take another name"),
    ],
)
def test_another_attribute_that_cannot_be_is_refused(name: str, value: Any, sentence: str) -> None:
    stage = Setting()
    stage.sets = (name, value)
    with pytest.raises(HandlerRaised) as caught:
        Flow(stage)
    assert told(caught) == sentence


def test_attributes_that_raise_are_an_error_of_the_stage() -> None:
    class Raising(Setting):
        @property
        def chunk(self) -> int:  # type: ignore[override]
            raise KeyError("oh")

    stage = Raising()
    stage.sets = ("other", 1)
    with pytest.raises(HandlerRaised) as caught:
        Flow(stage)
    assert isinstance(caught.value.__cause__, KeyError)


def test_draws_that_are_overwritten_are_an_error_of_the_stage() -> None:
    stage = Setting()
    stage.sets = ("draw", None)
    flow = Flow(stage)
    with pytest.raises(HandlerRaised) as caught:
        flow.begin(2)
    assert caught.value.handler is stage


def test_the_limit_of_a_chain_is_what_the_stage_that_wants_least_wants() -> None:
    flow = Flow()
    assert flow.chain.limit == CHUNK
    stages = [Setting() for _ in range(3)]
    for stage, chunk in zip(stages, (500, 7, CHUNK * 2), strict=True):
        stage.sets = ("chunk", chunk)
        flow.insert(stage)
    assert flow.chain.limit == 7
    stages[1].sets = ("chunk", 600)
    flow.update(stages[1])
    assert flow.chain.limit == 500
    flow.remove(stages[0])
    assert flow.chain.limit == 600
    flow.remove(stages[1])
    flow.remove(stages[2])
    assert flow.chain.limit == CHUNK


class Parting(FlowHandler):
    """Says something when it is taken away."""

    name = "parting"
    says: Any

    def on(self, event: Event, now: float) -> Answers:
        yield 0, event

    def removed(self, now: float) -> Iterable[tuple[float, Event]]:
        return self.says  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "says",
    [None, [Data(b"a")], [(0, "text")], [(0, Data("text"))], [(0, WAKE)], 5],  # type: ignore[arg-type]
)
def test_words_at_parting_that_cannot_be_are_an_error_of_the_stage(says: Any) -> None:
    stage = Parting()
    stage.says = says
    flow = Flow(stage, scripted(passes))
    with pytest.raises(HandlerRaised) as caught:
        flow.remove(stage)
    assert caught.value.handler is stage
    assert told(caught).startswith("answered ")


def test_begin_may_be_answered_by_any_stage() -> None:
    flow = Flow(at_data([(0, Begin(7))]))
    flow.push(b"x")
    assert flow.left == []
