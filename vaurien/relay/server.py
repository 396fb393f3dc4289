"""The server of one proxy: its plan in force, its connections, and what they have in common.

Laws: an operation is done when its call returns, and waits for no connection. What happens to one
connection touches no other.
"""

from __future__ import annotations

import _socket
import errno
import logging
from collections.abc import Callable
from math import inf
from typing import Any

from vaurien import registry
from vaurien.behavior import Dice
from vaurien.counts import Done, Stats
from vaurien.errors import RAISED
from vaurien.exchange.picks import Builder, Picks
from vaurien.net.accept import Acceptor
from vaurien.net.dial import Dialer
from vaurien.net.loop import Loop
from vaurien.observe.events import Observer
from vaurien.plan import Plan
from vaurien.relay.connection import Connection
from vaurien.relay.counters import Counters
from vaurien.relay.exchanges import Exchanges
from vaurien.relay.listening import Listening
from vaurien.relay.meeting import Meeting
from vaurien.relay.messages import Messages
from vaurien.relay.reports import Reports
from vaurien.relay.sweep import Sweep, drain
from vaurien.relay.toxics import Toxics, for_each

log = logging.getLogger("vaurien")

_NETWORK = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM))


class Server:
    """Accepts the clients of one plan and carries their connections."""

    def __init__(
        self,
        plan: Plan,
        loop: Loop,
        proxy: object = None,
        observers: tuple[Observer, ...] = (),
        everything: bool = False,
    ) -> None:
        """`observers` get the events of exchanges that a handler touches; `everything`: of all."""
        self.plan, self.name, self.loop = plan, plan.name, loop
        self.dice = Dice(plan.seed, plan.name)
        build = Builder(proxy)
        self._picks = Picks(
            plan.behavior, plan, self.dice, build, loop.now, b"pick", plan.decisions
        )
        self._meets = Picks(
            plan.on_connect, plan, self.dice, build, loop.now, b"connect", plan.connect_decisions
        )
        self._framer = registry.framer(plan.protocol, "protocol")
        self.toxics = Toxics(plan.toxics, self.dice)
        self.exchanges = Exchanges(plan.name, self.dice, loop.now, observers, everything)
        self.counters = Counters()
        self.reports = Reports(plan.name, self.counters)
        self.connections: dict[int, Connection] = {}
        self.dialer = _dialer(plan)
        self._acceptor = Acceptor(loop, self._accepted, self._accept_failed, self._is_full)
        self.listening = Listening(plan, self._meets, loop, self._acceptor, self._enabled)
        self._sweep: Sweep | None = None
        self._look()

    def __repr__(self) -> str:
        return f"<Server {self.name!r}, {len(self.connections)} connections, {self.listening!r}>"

    def _look(self) -> None:
        """Who picks, if anything can be picked or anybody looks."""
        exchanges, meets = self.exchanges, self.plan.on_connect.parts
        quiet = self.plan.is_quiet and not (self.toxics or exchanges.everything or meets)
        exchanges.all_picks = self._picks
        exchanges.picks = None if quiet else self._picks

    # Clients

    def _enabled(self) -> None:
        """Its time begins."""
        self._picks.started = self._meets.started = self.loop.now()

    def _is_full(self) -> bool:
        return 0 < self.plan.max_connections <= len(self.connections)

    def _accepted(self, descriptor: int, address: Any) -> None:
        """Open the connection of one accepted client."""
        number = self.counters.connections = self.counters.connections + 1
        client = _socket.socket(self._acceptor.family, _socket.SOCK_STREAM, 0, descriptor)
        client.setblocking(False)
        connection = self.connections[number] = Connection(self, number, client, address)
        try:
            if self.plan.on_connect.parts and self.listening.down is None:
                self._meet(connection)
            else:
                connection.open()
        except RAISED:
            connection.crashed()

    def _meet(self, connection: Connection) -> None:
        """Pick who meets a connection before its first byte, and let it."""
        choice = self._meets.pick(connection, 0)
        picked = choice.taker
        if picked is None:
            connection.open()
            return
        exchange = self.exchanges.open(connection, 0, choice)
        exchange.added[picked] = inf
        connection.meeting = Meeting(connection, picked)
        picked.call.meet(connection.meeting)
        self.counters.refused += getattr(picked.call, "refuses", False)

    def _accept_failed(self, error: OSError) -> bool:
        """An accept has failed: whether to pause, since descriptors have run out."""
        self.counters.accept_errors += 1
        if error.errno in _NETWORK:
            return False
        self.reports.pauses(error, len(self.connections), self.loop.now())
        return True

    # What connections tell

    def opened(self, connection: Connection) -> None:
        """Its backend has answered."""
        if self._framer is not None:
            connection.messages = Messages(connection, self._framer())
        self.toxics.meet(connection)

    def closed_one(self, connection: Connection) -> None:
        """Its descriptors are gone, too."""
        self.connections.pop(connection.number, None)
        self._acceptor.accept_again()

    # What is asked of it

    @property
    def stats(self) -> dict[str, Stats]:
        """What each handler did: those of the behavior, those of on-connect, the toxics."""
        return {**self._picks.stats, **self._meets.stats, **self.toxics.stats}

    def done(self) -> dict[str, Done]:
        """What handlers did, by their names; toxics by the names of their types, gone ones too."""
        stats = {**self._picks.stats, **self._meets.stats}
        found = {name: one.told() for name, one in stats.items()}
        for name, one in self.toxics.stats_by_type.items():
            found[name] = found[name] + one.told() if name in found else one.told()
        return found

    def unmet(self) -> list[tuple[int, int]]:
        """The decisions of a replay, as (connection, exchange), that did not come to pass."""
        return sorted(self._picks.unmet() + self._meets.unmet())

    # Changes

    def listen(self, bound: Any) -> None:
        """Listen at `bound`, a socket of `listening.bind`."""
        self.listening.listen(bound)
        if not self.plan.distant.is_literal:
            self.dialer.lookup_soon(self._looked_up)
        self._set_sweep()

    def _looked_up(self, error: OSError | None) -> None:
        if error is not None:
            log.warning(
                "%s: backend %s does not resolve (%s); each new connection tries again",
                self.name,
                self.plan.distant,
                error.strerror or error,
            )

    def prepare(self, plan: Plan, build: Builder) -> Callable[[bool], None]:
        """What puts `plan` in force, but for where it listens; UsageError if it cannot be.

        It holds as long as the present plan is in force; `build` may take time.

        What is the same in both plans is not touched; another backend or seed ends all connections.
        It is called with whether `listen` follows.
        """
        before, now = self.plan, self.loop.now
        registry.framer(plan.protocol, "protocol")  # what is not there is refused now
        dice = self.dice if plan.seed == before.seed else Dice(plan.seed, plan.name)
        parts = ("behavior", "handlers", "on_connect", "decisions", "connect_decisions", "seed")
        if all(getattr(plan, part) == getattr(before, part) for part in parts):
            return lambda _listens: self._change(plan)
        picks = Picks(plan.behavior, plan, dice, build, now, b"pick", plan.decisions, self._picks)
        meets = Picks(
            plan.on_connect, plan, dice, build, now, b"connect", plan.connect_decisions, self._meets
        )

        def apply(listens: bool) -> None:
            if dice is not self.dice:
                self.end_all("dropped")
                self.dice = self.exchanges.dice = dice
                self.toxics.throw_anew(dice)
            self._picks, self._meets, self.listening.meets = picks, meets, meets
            picks.take_over()
            meets.take_over()
            gone = picks.left | meets.left
            self._change(plan)
            if gone:
                for_each(list(self.connections.values()), self.exchanges.dismiss, gone)
            if not listens:
                self.listening.settle()

        return apply

    def take(self, plan: Plan) -> None:
        """`plan` is in force, and differs in nothing that is at work."""
        self.plan = self.listening.plan = plan
        self._framer = registry.framer(plan.protocol, "protocol")

    def _change(self, plan: Plan) -> None:
        """Put `plan` in force, whose behaviors are."""
        before = self.plan
        self.take(plan)
        enabled = self.listening.enabled
        if plan.distant != before.distant:
            self.end_all("dropped")
            self.dialer = _dialer(plan)
            if enabled and not plan.distant.is_literal:
                self.dialer.lookup_soon(self._looked_up)
        self.dialer.limit(plan.connect_timeout, plan.dns_ttl, plan.keepalive)
        self.listening.keep_alive(plan.keepalive)
        self.toxics.change(plan.toxics, self.connections.values())
        self._look()
        if enabled:
            if plan.timeout != before.timeout:
                self._set_sweep()
            if plan.backlog != before.backlog:
                self.listening.set_backlog(plan.backlog)
            self._acceptor.accept_again()

    def disable(self) -> None:
        """Close the listener and end all connections, waiting for nothing."""
        self._stop_sweep()
        self.listening.disable()
        self.end_all("dropped")
        self.listening.leave_alarms()

    def end_all(self, why: str, how: str = "fin") -> int:
        """End all connections, by FIN or by ``reset``; how many there were."""
        found = [one for one in self.connections.values() if not one.closed]
        for connection in found:
            connection.end(why) if how == "fin" else connection.reset()
        return len(found)

    def end_one(self, number: int, why: str, how: str = "fin") -> int:
        """End the connection of that number; 0 if there is none."""
        connection = self.connections.get(number)
        if connection is None or connection.closed:
            return 0
        connection.end(why) if how == "fin" else connection.reset()
        return 1

    # Quiet ones, and the end

    def _set_sweep(self) -> None:
        self._stop_sweep()
        if self.plan.timeout and self.listening.enabled:
            self._sweep = Sweep(
                self.loop, self.connections.values, self.plan.timeout, self._end_quiet
            )

    def _stop_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.stop()
            self._sweep = None

    def _end_quiet(self, connection: Connection) -> None:
        self.reports.idle(connection)
        connection.end("idle")

    def drain(self, limit: float) -> int:
        """Listen no more, for good, and let connections end for `limit` seconds; how many were cut.

        Those who wait in the backlog are taken first. Blocks the greenlet.
        """
        self._stop_sweep()
        self.listening.stop()
        cut = drain(self.loop, self.connections, limit)
        self.listening.leave_alarms()
        return cut


def _dialer(plan: Plan) -> Dialer:
    return Dialer(plan.distant, plan.connect_timeout, plan.dns_ttl, plan.keepalive)
