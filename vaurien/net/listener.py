"""The socket that a proxy listens at: bound first, listening later, its file removed at the end.

Law: what cannot be had is a `ListenError` that says why and the way out.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

import gevent
from gevent import socket as gsocket

from vaurien.address import Address
from vaurien.errors import ListenError
from vaurien.net.dial import Target, literal, resolve

RESOLVE = 5.0  # seconds that the resolution of a local name may take


def locate(local: Address) -> Target:
    """The socket address of `local`, its name resolved; ListenError if it has none.

    Blocks the calling greenlet, not the loop, for `RESOLVE` seconds at most.
    """
    found = literal(local)
    if found is not None:
        return found[0]
    try:
        with gevent.Timeout(RESOLVE, TimeoutError(errno.ETIMEDOUT, "no answer")):
            return resolve(local, passive=True)[0]
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenError(
            f"--local: {str(local)!r} does not resolve ({reason}); give an address of this machine",
            local,
            f"lookup {local.host}: {reason}",
        ) from None


class Bound:
    """A socket that is bound, and listens if told to; for a unix socket, its file too.

    `what` begins the message of a ListenError: the setting, or whose address it is.
    """

    def again(self) -> Bound:
        """Another one for the same address, when this is closed."""
        return Bound(self.address, self.target, self._what)

    def __init__(self, local: Address, target: Target, what: str = "--local") -> None:
        self._what = what
        self._file: tuple[int, int] | None = None
        self._path = local.path
        family, sockaddr = target
        try:
            if local.path:
                _remove_stale(local, what)
            self.sock = gsocket.socket(family, _socket.SOCK_STREAM)
        except OSError as error:  # no descriptor left, or no such family
            raise _refused(error, local, what, "socket") from None
        try:
            if not local.path:
                self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                # on Linux accepted sockets inherit it: one call for all of them
                self.sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            self.sock.bind(sockaddr)
        except OSError as error:
            self.sock.close()
            raise _refused(error, local, what, "bind") from None
        if local.path:
            status = os.stat(local.path)
            self._file = (status.st_dev, status.st_ino)
            self.address = local
        else:
            host, port = self.sock.getsockname()[:2]
            self.address = Address(host, port)
        self.target: Target = (family, self.sock.getsockname())

    def listen(self, backlog: int) -> None:
        """Let clients connect; ListenError if another program does so at this address."""
        try:
            self.sock.listen(backlog)
        except OSError as error:
            self.close()
            raise _refused(error, self.address, self._what, "listen") from None

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
            self._file = None  # a file made later may have the same number


def _remove_stale(local: Address, what: str) -> None:
    """Unlink a unix socket that nobody answers; ListenError if somebody does, OSError as it is."""
    try:
        if not stat.S_ISSOCK(os.stat(local.path).st_mode):
            raise ListenError(
                f"{what}: cannot listen on {local}: the file exists and is no socket;"
                " choose another path",
                local,
                "bind: file exists",
            )
    except OSError:
        return
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    code = probe.connect_ex(local.path)
    probe.close()
    if code != errno.ECONNREFUSED:
        raise ListenError(
            f"{what}: cannot listen on {local}: another program listens there; choose another path",
            local,
            "bind: address already in use",
        )
    os.unlink(local.path)


def _refused(error: OSError, local: Address, what: str, call: str) -> ListenError:
    """What the system said, and the way out."""
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
        f"{what}: cannot listen on {local}: {why}", local, f"{call}: {reason.lower()}"
    )
