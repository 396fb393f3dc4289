"""Hand-off: what leaves a flow goes to a socket handler, in a call of its own.

The flow goes on reading while a call has it. What it reads then waits at the flow's desk: `unread`
is what nobody has looked at yet, as if it were still with the system (the framer has not seen it,
and it begins no exchange); what a call was woken by, or has left, is `pending`.

Laws: the bytes that woke a call are its first `recv`. A call owns the flow that woke it; the other
flow goes on until the call reads that side too, which claims it for the rest of the call. If a
running call owns it, the claim waits; a claim that would wait in a circle raises. The end of a side
is handed over once, as b''; then we half-close.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from gevent import Greenlet, getcurrent
from gevent.event import Event
from gevent.hub import get_hub

from vaurien.errors import RAISED, HandlerDeadlock
from vaurien.relay.flow import Flow
from vaurien.relay.rules import FINISH, WAITING, forbidden

log = logging.getLogger("vaurien")

#: Seconds until a handler is called again that returned without reading what is there.
UNREAD = 0.01

_CALL = "vaurien.call"
_NOTHING = memoryview(b"")


class Desk:
    """Where a socket handler takes what leaves one flow."""

    __slots__ = ("_arrived", "_empty", "_pump", "flow", "owner", "pending", "unread", "waiter")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._pump: Callable[[], None] | None = None  # the flow's callback, while ours stands in
        self.owner: Call | None = None  # the call that has the flow
        self.waiter: Call | None = None  # the call that has it next
        self.pending = _NOTHING  # handed over, and not read by the handler yet
        self.unread = bytearray()  # read by the flow, and not handed over yet
        self._arrived: Event | None = None  # set when there may be something to read
        self._empty: Event | None = None  # set when there may be room to send

    def __repr__(self) -> str:
        waiting = f"{len(self.pending)}+{len(self.unread)} waiting"
        return f"<Desk: {waiting}{', owned' if self.owner is not None else ''}>"

    # What comes

    def hand_over(self, data: bytes) -> None:
        """The flow's detour: call its handler, with `data` as the first that it reads."""
        flow = self.flow
        flow.astray -= len(data)
        self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
        call = Call(self)
        self.own(call)
        call.begin()

    def _readable(self) -> None:
        """In place of the pump's callback, while a call has the flow and no chain is before it."""
        flow = self.flow
        try:
            try:
                n = flow.recv_into(flow.view)
            except BlockingIOError:
                return
            except OSError:
                flow.connection.broken = True
                n = 0
            if n:
                self.unread += flow.view[:n]
                if len(self.unread) >= WAITING:
                    flow.source.reader.stop()
            else:
                flow.over = True
                flow.source.reader.stop()
                flow.connection.side_ended(flow)
            self.look()
        except RAISED:
            flow.connection.crashed()

    def own(self, call: Call) -> None:
        """`call` has the flow from now on."""
        self.owner = call
        flow = self.flow
        if self._pump is None and not self.chained:
            self._pump, flow.callback = flow.callback, self._readable
            flow.source.reader.callback = flow.callback
        flow.resume()

    def disown(self) -> None:
        """No call has the flow; the pump reads it again."""
        self.owner = None
        flow = self.flow
        if self._pump is not None:
            flow.callback, self._pump = self._pump, None
            flow.source.reader.callback = flow.callback

    # What a call takes

    def take(self, size: int) -> memoryview:
        """What waits, as `pending`: `size` bytes if there are as many, or what waits there."""
        flow = self.flow
        if not self.pending and flow.connection.messages is not None:
            self.pending = memoryview(flow.connection.messages.taken_by_call(flow))
        if self.unread and len(self.pending) < size:
            more = size - len(self.pending)
            data = bytes(self.unread[:more])
            del self.unread[:more]
            flow.passed += len(data)
            flow.astray -= len(data)
            data = flow.connection.read_by_call(flow, data)
            self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
            flow.resume()
        elif not self.pending and flow.shaping is not None and flow.shaping.chain.out:
            event, _ = flow.shaping.chain.take()
            if event is None:
                flow.ended = True
            else:
                self.pending = memoryview(event.data)
            flow.shaping.deliver()
        elif not self.pending and flow.over and not self.chained:
            flow.ended = True
        return self.pending

    @property
    def chained(self) -> bool:
        """Whether what is read comes through the flow's chain."""
        return self.flow.shaping is not None and self.flow.shaping.engaged

    @property
    def ready(self) -> bool:
        """Whether there is something to read, or the end."""
        flow = self.flow
        if self.pending or self.unread or flow.ended:
            return True
        return bool(flow.shaping.chain.out) if self.chained else flow.over

    def look(self) -> None:
        """There may be something to read, or room to send: let those see who wait."""
        for event in (self._arrived, self._empty):
            if event is not None:
                event.set()

    drained = look

    def wait(self, timeout: float | None) -> bool:
        """Wait until there may be something to read, for so many seconds at most."""
        self._arrived = self._arrived or Event()
        self._arrived.clear()
        return bool(self._arrived.wait(timeout))

    def wait_empty(self, timeout: float | None) -> bool:
        """Wait until there may be room to send, for so many seconds at most."""
        self._empty = self._empty or Event()
        self._empty.clear()
        return bool(self._empty.wait(timeout))

    def busy_for(self, call: Call) -> bool:
        """Whether what `call` sends has to wait for what is on its way before it."""
        flow = self.flow
        if flow.sink.held is not None:
            return True
        return self.chained and self.owner is not call and not flow.shaping.chain.empty

    def drop(self) -> None:
        """Forget what waits."""
        self.pending = _NOTHING
        self.unread.clear()
        self.look()

    # What is next

    def go_on(self, read: bool) -> None:
        """The call that had the flow has returned; `read`: it has read something."""
        flow, waiter = self.flow, self.waiter
        self.waiter = None
        if waiter is not None and not waiter.over:
            self.owner = None
            waiter.owns(self)
            if waiter.granted is not None:
                waiter.granted.set()
            return
        self.disown()
        if flow.shaping is not None:
            flow.shaping.engage()
        if flow.finished:  # nobody takes what is left
            self.pending = _NOTHING
            self.unread.clear()
        if self.pending:
            self._again(read)
            return
        if self.unread or flow.connection.messages is not None:
            data = bytes(self.unread)
            self.unread.clear()
            flow.connection.read(flow, data)
        if not flow.connection.closed:
            self._end_or_resume()

    def _again(self, read: bool) -> None:
        """Something was left unread: it is for whoever deals with the exchange now."""
        flow = self.flow
        if flow.handler is not None:
            call = Call(self)
            self.own(call)
            call.start() if read else call.start_later(UNREAD)
            return
        data, self.pending = self.pending, _NOTHING
        flow.write(bytes(data))
        if not flow.connection.closed:
            self.go_on(read)

    def _end_or_resume(self) -> None:
        flow = self.flow
        if self.owner is not None:
            return
        if flow.over and not flow.ended and not self.chained:
            flow.source_ended()
            return
        if not forbidden(flow, FINISH):
            flow.finish()
            return
        flow.pause()
        flow.resume()
        if flow.shaping is not None:
            flow.shaping.deliver()


