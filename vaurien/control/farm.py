"""The proxies of one process, and the operations: the only way to change anything while they run.

Laws: an operation is done when its call returns, and waits for nothing but the resolution of a
local name, before it has changed anything; so each is seen as a whole by all others. What cannot be
done changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

import gevent

from vaurien.behavior import DUMMY, Behavior, parse
from vaurien.catalog import Catalog
from vaurien.control.ttl import Ttls
from vaurien.errors import AlreadyThere, NotFound, Stopping, VaurienError
from vaurien.net.dial import Target
from vaurien.net.listener import locate
from vaurien.observe.events import Changed, Event
from vaurien.plan import NOTHING, Handlers, Plan, Toxic
from vaurien.proxy import Change, Proxy

if TYPE_CHECKING:
    from vaurien.settings import Settings

log = logging.getLogger("vaurien")

_POPULATED = ("toxics", "behavior", "on_connect", "seed")

HARMLESS = parse(f"100:{DUMMY}", "behavior")


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
        for found in self.get(name).plan.toxics:
            if found.name == toxic:
                return found
        raise NotFound("toxic not found")

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
                proxy.start()
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

    def create(self, plan: Plan, ttl: float | None = None) -> Proxy:
        """Make a proxy and have it listen; AlreadyThere, ListenError or UsageError if it can't."""
        self._refuse_doubled(plan.name)
        target = locate(plan.local) if plan.enabled else None
        self._refuse_doubled(plan.name)  # another may have been quicker
        proxy = self._build(plan)
        proxy.start(target)
        self.proxies[plan.name] = proxy
        self.ttls.changed((plan.name, "proxy"), ttl, lambda: self._delete_if(proxy))
        self._tell(plan.name, "created", f"at {proxy.address}, backend {plan.distant}")
        return proxy

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise Stopping("Vaurien is stopping; nothing is begun any more")

    def _refuse_doubled(self, name: str) -> None:
        self._refuse_if_stopping()
        if name in self.proxies:
            raise AlreadyThere("proxy already exists")

    def populate(self, plan: Plan, given: Collection[str], ttl: float | None = None) -> Proxy:
        """Make a proxy, unless there is one that listens there for that backend.

        Such a one is left as it is, but for what `given` names of `_POPULATED`. One of that name
        that differs is replaced; it stays if that cannot be.
        """
        proxy = self.proxies.get(plan.name)
        if proxy is None:
            return self.create(plan, ttl)
        target = None
        if not _is_there(proxy, plan):
            local = replace(plan.local, port=plan.local.port or proxy.address.port)
            target = locate(local)
            self._still_there(proxy)
        same = target is None or proxy.is_at(target)
        if same and plan.distant == proxy.plan.distant:
            parts = [part for part in _POPULATED if part in given]
            if parts:
                kept = {part: getattr(plan, part) for part in parts}
                handlers = {**proxy.plan.handlers, **plan.handlers}
                proxy.change(replace(proxy.plan, **kept, handlers=handlers))
                self.ttls.forget(plan.name, but="proxy")
        else:
            self._settle(proxy, lambda _: plan)
            self.ttls.forget(plan.name, but="proxy")
            self._tell(plan.name, "replaced", f"at {proxy.address}, backend {plan.distant}")
        if ttl is not None:
            self.ttls.changed((plan.name, "proxy"), ttl, lambda: self._delete_if(proxy))
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
        before = proxy.plan
        plan = self._settle(proxy, changed)
        if switches or plan.enabled != before.enabled:
            self.ttls.changed((name, "enabled"), None, lambda: None)
        self._tell(name, "changed", f"at {proxy.address}, backend {proxy.plan.distant}")
        return proxy

    def _settle(self, proxy: Proxy, changed: Callable[[Plan], Plan]) -> Plan:
        """Give `proxy` the plan that `changed` makes of the one that it has then.

        If a name has to be resolved first, others may come between: then it is made anew. NotFound
        if the proxy is gone.
        """
        target = None
        while proxy.must_locate(plan := changed(proxy.plan)) and target is None:
            found = locate(plan.local)
            self._still_there(proxy)
            target = found if changed(proxy.plan).local == plan.local else None
        self._still_there(proxy)
        self._refuse_if_stopping()
        proxy.change(plan, target)
        return plan

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
        before = proxy.plan.enabled
        self._settle(proxy, lambda plan: replace(plan, enabled=enabled))

        def back() -> None:
            self._restore(
                proxy,
                lambda: self._settle(proxy, lambda plan: replace(plan, enabled=before)),
                "enabled" if before else "disabled",
                "again",
            )

        self.ttls.changed((name, "enabled"), ttl, back)
        self._tell(name, "enabled" if enabled else "disabled", _for(ttl))
        return proxy

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
        behavior: Behavior | None,
        on_connect: Behavior | None,
        handlers: Handlers,
        ttl: float | None = None,
    ) -> Proxy:
        """Have other handlers deal with a proxy's exchanges, or meet its clients; None for as now.

        `handlers` has what their names stand for. Those that go, go at once: what flow handlers
        hold is passed on, calls of socket handlers end, with the connection if they have read.
        """
        proxy = self.get(name)
        before = proxy.plan
        plan = _with_behavior(before, behavior, on_connect, handlers)
        proxy.change(plan)
        for what, changed in (("behavior", behavior), ("on_connect", on_connect)):
            if changed is not None:
                old = before.behavior if what == "behavior" else before.on_connect
                self.ttls.changed((name, what), ttl, self._back(proxy, what, old, before.handlers))
                self._tell(name, what, f"{_shown(changed)}{_for(ttl, ' ')}")
        return proxy

    def _back(
        self, proxy: Proxy, what: str, old: Behavior, handlers: Handlers
    ) -> Callable[[], None]:
        """What brings a former behavior back."""

        def back() -> None:
            ours = what == "behavior"
            plan = _with_behavior(
                proxy.plan, old if ours else None, None if ours else old, handlers
            )
            self._restore(proxy, lambda: proxy.change(plan), what, f"{_shown(old)} again")

        return back

    def _restore(
        self, proxy: Proxy, action: Callable[[], object], change: str, detail: str
    ) -> None:
        """Bring back what was there before, by ourselves; what goes wrong is logged."""
        if self.proxies.get(proxy.name) is not proxy:
            return
        try:
            action()
        except NotFound:
            return  # gone meanwhile
        except VaurienError as error:
            log.error("%s: what was there before cannot come back: %s", proxy.name, error)
        else:
            self._tell(proxy.name, change, detail)

    # Toxics

    def add_toxic(self, name: str, toxic: Toxic, ttl: float | None = None) -> None:
        """Pin a toxic to a proxy; AlreadyThere if it has one of that name."""
        proxy = self.get(name)
        if any(other.name == toxic.name for other in proxy.plan.toxics):
            raise AlreadyThere("toxic already exists")
        proxy.add_toxic(toxic)
        self._toxic_changed(proxy, toxic.name, None, ttl)
        self._tell(name, "toxic added", f"{toxic.name}: {_told(toxic)}{_for(ttl, ' ')}")

    def update_toxic(self, name: str, toxic: Toxic, ttl: float | None = None) -> None:
        """Put a toxic in the place of the one of its name."""
        before = self.toxic(name, toxic.name)
        proxy = self.get(name)
        proxy.update_toxic(toxic)
        self._toxic_changed(proxy, toxic.name, before, ttl)
        self._tell(name, "toxic changed", f"{toxic.name}: {_told(toxic)}{_for(ttl, ' ')}")

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Take a toxic away; what it holds is passed on."""
        self.toxic(name, toxic)
        proxy = self.get(name)
        proxy.remove_toxic(toxic)
        self._toxic_changed(proxy, toxic, None, None)
        self._tell(name, "toxic removed", toxic)

    def _toxic_changed(
        self, proxy: Proxy, name: str, before: Toxic | None, ttl: float | None
    ) -> None:
        def back() -> None:
            if before is None:
                self._restore(proxy, lambda: proxy.remove_toxic(name), "toxic removed", name)
            else:
                told = f"{name}: {_told(before)} again"
                self._restore(proxy, lambda: proxy.update_toxic(before), "toxic changed", told)

        self.ttls.changed((proxy.name, f"toxic {name}"), ttl, back)

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

    def reload(self, settings: Settings) -> dict[str, list[str]]:
        """Be as `settings` say; proxies that requests have made stay. All of it, or nothing.

        What does not differ is not touched. Answers with the names that were ``created``,
        ``changed``, ``deleted`` and ``unchanged``.
        """
        wanted = {plan.name: plan for plan in settings.plans}
        targets: dict[str, Target] = {}
        while away := [plan for plan in settings.plans if self._is_away(plan, targets)]:
            for plan in away:  # which may take time, and others may come between
                targets[plan.name] = locate(plan.local)
        self._refuse_if_stopping()
        configured = set(wanted)
        others = [name for name in self.proxies if name not in wanted]
        deleted = [name for name in others if name in self._configured]
        for name in others:
            if name not in deleted:
                wanted[name] = replace(self.proxies[name].plan, **settings.common)
        changes: dict[str, Change] = {}
        created: dict[str, Proxy] = {}
        given_up = [self.proxies[name] for name in deleted]
        for proxy in self:
            plan_ = wanted.get(proxy.name, proxy.plan)
            moves = proxy.must_locate(plan_) and not proxy.is_at(targets[proxy.name])
            if moves or not plan_.enabled:
                given_up.append(proxy)
        try:
            for proxy in given_up:
                proxy.pause()
            for name, plan in wanted.items():
                proxy_ = self.proxies.get(name)
                if proxy_ is None:
                    created[name] = self._build(plan)
                    created[name].start(targets.get(name))
                elif proxy_.plan != plan:
                    changes[name] = proxy_.prepare(plan, targets.get(name))
        except BaseException:
            for change in changes.values():
                change.cancel()
            for proxy in created.values():
                proxy.disable()
            for proxy in given_up:
                proxy.resume()
            raise
        self._take(settings)
        for name in deleted:
            self.delete(name)
        for name, change in changes.items():
            change.apply()
            if name in configured:
                self.ttls.forget(name, but="proxy")
            self._tell(name, "changed", "by reload")
        for name in created:
            self._tell(name, "created", "by reload")
        both = {**self.proxies, **created}
        self.proxies = {name: both[name] for name in wanted}
        self._configured = configured
        return {
            "created": [*created],
            "changed": [*changes],
            "deleted": deleted,
            "unchanged": [name for name in wanted if name not in {**created, **changes}],
        }


def _with_behavior(
    plan: Plan, behavior: Behavior | None, on_connect: Behavior | None, handlers: Handlers
) -> Plan:
    """`plan` with other behaviors, and of its handlers those that are still named."""
    behavior = plan.behavior if behavior is None else behavior
    on_connect = plan.on_connect if on_connect is None else on_connect
    names = {*behavior.names, *on_connect.names}
    together = {**plan.handlers, **handlers}
    return replace(
        plan,
        behavior=behavior,
        on_connect=on_connect,
        handlers={name: found for name, found in together.items() if name in names},
        decisions=None,
        connect_decisions=None,
    )


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
    return f"{toxic.type} {toxic.stream}, toxicity {toxic.toxicity:g}"


def _for(ttl: float | None, before: str = "") -> str:
    return "" if ttl is None else f"{before}for {ttl:g} s"
