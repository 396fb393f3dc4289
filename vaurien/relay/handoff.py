"""Hand-off: lending a connection's two sockets to a socket handler.

Laws: the bytes that woke a call are its first `recv`. A call owns the reading of the side that woke
it; the other flow goes on until the call reads that side too, which claims it for the rest of the
call. If a running call owns it, the claim waits; a claim that would wait in a circle raises. What a
handler sends goes through the flow, after what that flow holds. The end of a side is handed over
once, as b''; then we half-close.
"""

from __future__ import annotations

import _socket
import errno
import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent import Greenlet, getcurrent
from gevent import socket as gsocket
from gevent.event import Event
from gevent.hub import get_hub

from vaurien.behavior import Exchange
from vaurien.errors import RAISED, HandlerDeadlock
from vaurien.net.linger import ABORT, close, reset

log = logging.getLogger("vaurien")

if TYPE_CHECKING:
    from vaurien.relay.connection import Connection, Flow


#: Seconds until a handler is called again that returned without reading what is there.
UNREAD = 0.01

_CALL = "vaurien.call"
_NOTHING = memoryview(b"")


def hand_off(flow: Flow, data: bytes) -> None:
    """Call the handler of `flow` in a greenlet, with `data` as its first recv."""
    flow.stop_reading()
    flow.astray -= len(data)
    connection = flow.connection
    if connection.client_sock is None:
        _lend(connection)
    source = _source(flow)
    source.pending = memoryview(bytes(source.pending) + data if source.pending else data)
    Call(flow).start()


def _lend(connection: Connection) -> None:
    """Make the two gevent sockets, by moving the descriptors."""
    up, down = connection.up, connection.down
    assert up is not None and down is not None and connection.backend is not None
    client = HandlerSocket(connection.client, up, down)
    backend = HandlerSocket(connection.backend, down, up)
    connection.client_sock, connection.backend_sock = client, backend
    connection.client, connection.backend = client._sock, backend._sock
    up.rebind(client._sock, backend._sock)
    down.rebind(backend._sock, client._sock)


def report_exceptions() -> None:
    """Log what greenlets raise that nobody waits for, such as those that a handler spawns.

    The hub's own way is to print it to standard error, which may block, and to let a SystemExit end
    the process.
    """
    hub = get_hub()
    hub.print_exception = _report  # type: ignore[assignment, method-assign]
    hub.NOT_ERROR = tuple(kind for kind in hub.NOT_ERROR if kind is not SystemExit)
    hub.SYSTEM_ERROR = (KeyboardInterrupt,)


def _report(
    context: object, kind: type[BaseException], value: BaseException, _traceback: object
) -> None:
    if isinstance(context, tuple):  # a thread of the pool and what it ran: who asked gets it too
        return
    call = (getattr(context, "spawn_tree_locals", None) or {}).get(_CALL)
    if call is not None:
        gone = call.connection.closed and isinstance(value, OSError)
        if gone or (call.connection.broken and isinstance(value, ConnectionError)):
            return  # it found the sockets gone, or reset, as it should
        call.reported = value
    log.error("%r raised %s", context, kind.__name__, exc_info=value)


def _current_call(flow: Flow) -> Call:
    """The call that the running greenlet works for; OSError if none runs on this connection."""
    greenlet = getcurrent()
    if isinstance(greenlet, Call):
        candidates: tuple[Call | None, ...] = (greenlet,)
    else:
        # It was spawned by a call; or it is a worker made elsewhere that serves one which runs now.
        spawner = (getattr(greenlet, "spawn_tree_locals", None) or {}).get(_CALL)
        candidates = (spawner, flow.owner, flow.peer.owner)
    for call in candidates:
        if call is not None and call.begun and not call.over and call.connection is flow.connection:
            return call
    raise OSError(
        errno.EBADF, "no call of the handler runs on this connection: sockets are lent for one call"
    )


def _returned() -> OSError:
    return OSError(errno.EBADF, "the call of the handler has returned: its sockets went with it")


def _source(flow: Flow) -> HandlerSocket:
    connection = flow.connection
    sock = connection.client_sock if flow.to_backend else connection.backend_sock
    assert sock is not None
    return sock


