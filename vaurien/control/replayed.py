"""The operations of a journal, in a replay of it: which come again, when, and as what.

Law: pure. The decisions of a replay say who deals with which exchange, so that a behavior is not
set again, though the handlers that it no longer picks leave. What an operation does to toxics and
to whether the proxy listens, and the connections that it drops, come again as they were. Where
proxies listen, their backends and limits are those of the replay's own settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from vaurien.behavior import DUMMY, Behavior
from vaurien.control.operations import (
    PICKING,
    Change,
    Create,
    Delete,
    Operation,
    Reset,
    SetBehavior,
    from_json,
)
from vaurien.control.written import Find
from vaurien.plan import NOTHING, Plan, Specification

#: The fields of a plan that come again, and those of behaviors.
_AGAIN = ("enabled", "toxics")
_PICKED = (*PICKING, *PICKING.values(), "handlers")


class Timed(NamedTuple):
    """An operation on the proxy of that name, due `since` seconds after the start."""

    since: float
    proxy: str
    operation: Operation


def replayed(
    plan: Plan, recorded: Sequence[tuple[float, Any, str]], find: Find
) -> tuple[Plan, list[Timed], list[str]]:
    """What becomes of the operations of a journal for the proxy of `plan`.

    `recorded` has each in JSON with its seconds and its place. Answers with the plan from the first
    exchange on, with what comes later, and with the kinds that do not come again.
    """
    later: list[Timed] = []
    left_out: list[str] = []
    for since, body, place in recorded:
        operation = from_json(body, find, place)
        if isinstance(operation, Create):  # here it is there from the start
            plan = replace(plan, toxics=operation.plan.toxics)
        elif isinstance(operation, Change) and not since:
            plan = replace(plan, toxics=operation.fields.get("toxics", plan.toxics))
        elif isinstance(operation, Delete):
            left_out.append(operation.kind)
        else:
            later += [Timed(since, plan.name, one) for one in _again(operation)]
            if isinstance(operation, Change) and operation.fields.keys() - {*_AGAIN, *_PICKED}:
                left_out.append(operation.kind)
    return plan, later, left_out


def _again(operation: Operation) -> list[Operation]:
    """What an operation is in a replay: one for what comes again, one for each behavior."""
    if isinstance(operation, Reset):
        return [Change({"enabled": True, "toxics": ()}), *map(_nobody, PICKING)]
    if not isinstance(operation, Change):
        return [operation]
    fields = operation.fields
    own = {name: value for name, value in fields.items() if name in _AGAIN}
    behaviors = [
        SetBehavior(what, fields[what], fields.get("handlers", {}))
        for what in PICKING
        if what in fields
    ]
    return [*([Change(own)] if own else []), *behaviors]


def _nobody(what: str) -> SetBehavior:
    return SetBehavior(what, NOTHING)


def let_go(plan: Plan, operation: SetBehavior) -> SetBehavior | None:
    """What lets go those of a replay's `plan` that the operation let go; None if there is nobody.

    Its inverse has them back, for exchanges to come: who deals with those, the decisions say.
    """
    what = operation.what
    behavior: Behavior = getattr(plan, what)
    known = [_bare(found) for found in operation.handlers.values()]
    stay = {name for name in behavior.names if name == DUMMY or _bare(plan.handlers[name]) in known}
    parts = tuple(part for part in behavior.parts if {*part[1].split("+")} <= stay)
    if parts == behavior.parts:
        return None
    named = {name for _, part in parts for name in part.split("+")}
    handlers = {name: found for name, found in plan.handlers.items() if name in named}
    return SetBehavior(what, Behavior(parts), handlers, {})


def _bare(found: Specification | tuple[Specification, ...]) -> tuple[Specification, ...]:
    """Handlers without their names and exact points, which a journal's decisions do not have."""
    every = found if isinstance(found, tuple) else (found,)
    return tuple(
        replace(one, name="", given={n: v for n, v in one.given.items() if n == "stream"})
        for one in every
    )