class Call(Greenlet):  # type: ignore[type-arg]
    """One call of a handler, and the flows that it has."""

    spawning_stack_limit = 0  # where it was made is always the same: spare the looking

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.flow = flow = desk.flow
        self.connection, self.handler, self.exchange = flow.connection, flow.handler, flow.exchange
        self.since: float = self.connection.loop.now()
        self.owned = [desk]
        self.begun = self.over = self.raised = False
        self.wants: Desk | None = None  # what it waits for
        self.granted: Event | None = None  # set when it may have it
        self.read = self.sent = False  # whether it has done so with anything
        self.dismissed = False  # its handler has left the behavior
        self.reported: BaseException | None = None  # raised in a greenlet of its, logged already
        # Greenlets that the handler spawns inherit this.
        self.spawn_tree_locals = {_CALL: self}

    def __repr__(self) -> str:
        name = self.handler.name if self.handler is not None else None
        state = "over" if self.over else "running" if self.begun else "waiting"
        return f"<Call of {name!r}, {state}, by {self.flow!r}>"

    def begin(self) -> None:
        """Run now, up to where it first waits; in the loop's next turn if we are in a greenlet.

        In the next turn, too, if a call has the other flow: it may be about to read this side, and
        what it finds here is its own as long as this call has not begun.
        """
        peer = self.flow.peer.desk
        if getcurrent() is self.connection.loop.hub and (peer is None or peer.owner is None):
            self.switch()
        else:
            self.start()

    def _run(self) -> None:
        connection = self.connection
        if self.over or connection.closed:
            return
        self.begun = True
        result: object = False
        try:
            client, backend = connection.lending.lend()
            result = self.handler.call(client, backend, self.flow.to_backend)  # type: ignore[union-attr]
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
        for desk in self.owned:
            desk.owner = None
            desk.look()  # greenlets of its that still wait to read: they see that it is over
        connection.lending.call_over(self)
        for desk in self.owned:
            if not connection.closed:
                desk.go_on(self.read)
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
            added, seconds = self.exchange.added, self.connection.loop.now() - self.since
            added[self.handler] = max(added.get(self.handler, 0.0), seconds)

    def cancel(self) -> None:
        """End it, without waiting for that; called when its connection has ended."""
        self.over = True
        if self is not getcurrent():
            self.kill(block=False)

    # Claims

    def owns(self, desk: Desk) -> None:
        """Have the flow of `desk` from now on."""
        desk.own(self)
        self.owned.append(desk)

    def claim(self, desk: Desk, timeout: float | None) -> None:
        """Have the flow of `desk` until the call returns; waits for `timeout` seconds at most."""
        while desk.owner is not self:
            other = desk.owner
            if other is None:
                self.owns(desk)
            elif not other.begun:
                other.over = True  # it was woken by bytes that are now ours
                other.owned.clear()
                self.owns(desk)
            elif other.wants is not None and other.wants.owner is self:
                raise HandlerDeadlock(
                    f"handler {self.handler.name!r} reads the"  # type: ignore[union-attr]
                    f" {'client' if desk.flow.to_backend else 'backend'}, which a call owns that"
                    " waits for this one: let one direction read both sides, not each the other's"
                )
            else:
                self._wait_for(desk, timeout)
                if self.connection.closed:
                    raise gone()
                if self.over:
                    raise returned()
        self.read = True

    def _wait_for(self, desk: Desk, timeout: float | None) -> None:
        self.wants, desk.waiter = desk, self
        if self.granted is None or self.granted.is_set():
            self.granted = Event()
        granted = self.granted
        try:
            if not granted.wait(timeout):
                raise TimeoutError("timed out")
        finally:
            self.wants = None
            if desk.waiter is self:
                desk.waiter = None


def current_call(flow: Flow) -> Call:
    """The call that the running greenlet works for; OSError if none runs on this connection."""
    greenlet = getcurrent()
    if isinstance(greenlet, Call):
        candidates: tuple[Call | None, ...] = (greenlet,)
    else:
        # It was spawned by a call; or it is a worker made elsewhere that serves one which runs now.
        spawner = (getattr(greenlet, "spawn_tree_locals", None) or {}).get(_CALL)
        desks = (flow.desk, flow.peer.desk)
        candidates = (spawner, *(desk.owner for desk in desks if desk is not None))
    for call in candidates:
        if call is not None and call.begun and not call.over and call.connection is flow.connection:
            return call
    raise OSError(
        errno.EBADF, "no call of the handler runs on this connection: sockets are lent for one call"
    )


def returned() -> OSError:
    """For a greenlet that outlives its call."""
    return OSError(errno.EBADF, "the call of the handler has returned: its sockets went with it")


def gone() -> OSError:
    """For whoever uses what was lent after the connection has ended."""
    return OSError(errno.EBADF, "the connection has ended")


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