class Call(Greenlet):  # type: ignore[type-arg]
    """One call of a handler, and the flows whose sources it owns."""

    spawning_stack_limit = 0  # where it was made is always the same: spare the looking

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow, self.connection, self.handler = flow, flow.connection, flow.handler
        self.exchange = flow.exchange
        self.since = monotonic()
        self.owned = [flow]
        self.begun = self.over = self.raised = False
        self.wants: Flow | None = None  # the flow it waits for
        self.granted: Event | None = None  # set when it may have it
        self.read = self.sent = False  # whether it has done so with anything
        self.dismissed = False  # its handler has left the behavior
        self.reported: BaseException | None = None  # raised in a greenlet of its, logged already
        flow.owner = self
        # Greenlets that the handler spawns inherit this.
        self.spawn_tree_locals = {_CALL: self}

    def __repr__(self) -> str:
        name = self.handler.name if self.handler is not None else None
        state = "over" if self.over else "running" if self.begun else "waiting"
        return f"<Call of {name!r}, {state}, by {self.flow!r}>"

    def _run(self) -> None:
        connection = self.connection
        if self.over or connection.closed:
            return
        self.begun = True
        result: object = False
        try:
            result = self.handler.call(  # type: ignore[union-attr]
                connection.client_sock, connection.backend_sock, self.flow.to_backend
            )
        except BaseException as error:  # an exception of any kind ends this connection only
            if not connection.closed and not self.dismissed:
                if connection.broken and isinstance(error, ConnectionError):
                    result = None  # a reset is nobody's fault; what is to follow is arranged
                else:
                    logged = error is self.reported
                    connection.server.handler_raised(connection, self.handler, error, logged)
                    self.raised = True
        finally:
            self.over = True
            if self.granted is not None:
                self.granted.set()  # a greenlet of its that still waits for a claim
        if self.dismissed:
            return
        try:
            self._returned(result)
        except RAISED:
            connection.crashed()

    def _returned(self, result: object) -> None:
        connection = self.connection
        if connection.closed:
            return
        self.count()
        if result is False:
            if connection.broken:
                connection.reset()
            else:
                connection.end("error" if self.raised else "handler")
            return
        self._give_up()

    def _give_up(self) -> None:
        """What it owned is the pump's again, or another call's."""
        connection = self.connection
        for flow in self.owned:
            flow.owner = None
            _source(flow).stop_waiting()
        if self.flow.owner is None and self.flow.peer.owner is None:
            for sock in (connection.client_sock, connection.backend_sock):
                sock.settimeout(None)  # type: ignore[union-attr]
        for flow in self.owned:
            if not connection.closed:
                _go_on(flow, self.read)
        connection.done()

    def dismiss(self) -> bool:
        """Its handler has left the behavior: end it without waiting, as if it had not been called.

        False if it has read or sent, since nobody else knows then what is still to be passed on.
        """
        if self.read or self.sent or self is getcurrent():
            return False
        self.over = self.dismissed = True
        self.count()
        self.kill(block=False)
        if self.wants is not None and self.wants.waiter is self:
            self.wants.waiter = None
        self._give_up()
        return True

    def count(self) -> None:
        """Its handler did something to the exchange, and took this long."""
        if self.begun and self.exchange is not None:
            added, seconds = self.exchange.added, monotonic() - self.since
            added[self.handler] = max(added.get(self.handler, 0.0), seconds)

    def cancel(self) -> None:
        """End it, without waiting for that; called when its connection has ended."""
        self.over = True
        if self is not getcurrent():
            self.kill(block=False)

    def owns(self, flow: Flow) -> None:
        """Read the source of `flow` from now on."""
        flow.owner = self
        flow.stop_reading()
        self.owned.append(flow)


def _go_on(flow: Flow, read: bool) -> None:
    """A call that owned `flow` has returned: what is next for it?"""
    waiter, flow.waiter = flow.waiter, None
    if waiter is not None and not waiter.over:
        waiter.owns(flow)
        if waiter.granted is not None:
            waiter.granted.set()
        return
    source = _source(flow)
    flow.engage()
    if flow.finished:  # nobody takes what is left
        source.pending = _NOTHING
    if not source.pending:
        if flow.ended:
            flow.finish()
        else:
            flow.resume()
            flow.deliver()
    elif flow.handler is None:  # left unread, and the exchange now is another's
        data, source.pending = source.pending, _NOTHING
        if flow.held is not None:
            flow.held = memoryview(bytes(flow.held) + data)
            flow.astray += len(data)
        else:
            flow.write(data)
        if flow.held is None:
            flow.finish() if flow.ended else flow.resume()
        flow.deliver()
    else:
        Call(flow).start() if read else Call(flow).start_later(UNREAD)


