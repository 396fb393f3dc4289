"""The server of one proxy: accepts clients, numbers them, dials their backend, and keeps count.

Laws: an accept makes neither a greenlet nor a gevent socket; an error of accept never ends the
listener; what happens to one connection touches no other.
"""

from __future__ import annotations

import _socket
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from time import monotonic, time
from typing import Any, cast

import gevent
from gevent import socket as gsocket
from gevent.server import StreamServer

from vaurien.address import Address
from vaurien.behavior import Dice, Exchange, Points
from vaurien.errors import ListenError
from vaurien.handlers.connect import Down, Refuse
from vaurien.handlers.flow import CHUNK
from vaurien.net.alarms import Alarms
from vaurien.net.connection import Connection, Flow
from vaurien.net.dial import Dialer, Target, resolve
from vaurien.net.linger import LINGER
from vaurien.net.picks import NOBODY, Choice, Picked, Picks
from vaurien.observe.events import Began, Ended, Event
from vaurien.observe.summary import Directions, Done, Stats, Totals
from vaurien.plan import Plan, Toxic

log = logging.getLogger("vaurien")

PAUSE = 0.1  # seconds without accepting, when descriptors have run out
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
        counted = [f"{self.connections} connections"]
        counted += [f"{self.failed_dials} failed dials"] if self.failed_dials else []
        counted += [f"{self.handler_errors} errors of handlers"] if self.handler_errors else []
        counted += [f"{self.crashes} internal errors"] if self.crashes else []
        counted += [f"{self.accept_errors} errors of accept"] if self.accept_errors else []
        return ", ".join(counted)

    def add(self, connection: Connection) -> None:
        """Add up what passed through a connection; called once, at its end."""
        self.exchanges += connection.framer.exchange
        for flow in (connection.up, connection.down):
            if flow is not None:
                self.received[flow.to_backend] += flow.passed
                self.sent[flow.to_backend] += flow.sent


