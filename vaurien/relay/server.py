"""The server of one proxy: accepts clients, numbers them, dials their backend, and keeps count.

Laws: an accept makes neither a greenlet nor a gevent socket; an error of accept never ends the
listener; what happens to one connection touches no other.
"""

from __future__ import annotations

import _socket
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any, cast

import gevent
from gevent.hub import get_hub
from gevent.server import StreamServer

from vaurien.address import Address
from vaurien.behavior import Dice, Exchange
from vaurien.counts import Directions, Done, Stats, Totals
from vaurien.errors import RAISED, ListenError, Stopping, many
from vaurien.exchange.picks import NOBODY, Builder, Choice, Picked, Picks, staying
from vaurien.flow.handler import CHUNK
from vaurien.handlers.connect import Down, Refuse
from vaurien.net.alarms import Alarms
from vaurien.net.dial import Dialer, Target
from vaurien.net.linger import LINGER
from vaurien.net.listener import Bound, refused
from vaurien.observe.events import Observer
from vaurien.observe.log import fields
from vaurien.observe.notifier import Notifier
from vaurien.plan import Plan, Toxic
from vaurien.relay.connection import Connection, Flow, client_name

log = logging.getLogger("vaurien")

_BUFFER = "vaurien_buffer"
RETRY = 1.0  # seconds until it tries again to listen, when it cannot
PAUSE = 0.1  # seconds without accepting, when descriptors have run out
TELL = 10.0  # seconds until that is told again
QUIET = 0.25  # seconds after which a connection with nothing under way ends while draining
_LOOK = 0.025  # seconds between two looks at the connections while draining
_NETWORK = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM))


@dataclass
class Counters:
    """What happened since the start; plain numbers that only grow."""

    connections: int = 0
    failed_dials: int = 0
    handler_errors: int = 0
    crashes: int = 0
    accept_errors: int = 0
    refused: int = 0  # of those connections, by `refuse`
    # Of connections that have ended; bytes to the client first, then those to the backend.
    exchanges: int = 0
    received: list[int] = field(default_factory=lambda: [0, 0])
    sent: list[int] = field(default_factory=lambda: [0, 0])

    def __str__(self) -> str:
        counts = {
            "failed dial": self.failed_dials,
            "handler error": self.handler_errors,
            "internal error": self.crashes,
            "accept error": self.accept_errors,
        }
        told = [many(number, what) for what, number in counts.items() if number]
        return ", ".join([many(self.connections, "connection"), *told])

    def add(self, connection: Connection) -> None:
        """Add up what passed through a connection; called once, at its end."""
        self.exchanges += connection.framer.exchange
        for flow in (connection.up, connection.down):
            if flow is not None:
                self.received[flow.to_backend] += flow.passed
                self.sent[flow.to_backend] += flow.sent


class Pin:
    """A toxic at work: its configuration, and what it did."""

    def __init__(self, toxic: Toxic, dice: Dice, whole: Stats) -> None:
        """`whole` is what all toxics of its type did."""
        self.toxic, self.dice = toxic, dice
        self.picked = Picked(toxic.specification, (0, 0), Stats(whole))

    def hits(self, connection: Connection) -> bool:
        """Whether it acts on that connection: the draw is the same whenever it is asked for."""
        draw = self.dice.draw(connection.number, 0, f"toxicity {self.toxic.name}")
        return draw < self.toxic.toxicity

    def flows(self, connection: Connection) -> list[Flow]:
        """The flows of that connection that are in its stream."""
        flows = (connection.up, connection.down)
        return [flow for flow in flows if flow and self.picked.acts[flow.to_backend]]

    def attach(self, connection: Connection) -> None:
        """Come to that connection, if it is hit."""
        if self.hits(connection):
            for flow in self.flows(connection):
                if not connection.closed:
                    flow.pin(self.picked)

    def detach(self, connection: Connection) -> None:
        """Leave that connection."""
        for flow in self.flows(connection):
            if not connection.closed:
                flow.unpin(self.picked)

    def update(self, connection: Connection) -> None:
        """The toxic has changed: act on that connection as it says now."""
        at_work = any(flow.slots_of(self.picked) for flow in self.flows(connection))
        if at_work and self.hits(connection):
            for flow in self.flows(connection):
                if not connection.closed:
                    flow.update(self.picked)
        elif at_work:
            self.detach(connection)
        else:
            self.attach(connection)