class HandlerSocket(gsocket.socket):
    """The socket of one side, as a handler sees it: a gevent socket whose reading and writing keep
    the connection's laws.

    `exchange` gives the draws of the present exchange; closing it ends the connection, with a RST
    to this side if SO_LINGER is set to (1, 0).
    """

    __slots__ = ("_incoming", "_outgoing", "pending")

    # gevent's own, which its stubs leave out
    _closed: bool
    _read_event: Any
    _sock: _socket.socket

    def __init__(self, raw: _socket.socket, incoming: Flow, outgoing: Flow) -> None:
        family, kind, proto = raw.family, raw.type, raw.proto
        super().__init__(family, kind, proto, raw.detach())
        self.settimeout(None)
        self._incoming, self._outgoing = incoming, outgoing
        self.pending = _NOTHING  # read by the pump, not yet by the handler

    @property
    def exchange(self) -> Exchange:
        """The exchange that the call deals with: its number and its draws."""
        exchange = self._call().exchange
        assert exchange is not None
        return exchange

    # Reading

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """At most `bufsize` bytes; b'' at the end of this side, a reset included."""
        flow = self._claim()
        if flow.chained and not self.pending and not flow.ended:
            self._wait_for_chain(flow)
        if self.pending and bufsize:
            data = bytes(self.pending[:bufsize])
            if not flags & _socket.MSG_PEEK:
                self.pending = self.pending[bufsize:] or _NOTHING  # an empty view keeps its bytes
            return data
        if flow.ended or flow.chained:
            return b""
        try:
            data = super().recv(bufsize, flags)
        except (ConnectionError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise  # the handler's own settimeout
            flow.connection.broken = True
            flow.over = flow.ended = True
            return b""
        if flags & _socket.MSG_PEEK or not bufsize:
            return data
        if not data:
            flow.over = flow.ended = True
        flow.passed += len(data)
        flow.astray -= len(data)
        if not flow.to_backend:
            flow.framer.backend_bytes()
        elif data and flow.framer.client_bytes():
            flow.connection.server.another(flow.connection, len(data))
        return data

    def _wait_for_chain(self, flow: Flow) -> None:
        """Wait until the chain lets something out: for the call, or the end.

        What it held may be dropped meanwhile: that is an end too.
        """
        chain = flow.chain
        assert chain is not None
        while not chain.out:
            if self.gettimeout() == 0.0:
                raise BlockingIOError(errno.EAGAIN, "resource temporarily unavailable")
            if flow.arrived is None:
                flow.arrived = Event()
            flow.arrived.clear()
            if not flow.arrived.wait(self.gettimeout()):
                raise TimeoutError("timed out")
            self._call()
            if flow.ended:
                return
        data, _ = chain.take()
        if data is None:
            flow.ended = True
        else:
            self.pending = memoryview(data.data)
        flow.deliver()

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer).cast("B") as view:
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

    def stop_waiting(self) -> None:
        """Wake a greenlet that still waits to read here though its call is over, with an error."""
        get_hub().cancel_wait(self._read_event, _returned())

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        self._claim()
        return super().makefile(*args, **kwargs)

    def fileno(self) -> int:
        """The descriptor; claims the side, since whoever asks may read it.

        OSError while bytes that were read ahead wait for `recv`: the descriptor does not have them.
        """
        if not self._closed:
            self._claim_all("fileno()")
        return int(super().fileno())

    def detach(self) -> int:
        """A descriptor for the handler to keep; for us the connection ends, without a FIN here."""
        self._claim_all("detach()")
        descriptor = os.dup(self._sock.fileno())
        self._end(close)
        return descriptor

    def _claim(self) -> Flow:
        """Own the reading of this side until the call returns."""
        flow, call = self._incoming, self._call()
        while flow.owner is not call:
            other = flow.owner
            if other is None:
                call.owns(flow)
            elif not other.begun:
                other.over = True  # it was woken by bytes that are now ours
                other.owned.clear()
                call.owns(flow)
            elif other.wants is not None and other.wants.owner is call:
                raise HandlerDeadlock(
                    f"handler {call.handler.name!r} reads the"  # type: ignore[union-attr]
                    f" {'client' if flow.to_backend else 'backend'}, which a call owns that waits"
                    " for this one: let one direction read both sides, not each the other's"
                )
            else:
                self._wait_for(flow, call)
                self._call()
                if call.over:
                    raise _returned()
        call.read = True
        return flow

    def _claim_all(self, use: str) -> None:
        """Claim this side for somebody who will read the descriptor itself."""
        self._claim()
        if self.pending:
            raise OSError(errno.EBUSY, f"bytes were read ahead: recv() them before {use}")
        if self._incoming.chained:
            raise OSError(errno.EBUSY, f"flow handlers shape this side: use recv(), not {use}")

    def _wait_for(self, flow: Flow, call: Call) -> None:
        call.wants, flow.waiter = flow, call
        if call.granted is None or call.granted.is_set():
            call.granted = Event()
        granted = call.granted
        try:
            if not granted.wait(self.gettimeout()):
                raise TimeoutError("timed out")
        finally:
            call.wants = None
            if flow.waiter is call:
                flow.waiter = None

    def _call(self) -> Call:
        """The call that the running greenlet works for; OSError if it or the connection is over."""
        if self._closed or self._incoming.connection.closed:
            raise OSError(errno.EBADF, "the connection has ended")
        return _current_call(self._incoming)

    # Writing

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of `data`, after all that was sent before to this side; flags do not count."""
        flow = self._outgoing
        with memoryview(data).cast("B") as view:
            self._call().sent = True
            self._wait_empty(flow)
            if not view or flow.cut_short:
                return
            flow.write(view)
            try:
                self._wait_empty(flow)
            except BaseException:  # a timeout or a kill: the memory is the caller's again
                if flow.held is not None:
                    flow.held = memoryview(bytes(flow.held))
                raise

    def send(self, data: Any, flags: int = 0) -> int:
        """As `sendall`, unless the socket does not block: then as much as fits now."""
        with memoryview(data).cast("B") as view:
            if self.gettimeout() == 0.0:
                call = self._call()
                call.sent = True
                if self._outgoing.busy_for(call):
                    raise BlockingIOError(errno.EAGAIN, "resource temporarily unavailable")
                sent = int(self._sock.send(view, flags))
                self._outgoing.astray += sent
                return sent
            self.sendall(view, flags)
            return len(view)

    def sendto(self, data: Any, *args: Any) -> int:
        return self.send(data)

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        return self.send(b"".join(bytes(buffer) for buffer in buffers), flags)

    def _wait_empty(self, flow: Flow) -> None:
        """Wait until `flow` holds nothing; raise if it can take nothing any more."""
        call = self._call()
        while flow.busy_for(call):
            if flow.empty is None:
                flow.empty = Event()
            flow.empty.clear()
            if not flow.empty.wait(self.gettimeout()):
                raise TimeoutError("timed out")
            self._call()
        if flow.finished and not flow.cut_short:
            raise BrokenPipeError(errno.EPIPE, "this side takes nothing any more")

    # Ending

    def shutdown(self, how: int) -> None:
        """Half-close; the end of reading only means that nothing more is read."""
        self._call().sent = True
        flow = self._outgoing
        if how in (_socket.SHUT_WR, _socket.SHUT_RDWR) and not flow.finished:
            self._wait_empty(flow)
            flow.reader.stop()
            flow.finish()
        if how in (_socket.SHUT_RD, _socket.SHUT_RDWR):
            flow = self._claim()
            flow.over = flow.ended = True
            self.pending = _NOTHING  # as the system does: what was not read is gone

    def close(self) -> None:
        """End the connection: politely, or with a RST to this side if SO_LINGER says so."""
        if self._closed or self._incoming.connection.closed:
            return
        linger = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, len(ABORT))
        self._end(reset if linger == ABORT else None)

    def _end(self, how: Callable[[_socket.socket], None] | None) -> None:
        """End this side in the way of `how`, the other politely."""
        sides = (how, None) if self._incoming.to_backend else (None, how)
        self._incoming.connection.finish(sides[0], sides[1], "handler")

    def give_back(self) -> _socket.socket:
        """The raw socket again, for the end of the connection."""
        family, kind, proto = self._sock.family, self._sock.type, self._sock.proto
        return _socket.socket(family, kind | _socket.SOCK_NONBLOCK, proto, super().detach())
