"""The proxies of one process, and the few steps of which every operation on them is made.

Laws: a step is done when its call returns. It waits for nothing but the resolution of a local name
and what users' classes do when they are made, both before it has changed anything; if others have
come between, it looks again. So each is seen as a whole by all others. What cannot be done changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, time
from typing import Any, Protocol

from vaurien.address import Address
from vaurien.catalog import Catalog
from vaurien.circles import refuse_circles
from vaurien.control.operations import (
    Change,
    Create,
    Delete,
    Edit,
    Operation,
    part_of,
    toxic_of,
)
from vaurien.control.replayed import Timed
from vaurien.control.ttl import Key, Ttls, Undo
from vaurien.errors import AlreadyThere, NotFound, Stopping, TooMany, UsageError, VaurienError
from vaurien.exchange.picks import Builder
from vaurien.net.dial import Target
from vaurien.net.listener import PORTS, locate
from vaurien.net.loop import current
from vaurien.observe.events import Changed, Event
from vaurien.plan import Plan, Toxic
from vaurien.relay.proxy import Proxy

log = logging.getLogger("vaurien")

Observer = Callable[[Event], None]

PROXIES = 10_000  # that there may be


class Configuration(Protocol):
    """What is to be there, as `vaurien.settings` has it, which stands above all this."""

    catalog: Catalog
    plans: tuple[Plan, ...]
    operations: tuple[Timed, ...]

    @property
    def common(self) -> Mapping[str, Any]:
        """What the plans of all proxies have in common."""

    def __getitem__(self, name: str, /) -> Any: ...


class Roster:
    """Proxies by name, in the order in which they were made; the first is who is meant by default.

    `observers` are told of the exchanges of all of them, and of changes.
    """

    def __init__(
        self,
        settings: Configuration,
        observers: Sequence[Observer] = (),
        everything: bool = False,
    ) -> None:
        """Build the proxies of `settings`, which do not listen yet; UsageError if one can't be."""
        self.take(settings)
        self._loop = current()
        self.observers, self._everything = tuple(observers), everything
        self.ttls = Ttls(self._bring_back)
        #: Who is told of a proxy that has been deleted.
        self.leaving: list[Callable[[Proxy], None]] = []
        #: Where the control API is: no backend for proxies that requests make.
        self.apis: tuple[Address, ...] = ()
        self.stopping = False
        self.began = monotonic()
        self.proxies: dict[str, Proxy] = {plan.name: self.build(plan) for plan in settings.plans}
        #: The names that the configuration has; the others were made by requests.
        self.configured = set(self.proxies)

    def take(self, settings: Configuration) -> None:
        """Have requests read with these from now on."""
        self.catalog = settings.catalog
        self.common = settings.common
        self.seed: int = settings["seed"]

    def build(self, plan: Plan) -> Proxy:
        """A proxy that is not there yet, with its handlers; UsageError if one can't be built."""
        return Proxy(plan, self.observers, self._everything, self._loop)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self.proxies) or 'no proxies'}>"

    def __iter__(self) -> Iterator[Proxy]:
        return iter(list(self.proxies.values()))

    # Looking

    def get(self, name: str) -> Proxy:
        """The proxy of that name; NotFound if there is none."""
        try:
            return self.proxies[name]
        except KeyError:
            raise NotFound("proxy not found") from None

    def first(self) -> Proxy:
        """The proxy that is meant if none is named; NotFound if there is none."""
        for proxy in self.proxies.values():
            return proxy
        raise NotFound("there is no proxy yet; make one: POST /proxies")

    def toxic(self, name: str, toxic: str) -> Toxic:
        """A toxic of a proxy; NotFound if there is none."""
        found = toxic_of(self.get(name).plan, toxic)
        if found is None:
            raise NotFound("toxic not found")
        return found

    # Observing

    def observe(self, observer: Observer) -> None:
        """Tell `observer` from now on."""
        self._set_observers((*self.observers, observer))

    def unobserve(self, observer: Observer) -> None:
        """Tell `observer` no more."""
        self._set_observers(tuple(other for other in self.observers if other != observer))

    def _set_observers(self, observers: tuple[Observer, ...]) -> None:
        self.observers = observers
        for proxy in self:
            proxy.observers = observers

    def tell(
        self,
        proxy: Proxy,
        operation: Operation,
        detail: str | None = None,
        ttl: float | None = None,
        change: str | None = None,
    ) -> None:
        """Say in the log and to observers what was done, in its own words or in these.

        `ttl` is in seconds.
        """
        change = operation.change if change is None else change
        detail = operation.detail if detail is None else detail
        if ttl is not None:
            detail = f"{detail} for {ttl:g} s".strip()
        if change:
            log.info("%s: %s%s", proxy.name, change, f" {detail}" if detail else "")
        self._observed(proxy, change, detail, operation, monotonic() - self.began, ttl)

    def tell_start(self, proxy: Proxy) -> None:
        """Let the journal know of toxics that are there from the first exchange on."""
        if proxy.plan.toxics:
            self._observed(proxy, "", "", Change({"toxics": proxy.plan.toxics}), 0.0, None)

    def _observed(
        self,
        proxy: Proxy,
        change: str,
        detail: str,
        operation: Operation,
        since: float,
        ttl: float | None,
    ) -> None:
        if self.observers:
            seed = proxy.plan.seed
            event = Changed(time(), proxy.name, change, detail, operation, since, ttl, seed)
            for observer in self.observers:
                observer(event)

    # The steps

    def refuse_if_stopping(self) -> None:
        """Stopping, if no proxy may begin to listen any more."""
        if self.stopping:
            raise Stopping("Vaurien is stopping; nothing is begun any more")

    def _refuse_doubled(self, name: str) -> None:
        self.refuse_if_stopping()
        if name in self.proxies:
            raise AlreadyThere("proxy already exists")
        if len(self.proxies) >= PROXIES:
            raise TooMany(
                f"there are {PROXIES:,} proxies, which is as many as there can be; delete one, or"
                " start another Vaurien"
            )

    def create(self, plan: Plan, ttl: float | None = None, made: Proxy | None = None) -> Proxy:
        """Make a proxy and have it listen; AlreadyThere, ListenError or UsageError if it can't be.

        `made` is one that has been built for that plan, and is not used yet. After `ttl` seconds it
        goes away.
        """
        self._refuse_doubled(plan.name)
        target = locate(plan.local, plan.where) if plan.enabled else None
        proxy = made or self.build(plan)
        self._refuse_doubled(plan.name)  # another may have been quicker
        refuse_loop(plan, plan.local, target)
        self._refuse_circle(plan, plan.local)
        proxy.start(target)
        proxy.observers = self.observers  # who has come or gone since it was built
        self.proxies[plan.name] = proxy
        operation = Create(plan)
        self.ttls.changed((plan.name, operation.part), ttl, Undo(operation.inverse()))
        self.tell(proxy, operation, where(proxy))
        return proxy

    def _refuse_circle(self, plan: Plan, local: Address) -> None:
        """UsageError if who connects to `plan` at `local` comes back to it, or to the API."""
        before = self.proxies.get(plan.name)
        same = before is not None and before.plan.distant == plan.distant
        if not same and any(plan.distant.leads_to(api) for api in self.apis):
            raise UsageError(
                f"upstream: {plan.distant} is where the control API is served, which only the"
                " configuration may make a backend"
            )
        if plan.enabled and (plan.distant.path or plan.distant.port in PORTS):
            others = (one for one in self if one.plan.enabled and one.name != plan.name)
            places = [(one.name, one.address, one.plan.distant) for one in others]
            changed = (plan.name, local, plan.distant)
            refuse_circles([*places, changed], changed)

    def delete(self, name: str) -> None:
        """End a proxy and all its connections."""
        proxy = self.get(name)
        proxy.disable()
        del self.proxies[name]
        self.configured.discard(name)
        self.ttls.forget(name)
        for leave in self.leaving:
            leave(proxy)
        self.tell(proxy, Delete())

    def settle(
        self,
        proxy: Proxy,
        changed: Callable[[Plan], Plan],
        build: Builder | None = None,
        anew: bool = False,
    ) -> Plan:
        """Give `proxy` the plan that `changed` makes of the one that it has then; that one.

        If a name has to be resolved or a handler built first, others may come between: then it is
        made anew. With `anew` the proxy leaves the port where it is, though its plan may say no
        other than before: 0. NotFound if the proxy is gone.
        """
        build = build or Builder(proxy)
        found: tuple[Address, Target] | None = None
        while True:
            before = proxy.plan
            plan = changed(before)
            moves = anew or plan.local != before.local
            if plan.enabled and (moves or not before.enabled):
                self.refuse_if_stopping()
            if proxy.must_locate(plan, anew) and (found is None or found[0] != plan.local):
                found = plan.local, locate(plan.local, plan.where)
            target = found[1] if found is not None and found[0] == plan.local else None
            if moves or plan.distant != before.distant:
                refuse_loop(plan, plan.local if moves else proxy.address, target)
            if moves or plan.distant != before.distant or plan.enabled != before.enabled:
                self._refuse_circle(plan, plan.local if moves else proxy.address)
            change = proxy.prepare(plan, build)
            if self.proxies.get(proxy.name) is not proxy:
                raise NotFound("proxy not found")
            if proxy.plan is before:
                break
        change.bind(target, anew)
        change.apply()
        return before

    def _bring_back(self, key: Key, undo: Undo) -> None:
        """A change for a while is over; what goes wrong is logged.

        It may take time, and nothing is brought back if the part is changed meanwhile.
        """
        (name, part), operation = key, undo.operation
        proxy = self.proxies.get(name)
        if proxy is None:
            return
        if not isinstance(operation, Edit):  # it was made for a while
            return self.delete(name)
        edit = operation

        def if_it_stands(plan: Plan) -> Plan:
            if part_of(plan, part) != undo.now:
                raise NotFound("what was changed for a while is not there any more")
            return edit.apply(plan)

        try:
            self.settle(proxy, if_it_stands)
        except (NotFound, Stopping):
            pass  # gone meanwhile
        except VaurienError as error:
            log.error("%s: what was there before cannot come back: %s", name, error)
        else:
            self.tell(proxy, edit, edit.again)


def where(proxy: Proxy) -> str:
    """Where a proxy listens, and what for, as the log has it."""
    return f"at {proxy.address}, backend {proxy.plan.distant}"


def refuse_loop(plan: Plan, local: Address, target: Target | None) -> None:
    """UsageError if its backend is itself at `local`, or at `target` if that has been resolved."""
    if target is not None and not local.path:
        local = Address(*target[1][:2])
    if plan.distant.leads_to(local):
        raise UsageError(f"upstream: {plan.distant} is where {plan.name!r} listens itself")
