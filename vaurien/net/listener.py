"""The socket that a proxy listens at: bound first, listening later, its file removed at the end.

Laws: an address that is bound is ours alone, whether we listen there or not. What cannot be had is
a `ListenError` that says why and the way out.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import stat
from typing import Any, ClassVar

import gevent
from gevent import socket as gsocket

from vaurien.address import Address
from vaurien.errors import ListenError
from vaurien.net.dial import Target, crowd, literal, resolve
from vaurien.net.forked import close_in_child
from vaurien.net.system import KEEPALIVE, stream_socket, tcp_options

#: The ports of all sockets that are bound in this process, and how many are.
PORTS: dict[int, int] = {}
RESOLVE = 5.0  # seconds that the resolution of a local name may take
#: What a system says that has no IPv6, or none whose sockets serve IPv4 too.
_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL, errno.EINVAL))
_ALL_IPV6 = "::"


def locate(local: Address, what: str) -> Target:
    """The socket address of `local`, its name resolved; ListenError, naming `what`, if it has none.

    Blocks the calling greenlet, not the loop, for `RESOLVE` seconds at most.
    """
    if local.is_everywhere:
        return _everywhere(local.port)
    found = literal(local)
    if found is not None:
        return found[0]
    silence = ": ".join(filter(None, ("no answer", crowd())))
    try:
        with gevent.Timeout(RESOLVE, TimeoutError(errno.ETIMEDOUT, silence)):
            return resolve(local, passive=True)[0]
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenError(
            f"{what}: {str(local)!r} does not resolve ({reason}); give an address of this machine",
            local,
            f"lookup {local.host}: {reason}",
        ) from None


def _everywhere(port: int) -> Target:
    """All addresses of this machine: one socket of IPv6 serves both kinds, where it has IPv6."""
    try:
        with contextlib.closing(_socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)) as probe:
            _serve_both(probe)
            probe.bind((_ALL_IPV6, 0))
    except OSError as error:
        if error.errno in _NO_IPV6:
            return _socket.AF_INET, ("0.0.0.0", port)
    return _socket.AF_INET6, (_ALL_IPV6, port, 0, 0)  # what else is wrong, its own bind will say


def _serve_both(sock: _socket.socket) -> None:
    """Have a socket of IPv6 take those of IPv4 too, whatever the system does if not asked."""
    sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, False)


class Bound:
    """A socket that is bound, and listens if told to; for a unix socket, its file too.

    Nobody else can bind its address, though it may not listen yet. `what` begins the message of a
    ListenError: the setting that says where. `keepalive` is in seconds, 0 for none.
    """

    #: The files of all that are open: one that does not listen looks as if it were stale.
    _files: ClassVar[set[tuple[int, int]]] = set()

    def __init__(
        self, local: Address, target: Target, what: str, keepalive: int = KEEPALIVE
    ) -> None:
        self._what, self._path, self._keepalive = what, local.path, keepalive
        self._file: tuple[int, int] | None = None
        self._counted = False
        family, sockaddr = target
        call = "socket"
        try:
            if local.path:
                self._remove_stale(local)
            self.sock = gsocket.socket(family, _socket.SOCK_STREAM)
            call = "bind"
            self._bind(sockaddr)
        except OSError as error:
            if call == "bind":
                self.sock.close()
            raise refused(error, local, what, call, sockaddr) from None
        if local.path:
            self.address = local
        else:
            host, port = self.sock.getsockname()[:2]
            self.address = Address(host, port)
            PORTS[port] = PORTS.get(port, 0) + 1
            self._counted = True
        self.target: Target = (family, self.sock.getsockname())
        close_in_child(self)

    def again(self) -> Bound:
        """Another one for the same address, in the place of this, which is closed."""
        self.close()
        return Bound(self.address, self.target, self._what, self._keepalive)

    def _bind(self, sockaddr: Any) -> None:
        if self._path:
            self.sock.bind(sockaddr)
            self._file = self._at_path()
            if self._file is not None:
                self._files.add(self._file)
            return
        if sockaddr[0] == _ALL_IPV6:
            _serve_both(self.sock)
        # accepted sockets inherit them: one call for all of them
        for option in tcp_options(self._keepalive):
            self.sock.setsockopt(*option)
        try:
            self.sock.bind(sockaddr)
        except OSError as error:
            # Connections of a listener that is gone are in the way, unless both have SO_REUSEADDR.
            # But two that have it, and do not listen, share an address: so only for the bind.
            if error.errno != errno.EADDRINUSE:
                raise
            self._reuse(True)
            self.sock.bind(sockaddr)
            self._reuse(False)

    def keep_alive(self, seconds: int) -> None:
        """Ask who is accepted from now on whether they are there after `seconds`; 0 is never."""
        before, self._keepalive = self._keepalive, seconds
        if seconds != before and not self._path and self.sock.fileno() >= 0:
            self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, bool(seconds))
            for option in tcp_options(seconds):
                self.sock.setsockopt(*option)

    def _reuse(self, on: bool) -> None:
        self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, on)

    def listen(self, backlog: int) -> None:
        """Let clients connect; ListenError if that cannot be, and it is closed."""
        try:
            if not self._path:
                self._reuse(True)  # which those that it accepts inherit
            self.sock.listen(backlog)
        except OSError as error:
            self.close()
            raise refused(error, self.address, self._what, "listen") from None

    @property
    def held(self) -> bool:
        """Whether the address is ours: it is not closed, and nobody has taken its file away."""
        return self.sock.fileno() >= 0 and self._at_path() == self._file

    def forked(self) -> None:
        """In a process that a handler has forked: it is not this one's, nor is its file."""
        self._file = None
        self.sock.close()

    def _at_path(self) -> tuple[int, int] | None:
        """Which file is there; None if there is none, or it is no unix socket's."""
        try:
            status = os.stat(self._path) if self._path else None
        except OSError:
            return None
        return status and (status.st_dev, status.st_ino)

    def close(self) -> None:
        """Close, and remove the file if it is still ours."""
        self.sock.close()
        if self._counted:
            self._counted = False
            port = self.address.port
            PORTS[port] -= 1
            if not PORTS[port]:
                del PORTS[port]
        if self._file is not None:
            if self._at_path() == self._file:
                with contextlib.suppress(OSError):  # another process was quicker
                    os.unlink(self._path)
            self._files.discard(self._file)
            self._file = None  # a file made later may have the same number

    def _remove_stale(self, local: Address) -> None:
        """Unlink a unix socket at which nothing listens; ListenError if something does."""
        try:
            status = os.stat(local.path)
        except OSError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise ListenError(
                f"{self._what}: cannot listen on {local}: the file exists and is no socket;"
                " choose another path",
                local,
                "bind: file exists",
            )
        if (status.st_dev, status.st_ino) not in self._files:
            with contextlib.closing(stream_socket(_socket.AF_UNIX)) as probe:
                answer = probe.connect_ex(local.path)
            if answer == errno.ECONNREFUSED:
                os.unlink(local.path)
                return
        raise ListenError(
            f"{self._what}: cannot listen on {local}: another program listens there;"
            " choose another path",
            local,
            "bind: address already in use",
        )


def refused(
    error: OSError, local: Address, what: str, call: str, sockaddr: Any = None
) -> ListenError:
    """What the system said, and the way out; `sockaddr` is where `local` has resolved to."""
    place = local
    if sockaddr is not None and local.host and not local.both:  # the others resolve to nothing
        place = Address(*sockaddr[:2])
    ways = {
        errno.EADDRINUSE: "another program listens there; choose another port, or 0 for a free one",
        errno.EACCES: (
            "permission denied for that path; choose one that you may write"
            if local.path
            else "ports below 1024 need privileges; choose a port from 1024 on"
        ),
        errno.EADDRNOTAVAIL: "this machine has no such address; choose one that it has",
        errno.EMFILE: "no descriptor is left for it; raise the limit of open files",
        errno.ENOENT: "its directory does not exist; make it, or choose another path",
    }
    reason = str(error.strerror or error)
    why = ways.get(error.errno or 0, reason)
    return ListenError(
        f"{what}: cannot listen on {local}: {why}", place, f"{call}: {reason.lower()}"
    )
