"""A bridge: a descriptor for a socket handler that needs one, such as for select or for TLS.

Law: the real socket is nobody's but its side's. So who asks for a descriptor gets one end of a pair
of sockets, made then; two greenlets carry what comes and goes between its other end and the
connection, as the handler itself would. When the call returns, what is left in the pair goes back
to where it would have been without it.
"""

from __future__ import annotations

import _socket
import errno
from typing import Any

import gevent
from gevent import socket as gsocket

from vaurien.net.guard import guarded
from vaurien.relay.flow import Flow

_CHUNK = 65536  # bytes carried at a time


class Bridge:
    """A pair of sockets before one side; `call` is who it was made for."""

    def __init__(self, call: Any, desk: Any, outgoing: Flow) -> None:
        self.call = call
        self._desk, self._outgoing = desk, outgoing
        near, far = gsocket.socketpair()
        self._near: Any = near  # the handler's end; None once it is detached
        self._far: Any = far
        self._rest = memoryview(b"")  # read for the handler, and not in the pair yet
        self._going = b""  # sent by the handler, and not passed on yet
        self._over = False
        self._greenlets = [gevent.spawn(self._carry_in), gevent.spawn(self._carry_out)]

    def __repr__(self) -> str:
        return f"<Bridge of {self.call!r}>"

    def fileno(self) -> int:
        """The handler's end; -1 once it is detached."""
        return int(self._near.fileno()) if self._near is not None else -1

    def detach(self) -> int:
        """The handler's end, which is its own to close from now on."""
        near, self._near = self._near, None
        return int(near.detach()) if near is not None else -1

    def recv(self, size: int, flags: int, timeout: float | None) -> bytes:
        """Read from the handler's end; `timeout` is in seconds."""
        if self._near is None:
            raise OSError(errno.EBADF, "the descriptor was detached")
        self._near.settimeout(timeout)
        return bytes(self._near.recv(size, flags))

    def fill(self) -> None:
        """Have in the pair what waits already, for who only looks whether there is something."""
        self._take()
        if self._rest:  # a new pair has room: this does not wait
            self._rest = self._rest[self._far.send(self._rest) :]

    def pass_on(self) -> None:
        """Pass on at once what was sent by descriptor."""
        self._pass_on()
        while data := self._pull():
            self._going = data
            self._pass_on()

    def _take(self) -> None:
        data = self._desk.take(_CHUNK)
        self._desk.pending, self._rest = data[:0], data

    @guarded
    def _carry_in(self) -> None:
        """From the connection to the handler's end."""
        desk, flow = self._desk, self._desk.flow
        # Who waits is woken before it is killed: once the call is over, nothing here is ours.
        while not self._over:
            if not self._rest:
                self._take()
            if self._rest:
                try:
                    self._rest = self._rest[self._far.send(self._rest) :]
                except OSError:  # the handler has closed its end: nobody reads any more
                    return
            elif flow.ended:
                self._far.shutdown(_socket.SHUT_WR)
                return
            else:
                desk.wait(None)

    @guarded
    def _carry_out(self) -> None:
        """From the handler's end to the connection, behind what is on its way there."""
        flow = self._outgoing
        desk = flow.connection.desk_of(flow)
        while True:
            data = self._going = self._receive()
            while not self._over and desk.busy_for(self.call):
                desk.wait_empty(None)
            if self._over:
                return
            if not data:
                break
            self._pass_on()
        if not flow.finished and not flow.connection.closed:
            flow.finish()
            flow.pause()

    def _pass_on(self) -> None:
        data, self._going = self._going, b""
        if data:
            self.call.sent = True
            if not self._outgoing.finished:  # else a flow handler has ended it, or shutdown()
                self._outgoing.write(data)

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this connection, and no other."""
        self._outgoing.connection.crashed()

    def _receive(self) -> bytes:
        try:
            return bytes(self._far.recv(_CHUNK))
        except OSError:  # its end was closed with something unread, or all is over
            return b""

    def _pull(self) -> bytes:
        """What was sent by descriptor and is there now."""
        timeout = self._far.gettimeout()
        self._far.settimeout(0)
        try:
            return bytes(self._far.recv(_CHUNK))
        except OSError:
            return b""
        finally:
            self._far.settimeout(timeout)

    def take_down(self) -> None:
        """The call has returned: give back what the handler has not read, send what it has sent."""
        self.pass_on()
        left = [bytes(self._rest), bytes(self._desk.pending)]
        if self._near is not None:
            self._near.settimeout(0)
            unread = []
            try:
                while data := self._near.recv(_CHUNK):
                    unread.append(data)
            except OSError:
                pass
            left[:0] = unread
        self._desk.pending = memoryview(b"".join(left))
        self.close()

    def close(self) -> None:
        """Take it away, with what is in it."""
        self._over = True
        for greenlet in self._greenlets:
            if greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)
        for sock in (self._near, self._far):
            if sock is not None:
                sock.close()
