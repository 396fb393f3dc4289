"""Hand-off: what leaves a flow goes to a socket handler, in a call of its own.

The flow goes on reading while a call has it. What it reads then waits at the flow's desk: `unread`
is what nobody has looked at yet, as if it were still with the system (the framer has not seen it,
and it begins no exchange); what a call was woken by, or has left, is `pending`.

Laws: the bytes that woke a call are its first `recv`. The end of a side is handed over once, as
b''; then we half-close. What a call leaves goes to the handler that deals with the exchange next.
"""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from vaurien.errors import RAISED
from vaurien.relay.call import Call
from vaurien.relay.flow import Flow
from vaurien.relay.rules import FINISH, WAITING, forbidden

#: Seconds until a handler is called again that returned without reading what is there.
UNREAD = 0.01

_NOTHING = memoryview(b"")


class Desk:
    """Where a socket handler takes what leaves one flow."""

    __slots__ = (
        "_arrived",
        "_empty",
        "_ends",
        "_pump",
        "flow",
        "owner",
        "pending",
        "unread",
        "waiter",
    )

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._pump: Callable[[], None] | None = None  # the flow's callback, while ours stands in
        self.owner: Call | None = None  # the call that has the flow
        self.waiter: Call | None = None  # the call that has it next
        self.pending = _NOTHING  # handed over, and not read by the handler yet
        self.unread = bytearray()  # read by the flow, and not handed over yet
        self._ends = False  # the end came here and not through a chain, though there may be one now
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
        if self.owner is not None:  # it began as the exchange did, and claimed this side
            self.look()
            return
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
                flow.over = self._ends = True
                flow.source.reader.stop()
                flow.connection.side_ended(flow)
            self.look()
        except RAISED:
            flow.connection.crashed()

    @property
    def stands_in(self) -> bool:
        """Whether it reads the source in place of the pump."""
        return self._pump is not None

    def give_back_to(self, callback: Callable[[], None]) -> None:
        """The pump is to read with `callback` once no call has the flow."""
        self._pump = callback

    def put_back(self, data: bytes) -> None:
        """`data` was taken from here, and is as if nobody had looked at it."""
        self.unread[:0] = data
        self.look()

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
        messages = flow.connection.messages
        if messages is not None and not self.chained:
            if not self.pending and (data := messages.taken_by_call(flow)):
                self.pending = memoryview(data)
            messages = flow.connection.messages
        if messages is not None and not self.chained:
            if not self.pending and flow.over and not messages.waits(flow):
                flow.ended = True
        elif self.unread and len(self.pending) < size:
            more = size - len(self.pending)
            data = bytes(self.unread[:more])
            del self.unread[:more]
            flow.received += len(data)
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
        elif not self.pending and flow.over and (self._ends or not self.chained):
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

    def shut(self) -> None:
        """Nothing more is read; as with the system's, what was not read is gone."""
        flow = self.flow
        flow.over = flow.ended = True
        flow.source.reader.stop()
        if flow.shaping is not None:
            flow.shaping.drop()
        self.drop()

    def drop(self) -> None:
        """Forget what waits."""
        self.pending = _NOTHING
        self.unread.clear()
        self.look()

    # What is next

    def go_on(self, read: bool) -> None:
        """The call that had the flow has returned; `read`: it has read something."""
        flow, waiter = self.flow, self.waiter
        if self.owner is not None:  # what the other flow had left has begun an exchange, and a call
            return
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
        """Something was left unread: it goes to the handler that deals with the exchange now."""
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
        if flow.over and not flow.ended and (self._ends or not self.chained):
            self._ends = False
            flow.source_ended()
            return
        if flow.ended and not forbidden(flow, FINISH):
            flow.finish()
            return
        flow.pause()
        flow.resume()
        if flow.shaping is not None:
            flow.shaping.deliver()
