"""Toxics: flow handlers pinned to a proxy, which come to the connections that they hit.

Laws: a toxic acts on a connection when its draw is below its toxicity, and that draw is the same
whenever it is asked for. What is as before, and stands so, is not touched by a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from vaurien.behavior import Dice
from vaurien.counts import Stats
from vaurien.errors import RAISED
from vaurien.exchange.picks import Picked, staying
from vaurien.plan import Toxic
from vaurien.relay.flow import Flow
from vaurien.relay.shaping import Shaping


class Pin:
    """A toxic at work: its configuration, and what it did."""

    def __init__(self, toxic: Toxic, dice: Dice, whole: Stats) -> None:
        """`whole` is what all toxics of its type did."""
        self.toxic, self.dice = toxic, dice
        self.picked = Picked(toxic.specification, (0, 0), Stats(whole))

    def hits(self, connection: Any) -> bool:
        """Whether it acts on that connection."""
        draw = self.dice.draw(connection.number, 0, f"toxicity {self.toxic.name}")
        return draw < self.toxic.toxicity

    def flows(self, connection: Any) -> list[Flow]:
        """The flows of that connection that are in its stream."""
        return [flow for flow in connection.flows if self.picked.acts[flow.to_backend]]

    def attach(self, connection: Any, order: list[Picked]) -> None:
        """Come to that connection, if it is hit, to where `order` has it."""
        if self.hits(connection):
            for flow in self.flows(connection):
                if not connection.closed:
                    if flow.shaping is None:
                        flow.shaping = Shaping(flow, connection.present())
                    flow.shaping.pin(self.picked, order)

    def detach(self, connection: Any) -> None:
        """Leave that connection."""
        for flow in self.flows(connection):
            if not connection.closed and flow.shaping is not None:
                flow.shaping.unpin(self.picked)

    def update(self, connection: Any, order: list[Picked]) -> None:
        """The toxic has changed: act on that connection as it says now."""
        flows = [flow for flow in self.flows(connection) if flow.shaping is not None]
        at_work = any(flow.shaping.places_of(self.picked) for flow in flows)
        if at_work and self.hits(connection):
            for flow in flows:
                if not connection.closed:
                    flow.shaping.update(self.picked)
        elif at_work:
            self.detach(connection)
        else:
            self.attach(connection, order)


class Toxics:
    """The toxics of one proxy, in their order."""

    def __init__(self, toxics: Iterable[Toxic], dice: Dice) -> None:
        self._dice = dice
        self._whole: dict[str, Stats] = {}  # what those of each type did, gone ones too
        self.pins = {toxic.name: self._pin(toxic) for toxic in toxics}

    def __repr__(self) -> str:
        return f"<Toxics {', '.join(self.pins) or 'none'}>"

    def __bool__(self) -> bool:
        return bool(self.pins)

    @property
    def order(self) -> list[Picked]:
        """Who they are, in the order in which bytes pass them."""
        return [pin.picked for pin in self.pins.values()]

    def _pin(self, toxic: Toxic) -> Pin:
        kind = str(toxic.specification.cls.name)  # type: ignore[attr-defined]
        return Pin(toxic, self._dice, self._whole.setdefault(kind, Stats()))

    def meet(self, connection: Any) -> None:
        """A connection is open: those come to it that hit it."""
        order = self.order if self.pins else []
        for pin in self.pins.values():
            if connection.closed:
                return
            pin.attach(connection, order)

    def throw_anew(self, dice: Dice) -> None:
        """Hit others from now on: the seed is another one."""
        self._dice = dice
        for pin in self.pins.values():
            pin.dice = dice

    def change(self, toxics: tuple[Toxic, ...], connections: Iterable[Any]) -> None:
        """Have these at work, in this order, on open `connections` too."""
        wanted = {toxic.name: toxic for toxic in toxics}
        before = self.pins
        kept = [
            name
            for name, pin in before.items()
            if name in wanted and wanted[name].same_kind(pin.toxic)
        ]
        stay = staying(kept, wanted)
        open_ones = list(connections)
        for name, pin in before.items():
            if name not in stay:
                for_each(open_ones, pin.detach)
        self.pins = {
            name: before[name] if name in stay else self._pin(toxic)
            for name, toxic in wanted.items()
        }
        order = self.order
        for name, pin in self.pins.items():
            if name not in stay:
                for_each(open_ones, pin.attach, order)
            elif pin.toxic != wanted[name]:
                pin.toxic = wanted[name]
                pin.picked.specification = pin.toxic.specification
                for_each(open_ones, pin.update, order)

    @property
    def stats(self) -> dict[str, Stats]:
        """What each did that is there now, by the name under which it is told."""
        return {f"toxic {name}": pin.picked.stats for name, pin in self.pins.items()}

    @property
    def stats_by_type(self) -> dict[str, Stats]:
        """What those of each type did, gone ones too."""
        return self._whole


def for_each(connections: Iterable[Any], action: Callable[..., None], *args: Any) -> None:
    """Do something to connections; an error of one ends that one only."""
    for connection in connections:
        if not connection.closed:
            try:
                action(connection, *args)
            except RAISED:
                connection.crashed()
