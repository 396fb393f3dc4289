"""The farm: what puts operations in force, and so the only way to change anything.

Laws: an operation is done when its call returns, and seen as a whole by all others; what cannot be
done changes nothing (`vaurien.control.roster`). Every change of a plan is told to the log, to
observers and to the ttls with the `Operation` that it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from time import monotonic

import gevent

from vaurien.behavior import Behavior
from vaurien.control.operations import (
    AddToxic,
    Change,
    Disable,
    Drop,
    Edit,
    Enable,
    RemoveToxic,
    Reset,
    SetBehavior,
    UpdateToxic,
    part_of,
)
from vaurien.control.populate import Entry, populate
from vaurien.control.reload import reload
from vaurien.control.replayed import Timed, let_go
from vaurien.control.roster import Configuration, Observer, Roster, refuse_loop, where
from vaurien.control.ttl import Undo
from vaurien.errors import NotFound, VaurienError
from vaurien.exchange.picks import Builder
from vaurien.net.guard import guarded
from vaurien.net.listener import locate
from vaurien.plan import Handlers, Plan, Toxic
from vaurien.relay.proxy import Proxy

__all__ = ["Entry", "Farm"]

log = logging.getLogger("vaurien")


class Farm(Roster):
    """The proxies of one process, with the operations on them."""

    def __init__(
        self,
        settings: Configuration,
        observers: Sequence[Observer] = (),
        everything: bool = False,
    ) -> None:
        """Build the proxies of `settings`, which do not listen yet; UsageError if one can't be."""
        super().__init__(settings, observers, everything)
        self._due = settings.operations
        self._playing: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Have all listen; ListenError if one cannot, and none does then."""
        try:
            for proxy in self:
                plan = proxy.plan
                target = locate(plan.local, plan.where) if plan.enabled else None
                refuse_loop(plan, plan.local, target)
                proxy.start(target)
        except BaseException:
            for proxy in self:
                proxy.disable()
            raise
        self.began = monotonic()
        for proxy in self:
            self.tell_start(proxy)
        if self._due:
            self._playing = gevent.spawn(self.play, self._due)

    def stop(self, drain: float) -> dict[str, int]:
        """End all within `drain` seconds; how many connections of each had to be ended."""
        self.stopping = True
        if self._playing is not None:
            self._playing.kill(block=False)
        stopping = {proxy.name: gevent.spawn(proxy.stop, drain) for proxy in self}
        gevent.joinall(list(stopping.values()))
        return {name: greenlet.value or 0 for name, greenlet in stopping.items()}

    # Operations as values

    def apply(self, name: str, *operations: Edit, ttl: float | None = None) -> Proxy:
        """Put operations on a proxy in force, all in one step; NotFound if it is not there.

        After `ttl` seconds each is undone, if nobody else has changed its part by then.
        """
        proxy = self.get(name)
        for operation in operations if ttl is not None else ():
            self.ttls.refuse_more((name, operation.part))

        def changed(plan: Plan) -> Plan:
            made = reduce(lambda plan, operation: operation.apply(plan), operations, plan)
            # What is asked for by the port that port 0 has become is where it listens already.
            return replace(made, local=plan.local) if made.local == proxy.address else made

        anew = any(isinstance(one, Change) and one.anew for one in operations)
        before = self.settle(proxy, changed, anew=anew)
        for operation in operations:
            self._applied(proxy, operation, before, ttl)
        return proxy

    def _applied(self, proxy: Proxy, operation: Edit, before: Plan, ttl: float | None) -> None:
        """Have its ttl run, and tell of it."""
        after, part = proxy.plan, operation.part
        if part:
            undo = Undo(operation.inverse(before), part_of(after, part))
            self.ttls.changed((proxy.name, part), ttl, undo)
        else:
            for part in operation.touched(before, after):
                self.ttls.changed((proxy.name, part), None)
        detail = where(proxy) if isinstance(operation, Change) else None
        self.tell(proxy, operation, detail, ttl)

    def change(self, name: str, changed: Callable[[Plan], Plan]) -> Proxy:
        """Give a proxy the plan that `changed` makes of its own, which keeps its name.

        For what there is no operation for. Another local address, backend or seed ends its
        connections.
        """
        proxy = self.get(name)
        before = self.settle(proxy, changed)
        self._applied(proxy, Change.between(before, proxy.plan), before, None)
        return proxy

    # The same in words

    def enable(self, name: str, ttl: float | None = None) -> Proxy:
        """Have a proxy listen, for `ttl` seconds or for good; ListenError if it cannot."""
        return self.apply(name, Enable(), ttl=ttl)

    def disable(self, name: str, ttl: float | None = None) -> Proxy:
        """Have a proxy listen no more, for `ttl` seconds or for good; its connections end."""
        return self.apply(name, Disable(), ttl=ttl)

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
        operations = [
            SetBehavior(what, one, {n: handlers[n] for n in one.names if n in handlers})
            for what, one in behaviors.items()
        ]
        return self.apply(name, *operations, ttl=ttl)

    def add_toxic(self, name: str, toxic: Toxic, ttl: float | None = None) -> None:
        """Pin a toxic to a proxy; AlreadyThere if it has one of that name.

        After `ttl` seconds it goes again.
        """
        self.apply(name, AddToxic(toxic), ttl=ttl)

    def update_toxic(self, name: str, toxic: Toxic, ttl: float | None = None) -> None:
        """Put a toxic in the place of the one of its name, for `ttl` seconds or for good."""
        self.apply(name, UpdateToxic(toxic), ttl=ttl)

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Take a toxic away; what it holds is passed on."""
        self.apply(name, RemoveToxic(toxic))

    def drop(self, name: str, number: int | None = None, how: str = "fin") -> int:
        """End the connections of a proxy, or one; how many. NotFound if that is not there."""
        proxy = self.get(name)
        dropped = proxy.drop(number, how)
        if number is not None and not dropped:
            raise NotFound("connection not found")
        if dropped:
            self.tell(proxy, Drop(number, how))
        return dropped

    # Of several proxies

    def reset(self, name: str | None = None) -> None:
        """No fault is left, of one proxy or of all: enabled, no toxics, nobody picked.

        If one cannot listen, the others are reset all the same, and the first error is raised.
        """
        errors: list[VaurienError] = []
        for own in [self.get(name).name] if name is not None else [*self.proxies]:
            try:
                self.apply(own, Reset())
            except NotFound:
                pass  # gone meanwhile
            except VaurienError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def populate(self, entries: Sequence[Entry]) -> Iterator[Proxy]:
        """Make proxies, one after the other, but those that listen there for that backend already.

        Such a one is left as it is, but for what the entry gives of its behaviors, toxics and seed;
        one with a time to live has that of the entry from now on. One of that name that differs is
        replaced; it stays if that cannot be. UsageError before anything is made if a handler cannot
        be built.
        """
        return populate(self, entries)

    def reload(
        self, settings: Configuration, check: Callable[[], None] = lambda: None
    ) -> dict[str, list[str]]:
        """Be as `settings` say; proxies that requests have made stay. All of it, or nothing.

        What does not differ is not touched. `check` raises if it is not to be any more, once all
        that may take time is done. Answers with the names that were ``created``, ``changed``,
        ``deleted`` and ``unchanged``.
        """
        return reload(self, settings, check)

    # A replay

    @guarded
    def play(self, due: Sequence[Timed]) -> None:
        """Do again what a journal has recorded, each at its time from the start; then return."""
        for since, name, operation in due:
            gevent.sleep(max(0.0, self.began + since - monotonic()))
            try:
                if isinstance(operation, SetBehavior):
                    self._let_go(name, operation)
                elif isinstance(operation, Drop):
                    self.drop(name, operation.number, operation.how)
                elif isinstance(operation, Edit):
                    self.apply(name, operation)
            except VaurienError as error:
                log.warning(
                    "%s: replay: what was done after %g s cannot be done again: %s: %s",
                    name, since, operation.kind, error,
                )  # fmt: skip

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours; what is left of a replay does not come."""
        log.exception("replay: internal error; no more operations come again")

    def _let_go(self, name: str, operation: SetBehavior) -> None:
        """In a replay, set a behavior: the handlers that left then leave now."""
        proxy = self.get(name)
        before, build = proxy.plan, Builder(proxy)
        for spec in before.specifications("+".join(before.handlers)):
            build(spec)  # first, so that nothing comes between going and coming back
        going = let_go(before, operation)
        if going is not None:
            self.settle(proxy, going.apply, build)
            self.settle(proxy, going.inverse(before).apply, build)
        self.tell(proxy, operation)
