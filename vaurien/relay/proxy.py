"""A proxy: a plan, a listener, and the operations on it.

Laws: an operation is done when its call returns, and none waits for the data path. Whichever
thread calls, it runs in that of the proxy's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from vaurien.address import Address
from vaurien.counts import Done, Stats, Totals
from vaurien.errors import UsageError, nearest
from vaurien.exchange.picks import Builder
from vaurien.net.dial import Target
from vaurien.net.listener import Bound, locate
from vaurien.net.loop import Loop, current
from vaurien.observe.events import Observer
from vaurien.plan import Plan, Toxic
from vaurien.relay.counters import Counters
from vaurien.relay.looks import Look, look
from vaurien.relay.server import Server

P = ParamSpec("P")
T = TypeVar("T")


def in_loop(operation: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method of a proxy that runs in its loop's thread, and may be called from any."""

    @wraps(operation)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop: Loop = self.loop
        if loop.is_mine:
            return operation(self, *args, **kwargs)
        return loop.call(partial(operation, self, *args, **kwargs))

    return run


class Proxy:
    """Runs one plan in the loop of the thread that makes it.

    Building it builds its handlers; `start` listens, and a connect succeeds once it has returned.

    All of it may be used from other threads too, as long as the loop is running: such a call waits
    until the loop's thread has done it, and raises what it raised there; Stopping if that thread
    has ended.
    """

    def __init__(
        self,
        plan: Plan,
        observers: tuple[Observer, ...] = (),
        everything: bool = False,
        loop: Loop | None = None,
    ) -> None:
        """`observers` are told of exchanges that a handler touches; with `everything`, of all.

        It runs in `loop`, of the thread that makes it; without one, in that which all proxies of
        the thread share.
        """
        self.plan = plan
        self._server = Server(plan, loop or current(), self, observers, everything)

    def __repr__(self) -> str:
        return f"<Proxy {self._server!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.plan.name

    @property
    def loop(self) -> Loop:
        """The loop that it runs in."""
        return self._server.loop

    @property
    def address(self) -> Address:
        """Where it listens, with the real port once started."""
        return self._server.listening.address

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._server.counters

    @in_loop
    def done(self) -> Mapping[str, Done]:
        """What handlers did, by their names; toxics by the names of their types, gone ones too."""
        return self._server.done()

    @in_loop
    def totals(self) -> Totals:
        """What happened since the start, with the bytes of connections that are open."""
        return self._server.counters.totals(self._server.connections.values())

    @property
    @in_loop
    def connections(self) -> int:
        """How many connections there are now, without those that only linger."""
        return sum(not connection.closed for connection in self._server.connections.values())

    @property
    def enabled(self) -> bool:
        """Whether it is to listen; `down` may have it that it does not at present."""
        return self._server.listening.enabled

    @in_loop
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
    @in_loop
    def stats(self) -> Mapping[str, Stats]:
        """What each handler did since the start, by name."""
        return self._server.stats

    @in_loop
    def unmet(self) -> list[tuple[int, int]]:
        """Of a replay: which (connection, exchange) did not come to pass."""
        return self._server.unmet()

    @in_loop
    def add_toxic(self, toxic: Toxic) -> None:
        """Pin `toxic` to the connections that it hits, open ones too; UsageError if it is there."""
        if any(other.name == toxic.name for other in self.plan.toxics):
            raise UsageError(f"toxic {toxic.name!r} already exists; choose another name")
        self._set_toxics([*self.plan.toxics, toxic])

    @in_loop
    def update_toxic(self, toxic: Toxic) -> None:
        """Put `toxic` in the place of the one of its name, of the same class and stream.

        What it holds is passed on, its state stays, its clock starts anew. UsageError if there is
        none of that name, or it is another thing.
        """
        if not toxic.same_kind(self._toxic(toxic.name)):
            raise UsageError(f"toxic {toxic.name!r} keeps its type and stream; remove it first")
        self._set_toxics([toxic if old.name == toxic.name else old for old in self.plan.toxics])

    @in_loop
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

    @in_loop
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

    @in_loop
    def disable(self) -> None:
        """Listen no more, and end all connections, waiting for nothing."""
        self._server.disable()
        self._take(replace(self.plan, enabled=False))

    @in_loop
    def drop(self, number: int | None = None, how: str = "fin") -> int:
        """End all connections or that of a number, by ``fin`` or ``reset``; how many there were."""
        if number is None:
            return self._server.end_all("dropped", how)
        return self._server.end_one(number, "dropped", how)

    @in_loop
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

    def must_locate(self, plan: Plan, anew: bool = False) -> bool:
        """Whether `plan` is to listen elsewhere than where it does, or last did.

        With `anew` it is, whatever the plan says: at another port, if it says 0.
        """
        known = plan.local == self.plan.local and self._server.listening.located
        return plan.enabled and (anew or not known)

    def is_at(self, target: Target) -> bool:
        """Whether it listens there, or last did."""
        return self._server.listening.is_at(target)

    @in_loop
    def pause(self) -> None:
        """Give up the address for a moment, for others; connections stay."""
        self._server.listening.give_up()

    @in_loop
    def resume(self) -> None:
        """Listen again after `pause`."""
        self._server.listening.settle()

    @in_loop
    def prepare(self, plan: Plan, build: Builder) -> Change:
        """A change to `plan`, its handlers built; UsageError if one can't be.

        That may take time, and it holds only if the present plan is in force still.
        """
        return Change(self, self._server, plan, build)

    def _take(self, plan: Plan) -> None:
        self.plan = plan
        self._server.take(plan)

    @in_loop
    def stop(self, drain: float = 0.0) -> int:
        """Stop accepting, let connections end for `drain` seconds; how many had to be ended."""
        return self._server.drain(drain)


class Change:
    """Another plan for a proxy, with all done that can fail once it is bound; nothing has changed.

    It is applied or cancelled. Meanwhile the listener may be closed, if its port is wanted again.
    """

    def __init__(self, proxy: Proxy, server: Server, plan: Plan, build: Builder) -> None:
        self._proxy, self._server, self._plan = proxy, server, plan
        self.loop = server.loop
        self._put_in_force = server.prepare(plan, build)
        self._moved = False
        self._bound: Bound | None = None

    @in_loop
    def bind(self, target: Target | None, anew: bool = False) -> None:
        """Have the address where the plan listens; ListenError if it cannot be had.

        With `anew` port 0 is not the port that it has become.
        """
        server, plan = self._server, self._plan
        self._moved = (anew or plan.local != self._proxy.plan.local) and not (
            target and server.listening.is_at(target)
        )
        listens = (
            server.listening.enabled or server.listening.stopped or not self._proxy.plan.enabled
        )  # or is to start
        if plan.enabled and listens and (self._moved or not server.listening.in_place):
            known = server.listening.located and not self._moved
            self._bound = server.listening.bind(plan, None if known else target)

    @in_loop
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

    @in_loop
    def cancel(self) -> None:
        """Leave all as it is; a listener that was paused for this has to be resumed."""
        if self._bound is not None:
            self._bound.close()
