"""Which handlers fit together: what a behavior may pick, alone or joined by ``+``, in which order.

Law: what does not fit is refused here, before anything listens, in one sentence that names where it
was written. Nothing below asks again: what picks and what builds chains rely on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

from vaurien.behavior import Behavior
from vaurien.errors import UsageError
from vaurien.kinds import closes_listener, is_connect, is_message
from vaurien.specification import Specification

#: What the names in behaviors stand for: one handler, or several for a preset.
Handlers = Mapping[str, Specification | tuple[Specification, ...]]


def together(handlers: Handlers) -> Callable[[str], tuple[Specification, ...]]:
    """Tells what handlers joined by ``+`` are; nothing for dummy."""

    def stand_for(combination: str) -> tuple[Specification, ...]:
        found: list[Specification] = []
        for name in combination.split("+"):
            specs = handlers.get(name, ())
            found += specs if isinstance(specs, tuple) else (specs,)
        return tuple(found)

    return stand_for


def order(behavior: Behavior, where: str, former: Sequence[str] = ()) -> dict[str, int]:
    """Where each name stands in a chain: as the behavior's parts write them.

    Where they leave that open, those in `former` stand in that order. UsageError naming `where` if
    two parts write two names in different orders.
    """
    parts = [part.split("+") for _, part in behavior.parts]
    rank = {name: place for place, name in enumerate(former)}
    for more in ((former,), ()):  # all of them in that order, or as near as can be
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for names in (*parts, *more):
            for before, name in zip((None, *names), names, strict=False):
                sorter.add(name, *([before] if before else []))
        try:
            sorter.prepare()
            break
        except CycleError as error:
            circle = sorted(set(error.args[1]))
    else:
        raise UsageError(
            f"{where}: {str(behavior)!r} has {' and '.join(circle)} in different orders; write them"
            " in the same order everywhere"
        )
    places: dict[str, int] = {}
    ready: list[tuple[int, int, str]] = []
    seen = itertools.count()
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, (rank.get(name, len(rank)), next(seen), name))
        name = heappop(ready)[2]
        places[name] = len(places)
        sorter.done(name)
    return places


def check(
    behavior: Behavior,
    specifications: Callable[[str], Sequence[Specification]],
    where: str,
    protocol: str | None = None,
) -> None:
    """UsageError naming `where` if what a behavior picks does not fit, alone or together.

    `specifications` gives what a name stands for; see `Plan.specifications`. `protocol` is the
    proxy's, None while that is not known.
    """
    order(behavior, where)
    for _, part in behavior.parts:
        found = specifications(part)
        for spec in found:
            if is_connect(spec.cls):
                raise UsageError(
                    f"{where}: {spec.name!r} deals with clients that connect, not with exchanges;"
                    f" give it to --on-connect"
                )
            if protocol == "tcp" and is_message(spec.cls):
                raise UsageError(
                    f"{where}: {spec.name!r} decides about requests, which the protocol 'tcp' does"
                    " not tell apart; give --protocol one that does, or take another handler"
                )
            refuse_length(spec, where)
        sockets = [spec.name for spec in found if not spec.is_flow and not is_message(spec.cls)]
        if len(sockets) > 1:
            raise UsageError(
                f"{where}: {part!r}: {' and '.join(map(repr, sockets))} exclude each other: each"
                " works on the sockets itself; take one of them"
            )
        if sockets and found[-1].name != sockets[0]:
            raise UsageError(
                f"{where}: {part!r}: {sockets[0]!r} works on the sockets itself, and gets what the"
                " others let through; write it last"
            )


def refuse_length(spec: Specification, where: str) -> None:
    """UsageError if an option needs to know how long messages are, which tcp does not tell."""
    for word in getattr(spec.cls, "needs_length", ()):
        if spec.options[word] is not None:
            raise UsageError(
                f"{where}: {spec.name}.{word} needs a protocol that tells how long a message is;"
                " tcp does not: leave it out"
            )


def check_connect(
    behavior: Behavior,
    specifications: Callable[[str], Sequence[Specification]],
    where: str,
    replayed: bool = False,
) -> None:
    """UsageError naming `where` if what is to meet clients cannot."""
    for weight, part in behavior.parts:
        found = specifications(part)
        for spec in found:
            if not is_connect(spec.cls):
                raise UsageError(
                    f"{where}: {spec.name!r} deals with exchanges, not with clients that connect;"
                    " give it to --behavior"
                )
            if "scope" in spec.given:
                raise UsageError(
                    f"{where}: {spec.name}.scope has no effect: clients are counted in the whole"
                    " proxy; leave it out"
                )
            given = sorted(set(spec.given) - {"since", "until"})
            if closes_listener(spec.cls) and weight != 100 and not replayed:
                raise UsageError(
                    f"{where}: {part!r} closes the listener for everybody; write 100:down"
                )
            if closes_listener(spec.cls) and given:
                raise UsageError(
                    f"{where}: down.{given[0]} has no effect: nobody is accepted; give since and"
                    " until only"
                )
        if len(found) > 1:
            raise UsageError(f"{where}: {part!r}: one handler meets a client; take one of them")
