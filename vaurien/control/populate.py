"""Making many proxies of a list, as Toxiproxy's clients do at each of their starts.

Law: what is there already, and is the same, is not touched; each proxy is an operation of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from vaurien.control.operations import PICKING, Change, former_behavior
from vaurien.control.roster import Roster, where
from vaurien.errors import AlreadyThere, NotFound
from vaurien.exchange.picks import Builder
from vaurien.net.listener import locate
from vaurien.net.turn import give_way
from vaurien.plan import Plan
from vaurien.relay.proxy import Proxy


class Entry(NamedTuple):
    """A proxy that is to be there, for `ttl` seconds; `given` are the fields that its JSON has."""

    plan: Plan
    given: Collection[str]
    ttl: float | None = None


def populate(roster: Roster, entries: Sequence[Entry]) -> Iterator[Proxy]:
    """Make proxies, one after the other; see `Farm.populate`."""
    ready = []
    for entry in entries:
        ready.append(_ready(roster, entry.plan))
        give_way()  # others go on while a long list is made ready
    for entry, made in zip(entries, ready, strict=True):
        yield _populate(roster, entry, *made)


def _ready(roster: Roster, plan: Plan) -> tuple[Proxy | None, Builder | None]:
    """A proxy for `plan`, or what builds those handlers that a proxy of that name has not."""
    there = roster.proxies.get(plan.name)
    if there is None:
        return roster.build(plan), None
    build, has = Builder(there), there.plan.specifications("+".join(there.plan.handlers))
    for spec in plan.specifications("+".join(plan.handlers)):
        if spec not in has:
            build(spec)
    return there, build


def _populate(roster: Roster, entry: Entry, made: Proxy | None, build: Builder | None) -> Proxy:
    name = entry.plan.name
    while True:
        proxy = roster.proxies.get(name)
        try:
            if proxy is None:
                return roster.create(entry.plan, entry.ttl, made if build is None else None)
            known = build if proxy is made and build is not None else Builder(proxy)
            return _populate_there(roster, proxy, entry, known)
        except (AlreadyThere, NotFound):
            pass  # others were quicker: look again


def _populate_there(roster: Roster, proxy: Proxy, entry: Entry, build: Builder) -> Proxy:
    wanted, target = entry.plan, None
    if not _is_there(proxy, wanted):
        target = locate(
            replace(wanted.local, port=wanted.local.port or proxy.address.port), wanted.where
        )

    def changed(plan: Plan) -> Plan:
        same = _is_there(proxy, wanted) if target is None else proxy.is_at(target)
        if not same or wanted.distant != plan.distant:
            return wanted
        for what in PICKING:
            if what in entry.given:
                plan = former_behavior(what, wanted).apply(plan)
        kept = {what: getattr(wanted, what) for what in ("toxics", "seed") if what in entry.given}
        return replace(plan, **kept)

    before = roster.settle(proxy, changed, build)
    after = proxy.plan
    change = Change.between(before, after)
    if after is wanted:
        roster.ttls.forget(proxy.name, but="proxy")
        roster.tell(proxy, change, where(proxy), change="replaced")
    else:
        stay = [what for what in PICKING if what in entry.given]
        if "toxics" in entry.given:
            stay += [f"toxic {toxic.name}" for toxic in (*before.toxics, *after.toxics)]
        for what in stay:
            roster.ttls.changed((proxy.name, what), None)
        if after != before:
            roster.tell(proxy, change, "by populate")
    roster.ttls.renew((proxy.name, "proxy"), entry.ttl)
    return proxy


def _is_there(proxy: Proxy, plan: Plan) -> bool:
    """Whether `plan` says in so many words where the proxy listens; port 0 is any."""
    if plan.local == proxy.plan.local:
        return True
    port = plan.local.port or proxy.address.port
    return replace(plan.local, port=port) == proxy.address
