"""A proxy: a plan, a listener, and the operations on it.

Law: an operation is done when its call returns, and none waits for the data path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vaurien.address import Address
from vaurien.counts import Done, Stats, Totals
from vaurien.errors import UsageError, nearest
from vaurien.exchange.picks import Builder
from vaurien.net.dial import Target
from vaurien.net.listener import Bound, locate
from vaurien.net.loop import Loop
from vaurien.observe.events import Observer
from vaurien.plan import Plan, Toxic
from vaurien.relay.counters import Counters
from vaurien.relay.looks import Look, look
from vaurien.relay.server import Server


class Proxy:
    """Runs one plan in the present greenlet's loop.

    Building it builds its handlers; `start` listens, and a connect succeeds once it has returned.
    """

    def __init__(
        self,
        plan: Plan,
        observers: tuple[Observer, ...] = (),
        everything: bool = False,
        loop: Loop | None = None,
    ) -> None:
        """`observers` are told of exchanges that a handler touches; with `everything`, of all.

        It runs in `loop`, of the thread that makes it; without one, in one of its own there.
        """
        self.plan = plan
        self._server = Server(plan, loop or Loop(), self, observers, everything)

    def __repr__(self) -> str:
        return f"<Proxy {self._server!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.plan.name

    @property
    def address(self) -> Address:
        """Where it listens, with the real port once started."""
        return self._server.listening.address

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._server.counters

    def done(self) -> Mapping[str, Done]:
        """What handlers did, by their names; toxics by the names of their types, gone ones too."""
        return self._server.done()

    def totals(self) -> Totals:
        """What happened since the start, with the bytes of connections that are open."""
        return self._server.counters.totals(self._server.connections.values())

    @property
    def connections(self) -> int:
        """How many connections there are now, without those that only linger."""
        return sum(not connection.closed for connection in self._server.connections.values())

    @property
    def enabled(self) -> bool:
        """Whether it is to listen; `down` may have it that it does not at present."""
        return self._server.listening.enabled

    def look(self) -> list[Look]:
        """The connections there are now, in the order of their numbers."""
        return [look(one) for one in self._server.connections.values() if not one.closed]

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of exchanges that a handler touches."""
        return self._server.exchanges.notifier.observers

    @observers.setter
    def observers(self, observers: tuple[Observer, ...]) -> None:
        self._server.exchanges.notifier.observers = observers

    @property
    def stats(self) -> Mapping[str, Stats]:
        """What each handler did since the start, by name."""
        return self._server.stats

    def unmet(self) -> list[tuple[int, int]]:
        """Of a replay: which (connection, exchange) did not come to pass."""
        return self._server.unmet()

    def add_toxic(self, toxic: Toxic) -> None:
        """Pin `toxic` to the connections that it hits, open ones too; UsageError if it is there."""
        if any(other.name == toxic.name for other in self.plan.toxics):
            raise UsageError(f"toxic {toxic.name!r} already exists; choose another name")
        self._set_toxics([*self.plan.toxics, toxic])

    def update_toxic(self, toxic: Toxic) -> None:
        """Put `toxic` in the place of the one of its name, of the same class and stream.

        What it holds is passed on, its state stays, its clock starts anew. UsageError if there is
        none of that name, or it is another thing.
        """
        if not toxic.same_kind(self._toxic(toxic.name)):
            raise UsageError(f"toxic {toxic.name!r} keeps its type and stream; remove it first")
        self._set_toxics([toxic if old.name == toxic.name else old for old in self.plan.toxics])

    def remove_toxic(self, name: str) -> None:
        """Take a toxic away; what it holds is passed on. UsageError if there is none."""
        self._toxic(name)
        self._set_toxics([toxic for toxic in self.plan.toxics if toxic.name != name])

    def _set_toxics(self, toxics: list[Toxic]) -> None:
        self.change(replace(self.plan, toxics=tuple(toxics)))

    def _toxic(self, name: str) -> Toxic:
        for toxic in self.plan.toxics:
            if toxic.name == name:
                return toxic
        known = [toxic.name for toxic in self.plan.toxics]
        raise UsageError(f"there is no toxic {name!r}; {nearest(name, known, 'toxics')}")

    def start(self, target: Target | None = None) -> None:
        """Listen, if its plan has it enabled; ListenError if the address cannot be had.

        `target` is where the plan's local address is; without it, it is resolved here.
        """
        if self.plan.enabled:
            self._server.listening.stopped = False
            self._server.listen(
                self._server.listening.bind(
                    self.plan, target or locate(self.plan.local, self.plan.where)
                )
            )

    def disable(self) -> None:
        """Listen no more, and end all connections, waiting for nothing."""
        self._server.disable()
        self._take(replace(self.plan, enabled=False))

    def drop(self, number: int | None = None, how: str = "fin") -> int:
        """End all connections or that of a number, by ``fin`` or ``reset``; how many there were."""
        if number is None:
            return self._server.end_all("dropped", how)
        return self._server.end_one(number, "dropped", how)

    def change(self, plan: Plan, target: Target | None = None) -> None:
        """Put `plan` in force; ListenError or UsageError if that cannot be, and nothing changed.

        What is the same in both plans is not touched. Another local address, backend or seed ends
        all connections. `target` is where the plan's local address is, as `locate` says; without
        it, it is resolved here, which may take time.
        """
        build = Builder(self)
        while True:
            before = self.plan
            if target is None and self.must_locate(plan):
                target = locate(plan.local, plan.where)
            change = self.prepare(plan, build)
            if self.plan is before:
                break
        change.bind(target)
        change.apply()

    def must_locate(self, plan: Plan) -> bool:
        """Whether `plan` is to listen elsewhere than where it does, or last did."""
        known = plan.local == self.plan.local and self._server.listening.located
        return plan.enabled and not known

    def is_at(self, target: Target) -> bool:
        """Whether it listens there, or last did."""
        return self._server.listening.is_at(target)

    def pause(self) -> None:
        """Give up the address for a moment, for others; connections stay."""
        self._server.listening.give_up()

    def resume(self) -> None:
        """Listen again after `pause`."""
        self._server.listening.settle()

    def prepare(self, plan: Plan, build: Builder) -> Change:
        """A change to `plan`, its handlers built; UsageError if one can't be.

        That may take time, and it holds only if the present plan is in force still.
        """
        return Change(self, self._server, plan, build)

    def _take(self, plan: Plan) -> None:
        self.plan = plan
        self._server.take(plan)

    def stop(self, drain: float = 0.0) -> int:
        """Stop accepting, let connections end for `drain` seconds; how many had to be ended."""
        self._server.stop_listening()
        return self._server.drain(drain)


