"""A proxy: a plan, a listener, and the operations on it.

Law: an operation is done when its call returns, and none waits for the data path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from vaurien.address import Address
from vaurien.errors import UsageError, nearest
from vaurien.net.connection import Connection
from vaurien.net.dial import Target
from vaurien.net.listener import locate
from vaurien.net.server import Counters, Server
from vaurien.observe.events import Event
from vaurien.observe.summary import Stats
from vaurien.plan import Plan, Toxic


class Proxy:
    """Runs one plan in the present greenlet's loop.

    Building it builds its handlers; `start` listens, and a connect succeeds once it has returned.
    """

    def __init__(
        self,
        plan: Plan,
        observers: tuple[Callable[[Event], None], ...] = (),
        everything: bool = False,
    ) -> None:
        """`observers` are told of exchanges that a handler touches; with `everything`, of all."""
        self.plan = plan
        self._server = Server(plan, self, observers, everything)

    def __repr__(self) -> str:
        return f"<Proxy {self._server!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.plan.name

    @property
    def address(self) -> Address:
        """Where it listens, with the real port once started."""
        return self._server.bound

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._server.counters

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._server.connections)

    @property
    def enabled(self) -> bool:
        """Whether it is to listen; `down` may have it that it does not at present."""
        return self._server.enabled

    def each(self) -> list[Connection]:
        """The connections there are now."""
        return list(self._server.connections.values())

    @property
    def observers(self) -> tuple[Callable[[Event], None], ...]:
        """Who is told of exchanges that a handler touches."""
        return self._server.observers

    @observers.setter
    def observers(self, observers: tuple[Callable[[Event], None], ...]) -> None:
        self._server.observers = observers

    @property
    def stats(self) -> Mapping[str, Stats]:
        """What each handler did since the start, by name."""
        return self._server.stats

    def unmet(self) -> list[tuple[int, int]]:
        """Of a replay: which (connection, exchange) did not come to pass."""
        return self._server.unmet()

    def add_toxic(self, toxic: Toxic) -> None:
        """Pin `toxic` to the connections that it hits, open ones too; UsageError if it is there."""
        if toxic.name in self._server.toxics:
            raise UsageError(f"toxic {toxic.name!r} already exists; choose another name")
        self.plan = replace(self.plan, toxics=(*self.plan.toxics, toxic))
        self._server.add_toxic(toxic)

    def update_toxic(self, toxic: Toxic) -> None:
        """Put `toxic` in the place of the one of its name, of the same class and stream.

        What it holds is passed on, its state stays, its clock starts anew. UsageError if there is
        none of that name, or it is another thing.
        """
        if not toxic.same_kind(self._toxic(toxic.name)):
            raise UsageError(f"toxic {toxic.name!r} keeps its type and stream; remove it first")
        toxics = [toxic if old.name == toxic.name else old for old in self.plan.toxics]
        self.plan = replace(self.plan, toxics=tuple(toxics))
        self._server.update_toxic(toxic)

    def remove_toxic(self, name: str) -> None:
        """Take a toxic away; what it holds is passed on. UsageError if there is none."""
        self._toxic(name)
        left = tuple(toxic for toxic in self.plan.toxics if toxic.name != name)
        self.plan = replace(self.plan, toxics=left)
        self._server.remove_toxic(name)

    def _toxic(self, name: str) -> Toxic:
        for toxic in self.plan.toxics:
            if toxic.name == name:
                return toxic
        known = [toxic.name for toxic in self.plan.toxics]
        raise UsageError(f"there is no toxic {name!r}; {nearest(name, known, 'toxics')}")

    def start(self) -> None:
        """Listen, if its plan has it enabled; ListenError if the address cannot be had."""
        if self.plan.enabled:
            self._server.listen()

    def enable(self) -> None:
        """Listen, where it last did; ListenError if the address cannot be had."""
        if not self.enabled:
            self._server.listen()
        self._take(replace(self.plan, enabled=True))

    def disable(self) -> None:
        """Listen no more, and end all connections, waiting for nothing."""
        if self.enabled:
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
        local_changed = plan.local != self.plan.local
        if local_changed and target is None and plan.enabled:
            target = locate(plan.local)
        self.prepare(plan, target)()

    def prepare(self, plan: Plan, target: Target | None) -> Callable[[], None]:
        """What puts `plan` in force, as `change` does; until it is called, nothing has changed.

        Only the listener may have been given up already, if its port is wanted again; it is had
        back when this raises.
        """
        server = self._server
        apply = server.prepare(plan)
        moved = plan.local != self.plan.local and (target is None or not server.is_at(target))
        bound = server.bind(plan.local, target) if moved and plan.enabled and target else None

        def change() -> None:
            if moved:
                server.end_all("dropped")
            self.plan = plan
            apply()
            if bound is not None:
                server.listen(bound)
            elif not plan.enabled:
                self.disable()
                if moved:
                    server.forget_address()
            else:
                self.enable()

        return change

    def _take(self, plan: Plan) -> None:
        self.plan = self._server.plan = plan

    def stop(self, drain: float = 0.0) -> int:
        """Stop accepting, let connections end for `drain` seconds; how many had to be ended."""
        self._server.stop_listening()
        return self._server.drain(drain)
