"""Proxies that lead to each other: one connection through them would take all descriptors.

Law: pure. Circles are seen here as far as the texts of addresses tell; what leads back by a name is
seen when a connection comes back (`vaurien.relay.home`).
"""

from __future__ import annotations

from collections.abc import Iterable

from vaurien import address
from vaurien.address import Address
from vaurien.errors import UsageError

_SHOWN = 10  # names in the sentence at most

#: A proxy: its name, where it listens, and its backend.
Place = tuple[str, Address, Address]


def refuse_circles(places: Iterable[Place], start: Place | None = None) -> None:
    """UsageError if who connects to one of these proxies would come back to it.

    With `start`, one of them, only circles through that one are looked for.
    """
    listening: dict[address.Place, Place] = {}
    for place in places:
        for key in place[1].listens_as:
            listening.setdefault(key, place)
    seen: set[str] = set()  # those from which all ways are known
    for first in [start] if start is not None else [*listening.values()]:
        way: dict[str, None] = {}
        at: Place | None = first
        while at is not None and at[0] not in seen:
            if at[0] in way:
                raise UsageError(_sentence([*way][[*way].index(at[0]) :]))
            way[at[0]] = None
            at = next((listening[key] for key in at[2].leads_by if key in listening), None)
        seen.update(way)


def _sentence(names: list[str]) -> str:
    shown = [*map(repr, names[:_SHOWN]), *(["..."] if len(names) > _SHOWN else []), repr(names[0])]
    way = " -> ".join(shown)
    return f"proxies lead in a circle: {way}; give one of them another backend"
