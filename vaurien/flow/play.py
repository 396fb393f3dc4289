"""Stages in virtual time: the engine of the proxy with a clock of its own, and no sockets.

Law: it is the same engine; what a stage does here it does in the proxy. Nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from vaurien.behavior import Dice, Exchange
from vaurien.flow.chain import Chain, Place
from vaurien.flow.events import EOF, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import FlowHandler


def play(
    stages: Iterable[FlowHandler], events: Iterable[tuple[float, Event]], until: float = inf
) -> list[tuple[float, Data | Close | Reset | Event]]:
    """What leaves a chain of `stages` that is fed `events`, and when: ``[(seconds, event)]``.

    It is the engine of the proxy, with a clock of its own, that begins at 0 with OPEN for each
    stage. `events` are ``(seconds, event)`` in order of time: `Begin`, `Data`, `EOF`. What is due
    after `until` is not played; a stage that never stops waking needs it. `Begin` does not leave;
    after `Close` or `Reset` nothing does.

    ValueError if the events are out of order; HandlerRaised if a stage raises.
    """
    exchange = Exchange(Dice(0, "play"), 1, 0)
    chain = Chain(exchange)
    left: list[tuple[float, Event]] = []

    def collect(now: float) -> None:
        left.extend((now, event or EOF) for event, _ in chain.out)
        while chain.out:
            chain.take()
        if chain.final is not None and (not left or left[-1][1] is not chain.final):
            left.append((now, chain.final))

    def advance(now: float) -> None:
        while chain.deadline is not None and chain.deadline <= now and chain.final is None:
            due = chain.deadline
            chain.advance(due)
            collect(due)

    for position, stage in enumerate(stages):
        chain.insert(position, Place(stage, stage, pinned=True), 0.0)
    collect(0.0)
    last = 0.0
    for now, event in events:
        if now < last:
            raise ValueError(f"{event!r} at {now} s comes after an event at {last} s")
        if now > until or chain.final is not None:
            break
        last = now
        advance(now)
        if isinstance(event, Begin):
            exchange = Exchange(Dice(0, "play"), 1, event.exchange)
        chain.push(event, exchange, now)
        collect(now)
    advance(until)
    return left
