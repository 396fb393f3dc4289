"""Being as the configuration says, once it was read again.

Law: all of it, or nothing. What may fail or take time comes first; if others have come between, it
is looked at anew; from there on nothing gives way to others until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from vaurien.circles import refuse_circles
from vaurien.control.operations import Change, Create
from vaurien.control.roster import Configuration, Roster, refuse_loop
from vaurien.exchange.picks import Builder
from vaurien.net.dial import Target
from vaurien.net.listener import locate
from vaurien.plan import Plan
from vaurien.relay.proxy import Change as Prepared
from vaurien.relay.proxy import Proxy


class _Ready(NamedTuple):
    """What is to be, with all done that may take time."""

    wanted: dict[str, Plan]
    targets: dict[str, Target]
    created: dict[str, Proxy]
    changes: dict[str, Prepared]
    deleted: list[Proxy]


def reload(
    roster: Roster, settings: Configuration, check: Callable[[], None]
) -> dict[str, list[str]]:
    """Be as `settings` say; see `Farm.reload`."""
    ready = _prepare(roster, settings)
    roster.refuse_if_stopping()
    check()
    _take_addresses(roster, ready)
    wanted, created = ready.wanted, ready.created
    roster.take(settings)
    for proxy in ready.deleted:
        roster.delete(proxy.name)
    for name, change in ready.changes.items():
        proxy = roster.proxies[name]
        before = proxy.plan
        change.apply()
        roster.tell(proxy, Change.between(before, proxy.plan), "by reload")
    configured = {plan.name for plan in settings.plans}
    for name in configured:
        roster.ttls.forget(name)
    for proxy in created.values():
        proxy.observers = roster.observers  # who has come or gone since it was built
        roster.tell(proxy, Create(proxy.plan), "by reload")
    both = {**roster.proxies, **created}
    roster.proxies = {name: both[name] for name in wanted}
    roster.configured = configured
    return {
        "created": [*created],
        "changed": [*ready.changes],
        "deleted": [proxy.name for proxy in ready.deleted],
        "unchanged": [name for name in wanted if name not in {**created, **ready.changes}],
    }


def _prepare(roster: Roster, settings: Configuration) -> _Ready:
    """Resolve and build what is needed, until nobody has come between."""
    targets: dict[str, Target] = {}
    built: dict[str, Proxy] = {}
    builders: dict[Proxy, Builder] = {}
    while True:
        roster.refuse_if_stopping()
        before = [(proxy, proxy.plan) for proxy in roster]
        wanted = {plan.name: plan for plan in settings.plans}
        for plan in settings.plans:
            if _is_away(roster, plan, targets):
                targets[plan.name] = locate(plan.local, plan.where)
            refuse_loop(plan, plan.local, targets.get(plan.name))
            if plan.name not in roster.proxies and plan.name not in built:
                built[plan.name] = roster.build(plan)
        deleted = []
        for proxy, plan in before:
            if proxy.name not in wanted and proxy.name in roster.configured:
                deleted.append(proxy)
            elif proxy.name not in wanted:
                wanted[proxy.name] = _with_common(plan, settings.common)
        refuse_circles((one.name, one.local, one.distant) for one in wanted.values() if one.enabled)
        changes = {
            proxy.name: proxy.prepare(
                wanted[proxy.name], builders.setdefault(proxy, Builder(proxy))
            )
            for proxy, plan in before
            if wanted.get(proxy.name, plan) != plan
        }
        now = [(proxy, proxy.plan) for proxy in roster]
        if [*map(_identity, now)] == [*map(_identity, before)]:
            break
    created = {name: built[name] for name in wanted if name not in roster.proxies}
    return _Ready(wanted, targets, created, changes, deleted)


def _take_addresses(roster: Roster, ready: _Ready) -> None:
    """Have all addresses that are to be listened at; ListenError, and all as before, if not."""
    given_up = [*ready.deleted]
    for proxy in roster:
        plan = ready.wanted.get(proxy.name, proxy.plan)
        target = ready.targets.get(proxy.name)
        moves = proxy.must_locate(plan) and not (target and proxy.is_at(target))
        if moves or not plan.enabled:
            given_up.append(proxy)
    try:
        for proxy in given_up:
            proxy.pause()
        for name, proxy in ready.created.items():
            proxy.start(ready.targets.get(name))
        for name, change in ready.changes.items():
            change.bind(ready.targets.get(name))
    except BaseException:
        for change in ready.changes.values():
            change.cancel()
        for proxy in ready.created.values():
            proxy.disable()
        for proxy in given_up:
            proxy.resume()
        raise


def _is_away(roster: Roster, plan: Plan, targets: Mapping[str, Target]) -> bool:
    """Whether it is not known yet where `plan` is to listen."""
    proxy = roster.proxies.get(plan.name)
    wanted = plan.enabled if proxy is None else proxy.must_locate(plan)
    return wanted and plan.name not in targets


def _identity(pair: tuple[Proxy, Plan]) -> tuple[int, int]:
    return id(pair[0]), id(pair[1])


def _with_common(plan: Plan, common: Mapping[str, Any]) -> Plan:
    """`plan` with what all proxies have in common, itself if it has that."""
    same = all(getattr(plan, name) == value for name, value in common.items())
    return plan if same else replace(plan, **common)
