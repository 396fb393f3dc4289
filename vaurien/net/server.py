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
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import gevent
from gevent import socket as gsocket
from gevent.server import StreamServer

from vaurien.address import Address
from vaurien.behavior import DUMMY, Dice, Points
from vaurien.errors import ListenError, UsageError
from vaurien.handlers.base import CHUNK
from vaurien.net.connection import Connection
from vaurien.net.dial import Dialer, resolve
from vaurien.net.linger import LINGER
from vaurien.observe.events import Began, Event
from vaurien.options import Values
from vaurien.plan import Plan, Specification

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

    def __str__(self) -> str:
        counted = [f"{self.connections} connections"]
        counted += [f"{self.failed_dials} failed dials"] if self.failed_dials else []
        counted += [f"{self.handler_errors} errors of handlers"] if self.handler_errors else []
        counted += [f"{self.crashes} internal errors"] if self.crashes else []
        counted += [f"{self.accept_errors} errors of accept"] if self.accept_errors else []
        return ", ".join(counted)


class Picked:
    """A handler that a behavior can pick: its name, the instance, its exact points."""

    __slots__ = ("call", "harms", "name", "points")

    def __init__(self, name: str, handler: Any, points: Points) -> None:
        self.name, self.call, self.points = name, handler, points
        self.harms = 0  # in the whole proxy

    def __repr__(self) -> str:
        return f"<Picked {self.name!r}: {self.call!r}>"


class Picks:
    """The choice of one plan, made ready: a hash and a bisection for each exchange."""

    __slots__ = ("choices", "cuts", "dice", "exchanges", "limited")

    def __init__(self, plan: Plan, dice: Dice, proxy: object) -> None:
        specs = {spec.name: spec for spec in plan.handlers.values()}
        made = {
            name: Picked(name, _build(spec, proxy), spec.points) for name, spec in specs.items()
        }
        self.choices = [made[spec.name] if spec else None for spec in plan.choices]
        self.cuts, self.dice = plan.cuts, dice
        self.exchanges = 0  # begun in the whole proxy

    def pick(self, connection: Connection) -> Picked | None:
        """Who deals with the exchange that begins on `connection`; None is dummy."""
        self.exchanges += 1
        exchange = connection.framer.exchange
        picked = self.choices[self.dice.part(self.cuts, connection.number, exchange)]
        if picked is None:
            return None
        points = picked.points
        if points.per_proxy:
            if not points.allow(self.exchanges, picked.harms):
                return None
        elif points.after or points.times is not None:
            harms = connection.harms
            if harms is None:
                harms = connection.harms = {}
            done = harms.get(picked.name, 0)
            if not points.allow(exchange, done):
                return None
            harms[picked.name] = done + 1
        picked.harms += 1
        return picked


def _build(spec: Specification, proxy: object) -> Any:
    try:
        return spec.cls(Values(spec.options), proxy)
    except Exception as error:
        raise UsageError(
            f"handler {spec.name!r}: {spec.cls.__qualname__}(settings, proxy) raised"
            f" {type(error).__name__}: {error}"
        ) from error


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
    ) -> None:
        self.plan, self.name, self.observers = plan, plan.name, observers
        self.dice = Dice(plan.seed, plan.name)
        self._picks = Picks(plan, self.dice, proxy)
        #: Who picks; None while nothing can be picked and nobody looks, which costs nothing.
        self.picks: Server | Picks | None = self if observers else self._picks
        if plan.is_quiet and not observers:
            self.picks = None
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

    def listen(self) -> None:
        """Bind and listen, so that a connect succeeds from now on; ListenError if it can't be."""
        self._bound = _Bound(self.plan.local, self.plan.backlog)
        self.socket, self.family = self._bound.sock, self._bound.sock.family
        super().start()
        if not self.plan.distant.is_literal:
            self.dialer.lookup_soon(self._looked_up)
        if self.plan.timeout:
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
            connection.open()
        except Exception:
            connection.crashed()

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

    def pick(self, connection: Connection) -> Picked | None:
        """Who deals with the exchange that begins on `connection`, told to the observers."""
        picked = self._picks.pick(connection)
        if self.observers:
            name = DUMMY if picked is None else picked.name
            event = Began(self.name, connection.number, connection.framer.exchange, name)
            for observer in self.observers:
                observer(event)
        return picked

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
            connection.end()

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
        if self.started and self._watcher is not None:
            self._do_read()
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper.close()
            self._sweeper = None
        self.close()
        if self._bound is not None:
            self._bound.close()

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
                    connection.end()
            gevent.sleep(min(_LOOK, until - now))
        left = [connection for connection in self.connections.values() if not connection.closed]
        for connection in left:
            connection.end()
        until = monotonic() + LINGER + _LOOK
        while self.connections and monotonic() < until:
            gevent.sleep(_LOOK)
        return len(left)


class _Bound:
    """A listening socket and, for a unix socket, its file."""

    def __init__(self, local: Address, backlog: int) -> None:
        self._file: tuple[int, int] | None = None
        self._path = local.path
        try:
            family, sockaddr = resolve(local, passive=True)[0]
        except OSError as error:
            raise ListenError(
                f"--local: {str(local)!r} does not resolve ({error.strerror or error});"
                " give an address of this machine"
            ) from None
        if local.path:
            _remove_stale(local.path)
        self.sock = gsocket.socket(family, _socket.SOCK_STREAM)
        try:
            if not local.path:
                self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                # on Linux accepted sockets inherit it: one call for all of them
                self.sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            self.sock.bind(sockaddr)
            self.sock.listen(backlog)
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
