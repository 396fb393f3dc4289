"""A bridge: a descriptor for a socket handler that needs one, such as for select or for TLS.

Law: the real socket is nobody's but its side's. So who asks for a descriptor gets one end of a pair
of sockets, made then; two greenlets carry what comes and goes between its other end and the
connection, as the handler itself would. When the call returns, what is left in the pair goes back
to where it would have been without it.
"""

from __future__ import annotations

import _socket
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
        self._near.settimeout(timeout)
        return bytes(self._near.recv(size, flags))

    def settle(self, timeout: float | None) -> None:
        """Wait until what was sent by descriptor has gone on, for `timeout` seconds at most."""
        while self._pull():
            pass

    @guarded
    def _carry_in(self) -> None:
        """From the connection to the handler's end."""
        desk, flow = self._desk, self._desk.flow
        while True:
            data = desk.take(_CHUNK)
            if data:
                desk.pending, self._rest = data[:0], data
                try:
                    while self._rest:
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
        """From the handler's end to the connection."""
        flow = self._outgoing
        desk = flow.connection.desk_of(flow)
        while data := self._receive():
            self.call.sent = True
            flow.write(data)
            while flow.sink.held is not None:
                desk.wait_empty(None)
        if not flow.finished and not flow.connection.closed:
            flow.finish()
            flow.pause()

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this connection, and no other."""
        self._outgoing.connection.crashed()

    def _receive(self) -> bytes:
        try:
            return bytes(self._far.recv(_CHUNK))
        except ConnectionError:  # its end was closed with something unread
            return b""

    def _pull(self) -> bool:
        """Carry out at once what was sent by descriptor; whether there was any."""
        timeout = self._far.gettimeout()
        self._far.settimeout(0)
        try:
            data = self._far.recv(_CHUNK)
        except OSError:
            return False
        finally:
            self._far.settimeout(timeout)
        if data:
            self._outgoing.write(data)
        return bool(data)

    def take_down(self) -> None:
        """The call has returned: give back what the handler has not read, send what it has sent."""
        while self._pull():
            pass
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
        for greenlet in self._greenlets:
            if greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)
        for sock in (self._near, self._far):
            if sock is not None:
                sock.close()
