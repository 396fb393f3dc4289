"""The sockets that a socket handler is lent: what it does with them goes through the connection.

Each looks like a gevent socket, but reads from a flow's desk and writes through a flow, so that
there is one reader and one writer of the real one, whatever a handler does. Looking at it (its
addresses and options) asks the real one.

Laws: what a handler sends goes through the flow, after what that flow holds, and never in two
pieces with another's between. A socket is lent for one call.
"""

from __future__ import annotations

import _socket
import errno
from typing import Any

from gevent import socket as gsocket

from vaurien.behavior import Exchange
from vaurien.net.linger import ABORT
from vaurien.relay.bridge import Bridge
from vaurien.relay.call import STEPS, Call, current_call, gone, returned
from vaurien.relay.flow import Flow
from vaurien.relay.handoff import Desk


def _would_block() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "resource temporarily unavailable")


class Lending:
    """What socket handlers have of one connection: two desks, two sockets, the calls that run."""

    __slots__ = ("_connection", "_socks")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socks: tuple[HandlerSocket, HandlerSocket] | None = None

    def __repr__(self) -> str:
        return f"<Lending of connection {self._connection.number}: {len(self.calls)} calls>"

    def desk_of(self, flow: Flow) -> Desk:
        """Where they take what leaves `flow`."""
        if flow.desk is None:
            flow.desk = Desk(flow)
        return flow.desk  # type: ignore[no-any-return]

    @property
    def calls(self) -> set[Call]:
        """The calls that have a flow."""
        desks = [flow.desk for flow in self._connection.flows if flow.desk is not None]
        return {desk.owner for desk in desks if desk.owner is not None}

    def lend(self) -> tuple[HandlerSocket, HandlerSocket]:
        """The client's socket and the backend's, as calls get them."""
        if self._socks is None:
            up, down = self._connection.flows
            client = HandlerSocket(self, self.desk_of(up), down)
            self._socks = client, HandlerSocket(self, self.desk_of(down), up)
        return self._socks

    def call_over(self, call: Call) -> None:
        """`call` has given its flows back: nothing of it lasts on what it was lent."""
        last = not self.calls
        for sock in self._socks or ():
            sock.call_over(call)
            if last:
                sock.settimeout(None)

    def pass_on(self) -> None:
        """What handlers have sent by descriptor goes on, since a polite end comes."""
        for sock in self._socks or ():
            sock.pass_on()

    def close(self, flow: Flow, hard: bool) -> None:
        """A handler closes the side that `flow` reads, with a RST if it is to be `hard`."""
        self._connection.end_side(flow.to_backend, hard)

    def over(self) -> None:
        """The connection has ended."""
        for sock in self._socks or ():
            sock.forget()


