"""What the tests of the engine and of flow handlers share: a chain with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count, pairwise
from typing import Any

import pytest

from vaurien.behavior import Dice, Exchange
from vaurien.flow import EOF, Begin, Close, Data, Event, Reset
from vaurien.flow.chain import Chain, Place
from vaurien.flow.handler import Draws, FlowHandler

Answers = Iterable[tuple[float, Event]]
Left = list[tuple[float, Event]]


class Scripted(FlowHandler):
    """A stage that answers as a test says, and keeps what it was given."""

    name = "scripted"
    seen: Left
    answer: Callable[[Event, float], Answers]

    def on(self, event: Event, now: float) -> Answers:
        self.seen.append((now, event))
        return self.answer(event, now)


def passes(event: Event, _now: float) -> Answers:
    """Pass everything on at once."""
    return [(0, event)]


def scripted(answer: Callable[[Event, float], Answers] = passes) -> Scripted:
    """A stage that answers with `answer`."""
    stage: Scripted = Scripted()
    stage.seen, stage.answer = [], answer
    return stage


def holding(*delays: float) -> Scripted:
    """A stage that gives its pieces of data these delays, in turn; the last one to all others."""
    number = count()

    def answer(event: Event, _now: float) -> Answers:
        delay = delays[min(next(number), len(delays) - 1)] if isinstance(event, Data) else 0
        return [(delay, event)]

    return scripted(answer)


class Flow:
    """A chain in virtual time: `left` is what has left it and when, `now` its clock."""

    def __init__(self, *stages: FlowHandler) -> None:
        self.left: Left = []
        self.now = 0.0
        self.exchange = Exchange(Dice(1, "test"), 1, 0)
        self.chain = Chain(self.exchange)
        for stage in stages:
            self.insert(stage)

    def insert(self, stage: FlowHandler, position: int | None = None, pinned: bool = True) -> Place:
        """Put a stage in, at the end if not told where; it is its own key."""
        made = Place(stage, stage, pinned)
        at = len(self.chain.staged) if position is None else position
        self.chain.insert(at, made, self.now)
        self._collect()
        return made

    def place(self, stage: FlowHandler) -> Place:
        """Where a stage is."""
        return next(place for place in self.chain.staged if place.stage is stage)

    def remove(self, stage: FlowHandler) -> None:
        """Take a stage away."""
        self.chain.remove(self.place(stage), self.now)
        self._collect()

    def update(self, stage: FlowHandler, **options: Any) -> None:
        """Change some options of a stage, as the API does it."""
        given = {k: v for k, v in {**stage.options, **options}.items() if v is not None}
        stage.options = type(stage)(given).options
        self.chain.update(self.place(stage), self.now)
        self._collect()

    def begin(self, number: int, *picked: FlowHandler, length: int | None = None) -> Exchange:
        """Exchange `number` begins, for which the stages `picked` were picked."""
        self.exchange = Exchange(Dice(1, "test"), 1, number, picked)
        self.push(Begin(number, length))
        return self.exchange

    def push(self, *events: Event | bytes, at: float | None = None) -> None:
        """Give it events, bytes for data, now or after running until `at`."""
        if at is not None:
            self.run(at)
        for event in events:
            given = Data(event) if isinstance(event, bytes) else event
            self.chain.push(given, self.exchange, self.now)
            self._collect()

    def run(self, until: float) -> None:
        """Let time pass, and stop at each deadline."""
        while (deadline := self.chain.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.chain.advance(self.now)
            self._collect()
        self.now = until

    def jump(self, to: float) -> None:
        """Let time pass at one go, as for a loop that was held up."""
        self.now = to
        self.chain.advance(to)
        self._collect()

    @property
    def data(self) -> bytes:
        """The bytes that have left."""
        return joined(self.left)

    def _collect(self) -> None:
        while self.chain.out:
            event, _ = self.chain.take()
            self.left.append((self.now, EOF if event is None else event))
        final = self.chain.final
        if final is not None and not (self.left and self.left[-1][1] is final):
            self.left.append((self.now, final))


def joined(left: Iterable[tuple[float, Event]]) -> bytes:
    """The bytes of what has left."""
    return b"".join(event.data for _, event in left if isinstance(event, Data))


def near(expected: Sequence[tuple[float, Event | bytes]]) -> list[Any]:
    """To compare with what has left: the same events, at the same times but for rounding."""
    return [
        (pytest.approx(time, abs=1e-9), Data(event) if isinstance(event, bytes) else event)
        for time, event in expected
    ]


def draws(name: str = "test", seed: int = 1, connection: int = 1) -> Draws:
    """The random numbers of a stage."""
    return Draws(Dice(seed, "default"), connection, name)


def times(left: Iterable[tuple[float, Event]]) -> list[float]:
    """When each piece of data left."""
    return [time for time, event in left if isinstance(event, Data)]


def pieces(data: bytes, *cuts: int) -> list[bytes]:
    """`data`, cut in pieces at these offsets."""
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def ends(left: Iterable[tuple[float, Event]]) -> Left:
    """How and when it ended: EOF, Close and Reset."""
    return [(time, event) for time, event in left if not isinstance(event, Data)]


ENDS = (Close, Reset)
