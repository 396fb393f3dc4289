"""Laws that hold for any stages and any events: order, bytes, ends, what is held, draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import ENDS, Answers, Flow, Left, draws, joined
from vaurien.behavior import Dice, Exchange
from vaurien.flow import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.chain import PIECE
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.bandwidth import Bandwidth
from vaurien.handlers.blackhole import Blackhole
from vaurien.handlers.corrupt import Corrupt
from vaurien.handlers.cut import Cut, ResetClient, ResetPeer
from vaurien.handlers.latency import Latency
from vaurien.handlers.limit_data import LimitData
from vaurien.handlers.noop import Noop
from vaurien.handlers.pause import Pause
from vaurien.handlers.slicer import Slicer
from vaurien.handlers.slow_close import SlowClose
from vaurien.handlers.stall import Stall
from vaurien.handlers.timeout import Timeout
from vaurien.handlers.trickle import Trickle
from vaurien.handlers.truncate import Truncate
from vaurien.handlers.wave import Wave

END = 1e9  # seconds: by then everything that was not held for ever has left


class Wild(FlowHandler):
    """Delays at random, cuts at random, sets alarms at random; loses nothing."""

    name = "wild"
    options: Any = {"most": ("Longest delay in seconds", float, 1)}

    def on(self, event: Event, now: float) -> Answers:
        if event is WAKE:
            return
        if event is OPEN or self.draw("alarm") < 0.3:
            yield self.draw("when"), WAKE
        if isinstance(event, Data):
            cut = int(self.draw("cut") * (len(event.data) + 1))
            yield self._delay(), Data(event.data[:cut])
            yield self._delay(), Data(event.data[cut:])
        else:
            yield self._delay(), event

    def _delay(self) -> float:
        kind = self.draw("kind")
        return 0 if kind < 0.4 else float(self.options("most")) * self.draw("delay")


Recipe = tuple[type[FlowHandler], dict[str, Any]]


def recipe(cls: type[FlowHandler], **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Recipe]:
    """A class of stages with random options."""
    return st.fixed_dictionaries(options).map(
        lambda made: (cls, {key: value for key, value in made.items() if value is not None})
    )


ms = st.one_of(st.just(0), st.integers(0, 2000), st.floats(0, 50))
some = st.integers(0, 60)

lossless: st.SearchStrategy[Recipe] = st.one_of(
    recipe(Wild, most=st.floats(0, 3)),
    recipe(Noop),
    recipe(
        Latency,
        latency=ms,
        jitter=ms,
        distribution=st.sampled_from(["uniform", "normal", "pareto", "paretonormal", "lognormal"]),
        correlation=st.integers(0, 100),
    ),
    recipe(Bandwidth, rate=st.sampled_from([0.001, 0.05, 1, 100, 1e6]), shared=st.booleans()),
    recipe(
        Slicer,
        average_size=st.integers(1, 40),
        size_variation=some,
        delay=st.sampled_from([0, 10, 50_000]),
    ),
    recipe(SlowClose, delay=ms),
    recipe(
        Wave,
        latency=ms,
        sine_amplitude=ms,
        square_amplitude=ms,
        saw_amplitude=ms,
        triangle_amplitude=ms,
        sine_period=st.integers(1, 5000),
        saw_period=st.integers(1, 5000),
    ),
    recipe(
        Stall,
        loss=st.sampled_from([0, 5, 50, 90]),
        model=st.sampled_from(["bernoulli", "gilbert-elliott"]),
        go_bad=st.sampled_from([0, 30, 100]),
        go_good=st.sampled_from([30, 100]),
        rto=ms,
        max_rto=ms,
        packet=st.integers(1, 50),
    ),
    recipe(Pause, time=st.integers(1, 3000)),
    recipe(Trickle, duration=ms),
)
harmful: st.SearchStrategy[Recipe] = st.one_of(
    recipe(Blackhole),
    recipe(
        Cut,
        time=st.one_of(st.none(), ms),
        bytes=st.one_of(st.none(), some),
        how=st.sampled_from(["fin", "reset"]),
        side=st.sampled_from(["client", "backend", "both"]),
    ),
    recipe(ResetPeer, timeout=ms),
    recipe(LimitData, bytes=some),
    recipe(Timeout, timeout=ms),
    recipe(Truncate, bytes=some),
    recipe(Corrupt, chance=st.sampled_from([0, 10, 100])),
    recipe(Pause),
)


def made(recipes: list[Recipe], seed: int = 1) -> list[FlowHandler]:
    """Stages, each with its own draws."""
    return [
        cls(options, False, draws(f"{place} {cls.name}", seed), {})
        for place, (cls, options) in enumerate(recipes)
    ]


#: What happens, and how many seconds after what happened before.
Step = tuple[float, Any]
gap = st.one_of(st.just(0.0), st.floats(0, 1.5))
data = st.binary(min_size=1, max_size=60)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(gap, st.one_of(data, data, data, st.just("begin"))), max_size=12
)


def play(
    flow: Flow,
    script: list[Step],
    pick: Callable[[int], list[FlowHandler]] = lambda _: [],
    watch: Callable[[Flow], object] = lambda _: None,
) -> Left:
    """Run a script, with EOF at its end; what left. `watch` is called after each step."""
    number = 0
    for wait, what in script:
        flow.run(flow.now + wait)
        watch(flow)
        if what == "begin":
            number += 1
            flow.begin(number, *pick(number))
        else:
            flow.push(what)
        watch(flow)
    flow.push(EOF)
    watch(flow)
    flow.run(END)
    watch(flow)
    return flow.left


def sent(script: list[Step]) -> bytes:
    """All data of a script."""
    return b"".join(what for _, what in script if isinstance(what, bytes))


@given(st.lists(lossless, max_size=4), steps)
@settings(deadline=None, max_examples=100)
def test_lossless_stages_pass_all_bytes_once_in_order_and_then_the_end(
    recipes: list[Recipe], script: list[Step]
) -> None:
    left = play(Flow(*made(recipes)), script)
    assert joined(left) == sent(script)
    assert [event for _, event in left if not isinstance(event, Data)] == [EOF]
    assert left[-1][1] is EOF
    assert [time for time, _ in left] == sorted(time for time, _ in left)


@given(st.lists(st.tuples(lossless, st.booleans()), min_size=1, max_size=4), steps, st.data())
@settings(deadline=None, max_examples=100)
def test_the_order_is_kept_whoever_is_picked_for_an_exchange(
    recipes: list[tuple[Recipe, bool]], script: list[Step], choice: st.DataObject
) -> None:
    flow = Flow()
    stages = made([one for one, _ in recipes])
    for stage, (_, pinned) in zip(stages, recipes, strict=True):
        flow.insert(stage, pinned=pinned)
    left = play(flow, script, lambda _: choice.draw(st.lists(st.sampled_from(stages))))
    assert joined(left) == sent(script)
    assert left[-1][1] is EOF


def counted(flow: Flow) -> int:
    """What a chain holds, counted from the outside."""
    waiting = flow.chain.waiting()
    return sum(len(event.data) + PIECE for event in waiting if isinstance(event, Data))


@given(st.lists(lossless, max_size=4), steps)
@settings(deadline=None, max_examples=100)
def test_what_is_held_is_what_came_in_and_has_not_left(
    recipes: list[Recipe], script: list[Step]
) -> None:
    flow = Flow(*made(recipes))
    whole = sent(script)

    def watch(flow: Flow) -> None:
        held = flow.chain.held
        assert held == counted(flow) >= 0
        pieces = sum(isinstance(event, Data) for event in flow.chain.waiting())
        assert held - pieces * PIECE <= len(whole) - len(flow.data)

    play(flow, script, watch=watch)
    assert flow.chain.held == 0
    assert flow.chain.empty


@given(st.lists(st.one_of(lossless, harmful, harmful), max_size=5), steps)
@settings(deadline=None, max_examples=150)
def test_whatever_the_stages_do_an_end_is_an_end(recipes: list[Recipe], script: list[Step]) -> None:
    def watch(flow: Flow) -> None:
        assert flow.chain.held >= 0
        assert flow.chain.final is not None or flow.chain.held == counted(flow)

    flow = Flow(*made(recipes))
    left = [event for _, event in play(flow, script, watch=watch)]
    assert left.count(EOF) <= 1
    finals = [event for event in left if isinstance(event, ENDS)]
    assert len(finals) <= 1
    if finals:
        assert left[-1] is finals[0]
    if EOF in left:
        assert not any(isinstance(event, Data) for event in left[left.index(EOF) :])
    if finals and isinstance(finals[0], Reset):
        assert flow.chain.held == 0
        assert not flow.chain.busy
    assert sum(len(event.data) for event in left if isinstance(event, Data)) <= len(sent(script))


@given(st.lists(lossless, max_size=3), st.lists(lossless, max_size=3), steps, st.booleans())
@settings(deadline=None, max_examples=100)
def test_a_reset_in_the_middle_is_the_last_thing_that_happens(
    before: list[Recipe], behind: list[Recipe], script: list[Step], late: bool
) -> None:
    flow = Flow(*made(before), ResetClient({"timeout": 700}), *made(behind))
    left = play(flow, [*script, (2.0, b"late")] if late else script)
    assert left[-1] == (0.7, Reset("client"))
    assert flow.chain.held == 0
    assert joined(left) == sent(script)[: len(joined(left))]


@given(
    st.lists(st.one_of(lossless, harmful), max_size=5),
    steps,
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=75)
def test_the_same_seed_makes_the_same_decisions(
    recipes: list[Recipe], script: list[Step], seed: int
) -> None:
    first, second = (play(Flow(*made(recipes, seed)), script) for _ in range(2))
    assert first == second


@given(st.lists(lossless, max_size=4), steps)
@settings(deadline=None, max_examples=75)
def test_a_loop_that_comes_late_changes_no_byte_and_makes_no_stage_late(
    recipes: list[Recipe], script: list[Step]
) -> None:
    class Last(FlowHandler):
        name = "last"
        seen: Left

        def on(self, event: Event, now: float) -> Answers:
            self.seen.append((now, event))
            yield 0, event

    punctual, late = Last(), Last()
    punctual.seen, late.seen = [], []
    play(Flow(*made(recipes), punctual), script)
    flow = Flow(*made(recipes), late)
    number = 0
    for wait, what in [*script, (0.0, EOF)]:
        flow.now += wait  # nobody advances it in between
        if what == "begin":
            number += 1
            flow.begin(number)
        else:
            flow.push(what)
    flow.jump(END)
    assert joined(flow.left) == sent(script)
    seen = [(time, event) for time, event in punctual.seen if not isinstance(event, Begin)]
    assert [(time, event) for time, event in late.seen if not isinstance(event, Begin)] == seen


changes = st.lists(
    st.tuples(
        gap,
        st.one_of(
            data,
            data,
            st.just("begin"),
            st.tuples(st.just("insert"), st.integers(0, 5), lossless),
            st.tuples(st.just("remove"), st.integers(0, 5)),
            st.tuples(st.just("update"), st.integers(0, 5)),
        ),
    ),
    max_size=15,
)


@given(st.lists(lossless, max_size=3), changes)
@settings(deadline=None, max_examples=150)
def test_stages_that_come_change_and_go_lose_and_disorder_nothing(
    recipes: list[Recipe], script: list[Step]
) -> None:
    flow = Flow(*made(recipes))
    number = 0
    for wait, what in script:
        flow.run(flow.now + wait)
        before = len(flow.left)
        match what:
            case "insert", place, one:
                number += 1
                (stage,) = made([one], seed=number)
                flow.insert(stage, min(place, len(flow.chain.staged)))
                assert len(flow.left) == before
            case "remove", place if flow.chain.staged:
                flow.remove(flow.chain.staged[place % len(flow.chain.staged)].stage)
            case "update", place if flow.chain.staged:
                flow.update(flow.chain.staged[place % len(flow.chain.staged)].stage)
            case "begin":
                number += 1
                flow.begin(number)
            case bytes():
                flow.push(what)
        assert flow.chain.held == counted(flow)
    flow.push(EOF)
    flow.run(END)
    assert flow.data == sent(script)
    assert [event for _, event in flow.left if not isinstance(event, Data)] == [EOF]
    assert flow.chain.held == 0


@given(st.lists(lossless, max_size=3), steps, st.integers(0, 5))
@settings(deadline=None, max_examples=75)
def test_all_that_is_held_can_be_had_at_any_time_in_order(
    recipes: list[Recipe], script: list[Step], stop: int
) -> None:
    flow = Flow(*made(recipes))
    for wait, what in script[:stop]:
        flow.run(flow.now + wait)
        if what != "begin":
            flow.push(what)
    assert flow.data + flow.chain.flush(True) == sent(script[:stop])
    assert flow.chain.held == 0


@given(steps, st.sampled_from([Close(), Close("client"), Reset(), EOF]), st.floats(0, 3))
@settings(deadline=None, max_examples=50)
def test_an_end_at_any_time_is_the_only_one(script: list[Step], end: Event, when: float) -> None:
    class Ends(FlowHandler):
        name = "ends"

        def on(self, event: Event, now: float) -> Answers:
            yield (when, WAKE) if event is OPEN else (0, end if event is WAKE else event)

    left = play(Flow(Ends(), *made([(Latency, {"latency": 300, "jitter": 300})])), script)
    assert [event for _, event in left if not isinstance(event, Data)][-1:] == [left[-1][1]]
    assert [event for _, event in left].count(EOF) <= 1
    assert sum(isinstance(event, ENDS) for _, event in left) <= 1


class Weird(FlowHandler):
    """Doubles, keeps for later, adds, drops, and ends in all ways, each with its own chance."""

    name = "weird"
    options: Any = {
        word: (f"Chance to {word}", float, 0)
        for word in ("double", "keep", "add", "drop", "end", "close", "reset")
    }

    def __init__(self, *_: object) -> None:
        self.kept: list[Event] = []

    def on(self, event: Event, now: float) -> Answers:
        if event is WAKE:
            if self.kept:
                yield self._delay(), self.kept.pop(0)
            return
        for word, made in (
            ("add", Data(b"added")),
            ("end", EOF),
            ("close", Close()),
            ("reset", Reset()),
        ):
            if self._does(word):
                yield self._delay(), made
        if isinstance(event, Data) and self._does("keep"):
            self.kept.append(event)
            yield self._delay(), WAKE
        elif not (isinstance(event, Data) and self._does("drop")):
            yield self._delay(), event
            if self._does("double"):
                yield self._delay(), event

    def removed(self, now: float) -> Answers:
        return [(0, event) for event in self.kept]

    def _does(self, word: str) -> bool:
        return bool(self.draw(word) < self.options(word))

    def _delay(self) -> float:
        return 0 if self.draw("at once") < 0.5 else 2 * self.draw("delay")


chance = st.sampled_from([0.0, 0.0, 0.0, 0.3])
weird = recipe(
    Weird,
    double=chance,
    keep=chance,
    add=chance,
    drop=chance,
    end=st.sampled_from([0.0, 0.0, 0.05]),
    close=st.sampled_from([0.0, 0.0, 0.05]),
    reset=st.sampled_from([0.0, 0.0, 0.05]),
)


@given(st.lists(st.one_of(weird, weird, lossless), min_size=1, max_size=3), changes)
@settings(deadline=None, max_examples=150)
def test_what_is_held_is_counted_right_whatever_stages_do(
    recipes: list[Recipe], script: list[Step]
) -> None:
    flow = Flow(*made(recipes))
    number = 0

    def check() -> None:
        if not isinstance(flow.chain.final, Close):
            assert flow.chain.held == counted(flow)
        assert [event for _, event in flow.left].count(EOF) <= 1
        finals = [at for at, (_, event) in enumerate(flow.left) if isinstance(event, ENDS)]
        assert finals in ([], [len(flow.left) - 1])

    for wait, what in script:
        flow.run(flow.now + wait)
        check()
        match what:
            case "insert", place, one:
                number += 1
                flow.insert(made([one], seed=number)[0], min(place, len(flow.chain.staged)))
            case "remove", place if flow.chain.staged:
                flow.remove(flow.chain.staged[place % len(flow.chain.staged)].stage)
            case "update", place if flow.chain.staged:
                flow.update(flow.chain.staged[place % len(flow.chain.staged)].stage)
            case "begin":
                number += 1
                flow.begin(number)
            case bytes():
                flow.push(what)
        check()
    flow.push(EOF)
    flow.run(END)
    check()
    if not isinstance(flow.chain.final, Close):
        assert flow.chain.held == 0


@given(st.one_of(lossless, harmful), steps)
@settings(deadline=None, max_examples=100)
def test_a_stage_that_wants_no_begin_does_the_same_without(one: Recipe, script: list[Step]) -> None:
    # Whether others want it must change nothing for those who say that they do not (law 8).
    if one[0].wants_begin:
        return
    (told,), (untold,) = made([one]), made([one])
    expected = play(Flow(told), script)
    flow = Flow(untold)
    number = 0
    for wait, what in script:
        flow.run(flow.now + wait)
        if what == "begin":
            number += 1
            flow.exchange = Exchange(Dice(1, "test"), 1, number)
        else:
            flow.push(what)
    flow.push(EOF)
    flow.run(END)
    assert flow.left == expected