class HandlerSocket(gsocket.socket):
    """The socket of one side, as a handler sees it.

    `exchange` gives the draws of the present exchange; closing it ends the connection, with a RST
    to this side if SO_LINGER is set to (1, 0).
    """

    __slots__ = ("_bridge", "_desk", "_lending", "_outgoing")

    # gevent's own, which its stubs leave out
    _closed: bool
    _io_refs: int
    _sock: _socket.socket
    timeout: float | None

    def __init__(self, lending: Lending, desk: Desk, outgoing: Flow) -> None:
        # Not gevent's, which would make watchers for a socket that is the flow's to watch.
        self._sock = desk.flow.source.sock
        self._closed, self._io_refs, self.timeout = False, 0, None
        self.hub = outgoing.connection.loop.hub
        self._lending, self._desk, self._outgoing = lending, desk, outgoing
        self._bridge: Bridge | None = None  # made when a descriptor is asked for

    @property
    def exchange(self) -> Exchange:
        """The exchange that the call deals with: its number and its draws."""
        exchange: Exchange | None = self._call().exchange
        assert exchange is not None
        return exchange

    def _call(self) -> Call:
        """The call that the running greenlet works for; OSError if it or the connection is over."""
        if self._closed or self._outgoing.connection.closed:
            raise gone()
        call = current_call(self._outgoing)
        call.steps += 1
        if not call.steps & (STEPS - 1) and call.look():
            return self._call()
        return call

    # Reading

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """At most `bufsize` bytes; b'' at the end of this side, a reset included."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        call = self._call()
        call.claim(self._desk, self.timeout)
        if self._bridge is not None:
            return self._bridge.recv(bufsize, flags, self.timeout)
        if not bufsize:
            return b""
        data = self._wait_for_data(call, bufsize)
        taken = bytes(data[:bufsize])
        if not flags & _socket.MSG_PEEK and taken:
            self._desk.pending = data[bufsize:]
        return taken

    def _wait_for_data(self, call: Call, bufsize: int) -> memoryview:
        """What waits at the desk, once there is some; empty at the end."""
        desk = self._desk
        while True:
            data = desk.take(bufsize)
            if data or desk.flow.ended:
                return data
            if self.timeout == 0.0:
                raise _would_block()
            if not desk.wait(self.timeout):
                raise TimeoutError("timed out")
            if self._outgoing.connection.closed:
                raise gone()
            if call.over:
                raise returned()

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        with memoryview(buffer).cast("B") as view:
            if nbytes > len(view):  # as the system's does, before anything is read
                raise ValueError("buffer too small for requested bytes")
            data = self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[Any], int, Any]:
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(
        self, buffers: Any, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[int, list[Any], int, Any]:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        data = self.recv(sum(map(len, views)), flags)
        start = 0
        for view in views:
            part = data[start : start + len(view)]
            view[: len(part)] = part
            start += len(part)
        return len(data), [], 0, None

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        self._call().claim(self._desk, self.timeout)
        return super().makefile(*args, **kwargs)

    # Descriptors

    def fileno(self) -> int:
        """A descriptor to read and write this side by, for those who take no less; -1 once closed.

        It claims the side. It is one end of a pair of sockets, whose other end is served for as
        long as the call runs; what is left in it then is not lost.
        """
        if self._closed or self._outgoing.connection.closed:
            return -1
        return self._bridged().fileno()

    def detach(self) -> int:
        """The descriptor of `fileno`, which is the caller's to close; good while the call runs."""
        return self._bridged().detach()

    def _bridged(self) -> Bridge:
        call = self._call()
        call.claim(self._desk, self.timeout)
        if self._bridge is None:
            bridge = self._bridge = Bridge(call, self._desk, self._outgoing)
            bridge.fill()
            return bridge
        return self._bridge

    def call_over(self, call: Call) -> None:
        """A call has returned: no timeout of it lasts, nor a bridge."""
        if self._bridge is not None and self._bridge.call is call:
            self._bridge.take_down()
            self._bridge = None

    # Writing

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of `data`, after all that was sent before to this side; flags do not count."""
        flow = self._outgoing
        with memoryview(data).cast("B") as view:
            call = self._call()
            call.sent = True
            desk = self._wait_turn(call)
            if not view or (flow.finished and not flow.over):
                return  # a flow handler has ended the flow
            flow.write(view)
            if flow.sink.held is None:
                return
            try:
                self._wait_empty(call)
            except BaseException:  # a timeout or a kill: the memory is the caller's again
                flow.sink.keep()
                raise
            assert desk is not None

    def send(self, data: Any, flags: int = 0) -> int:
        """As `sendall`, unless the socket does not block: then as much as fits now."""
        with memoryview(data).cast("B") as view:
            if self.timeout != 0.0:
                self.sendall(view, flags)
                return len(view)
            call, flow = self._call(), self._outgoing
            call.sent = True
            desk = self._lending.desk_of(flow)
            if not desk.busy_for(call):
                self.pass_on()
            if desk.busy_for(call):
                raise _would_block()
            sent = int(flow.send(view))
            flow.astray += sent
            return sent

    def sendto(self, data: Any, *args: Any) -> int:
        return self.send(data)

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        return self.send(b"".join(bytes(buffer) for buffer in buffers), flags)

    def _wait_empty(self, call: Call) -> Desk:
        """Wait until the flow holds nothing; raise if it can take nothing any more."""
        flow = self._outgoing
        desk: Desk = self._lending.desk_of(flow)
        while desk.busy_for(call):
            if not desk.wait_empty(self.timeout):
                raise TimeoutError("timed out")
            self._call()
        if flow.finished and flow.over:
            raise BrokenPipeError(errno.EPIPE, "this side takes nothing any more")
        return desk

    def _wait_turn(self, call: Call) -> Desk:
        """Wait until what is sent now comes next: what was sent by descriptor has gone on, too."""
        if self._bridge is not None:
            self._wait_empty(call)
            self.pass_on()
        return self._wait_empty(call)

    def pass_on(self) -> None:
        """Pass on what was sent by descriptor."""
        if self._bridge is not None:
            self._bridge.pass_on()

    # Ending

    def shutdown(self, how: int) -> None:
        """Half-close; the end of reading only means that nothing more is read."""
        call = self._call()
        call.sent = True
        if how in (_socket.SHUT_WR, _socket.SHUT_RDWR):
            flow = self._outgoing
            if not flow.finished:
                self._wait_turn(call)
                flow.finish()
                flow.pause()
        if how in (_socket.SHUT_RD, _socket.SHUT_RDWR):
            self._call()  # the half-close may have ended the connection
            call.claim(self._desk, self.timeout)
            self._desk.shut()

    def close(self) -> None:
        """End the connection: politely, or with a RST to this side if SO_LINGER says so."""
        connection = self._outgoing.connection
        if self._closed or connection.closed:
            return
        linger = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, len(ABORT))
        self._lending.close(self._desk.flow, linger == ABORT)

    def forget(self) -> None:
        """The connection has ended."""
        self._closed = True
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