class Pin:
    """A toxic at work: its configuration, and what it did."""

    def __init__(self, toxic: Toxic, dice: Dice, proxy: object, whole: Stats) -> None:
        """`whole` is what all toxics of its type did."""
        self.toxic, self._dice = toxic, dice
        self.picked = Picked(toxic.specification, (0, 0), Stats(whole), proxy)

    def hits(self, connection: Connection) -> bool:
        """Whether it acts on that connection: the draw is the same whenever it is asked for."""
        draw = self._dice.draw(connection.number, 0, f"toxicity {self.toxic.name}")
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
        observers: tuple[Callable[[Event], None], ...] = (),
        everything: bool = False,
    ) -> None:
        """`observers` get the events of exchanges that a handler touches; `everything`: of all."""
        self.plan, self.name, self.observers = plan, plan.name, observers
        self.dice = Dice(plan.seed, plan.name)
        self._proxy, self._everything = proxy, everything
        self._picks = Picks(plan.behavior, plan, self.dice, proxy, decisions=plan.decisions)
        self._meets = Picks(
            plan.on_connect, plan, self.dice, proxy, b"connect", plan.connect_decisions
        )
        self._by_toxics: dict[str, Stats] = {}  # what those of each type did, gone ones too
        self.toxics = {toxic.name: self._pin(toxic) for toxic in plan.toxics}
        #: Who picks; None while nothing can be picked and nobody looks, which costs nothing.
        self.picks: Picks | None = None
        self._look()
        self._alarms: Alarms | None = None
        self._down: Picked | None = self._meets.only(Down)
        self._down_timers: list[Any] = []
        self.dialer = Dialer(plan.distant, plan.connect_timeout)
        self.view = memoryview(bytearray(CHUNK))
        self.counters = Counters()
        self.connections: dict[int, Connection] = {}
        self._bound: _Bound | None = None
        self._sweeper: Any = None
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

    def listen(self) -> None:
        """Bind and listen, so that a connect succeeds from now on; ListenError if it can't be.

        The proxy's time begins; `down` may have it that it does not listen yet.
        """
        self._bound = _Bound.at(self.plan.local)
        self.family = self._bound.sock.family
        self._picks.started = self._meets.started = monotonic()
        if self._down is not None:
            self._schedule_down(self._down.specification.points)
        if self._down is None or self._down.specification.points.since:
            self._bound.listen(self.plan.backlog)
            self.socket = self._bound.sock
            super().start()
        if not self.plan.distant.is_literal:
            self.dialer.lookup_soon(self._looked_up)
        if self.plan.timeout:
            self._sweeper = self.loop.timer(0, min(self.plan.timeout / 4, 1.0))
            self._sweeper.start(self._sweep)

    def _schedule_down(self, points: Points) -> None:
        """Have the listener closed and opened at its times."""
        until = "" if points.until is None else f" until {points.until:g} s after the start"
        if points.since:
            self._later(points.since, lambda: self._go_down(until))
        else:
            self._is_down(until)
        if points.until is not None:
            self._later(max(points.until, points.since), self._come_up)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        timer = self.loop.timer(seconds)
        timer.start(action)
        self._down_timers.append(timer)

    def _is_down(self, until: str) -> None:
        assert self._down is not None
        self._down.stats.picked += 1
        self._down.stats.fire(inf, 0)
        log.info("%s: down%s: the system refuses who connects", self.name, until)

    def _go_down(self, until: str) -> None:
        """Close the listener; its address stays ours, bound anew."""
        assert self._bound is not None
        try:
            self._stop_accepting_all()
            self._bound = self._bound.again()
        except ListenError as error:
            log.error("%s: %s", self.name, error)
        self._is_down(until)

    def _come_up(self) -> None:
        assert self._bound is not None
        try:
            self._bound.listen(self.plan.backlog)
            self.socket = self._bound.sock
            super().start()
            log.info("%s: up, at %s", self.name, self.bound)
        except (ListenError, OSError) as error:
            log.error("%s: cannot listen again: %s", self.name, error)

    def _stop_accepting_all(self) -> None:
        """Take those who wait in the backlog, then close the listener."""
        if self.started and self._watcher is not None:
            self._do_read()
        self.close()
        if self._bound is not None:
            self._bound.close()

    def _looked_up(self, error: OSError | None) -> None:
        if error is not None:
            log.warning(
                "%s: backend %s does not resolve (%s); each new connection tries again",
                self.name,
                self.plan.distant,
                error.strerror or error,
            )

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
        except Exception:
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
        picked.call.meet(connection)  # type: ignore[union-attr]
        self.counters.refused += isinstance(picked.call, Refuse)

    def pause(self, error: OSError) -> None:
        """Stop accepting for a moment."""
        self.stop_accepting()
        self._timer = cast(Any, self.loop.timer(PAUSE))
        self._timer.start(self._start_accepting_if_started)
        log.warning(
            "%s: accepting pauses for %g s: %s (%d connections are open; raise the limit of open"
            " files, or set --max-connections)",
            self.name,
            PAUSE,
            error.strerror,
            len(self.connections),
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
        if self.observers and (handlers or self._everything):
            event = Began(self.name, connection.number, number, _names(handlers))
            for observer in self.observers:
                observer(event)
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
        if self.observers and (exchange.handlers or exchange.added or self._everything):
            seconds = monotonic() - exchange.began
            event = Ended(
                time() - seconds,
                self.name,
                connection.number,
                _client(connection.address),
                exchange.number,
                _names(exchange.handlers),
                tuple(one.specification for one in exchange.handlers),
                _names(exchange.added),
                from_client,
                from_backend,
                seconds,
                end,
            )
            for observer in self.observers:
                observer(event)

    @property
    def alarms(self) -> Alarms:
        """The alarms of all flows."""
        if self._alarms is None:
            self._alarms = Alarms()
        return self._alarms

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
        return Pin(toxic, self.dice, self._proxy, whole)

    def add_toxic(self, toxic: Toxic) -> None:
        """Pin `toxic` to all connections that it hits, open ones too."""
        pin = self.toxics[toxic.name] = self._pin(toxic)
        self._look()
        self._for_each(pin.attach)

    def update_toxic(self, toxic: Toxic) -> None:
        """Change the toxic of the same name."""
        pin = self.toxics[toxic.name]
        pin.toxic = toxic
        pin.picked.specification = toxic.specification
        self._for_each(pin.update)

    def remove_toxic(self, name: str) -> None:
        """Take a toxic away."""
        pin = self.toxics.pop(name)
        self._for_each(pin.detach)
        self._look()

    def _for_each(self, action: Callable[[Connection], None]) -> None:
        for connection in list(self.connections.values()):
            if not connection.closed:
                try:
                    action(connection)
                except Exception:
                    connection.crashed()

    def closed_one(self, connection: Connection) -> None:
        """A connection is gone, its descriptors too."""
        self.connections.pop(connection.number, None)
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
        )

    def crashed(self, connection: Connection) -> None:
        """A callback of ours raised: a bug, which costs this connection only."""
        self.counters.crashes += 1
        log.exception("%s: connection %d ends: internal error", self.name, connection.number)

    # Ending

    def _sweep(self) -> None:
        """End the connections that have been quiet for the timeout."""
        now = monotonic()
        for connection in self._quiet(now, self.plan.timeout):
            log.info("%s: connection %d ends: idle", self.name, connection.number)
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
        """Take those who wait in the backlog, then close the listener."""
        for timer in self._down_timers:
            timer.stop()
            timer.close()
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper.close()
            self._sweeper = None
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
        if self._alarms is not None:
            self._alarms.close()
            self._alarms = None
        return len(left)


