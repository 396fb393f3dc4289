"""Proxies that lead to each other: one connection through them would take all descriptors.

Law: pure. Circles are seen here as far as the texts of addresses tell; what leads back by a name is
seen when a connection comes back (`vaurien.relay.home`).
"""

from __future__ import annotations

from collections.abc import Iterable

from vaurien.address import Address
from vaurien.errors import UsageError

#: A proxy: its name, where it listens, and its backend.
Place = tuple[str, Address, Address]


def refuse_circles(places: Iterable[Place]) -> None:
    """UsageError if who connects to one of these proxies would come back to it."""
    near: dict[int | str, list[Place]] = {}
    for place in places:
        near.setdefault(place[1].path or place[1].port, []).append(place)
    seen: set[str] = set()  # those from which all ways are known
    for starts in near.values():
        for start in starts:
            way: dict[str, None] = {}
            at: Place | None = start
            while at is not None and at[0] not in seen:
                if at[0] in way:
                    raise UsageError(_sentence([*way][[*way].index(at[0]) :]))
                way[at[0]] = None
                distant = at[2]
                there = near.get(distant.path or distant.port, ())
                at = next((one for one in there if distant.leads_to(one[1])), None)
            seen |= way.keys()


def _sentence(names: list[str]) -> str:
    way = " -> ".join(map(repr, [*names, names[0]]))
    return f"proxies lead in a circle: {way}; give one of them another backend"