class Server(StreamServer):
    """Accepts the clients of one plan and carries their connections."""

    handle: Any = None  # gevent wants one; `do_handle` is ours

    # gevent's own, which its stubs leave out
    _watcher: Any
    _timer: Any
    _do_read: Callable[[], None]
    _start_accepting_if_started: Callable[[], None]
    address: Any
    socket: Any

    def __init__(
        self,
        plan: Plan,
        proxy: object = None,
        observers: tuple[Observer, ...] = (),
        everything: bool = False,
    ) -> None:
        """`observers` get the events of exchanges that a handler touches; `everything`: of all."""
        self.plan, self.name = plan, plan.name
        self.notifier = Notifier(plan.name, observers, client_name)
        self.dice = Dice(plan.seed, plan.name)
        self._everything = everything
        build = Builder(proxy)
        self._picks = Picks(plan.behavior, plan, self.dice, build, b"pick", plan.decisions)
        self._meets = Picks(
            plan.on_connect, plan, self.dice, build, b"connect", plan.connect_decisions
        )
        self._by_toxics: dict[str, Stats] = {}  # what those of each type did, gone ones too
        self.toxics = {toxic.name: self._pin(toxic) for toxic in plan.toxics}
        #: Who picks; None while nothing can be picked and nobody looks, which costs nothing.
        self.picks: Picks | None = None
        self._look()
        self.alarms: Any = None  # of all flows; there from `bind` until all has ended
        self._down: Picked | None = None  # of the plan
        self._was_down: Picked | None = None  # when last settled
        self._trouble = ""  # why it then could not listen, or keep its address
        self._settling: Any = None  # the timer of the next time
        self.dialer = Dialer(plan.distant, plan.connect_timeout)
        self.view = _buffer()
        self.counters = Counters()
        self.connections: dict[int, Connection] = {}
        self._bound: Bound | None = None
        self._sweeper: Any = None
        self._tell_of_pauses = 0.0  # not before then, monotonic seconds
        self.enabled = self.stopped = False
        super().__init__(cast(Any, None), spawn=None)

    def __repr__(self) -> str:
        return (
            f"<Server {self.name!r} at {self.bound}, {len(self.connections)} connections,"
            f" {'accepting' if self._watcher is not None else 'not accepting'}>"
        )

    # Listening

    def _look(self) -> None:
        meets = self.plan.on_connect.parts
        quiet = self.plan.is_quiet and not (self.toxics or self._everything or meets)
        self.picks = None if quiet else self._picks

    # What is wanted is `enabled`, the plan and the time; `settle` makes the listener so.

    def bind(self, plan: Plan, target: Target | None) -> Bound:
        """A socket for `plan`, bound to where its local address is, or None for where it last was.

        ListenError if it cannot be had, Stopping if this server has stopped for good. Where it
        listens now counts as free, and is given up.
        """
        if self.stopped:
            raise Stopping("Vaurien is stopping; nothing is begun any more")
        if self.alarms is not None:
            return self._bind_anew(plan, target)
        try:
            self.alarms = Alarms.of_loop()
        except OSError as error:  # no descriptor left
            raise refused(error, plan.local, plan.where, "timerfd_create") from None
        try:
            return self._bind_anew(plan, target)
        except ListenError:
            self._leave_alarms()
            raise

    def _bind_anew(self, plan: Plan, target: Target | None) -> Bound:
        own = self._bound
        if target is None:
            assert own is not None
            return self._bind(plan, own.address, own.target)
        try:
            return self._bind(plan, plan.local, target)
        except ListenError:
            own_port = own is not None and self.enabled and own.address.port == plan.local.port
            if plan.local.path or not own_port:
                raise
            self.give_up()  # it may be ourselves who is in the way
            try:
                return self._bind(plan, plan.local, target)
            except ListenError:
                self.settle()
                raise

    def _bind(self, plan: Plan, local: Address, target: Target) -> Bound:
        bound = Bound(local, target, plan.where)
        if not plan.goes_down:  # clients wait until the plan is in force
            bound.listen(plan.backlog)
        return bound

    def listen(self, bound: Bound) -> None:
        """Listen at `bound`, so that a connect succeeds from now on.

        Its time begins when it is enabled; `down` may have it that it does not listen yet.
        """
        self._unlisten()
        self._bound = bound
        self.family = bound.sock.family
        if not self.enabled:
            self._picks.started = self._meets.started = monotonic()
            self._was_down, self._trouble = None, ""
        self.enabled = True
        self.settle()
        if not self.plan.distant.is_literal:
            self.dialer.lookup_soon(self._looked_up)
        self._set_sweeper()

    def settle(self) -> None:
        """Have the listener as it is to be now: it listens, or keeps its address while it is down.

        What cannot be is logged, and tried again.
        """
        self._stop_settling()
        if not self.enabled:
            return
        self._down = self._meets.only(Down)
        down, left = self._down_now()
        trouble = ""
        try:
            self._keep() if down else self._open()
        except ListenError as error:
            trouble, left = str(error), min(left, RETRY)
        if trouble and trouble != self._trouble:
            log.error("%s: tries again each %g s: %s", self.name, RETRY, trouble)
        if down is not None and down is not self._was_down:
            self._went_down(down)
        if self.started and (self._was_down or self._trouble):
            log.info("%s: up, at %s", self.name, self.bound)
        self._was_down, self._trouble = down, trouble
        if left < inf:
            self._settling = self.loop.timer(left)
            self._settling.start(self.settle)

    def _down_now(self) -> tuple[Picked | None, float]:
        """The `down` in force now, and the seconds until that changes."""
        points = self._down.specification.points if self._down is not None else None
        if points is None:
            return None, inf
        passed = monotonic() - self._meets.started
        if passed < points.since:
            return None, points.since - passed
        until = inf if points.until is None else points.until
        return (self._down, until - passed) if passed < until else (None, inf)

    def _open(self) -> None:
        """Have the system accept clients; ListenError if that cannot be."""
        assert self._bound is not None
        if not self.started:
            if not self._bound.held:
                self._bound = self._bound.again()
            self._bound.listen(self.plan.backlog)
            self.socket = self._bound.sock
            super().start()

    def _keep(self) -> None:
        """Do not listen, but keep the address; ListenError if that cannot be."""
        assert self._bound is not None
        if self.started:
            self._stop_accepting_all()
        if not self._bound.held:
            self._bound = self._bound.again()

    def _went_down(self, down: Picked) -> None:
        down.stats.picked += 1
        down.stats.fire(inf, 0)
        points = down.specification.points
        assert points is not None
        until = "" if points.until is None else f" until {points.until:g} s after the start"
        log.info("%s: down%s: the system refuses who connects", self.name, until)

    def _stop_accepting_all(self) -> None:
        """Take those who wait in the backlog, then close the listener."""
        if self.started and self._watcher is not None:
            self._do_read()
        self._unlisten()

    def _unlisten(self) -> None:
        """Close the listener; who waits in the backlog is reset by the system."""
        self._stop_settling()
        self.close()
        if self._bound is not None:
            self._bound.close()

    def _stop_settling(self) -> None:
        if self._settling is not None:
            self._settling.stop()
            self._settling.close()
            self._settling = None

    def give_up(self) -> None:
        """Give the address to others for a moment; until `settle`."""
        if self.enabled:
            self._unlisten()

    def _set_sweeper(self) -> None:
        self._stop_sweeper()
        if self.plan.timeout and self.enabled:
            self._sweeper = self.loop.timer(0, min(self.plan.timeout / 4, 1.0))
            self._sweeper.start(self._sweep)

    def _looked_up(self, error: OSError | None) -> None:
        if error is not None:
            log.warning(
                "%s: backend %s does not resolve (%s); each new connection tries again",
                self.name,
                self.plan.distant,
                error.strerror or error,
            )

    def forget_address(self) -> None:
        """It listens nowhere now, and next time where its plan says."""
        self._bound = None

    @property
    def in_place(self) -> bool:
        """Whether its plan needs no other socket: it has one, tries to have it, or has stopped."""
        held = self.started or (self._bound is not None and self._bound.held)
        tries_again = self.enabled and (bool(self._trouble) or self._was_down is None)
        return held or tries_again or (self.stopped and self.plan.enabled)

    @property
    def located(self) -> bool:
        """Whether it listens, or ever did, so that its address is known."""
        return self._bound is not None

    def is_at(self, target: Target) -> bool:
        """Whether it listens there, or did when it was last enabled."""
        return self._bound is not None and self._bound.target == target

    @property
    def bound(self) -> Address:
        """The real local address: port 0 has become the port that was given."""
        return self._bound.address if self._bound is not None else self.plan.local

    def init_socket(self) -> None:
        """Nothing: `listen` has made the socket."""

    def set_listener(self, listener: object) -> None:
        """Nothing: there is no listener before `listen`."""
        self.address = ()

    def full(self) -> bool:
        """True while there are as many connections as allowed: accepting pauses."""
        limit = self.plan.max_connections
        return bool(limit) and len(self.connections) >= limit

    def do_read(self) -> tuple[int, Any] | None:  # type: ignore[override]
        """Accept one client; None when there is none, or when the system has run out."""
        try:
            accepted: tuple[int, Any] = self.socket._accept()
            return accepted
        except BlockingIOError:
            return None
        except OSError as error:
            # Raising would print and returning None alone would spin: the client still waits.
            self.counters.accept_errors += 1
            if error.errno not in _NETWORK:
                self.pause(error)
            return None

    def do_handle(self, descriptor: int, address: Any) -> None:  # type: ignore[override]
        """Open the connection of one accepted client."""
        number = self.counters.connections = self.counters.connections + 1
        client = _socket.socket(self.family, _socket.SOCK_STREAM, 0, descriptor)
        client.setblocking(False)
        connection = self.connections[number] = Connection(self, number, client, address)
        try:
            if self.plan.on_connect.parts and self._down is None:
                self._meet(connection)
            else:
                connection.open()
        except RAISED:
            connection.crashed()

    def _meet(self, connection: Connection) -> None:
        """Pick who meets a connection before its first byte, and let him."""
        choice = self._meets.pick(connection, 0)
        picked = choice.taker
        if picked is None:
            connection.open()
            return
        connection.exchange = exchange = self._exchange(connection, 0, choice)
        exchange.added[picked] = inf
        picked.call.meet(connection)
        self.counters.refused += isinstance(picked.call, Refuse)

    def pause(self, error: OSError) -> None:
        """Stop accepting for a moment."""
        self.stop_accepting()
        self._timer = cast(Any, self.loop.timer(PAUSE))
        self._timer.start(self._start_accepting_if_started)
        now = monotonic()
        if now < self._tell_of_pauses:
            return
        self._tell_of_pauses = now + TELL
        log.warning(
            "%s: accepting pauses for %g s, again and again while it lasts: %s (%s open; raise the"
            " limit of open files, or set --max-connections)",
            self.name,
            PAUSE,
            error.strerror,
            many(len(self.connections), "connection", "is", "are"),
        )

    # What connections tell

    def begin(self, connection: Connection, n: int) -> None:
        """An exchange begins on `connection` with the last `n` bytes read: pick who deals with it.

        Nothing is made for one that nobody touches.
        """
        before = connection.exchange
        if before is not None:
            self.over(connection, before, "next", n)
        number = connection.framer.exchange
        choice = self._picks.pick(connection, number)
        if choice.handlers or self._everything or connection.shaped:
            connection.deal(self._exchange(connection, number, choice, n), choice)
        elif before is not None:
            connection.deal(None, choice)

    def present(self, connection: Connection) -> Exchange:
        """The present exchange of `connection`, made if nobody touched it so far."""
        if connection.exchange is None:
            number = connection.framer.exchange
            connection.exchange = self._exchange(connection, number, NOBODY)
        return connection.exchange

    def another(self, connection: Connection, n: int) -> None:
        """An exchange begins with `n` bytes that a handler has read itself: it stays with it."""
        before = connection.exchange
        if before is not None:
            self.over(connection, before, "next", n)
            choice = Choice(before.handlers)
            number = connection.framer.exchange
            connection.deal(self._exchange(connection, number, choice, n), choice)

    def _exchange(
        self, connection: Connection, number: int, choice: Choice, n: int = 0
    ) -> Exchange:
        """The exchange that begins with the last `n` bytes, told if anybody touches it."""
        handlers = choice.handlers
        exchange = Exchange(self.dice, connection.number, number, handlers, choice.taker)
        exchange.began = monotonic()
        up, down = connection.up, connection.down
        if up is not None and down is not None:
            exchange.marks = (up.passed - n, down.passed)
        if self.notifier.observers and (handlers or self._everything):
            self.notifier.began(connection.number, number, handlers)
        return exchange

    def over(self, connection: Connection, exchange: Exchange, end: str, n: int = 0) -> None:
        """`exchange` has ended as `end` says: count what it was, and tell the observers.

        The last `n` bytes of the client are not part of it.
        """
        connection.exchange = None
        up, down = connection.up, connection.down
        from_client = up.passed - n - exchange.marks[0] if up is not None else 0
        from_backend = down.passed - exchange.marks[1] if down is not None else 0
        if exchange.added:
            fired: dict[Stats, float] = {}  # the handlers of a preset count as one
            for one, added in exchange.added.items():
                if added >= fired.get(one.stats, 0.0):
                    fired[one.stats] = added
            for stats, added in fired.items():
                stats.fire(added, from_client + from_backend)
        if self.notifier.observers and (exchange.handlers or exchange.added or self._everything):
            self.notifier.ended(
                exchange, self.plan.seed, connection.address, from_client, from_backend, end
            )

    @property
    def stats(self) -> dict[str, Stats]:
        """What each handler did: those of the behavior, those of on-connect, the toxics."""
        pinned = {f"toxic {name}": pin.picked.stats for name, pin in self.toxics.items()}
        return {**self._picks.stats, **self._meets.stats, **pinned}

    def done(self) -> dict[str, Done]:
        """What handlers did, by their names; toxics by the names of their types, gone ones too."""
        stats = {**self._picks.stats, **self._meets.stats}
        found = {name: one.told() for name, one in stats.items()}
        for name, one in self._by_toxics.items():
            found[name] = found[name] + one.told() if name in found else one.told()
        return found

    def totals(self) -> Totals:
        """What happened since the start, open connections included."""
        counters = self.counters
        exchanges = counters.exchanges
        received, sent = counters.received.copy(), counters.sent.copy()
        for connection in self.connections.values():
            up, down = connection.up, connection.down
            if up is not None and down is not None:  # else it has been added up, or still dials
                exchanges += connection.framer.exchange
                received[True] += up.passed
                received[False] += down.passed
                sent[True] += up.sent
                sent[False] += down.sent
        return Totals(
            connections_open=len(self.connections),
            connections=counters.connections,
            refused=counters.refused,
            failed_dials=counters.failed_dials,
            handler_errors=counters.handler_errors,
            internal_errors=counters.crashes,
            accept_errors=counters.accept_errors,
            exchanges=exchanges,
            received=Directions(received[True], received[False]),
            sent=Directions(sent[True], sent[False]),
        )

    def unmet(self) -> list[tuple[int, int]]:
        """The decisions of a replay, as (connection, exchange), that did not come to pass."""
        return sorted(self._picks.unmet() + self._meets.unmet())

    # Toxics

    def _pin(self, toxic: Toxic) -> Pin:
        kind = str(toxic.specification.cls.name)  # type: ignore[attr-defined]
        whole = self._by_toxics.setdefault(kind, Stats())
        return Pin(toxic, self.dice, whole)

    def _set_toxics(self, toxics: tuple[Toxic, ...]) -> None:
        """Have these at work, in this order; what is as before, and stands so, is not touched."""
        wanted = {toxic.name: toxic for toxic in toxics}
        before = self.toxics
        kept = [
            name
            for name, pin in before.items()
            if name in wanted and wanted[name].same_kind(pin.toxic)
        ]
        stay = staying(kept, wanted)
        for name, pin in before.items():
            if name not in stay:
                self._for_each(pin.detach)
        self.toxics = {
            name: before[name] if name in stay else self._pin(toxic)
            for name, toxic in wanted.items()
        }
        for name, pin in self.toxics.items():
            if name not in stay:
                self._for_each(pin.attach)
            elif pin.toxic != wanted[name]:
                pin.toxic = wanted[name]
                pin.picked.specification = pin.toxic.specification
                self._for_each(pin.update)

    def _for_each(self, action: Callable[[Connection], None]) -> None:
        for connection in list(self.connections.values()):
            if not connection.closed:
                try:
                    action(connection)
                except RAISED:
                    connection.crashed()

    # Changes

    def prepare(self, plan: Plan, build: Builder) -> Callable[[bool], None]:
        """What puts `plan` in force, but for where it listens; UsageError if it cannot be.

        It holds as long as the present plan is in force; `build` may take time.

        What is the same in both plans is not touched; another backend or seed ends all connections.
        It is called with whether `listen` follows.
        """
        before = self.plan
        dice = self.dice if plan.seed == before.seed else Dice(plan.seed, plan.name)
        parts = ("behavior", "handlers", "on_connect", "decisions", "connect_decisions", "seed")
        if all(getattr(plan, part) == getattr(before, part) for part in parts):
            return lambda _listens: self._change(plan)
        picks = Picks(plan.behavior, plan, dice, build, b"pick", plan.decisions, self._picks)
        meets = Picks(
            plan.on_connect, plan, dice, build, b"connect", plan.connect_decisions, self._meets
        )

        def apply(listens: bool) -> None:
            if dice is not self.dice:
                self.end_all("dropped")
                self.dice = dice
                for pin in self.toxics.values():
                    pin.dice = dice
            self._picks, self._meets = picks, meets
            picks.take_over()
            meets.take_over()
            gone = picks.left | meets.left
            self._change(plan)
            if gone:
                self._for_each(lambda connection: connection.leave(gone))
            if not listens:
                self.settle()

        return apply

    def _change(self, plan: Plan) -> None:
        """Put `plan` in force, whose behaviors are."""
        before, self.plan = self.plan, plan
        if plan.distant != before.distant:
            self.end_all("dropped")
            self.dialer = Dialer(plan.distant, plan.connect_timeout)
            if self.enabled and not plan.distant.is_literal:
                self.dialer.lookup_soon(self._looked_up)
        self.dialer.timeout = plan.connect_timeout
        self._set_toxics(plan.toxics)
        self._look()
        if self.enabled:
            if plan.timeout != before.timeout:
                self._set_sweeper()
            if plan.backlog != before.backlog and self.started:
                self.socket.listen(plan.backlog)
            self._accept_again()

    def disable(self) -> None:
        """Close the listener and end all connections, waiting for nothing."""
        self.enabled = False
        self._stop_sweeper()
        self._unlisten()
        self.end_all("dropped")
        self._leave_alarms()

    def _leave_alarms(self) -> None:
        if self.alarms is not None:
            self.alarms.leave()
            self.alarms = None

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

    def _stop_sweeper(self) -> None:
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper.close()
            self._sweeper = None

    def closed_one(self, connection: Connection) -> None:
        """A connection is gone, its descriptors too."""
        self.connections.pop(connection.number, None)
        self._accept_again()

    def _accept_again(self) -> None:
        """Accept, if it has paused because there were too many connections."""
        if self._watcher is None and self._timer is None and self.started and not self.full():
            self.start_accepting()

    def dial_failed(self, connection: Connection, error: OSError | None) -> None:
        """The backend of `connection` could not be reached."""
        self.counters.failed_dials += 1
        log.warning(
            "%s: connection %d: backend %s: %s",
            self.name,
            connection.number,
            self.plan.distant,
            (error and error.strerror) or error,
            extra=fields(proxy=self.name, connection=connection.number),
        )

    def handler_raised(
        self, connection: Connection, picked: Picked | None, error: BaseException, logged: bool
    ) -> None:
        """A handler raised: counted, and logged once, with its traceback unless it was `logged`."""
        self.counters.handler_errors += 1
        log.error(
            "%s: connection %d, exchange %d: handler %r raised %s; the connection ends",
            self.name,
            connection.number,
            connection.framer.exchange,
            picked and picked.name,
            type(error).__name__,
            exc_info=None if logged else error,
            extra=fields(
                proxy=self.name,
                connection=connection.number,
                exchange=connection.framer.exchange,
                handler=picked and picked.name,
            ),
        )

    def crashed(self, connection: Connection) -> None:
        """A callback of ours raised: a bug, which costs this connection only."""
        self.counters.crashes += 1
        told = fields(proxy=self.name, connection=connection.number)
        log.exception(
            "%s: connection %d ends: internal error", self.name, connection.number, extra=told
        )

    # Ending

    def _sweep(self) -> None:
        """End the connections that have been quiet for the timeout."""
        now = monotonic()
        for connection in self._quiet(now, self.plan.timeout):
            told = fields(proxy=self.name, connection=connection.number)
            log.info("%s: connection %d ends: idle", self.name, connection.number, extra=told)
            connection.end("idle")

    def _quiet(self, now: float, limit: float) -> list[Connection]:
        """The connections through which nothing has passed for `limit` seconds."""
        found = []
        for connection in self.connections.values():
            moved = connection.moved
            if connection.seen != moved or not connection.quiet:
                connection.seen, connection.quiet = moved, now
            elif now - connection.quiet >= limit and not connection.closed:
                found.append(connection)
        return found

    def stop_listening(self) -> None:
        """Take those who wait in the backlog, then close the listener, for good."""
        self.stopped, self.enabled = True, False
        self._stop_sweeper()
        self._stop_accepting_all()

    def drain(self, limit: float) -> int:
        """Let connections come to their end, for `limit` seconds; how many had to be ended.

        One with nothing under way ends after `QUIET` seconds of quiet. Blocks the greenlet.
        """
        for connection in self.connections.values():
            connection.quiet = 0.0
        until = monotonic() + limit
        while self.connections and (now := monotonic()) < until:
            for connection in self._quiet(now, QUIET):
                if connection.is_idle:
                    connection.end("exit")
            gevent.sleep(min(_LOOK, until - now))
        left = [connection for connection in self.connections.values() if not connection.closed]
        for connection in left:
            connection.end("exit")
        until = monotonic() + LINGER + _LOOK
        while self.connections and monotonic() < until:
            gevent.sleep(_LOOK)
        self._leave_alarms()
        return len(left)


def _buffer() -> memoryview:
    """Where the pump reads to: one for all proxies of a loop, since it is never in use for long."""
    mine = vars(get_hub())
    if _BUFFER not in mine:
        mine[_BUFFER] = memoryview(bytearray(CHUNK))
    return cast(memoryview, mine[_BUFFER])
