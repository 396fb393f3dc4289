"""The proxies of one process, and the operations: the only way to change anything while they run.

Laws: an operation is done when its call returns. It waits for nothing but the resolution of a local
name and what users' classes do when they are made, both before it has changed anything; if others
have come between, it looks again. So each is seen as a whole by all others. What cannot be done
changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent

from vaurien.address import Address
from vaurien.behavior import DUMMY, Behavior, parse
from vaurien.catalog import Catalog
from vaurien.control.ttl import Back, Ttls
from vaurien.errors import AlreadyThere, NotFound, Stopping, UsageError, VaurienError
from vaurien.exchange.picks import Builder
from vaurien.net.dial import Target
from vaurien.net.listener import locate
from vaurien.observe.events import Changed, Event
from vaurien.options import show
from vaurien.plan import NOTHING, Decisions, Handlers, Plan, Toxic
from vaurien.relay.proxy import Proxy

if TYPE_CHECKING:
    from vaurien.settings import Settings

log = logging.getLogger("vaurien")

#: Where the decisions of a replay stand, that go with a behavior.
_DECISIONS = {"behavior": "decisions", "on_connect": "connect_decisions"}

HARMLESS = parse(f"100:{DUMMY}", "behavior")


class Entry(NamedTuple):
    """A proxy that is to be there; `given` are the fields that its JSON has."""

    plan: Plan
    given: Collection[str]
    ttl: float | None = None


class Farm:
    """Proxies by name, in the order in which they were made; the first is who is meant by default.

    `observers` are told of the exchanges of all of them, and of changes.
    """

    def __init__(
        self,
        settings: Settings,
        observers: Sequence[Callable[[Event], None]] = (),
        everything: bool = False,
    ) -> None:
        """Build the proxies of `settings`, which do not listen yet; UsageError if one can't be."""
        self._take(settings)
        self._observers, self._everything = tuple(observers), everything
        self.ttls = Ttls()
        #: Who is told of a proxy that has been deleted.
        self.leaving: list[Callable[[Proxy], None]] = []
        self._stopping = False
        self.proxies: dict[str, Proxy] = {}
        for plan in settings.plans:
            self.proxies[plan.name] = self._build(plan)
        self._configured = set(self.proxies)

    def _take(self, settings: Settings) -> None:
        self.catalog: Catalog = settings.catalog
        self.common = settings.common
        self.seed: int = settings["seed"]

    def _build(self, plan: Plan) -> Proxy:
        return Proxy(plan, self._observers, self._everything)

    def __repr__(self) -> str:
        return f"<Farm of {', '.join(self.proxies) or 'no proxies'}>"

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
        found = _toxic_of(toxic, self.get(name).plan)
        if found is None:
            raise NotFound("toxic not found")
        return found

    # Observing

    def observe(self, observer: Callable[[Event], None]) -> None:
        """Tell `observer` from now on."""
        self._set_observers((*self._observers, observer))

    def unobserve(self, observer: Callable[[Event], None]) -> None:
        """Tell `observer` no more."""
        self._set_observers(tuple(other for other in self._observers if other != observer))

    def _set_observers(self, observers: tuple[Callable[[Event], None], ...]) -> None:
        self._observers = observers
        for proxy in self:
            proxy.observers = observers

    def _tell(self, proxy: str, change: str, detail: str = "") -> None:
        log.info("%s: %s%s", proxy, change, f" {detail}" if detail else "")
        if self._observers:
            event = Changed(time(), proxy, change, detail)
            for observer in self._observers:
                observer(event)

    # Proxies

    def start(self) -> None:
        """Have all listen; ListenError if one cannot, and none does then."""
        try:
            for proxy in self:
                plan = proxy.plan
                target = locate(plan.local, plan.where) if plan.enabled else None
                _refuse_loop(plan, plan.local, target)
                proxy.start(target)
        except BaseException:
            for proxy in self:
                proxy.disable()
            raise

    def stop(self, drain: float) -> dict[str, int]:
        """End all within `drain` seconds; how many connections of each had to be ended."""
        self._stopping = True
        stopping = {proxy.name: gevent.spawn(proxy.stop, drain) for proxy in self}
        gevent.joinall(list(stopping.values()))
        return {name: greenlet.value or 0 for name, greenlet in stopping.items()}

    def create(self, plan: Plan, ttl: float | None = None, made: Proxy | None = None) -> Proxy:
        """Make a proxy and have it listen; AlreadyThere, ListenError or UsageError if it can't be.

        `made` is one that has been built for that plan, and is not used yet.
        """
        self._refuse_doubled(plan.name)
        target = locate(plan.local, plan.where) if plan.enabled else None
        proxy = made or self._build(plan)
        self._refuse_doubled(plan.name)  # another may have been quicker
        _refuse_loop(plan, plan.local, target)
        proxy.start(target)
        proxy.observers = self._observers  # who has come or gone since it was built
        self.proxies[plan.name] = proxy
        self.ttls.changed((plan.name, "proxy"), ttl, lambda _: self._delete_if(proxy))
        self._tell(plan.name, "created", f"at {proxy.address}, backend {plan.distant}")
        return proxy

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise Stopping("Vaurien is stopping; nothing is begun any more")

    def _refuse_doubled(self, name: str) -> None:
        self._refuse_if_stopping()
        if name in self.proxies:
            raise AlreadyThere("proxy already exists")

    def populate(self, entries: Sequence[Entry]) -> Iterator[Proxy]:
        """Make proxies, one after the other, but those that listen there for that backend already.

        Such a one is left as it is, but for what the entry gives of its behaviors, toxics and seed;
        one with a time to live has that of the entry from now on. One of that name that differs is
        replaced; it stays if that cannot be. UsageError before anything is made if a handler cannot
        be built.
        """
        ready = []
        for entry in entries:
            ready.append(self._ready(entry.plan))
            gevent.sleep(0)  # others go on while a long list is made ready
        for entry, made in zip(entries, ready, strict=True):
            yield self._populate(entry, *made)

    def _ready(self, plan: Plan) -> tuple[Proxy | None, Builder | None]:
        """A proxy for `plan`, or what builds those handlers that a proxy of that name has not."""
        there = self.proxies.get(plan.name)
        if there is None:
            return self._build(plan), None
        build, has = Builder(there), there.plan.specifications("+".join(there.plan.handlers))
        for spec in plan.specifications("+".join(plan.handlers)):
            if spec not in has:
                build(spec)
        return there, build

    def _populate(self, entry: Entry, made: Proxy | None, build: Builder | None) -> Proxy:
        name = entry.plan.name
        while True:
            proxy = self.proxies.get(name)
            try:
                if proxy is None:
                    return self.create(entry.plan, entry.ttl, made if build is None else None)
                known = build if proxy is made and build is not None else Builder(proxy)
                return self._populate_there(proxy, entry, known)
            except (AlreadyThere, NotFound):
                pass  # others were quicker: look again

    def _populate_there(self, proxy: Proxy, entry: Entry, build: Builder) -> Proxy:
        wanted, target = entry.plan, None
        if not _is_there(proxy, wanted):
            target = locate(
                replace(wanted.local, port=wanted.local.port or proxy.address.port), wanted.where
            )

        def changed(plan: Plan) -> Plan:
            same = _is_there(proxy, wanted) if target is None else proxy.is_at(target)
            if not same or wanted.distant != plan.distant:
                return wanted
            given = {what: getattr(wanted, what) for what in _DECISIONS if what in entry.given}
            kept = {
                what: getattr(wanted, what) for what in ("toxics", "seed") if what in entry.given
            }
            return replace(_with(plan, given, wanted.handlers) if given else plan, **kept)

        before = self._settle(proxy, changed, build)
        after = proxy.plan
        if after is wanted:
            self.ttls.forget(proxy.name, but="proxy")
            self._tell(proxy.name, "replaced", f"at {proxy.address}, backend {after.distant}")
        else:
            stay = [what for what in _DECISIONS if what in entry.given]
            if "toxics" in entry.given:
                stay += [f"toxic {toxic.name}" for toxic in (*before.toxics, *after.toxics)]
            for what in stay:
                self.ttls.changed((proxy.name, what), None)
            if after != before:
                self._tell(proxy.name, "changed", "by populate")
        self.ttls.renew((proxy.name, "proxy"), entry.ttl)
        return proxy

    def delete(self, name: str) -> None:
        """End a proxy and all its connections."""
        proxy = self.get(name)
        proxy.disable()
        del self.proxies[name]
        self._configured.discard(name)
        self.ttls.forget(name)
        for leave in self.leaving:
            leave(proxy)
        self._tell(name, "deleted")

    def _delete_if(self, proxy: Proxy) -> None:
        if self.proxies.get(proxy.name) is proxy:
            self.delete(proxy.name)

    def change(self, name: str, changed: Callable[[Plan], Plan], switches: bool = False) -> Proxy:
        """Give a proxy the plan that `changed` makes of its own, which keeps its name.

        `switches` says whether it is to stay enabled or disabled as that says.

        Another local address, backend or seed ends its connections.
        """
        proxy = self.get(name)
        before = self._settle(proxy, changed)
        if switches or proxy.plan.enabled != before.enabled:
            self.ttls.changed((name, "enabled"), None)
        self._tell(name, "changed", f"at {proxy.address}, backend {proxy.plan.distant}")
        return proxy

    def _settle(
        self, proxy: Proxy, changed: Callable[[Plan], Plan], build: Builder | None = None
    ) -> Plan:
        """Give `proxy` the plan that `changed` makes of the one that it has then; that one.

        If a name has to be resolved or a handler built first, others may come between: then it is
        made anew. NotFound if the proxy is gone.
        """
        build = build or Builder(proxy)
        found: tuple[Address, Target] | None = None
        while True:
            before = proxy.plan
            plan = changed(before)
            moves = plan.local != before.local
            if plan.enabled and (moves or not before.enabled):
                self._refuse_if_stopping()
            if proxy.must_locate(plan) and (found is None or found[0] != plan.local):
                found = plan.local, locate(plan.local, plan.where)
            target = found[1] if found is not None and found[0] == plan.local else None
            if moves or plan.distant != before.distant:
                _refuse_loop(plan, plan.local if moves else proxy.address, target)
            change = proxy.prepare(plan, build)
            self._still_there(proxy)
            if proxy.plan is before:
                break
        change.bind(target)
        change.apply()
        return before

    def _still_there(self, proxy: Proxy) -> None:
        if self.proxies.get(proxy.name) is not proxy:
            raise NotFound("proxy not found")

    def enable(self, name: str, ttl: float | None = None) -> Proxy:
        """Have a proxy listen; ListenError if it cannot."""
        return self._set_enabled(name, True, ttl)

    def disable(self, name: str, ttl: float | None = None) -> Proxy:
        """Have a proxy listen no more, and end its connections."""
        return self._set_enabled(name, False, ttl)

    def _set_enabled(self, name: str, enabled: bool, ttl: float | None) -> Proxy:
        proxy = self.get(name)
        before = self._settle(proxy, lambda plan: replace(plan, enabled=enabled)).enabled
        back = self._back(
            proxy,
            lambda plan: plan.enabled,
            lambda plan: replace(plan, enabled=before),
            "enabled" if before else "disabled",
            "again",
        )
        self.ttls.changed((name, "enabled"), ttl, back, enabled)
        self._tell(name, "enabled" if enabled else "disabled", _for(ttl))
        return proxy

    def _back(
        self,
        proxy: Proxy,
        part: Callable[[Plan], object],
        changed: Callable[[Plan], Plan],
        change: str,
        detail: str,
    ) -> Back:
        """What brings back, by ourselves, what was there before; what goes wrong is logged.

        It may take time, and nothing is brought back if somebody else changes the `part` meanwhile.
        """

        def back(now: object) -> None:
            def if_it_stands(plan: Plan) -> Plan:
                if part(plan) != now:
                    raise NotFound("what was changed for a while is not there any more")
                return changed(plan)

            if self.proxies.get(proxy.name) is not proxy:
                return
            try:
                self._settle(proxy, if_it_stands)
            except (NotFound, Stopping):
                pass  # gone meanwhile
            except VaurienError as error:
                log.error("%s: what was there before cannot come back: %s", proxy.name, error)
            else:
                self._tell(proxy.name, change, detail)

        return back

    def drop(self, name: str, number: int | None = None, how: str = "fin") -> int:
        """End the connections of a proxy, or one; how many. NotFound if that is not there."""
        dropped = self.get(name).drop(number, how)
        if number is not None and not dropped:
            raise NotFound("connection not found")
        return dropped

    # Behavior

    def set_behavior(
        self,
        name: str,
        behaviors: Mapping[str, Behavior],
        handlers: Handlers,
        ttl: float | None = None,
    ) -> Proxy:
        """Have others deal with a proxy's exchanges (``behavior``), or meet it (``on_connect``).

        `handlers` has what their names stand for. Those that go, go at once: what flow handlers
        hold is passed on, calls of socket handlers end, with the connection if they have read.
        """
        proxy = self.get(name)
        before = self._settle(proxy, lambda plan: _with(plan, behaviors, handlers))
        for what, behavior in behaviors.items():
            old = getattr(before, what)
            part = partial(_behavior_of, what)
            back = self._back(
                proxy, part, partial(_with_former, what, before), what, f"{_shown(old)} again"
            )
            self.ttls.changed((name, what), ttl, back, part(proxy.plan))
            self._tell(name, what, f"{_shown(behavior)}{_for(ttl, ' ')}")
        return proxy

    # Toxics

    def add_toxic(self, name: str, toxic: Toxic, ttl: float | None = None) -> None:
        """Pin a toxic to a proxy; AlreadyThere if it has one of that name."""
        proxy = self.get(name)
        if _toxic_of(toxic.name, proxy.plan) is not None:
            raise AlreadyThere("toxic already exists")
        undo = partial(_without_toxic, toxic.name)
        self._put_toxic(proxy, toxic, ttl, undo, "toxic removed", toxic.name)
        self._tell(name, "toxic added", f"{toxic.name}: {_told(toxic)}{_for(ttl, ' ')}")

    def update_toxic(self, name: str, toxic: Toxic, ttl: float | None = None) -> None:
        """Put a toxic in the place of the one of its name."""
        before = self.toxic(name, toxic.name)
        undo, again = partial(_with_toxic, before), f"{toxic.name}: {_told(before)} again"
        self._put_toxic(self.get(name), toxic, ttl, undo, "toxic changed", again)
        self._tell(name, "toxic changed", f"{toxic.name}: {_told(toxic)}{_for(ttl, ' ')}")

    def _put_toxic(
        self,
        proxy: Proxy,
        toxic: Toxic,
        ttl: float | None,
        undo: Callable[[Plan], Plan],
        change: str,
        detail: str,
    ) -> None:
        self._settle(proxy, partial(_with_toxic, toxic))
        back = self._back(proxy, partial(_toxic_of, toxic.name), undo, change, detail)
        self.ttls.changed((proxy.name, f"toxic {toxic.name}"), ttl, back, toxic)

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Take a toxic away; what it holds is passed on."""
        self.toxic(name, toxic)
        self._settle(self.get(name), partial(_without_toxic, toxic))
        self.ttls.changed((name, f"toxic {toxic}"), None)
        self._tell(name, "toxic removed", toxic)

    # All

    def reset(self, name: str | None = None) -> None:
        """No fault is left, of one proxy or of all: enabled, no toxics, nobody picked.

        If one cannot listen, the others are reset all the same, and the first error is raised.
        """
        errors: list[VaurienError] = []
        for proxy in [self.get(name)] if name is not None else list(self):
            try:
                self._settle(proxy, _harmless)
                self.ttls.forget(proxy.name, but="proxy")
                self._tell(proxy.name, "reset")
            except NotFound:
                pass  # gone meanwhile
            except VaurienError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _is_away(self, plan: Plan, targets: Mapping[str, Target]) -> bool:
        """Whether it is not known yet where `plan` is to listen."""
        proxy = self.proxies.get(plan.name)
        wanted = plan.enabled if proxy is None else proxy.must_locate(plan)
        return wanted and plan.name not in targets

    def reload(
        self, settings: Settings, check: Callable[[], None] = lambda: None
    ) -> dict[str, list[str]]:
        """Be as `settings` say; proxies that requests have made stay. All of it, or nothing.

        What does not differ is not touched. `check` raises if it is not to be any more, once all
        that may take time is done. Answers with the names that were ``created``, ``changed``,
        ``deleted`` and ``unchanged``.
        """
        configured = {plan.name for plan in settings.plans}
        targets: dict[str, Target] = {}
        built: dict[str, Proxy] = {}
        builders: dict[Proxy, Builder] = {}
        while True:  # until nobody has come between
            self._refuse_if_stopping()
            before = [(proxy, proxy.plan) for proxy in self]
            wanted = {plan.name: plan for plan in settings.plans}
            for plan in settings.plans:
                if self._is_away(plan, targets):
                    targets[plan.name] = locate(plan.local, plan.where)
                _refuse_loop(plan, plan.local, targets.get(plan.name))
                if plan.name not in self.proxies and plan.name not in built:
                    built[plan.name] = self._build(plan)
            deleted = []
            for proxy, plan in before:
                if proxy.name not in wanted and proxy.name in self._configured:
                    deleted.append(proxy)
                elif proxy.name not in wanted:
                    wanted[proxy.name] = _with_common(plan, settings.common)
            changes = {
                proxy.name: proxy.prepare(
                    wanted[proxy.name], builders.setdefault(proxy, Builder(proxy))
                )
                for proxy, plan in before
                if wanted.get(proxy.name, plan) != plan
            }
            now = [(proxy, proxy.plan) for proxy in self]
            if [*map(_identity, now)] == [*map(_identity, before)]:
                break
        self._refuse_if_stopping()
        check()
        created = {name: built[name] for name in wanted if name not in self.proxies}
        given_up = [*deleted]
        for proxy in self:
            plan = wanted.get(proxy.name, proxy.plan)
            target = targets.get(proxy.name)
            moves = proxy.must_locate(plan) and not (target and proxy.is_at(target))
            if moves or not plan.enabled:
                given_up.append(proxy)
        try:
            for proxy in given_up:
                proxy.pause()
            for name, proxy in created.items():
                proxy.start(targets.get(name))
            for name, change in changes.items():
                change.bind(targets.get(name))
        except BaseException:
            for change in changes.values():
                change.cancel()
            for proxy in created.values():
                proxy.disable()
            for proxy in given_up:
                proxy.resume()
            raise
        self._take(settings)
        for proxy in deleted:
            self.delete(proxy.name)
        for name, change in changes.items():
            change.apply()
            self._tell(name, "changed", "by reload")
        for name in configured:
            self.ttls.forget(name)
        for name, proxy in created.items():
            proxy.observers = self._observers  # who has come or gone since it was built
            self._tell(name, "created", "by reload")
        both = {**self.proxies, **created}
        self.proxies = {name: both[name] for name in wanted}
        self._configured = configured
        return {
            "created": [*created],
            "changed": [*changes],
            "deleted": [proxy.name for proxy in deleted],
            "unchanged": [name for name in wanted if name not in {**created, **changes}],
        }


def _identity(pair: tuple[Proxy, Plan]) -> tuple[int, int]:
    return id(pair[0]), id(pair[1])


def _with(
    plan: Plan,
    behaviors: Mapping[str, Behavior],
    handlers: Handlers,
    decisions: Decisions | None = None,
) -> Plan:
    """`plan` with other behaviors, and of its handlers those that are still named."""
    fields: dict[str, Any] = {_DECISIONS[what]: decisions for what in behaviors}
    fields |= behaviors
    made = {**plan.handlers, **handlers}
    both = {what: fields.get(what, getattr(plan, what)) for what in _DECISIONS}
    names = {name for behavior in both.values() for name in behavior.names}
    fields["handlers"] = {name: found for name, found in made.items() if name in names}
    return replace(plan, **fields)


def _with_former(what: str, former: Plan, plan: Plan) -> Plan:
    """`plan` with the behavior `what` of a `former` plan, and all that belongs to that."""
    behavior: Behavior = getattr(former, what)
    handlers = {name: found for name, found in former.handlers.items() if name in behavior.names}
    return _with(plan, {what: behavior}, handlers, getattr(former, _DECISIONS[what]))


def _with_common(plan: Plan, common: Mapping[str, Any]) -> Plan:
    """`plan` with what all proxies have in common, itself if it has that."""
    same = all(getattr(plan, name) == value for name, value in common.items())
    return plan if same else replace(plan, **common)


def _behavior_of(what: str, plan: Plan) -> object:
    """The behavior `what` of `plan`, with what its names stand for."""
    behavior: Behavior = getattr(plan, what)
    return behavior, {name: plan.handlers.get(name) for name in behavior.names}


def _toxic_of(name: str, plan: Plan) -> Toxic | None:
    """The toxic of that name."""
    return next((toxic for toxic in plan.toxics if toxic.name == name), None)


def _with_toxic(toxic: Toxic, plan: Plan) -> Plan:
    """`plan` with `toxic` in the place of the one of its name, or last."""
    toxics = {other.name: other for other in plan.toxics} | {toxic.name: toxic}
    return replace(plan, toxics=tuple(toxics.values()))


def _without_toxic(name: str, plan: Plan) -> Plan:
    """`plan` without the toxic of that name."""
    return replace(plan, toxics=tuple(toxic for toxic in plan.toxics if toxic.name != name))


def _refuse_loop(plan: Plan, local: Address, target: Target | None) -> None:
    """UsageError if its backend is itself at `local`, or at `target` if that has been resolved."""
    if target is not None and not local.path:
        local = Address(*target[1][:2])
    if plan.distant.leads_to(local):
        raise UsageError(f"upstream: {plan.distant} is where {plan.name!r} listens itself")


def _harmless(plan: Plan) -> Plan:
    """`plan` without any fault."""
    return replace(
        plan,
        enabled=True,
        toxics=(),
        behavior=HARMLESS,
        on_connect=NOTHING,
        handlers={},
        decisions=None,
        connect_decisions=None,
    )


def _is_there(proxy: Proxy, plan: Plan) -> bool:
    """Whether `plan` says in so many words where the proxy listens; port 0 is any."""
    if plan.local == proxy.plan.local:
        return True
    port = plan.local.port or proxy.address.port
    return replace(plan.local, port=port) == proxy.address


def _shown(behavior: Behavior) -> str:
    return str(behavior) if behavior.parts else "nobody"


def _told(toxic: Toxic) -> str:
    options = "".join(f", {name} {show(v)}" for name, v in toxic.specification.options.items())
    return f"{toxic.type} {toxic.stream}, toxicity {toxic.toxicity:g}{options}"


def _for(ttl: float | None, before: str = "") -> str:
    return "" if ttl is None else f"{before}for {ttl:g} s"