class Change:
    """Another plan for a proxy, with all done that can fail once it is bound; nothing has changed.

    It is applied or cancelled. Meanwhile the listener may be closed, if its port is wanted again.
    """

    def __init__(self, proxy: Proxy, server: Server, plan: Plan, build: Builder) -> None:
        self._proxy, self._server, self._plan = proxy, server, plan
        self._put_in_force = server.prepare(plan, build)
        self._moved = False
        self._bound: Bound | None = None

    def bind(self, target: Target | None) -> None:
        """Have the address where the plan listens; ListenError if it cannot be had."""
        server, plan = self._server, self._plan
        self._moved = plan.local != self._proxy.plan.local and not (
            target and server.listening.is_at(target)
        )
        listens = (
            server.listening.enabled or server.listening.stopped or not self._proxy.plan.enabled
        )  # or is to start
        if plan.enabled and listens and (self._moved or not server.listening.in_place):
            known = server.listening.located and not self._moved
            self._bound = server.listening.bind(plan, None if known else target)

    def apply(self) -> None:
        """Put the plan in force."""
        proxy, server = self._proxy, self._server
        if self._moved:
            server.end_all("dropped")
        if not self._plan.enabled:
            server.disable()
            if self._moved:
                server.listening.forget_address()
        proxy.plan = self._plan
        self._put_in_force(self._bound is not None)
        if self._bound is not None:
            server.listen(self._bound)

    def cancel(self) -> None:
        """Leave all as it is; whoever had his listener paused has to have it resumed."""
        if self._bound is not None:
            self._bound.close()
