"""Connecting to the backend.

Law: nothing here blocks the loop. A connect is non-blocking with a watcher; only resolving a name
needs a thread, and it happens off the loop, once for all who wait for it. A name whose lookup hangs
holds up those who wait for it, and no others. A dial that knows an address does not wait for a
younger one.
"""

from __future__ import annotations

import _socket
import errno
import logging
import os
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

import gevent
from gevent import socket as gsocket
from gevent.hub import get_hub

from vaurien.address import Address
from vaurien.errors import RAISED
from vaurien.net.guard import each, guarded
from vaurien.net.system import KEEPALIVE, SocketOption, stream_socket, tcp_options

log = logging.getLogger("vaurien")

#: What the system says when it has no descriptor or memory left for another socket.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
RETRY = 0.05  # seconds until a dial tries again that found no descriptor, or a full unix backlog
#: Lookups at a time: a thread each, made when needed. With gevent's own limit, ten that hang would
#: hold up all others. Those beyond that wait, and their dials give up when they take too long.
LOOKUPS = 100
_WAITING = frozenset((errno.EINPROGRESS, errno.EALREADY))

#: (family, sockaddr)
Target = tuple[int, Any]
#: Called once, with the connected socket or what went wrong.
Done = Callable[["_socket.socket | None", "OSError | None"], None]


def resolve(address: Address, *, passive: bool = False) -> list[Target]:
    """All socket addresses of `address`; OSError if there are none.

    If `passive`, to listen there, those of IPv4 come first.

    Blocks the calling greenlet, not the loop.
    """
    if address.path:
        return [(_socket.AF_UNIX, address.path)]
    flags = _socket.AI_PASSIVE if passive else 0
    try:
        pool = get_hub().threadpool
        if pool.maxsize < LOOKUPS:
            pool.maxsize = LOOKUPS
        found = gsocket.getaddrinfo(
            address.host or None, address.port, 0, _socket.SOCK_STREAM, _socket.IPPROTO_TCP, flags
        )
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"no host name: {error}") from error
    except RuntimeError as error:  # no thread can be started
        raise OSError(errno.EAGAIN, str(error)) from error
    targets: list[Target] = list(dict.fromkeys((int(entry[0]), entry[4]) for entry in found))
    if passive:
        targets.sort(key=lambda target: target[0] != _socket.AF_INET)
    return targets


def crowd() -> str:
    """Who is before one that wants to look up a name now; nothing if it need not wait."""
    full = len(get_hub().threadpool) >= LOOKUPS
    return f"{LOOKUPS} names are being looked up" if full else ""


def literal(address: Address) -> list[Target] | None:
    """The socket address of one that needs no resolution, None for a name."""
    if not address.is_literal:
        return None
    if address.path:
        return [(_socket.AF_UNIX, address.path)]
    if ":" in address.host:
        return [(_socket.AF_INET6, (address.host, address.port, 0, 0))]
    return [(_socket.AF_INET, (address.host, address.port))]


class Dialer:
    """Dials one backend, with `timeout` in seconds; it knows its addresses, the last good first.

    Addresses of a name that are older than `ttl` seconds are looked up again at the next dial.
    A backend that is silent for `keepalive` seconds is asked whether it is there; 0 is never.
    """

    def __init__(
        self, address: Address, timeout: float, ttl: float = 5.0, keepalive: int = KEEPALIVE
    ) -> None:
        self.address = address
        self.limit(timeout, ttl, keepalive)
        self.loop = get_hub().loop
        self.targets: tuple[Target, ...] = tuple(literal(address) or ())
        self._looked = -inf  # when, in seconds of the monotonic clock
        self._good: Target | None = None  # the last one that answered
        self._lost = False  # it resolved once, and does not now
        self._crowd = ""  # who was before the last lookup
        self._waiting: list[Callable[[OSError | None], None]] = []

    def __repr__(self) -> str:
        return f"<Dialer of {self.address}, {len(self.targets)} addresses>"

    def limit(self, timeout: float, ttl: float, keepalive: int) -> None:
        """Have dials that begin from now on keep to these, in seconds; `keepalive` 0 is never."""
        self.timeout, self.ttl = timeout, ttl
        options = () if self.address.path else tcp_options(keepalive)
        self.options: tuple[SocketOption, ...] = options

    def lookup(self) -> OSError | None:
        """Resolve the name now, if it is one, and say what went wrong."""
        self._crowd = crowd()
        try:
            found = tuple(literal(self.address) or resolve(self.address))
        except OSError as error:
            return error
        finally:
            self._looked = monotonic()
        # the last good one stays first: others of the name may be slow to refuse, or never do
        good = self._good if self._good in found else None
        self.targets = found if good is None else _first(good, found)
        return None

    def lookup_soon(self, done: Callable[[OSError | None], None]) -> None:
        """Resolve off the loop; all who ask meanwhile share one resolution."""
        self._waiting.append(done)
        if len(self._waiting) == 1:
            gevent.spawn(self._look_up)

    @property
    def holdup(self) -> str:
        """Why a lookup that has begun is not over."""
        if self._crowd:
            return f"{self._crowd}, and its own waits until one of them is done"
        return "its name is still being looked up"

    @property
    def is_old(self) -> bool:
        """Whether what is known of the name is to be looked up again."""
        return monotonic() - self._looked >= self.ttl

    def renew(self) -> None:
        """Have the name looked up in the background, for who dials next."""
        if not self._waiting:
            self.lookup_soon(self._renewed)

    def _renewed(self, error: OSError | None) -> None:
        if error is not None and not self._lost:
            log.warning(
                "backend %s does not resolve any more (%s); its last addresses are used, and it is"
                " looked up again",
                self.address,
                error.strerror or error,
            )
        self._lost = error is not None

    def _look_up(self) -> None:
        # Whatever happens, those who wait are told, and the list is empty: who asks next looks at
        # it to see whether a lookup is under way.
        try:
            error = self.lookup()
        except RAISED:
            log.exception("looking up %s: internal error", self.address)
            error = OSError(errno.EIO, "internal error")
        waiting, self._waiting = self._waiting, []
        each(waiting, error, f"{self.address} was looked up")

    def worked(self, target: Target) -> None:
        """Put `target` first, for the next to begin with it."""
        self._good = target
        if target in self.targets and target != self.targets[0]:
            self.targets = _first(target, self.targets)