def _names(handlers: Iterable[Picked]) -> tuple[str, ...]:
    """The names of handlers, each once; those of a preset have one in common."""
    return tuple(dict.fromkeys(one.name for one in handlers))


def _client(address: object) -> str:
    """A client's address as text; a unix socket's has none."""
    if not isinstance(address, tuple):
        return "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Bound:
    """A socket that is bound, and listens if told to; for a unix socket, its file too."""

    @classmethod
    def at(cls, local: Address) -> _Bound:
        """Bound to `local`, whose name is resolved; ListenError if that cannot be."""
        try:
            return cls(local, resolve(local, passive=True)[0])
        except OSError as error:
            raise ListenError(
                f"--local: {str(local)!r} does not resolve ({error.strerror or error});"
                " give an address of this machine"
            ) from None

    def again(self) -> _Bound:
        """Another one for the same address, when this is closed."""
        return _Bound(self.address, self._target)

    def __init__(self, local: Address, target: Target) -> None:
        self._file: tuple[int, int] | None = None
        self._path = local.path
        family, sockaddr = target
        if local.path:
            _remove_stale(local.path)
        self.sock = gsocket.socket(family, _socket.SOCK_STREAM)
        try:
            if not local.path:
                self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                # on Linux accepted sockets inherit it: one call for all of them
                self.sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            self.sock.bind(sockaddr)
        except OSError as error:
            self.sock.close()
            raise ListenError(f"--local: cannot listen on {local}: {_why(error, local)}") from None
        if local.path:
            status = os.stat(local.path)
            self._file = (status.st_dev, status.st_ino)
            self.address = local
        else:
            host, port = self.sock.getsockname()[:2]
            self.address = Address(host, port)
        self._target: Target = (family, self.sock.getsockname())

    def listen(self, backlog: int) -> None:
        """Let clients connect; ListenError if another program does so at this address."""
        try:
            self.sock.listen(backlog)
        except OSError as error:
            self.close()
            why = _why(error, self.address)
            raise ListenError(f"--local: cannot listen on {self.address}: {why}") from None

    def close(self) -> None:
        """Close, and remove the file if it is still ours."""
        self.sock.close()
        if self._file is not None:
            try:
                status = os.stat(self._path)
                if (status.st_dev, status.st_ino) == self._file:
                    os.unlink(self._path)
            except OSError:
                pass  # somebody was quicker


def _remove_stale(path: str) -> None:
    """Unlink a unix socket that nobody answers; ListenError if somebody does."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ListenError(
                f"--local: cannot listen on unix:{path}: the file exists and is no socket;"
                " choose another path"
            )
    except OSError:
        return
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    code = probe.connect_ex(path)
    probe.close()
    if code != errno.ECONNREFUSED:
        raise ListenError(
            f"--local: cannot listen on unix:{path}: another program listens there;"
            " choose another path"
        )
    os.unlink(path)


def _why(error: OSError, local: Address) -> str:
    """What the system said, and the way out."""
    ways = {
        errno.EADDRINUSE: "another program listens there; choose another port, or 0 for a free one",
        errno.EACCES: (
            "permission denied for that path; choose one that you may write"
            if local.path
            else "ports below 1024 need privileges; choose a port from 1024 on"
        ),
        errno.EADDRNOTAVAIL: "this machine has no such address; choose one that it has",
        errno.ENOENT: "its directory does not exist; make it, or choose another path",
    }
    return ways.get(error.errno or 0, str(error.strerror or error))