def _first(target: Target, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """`targets`, with `target` before the others."""
    return (target, *(other for other in targets if other != target))


class Dial:
    """One attempt to reach the backend, over each of its addresses in turn.

    If all fail and the backend was given by name, the name is resolved again, and what is new is
    tried too. With a ttl of 0 it is resolved before any is tried.
    """

    __slots__ = (
        "_done",
        "_fresh",
        "_left",
        "_sock",
        "_timer",
        "_tried",
        "_watcher",
        "dialer",
        "error",
    )

    def __init__(self, dialer: Dialer, done: Done) -> None:
        self.dialer = dialer
        self.error: OSError | None = None
        self._done: Done | None = done
        self._tried = self._left = dialer.targets
        self._fresh = dialer.address.is_literal  # nothing newer can be had
        self._sock: _socket.socket | None = None
        self._watcher: Any = None
        self._timer: Any = None

    def start(self) -> None:
        """Begin; `done` may be called before it returns."""
        dialer = self.dialer
        if not self._fresh and self._left and dialer.is_old:
            if not dialer.ttl:
                self._tried = self._left = ()
                return self._look_up()
            dialer.renew()
        self._next() if self._left else self._look_up()
        return None

    def cancel(self) -> None:
        """Give up; `done` is not called."""
        self._done = None
        self._tidy()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours, which costs this dial only."""
        log.exception("dialling %s: internal error", self.dialer.address)
        self.error = OSError(errno.EIO, "internal error")
        self._failed()

    def _next(self) -> None:
        """Try the next address; when there is none left, resolve again or fail."""
        while self._left:
            family, sockaddr = self._left[0]
            try:
                sock = stream_socket(family)
            except OSError as error:
                self.error = error
                if error.errno in EXHAUSTED:
                    return self._retry_later()
                self._left = self._left[1:]
                continue
            try:
                for option in self.dialer.options:
                    sock.setsockopt(*option)
                code = sock.connect_ex(sockaddr)
                if code == errno.EINPROGRESS:
                    # On this host's own addresses the handshake is over when connect returns, and
                    # asking again says so: it spares a turn of the loop.
                    code = sock.connect_ex(sockaddr)
            except OSError as error:
                sock.close()
                self.error = error
                self._left = self._left[1:]
                continue
            if code in (0, errno.EISCONN):
                return self._connected(sock)
            if code in _WAITING:
                return self._wait(sock)
            sock.close()
            self.error = OSError(code, os.strerror(code))
            if code == errno.EAGAIN:  # the backlog of a unix socket is full
                return self._retry_later()
            self._left = self._left[1:]
        if self._fresh:
            self._failed()
        else:
            self._look_up()
        return None

    def _wait(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._watcher = self.dialer.loop.io(sock.fileno(), 2)
        self._watcher.start(self._writable)
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.dialer.loop.timer(self.dialer.timeout)
            self._timer.start(self._timed_out)

    @guarded
    def _writable(self) -> None:
        sock = self._sock
        assert sock is not None
        self._tidy()
        self._sock = None
        code = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if not code:
            return self._connected(sock)
        sock.close()
        self.error = OSError(code, os.strerror(code))
        self._left = self._left[1:]
        return self._next()

    @guarded
    def _timed_out(self) -> None:
        """This address, or the resolution, took too long."""
        waited = self._sock is not None
        self._tidy()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        exhausted = self.error is not None and self.error.errno in (*EXHAUSTED, errno.EAGAIN)
        if waited or not exhausted:
            why = "" if waited else f": {self.dialer.holdup}"
            self.error = TimeoutError(
                errno.ETIMEDOUT, f"no connection within {self.dialer.timeout:g} s{why}"
            )
        if waited:
            self._left = self._left[1:]
            return self._next()
        return self._failed()

    def _retry_later(self) -> None:
        self._start_timer()
        self._watcher = self.dialer.loop.timer(RETRY)
        self._watcher.start(self._retry)

    @guarded
    def _retry(self) -> None:
        self._watcher.close()
        self._watcher = None
        self._next()

    def _look_up(self) -> None:
        self._fresh = True
        self._start_timer()
        self.dialer.lookup_soon(self._looked_up)

    @guarded
    def _looked_up(self, error: OSError | None) -> None:
        if self._done is None:  # cancelled, or out of time
            return
        self._tidy()
        if error is not None:
            self.error = error
        if error is None or not self._tried:
            self._left = tuple(t for t in self.dialer.targets if t not in self._tried)
        self._next() if self._left else self._failed()

    def _tidy(self) -> None:
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watcher = self._timer = None

    def _connected(self, sock: _socket.socket) -> None:
        self._tidy()
        self.dialer.worked(self._left[0])
        self._finish(sock, None)

    def _failed(self) -> None:
        self._tidy()
        self._finish(None, self.error)

    def _finish(self, sock: _socket.socket | None, error: OSError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(sock, error)
        elif sock is not None:
            sock.close()
