"""A connection: a client's socket, its backend's socket, and the pump that moves bytes both ways.

Laws: a flow is the only writer of its sink, and whoever owns it is the only reader of its source;
nothing in a callback blocks; the pump makes no greenlet, keeps no chunk that could be sent, and an
exception in a callback ends this connection only.

A flow that pumps holds at most the rest of one chunk: while it does, its source is not read, so
that a slow reader stops its own peer and no other (high watermark 64 KiB, low watermark 0). One
that goes through a chain reads until `max_held` bytes are on their way, and again at half of that.
"""

from __future__ import annotations

import _socket
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from gevent import event
from gevent.hub import get_hub

from vaurien.behavior import Exchange
from vaurien.counts import Directions
from vaurien.errors import RAISED, HandlerRaised
from vaurien.flow import EOF, Begin, Close, Data, Reset
from vaurien.flow.chain import Chain, Slot
from vaurien.net.alarms import Alarm
from vaurien.net.dial import Dial
from vaurien.net.guard import guarded
from vaurien.net.linger import LINGER, READ, WRITE, Linger, close, reset
from vaurien.protocols.tcp import Tcp
from vaurien.relay.handoff import HandlerSocket, hand_off

if TYPE_CHECKING:
    from vaurien.exchange.picks import Choice, Picked
    from vaurien.relay.handoff import Call
    from vaurien.relay.server import Server


def through(flow: Flow, data: bytes) -> None:
    """A flow's detour: its chain takes `data`, b'' at the end, and what has left it goes on."""
    flow.astray -= len(data)
    if flow.connection.closed or flow.finished:
        return
    chain, size = flow.chain, len(flow.view)
    assert chain is not None
    if len(data) <= size:
        chain.push(Data(data) if data else EOF, chain.route, monotonic())
    else:  # read before the stages said that they want less at a time
        for start in range(0, len(data), size):
            chain.push(Data(data[start : start + size]), chain.route, monotonic())
    if chain.out or flow.over or chain.final is not None:
        flow.deliver()
        return
    if chain.held >= flow.max_held:
        flow.reader.stop()
    flow.arm()


def nowhere(flow: Flow, data: bytes) -> None:
    """The detour of a flow whose connection has ended while the data was being read."""
    flow.lost(len(data))


class Flow:
    """One direction of a connection: reads its source, writes its sink."""

    __slots__ = (
        "alarm",
        "arrived",
        "astray",
        "callback",
        "chain",
        "connection",
        "detour",
        "empty",
        "ended",
        "exchange",
        "finished",
        "framer",
        "handler",
        "held",
        "loop",
        "max_held",
        "over",
        "owner",
        "passed",
        "peer",
        "picked",
        "reader",
        "recv_into",
        "send",
        "shaped",
        "sink",
        "to_backend",
        "view",
        "waiter",
        "writer",
    )

    def __init__(
        self,
        connection: Connection,
        to_backend: bool,
        source: _socket.socket,
        sink: _socket.socket,
        server: Server,
    ) -> None:
        self.connection, self.to_backend = connection, to_backend
        self.framer = connection.framer
        self.view, self.loop, self.max_held = server.view, server.loop, server.plan.max_held
        self.recv_into = source.recv_into
        self.sink, self.send = sink, sink.send
        self.reader = self.loop.io(source.fileno(), READ)
        self.callback = self.from_client if to_backend else self.from_backend
        self.peer: Flow = self  # the other direction; set by the connection
        self.writer: Any = None  # made when the sink first falls behind
        self.held: memoryview | None = None  # read or sent by a handler, not yet taken by the sink
        self.passed = 0  # bytes read
        #: What `sent` differs in from what was read and is not held: less what went on a detour or
        #: was lost, and what came back from there more. The pump never touches it.
        self.astray = 0
        self.over = False  # the source has come to its end
        self.ended = False  # so it has for the sink and for handlers: the end has left the chain
        self.finished = False  # the sink was told so, or is gone
        #: Where what was read goes, None for straight on: `hand_off` or `through`.
        self.detour: Callable[[Flow, bytes], None] | None = None
        self.exchange: Exchange | None = None  # of what leaves; None where nobody touches it
        self.handler: Picked | None = None  # the socket handler that takes what leaves
        self.owner: Call | None = None  # the call that reads the source in our place
        self.waiter: Call | None = None  # the call that becomes owner next
        self.empty: event.Event | None = None  # set when `held` is gone, for handlers that wait
        self.chain: Chain | None = None  # made when first needed
        self.shaped = False  # the chain has something to do
        self.picked: list[Picked] = []  # who acts on the present exchange, in the chain
        self.alarm: Alarm | None = None  # of the chain's deadline
        self.arrived: event.Event | None = None  # set when the chain has something for `owner`

    def __repr__(self) -> str:
        words = [f"{self.passed} bytes"]
        words += [f"{len(self.held)} held"] if self.held is not None else []
        words += [repr(self.chain)] if self.shaped else []
        words += ["owned"] if self.owner is not None else []
        words += [name for name in ("ended", "finished") if getattr(self, name)]
        return f"<Flow to {'backend' if self.to_backend else 'client'}: {', '.join(words)}>"

    # The pump. The two callbacks differ in what they tell the framer; apart from that they are the
    # same, written twice because a call here costs more than all the bookkeeping.

    def from_client(self) -> None:
        """The client has sent something."""
        try:
            view = self.view
            try:
                n = self.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.passed += n
            if self.framer.answered:
                self.connection.begin(n)
            if self.detour is not None:
                return self.detour(self, bytes(view[:n]))
            try:
                sent = self.send(view[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.sink_broke(n)
            if sent != n:
                self.hold(bytes(view[sent:n]))
        except Exception:
            self.connection.crashed()

    def from_backend(self) -> None:
        """The backend has sent something."""
        try:
            view = self.view
            try:
                n = self.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.passed += n
            self.framer.answered = True
            if self.detour is not None:
                return self.detour(self, bytes(view[:n]))
            try:
                sent = self.send(view[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.sink_broke(n)
            if sent != n:
                self.hold(bytes(view[sent:n]))
        except Exception:
            self.connection.crashed()

    def writable(self) -> None:
        """The sink takes more of what is held."""
        try:
            assert self.held is not None
            try:
                rest = self.held[self.send(self.held) :]
            except BlockingIOError:
                return
            except OSError:
                return self.sink_broke(0)
            if rest:
                self.held = rest
            else:
                self.emptied()
        except RAISED:
            self.connection.crashed()

    # What happens more rarely.

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`, holding what the sink does not take now; nothing may be held before."""
        self.astray += len(data)
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.sink_broke(len(data))
        if sent != len(data):
            self.hold(memoryview(data)[sent:])
        return None

    def hold(self, rest: bytes | memoryview) -> None:
        """Keep `rest` until the sink takes it, and stop reading meanwhile."""
        self.held = memoryview(rest)
        if self.detour is not through:
            self.reader.stop()
        if self.writer is None:
            self.writer = self.loop.io(self.sink.fileno(), WRITE)
        self.writer.start(self.writable)

    def emptied(self) -> None:
        """Nothing is held any more."""
        self.held = None
        self.writer.stop()
        if self.detour is through:
            return self.deliver()
        if self.empty is not None:
            self.empty.set()
        if self.owner is not None:
            return None
        return self.finish() if self.ended else self.resume()

    def resume(self) -> None:
        """Read the source again, unless something stands against it."""
        if self.over or (self.finished and not self.cut_short):
            return
        if self.detour is through:
            ready = self.chain.held < self.max_held  # type: ignore[union-attr]
        else:
            ready = self.held is None and self.owner is None
        if ready:
            self.reader.start(self.callback)

    @property
    def chained(self) -> bool:
        """What is read goes through the chain; a call gets it from there."""
        return self.detour is through

    def stop_reading(self) -> None:
        """A call reads the source from now on; through a chain we go on reading for it."""
        if self.detour is not through:
            self.reader.stop()

    def source_ended(self) -> None:
        """EOF: hand it to the handler, if one deals with the exchange, or pass it on."""
        self.over = True
        self.reader.stop()
        if self.connection.first_end is None:
            self.connection.first_end = "client" if self.to_backend else "backend"
        if self.detour is through:
            return through(self, b"")
        self.ended = True
        return self.detour(self, b"") if self.detour is not None else self.finish()

    def source_broke(self) -> None:
        """A reset by the source: for a handler it is an end; the other side gets a reset too."""
        self.connection.broken = True
        self.source_ended()

    # The way through the chain

    def deal(self, exchange: Exchange | None, picked: list[Picked]) -> None:
        """An exchange begins, for which `picked` act on this flow; None if nobody touches it."""
        chain = self.chain
        if not picked and (chain is None or not self.shaped or self._may_go_round(chain)):
            if self.detour is None and (exchange is None or exchange.taker is None):
                return  # as before, straight on
            self.shaped, self.exchange, self.picked = False, exchange, picked
            self.view = self.connection.server.view
            self.handler = exchange.taker if exchange is not None else None
            self.detour = hand_off if self.handler is not None else None
            return
        assert exchange is not None
        if chain is None:
            chain = self.chain = Chain(exchange)
        chain.route = exchange
        if picked is not self.picked or not self.shaped:
            self.shaped, self.picked = True, picked
            self.engage()
            for one in picked:
                if not self.slots_of(one):
                    before = sum(slot.pinned or slot.key.place < one.place for slot in chain.slots)
                    self.insert(before, one, monotonic())
            self.limit_reads()
        elif not chain.wants_begin:
            return
        if chain.wants_begin:
            chain.push(Begin(exchange.number), exchange, monotonic())
        if chain.out or chain.final is not None:
            self.deliver()
        else:
            self.arm()

    def _may_go_round(self, chain: Chain) -> bool:
        return not (
            chain.busy
            or chain.ended  # a flow handler may have ended the flow: what follows is dropped
            or self.held is not None
            or self.owner is not None
            or any(slot.pinned for slot in chain.slots)
        )

    def insert(self, position: int, one: Picked, now: float, pinned: bool = False) -> None:
        """Put a stage of `one` into the chain."""
        connection = self.connection
        try:
            stage = one.stage(self.to_backend, connection.server.dice, connection.number, pinned)
        except RAISED as error:
            raise HandlerRaised(one) from error
        self.chain.insert(position, Slot(stage, one, pinned), now)  # type: ignore[union-attr]

    def pin(self, one: Picked) -> None:
        """A toxic comes to this flow, to its place among those that are here."""
        connection = self.connection
        exchange = connection.server.present(connection)
        if self.chain is None:
            self.chain = Chain(exchange)
        if not self.shaped:
            self.chain.route, self.shaped = exchange, True
        self.engage()
        order = [pin.picked for pin in connection.server.toxics.values()]
        slots = [slot for slot in self.chain.slots if slot.pinned]
        before = sum(order.index(slot.key) < order.index(one) for slot in slots)
        self.insert(before, one, monotonic(), pinned=True)
        self.limit_reads()
        self.deliver()

    def unpin(self, one: Picked) -> None:
        """A toxic leaves this flow; what it holds goes on."""
        for slot in self.slots_of(one):
            self.chain.remove(slot, monotonic())  # type: ignore[union-attr]
            self.limit_reads()
        self.deliver()

    def update(self, one: Picked) -> None:
        """The options of a toxic have changed; what it holds goes on."""
        for slot in self.slots_of(one):
            slot.stage.options = one.specification.options
            self.chain.update(slot, monotonic())  # type: ignore[union-attr]
            self.limit_reads()
        self.deliver()

    def leave(self, gone: set[Picked]) -> None:
        """The behavior picks some no more: what they hold goes on."""
        if self.handler in gone:
            self.handler = None
            if self.detour is hand_off:
                self.detour = None
        slots = self.chain.slots if self.chain is not None else []
        left = [slot for slot in slots if not slot.pinned and slot.key in gone]
        if left:
            self.picked = [one for one in self.picked if one not in gone]
            for slot in left:
                self.chain.remove(slot, monotonic())  # type: ignore[union-attr]
            self.limit_reads()
            self.deliver()

    def limit_reads(self) -> None:
        """Read no more at a time than the stages want to be given."""
        assert self.chain is not None
        view = self.connection.server.view
        self.view = view[: min((slot.stage.chunk for slot in self.chain.slots), default=len(view))]

    def slots_of(self, one: Picked) -> list[Slot]:
        """Where `one` is at work in the chain: once, or not at all."""
        slots = self.chain.slots if self.chain is not None else []
        return [slot for slot in slots if slot.key is one]

    def engage(self) -> None:
        """Go through the chain if it has something to do, once no call reads the source itself."""
        if self.shaped and self.owner is None:
            self.detour = through

    def deliver(self) -> None:
        """Pass on what has left the chain, as far as the sink takes it and no handler runs."""
        chain, connection = self.chain, self.connection
        if chain is None or connection.closed:
            return None
        if chain.final is not None:
            return connection.told(chain.final)
        while chain.out and self.held is None and self.owner is None:
            data, exchange = chain.take()
            if exchange is not self.exchange:
                self.exchange = exchange
                self.handler = exchange.taker if exchange.taken else None
            if data is None:
                self.ended = True
            if self.handler is not None:
                if data is not None:
                    self.astray += len(data.data)  # the chain had it, and now the handler has
                hand_off(self, b"" if data is None else data.data)
            elif data is None:
                self.finish()
            else:
                self.write(data.data)
            if connection.closed:
                return None
        if self.arrived is not None:
            self.arrived.set()
        if self.empty is not None:
            self.empty.set()
        if chain.held >= self.max_held:
            self.reader.stop()
        elif chain.held <= self.max_held // 2 and not self.reader.active:  # type: ignore[attr-defined]
            self.resume()
        self.arm()
        if not chain.slots and self._may_go_round(chain):  # the last toxic has gone
            self.shaped, self.view = False, connection.server.view
            self.detour = hand_off if self.handler is not None else None
        if self.ended and self.held is None and self.owner is None:
            self.finish()  # the end was handed over while something was held
        return connection.end_if_stuck() if self.over and not connection.closed else None

    @property
    def cut_short(self) -> bool:
        """A flow handler has ended the flow: what would follow is dropped."""
        return self.finished and self.chain is not None and self.chain.ended and not self.over

    @property
    def stuck(self) -> bool:
        """Nothing can ever pass any more: the source has ended, and no bytes wait."""
        chain = self.chain
        if self.held is not None or self.owner is not None or not self.over:
            return False
        if self.finished:
            return True
        if chain is None or chain.held or chain.out or chain.deadline is not None:
            return False
        return not any(slot.pinned and slot.pending for slot in chain.slots)  # a toxic may go

    def arm(self) -> None:
        """Have `wake` called when the chain has something to do."""
        deadline, alarm = self.chain.deadline, self.alarm  # type: ignore[union-attr]
        if alarm is not None:
            if alarm.due == deadline:
                return
            self.connection.server.alarms.give_up(alarm)
            self.alarm = None
        if deadline is not None:
            self.alarm = self.connection.server.alarms.set(deadline, self)

    def wake(self, now: float) -> None:
        """The chain's deadline has come."""
        self.alarm = None
        try:
            self.chain.advance(now)  # type: ignore[union-attr]
            self.deliver()
        except RAISED:
            self.connection.crashed()

    def busy_for(self, call: Call) -> bool:
        """Whether what `call` sends has to wait for what is on its way before it."""
        if self.held is not None:
            return True
        return self.detour is through and self.owner is not call and not self.chain.empty  # type: ignore[union-attr]

    def rest(self, everything: bool) -> memoryview | None:
        """What is still to be sent to the sink; with what the chain holds, if `everything`."""
        data = bytes(self.held or b"")
        if self.chain is not None:
            inside = self.chain.flush(everything)
            self.astray += len(inside)
            data += inside
        return memoryview(data) if data else None

    # What it has done

    @property
    def sent(self) -> int:
        """How many bytes the sink has taken."""
        return self.passed + self.astray - (len(self.held) if self.held is not None else 0)

    def lost(self, n: int) -> None:
        """Of what was read, or was to be sent, `n` bytes are nowhere any more."""
        if self.connection.closed:  # and has been added up
            self.connection.server.counters.sent[self.to_backend] -= n
        else:
            self.astray -= n

    # The end

    def finish(self) -> None:
        """Tell the sink that nothing more will come; nothing may be held."""
        connection = self.connection
        if connection.closed or self.held is not None or self.finished:
            return None
        if connection.broken:
            return connection.reset()
        self.finished = True
        if connection.done():
            return None
        try:
            self.sink.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # it has gone; its own flow will see that
        return connection.end_if_stuck()

    def sink_broke(self, n: int) -> None:
        """The sink takes nothing any more, nor the `n` bytes just read or made: let what it has
        said come through, then reset.
        """
        self.astray -= n
        connection = self.connection
        connection.broken = True
        self.over = self.ended = self.finished = True
        self.drop()
        self.reader.stop()
        if self.peer.ended and self.peer.held is None and self.peer.owner is None:
            connection.reset()
        else:
            connection.reset_later()

    def drop(self) -> None:
        """Forget what is held, and wake those who wait for it to go, or for more to come."""
        if self.held is not None:
            self.astray -= len(self.held)
            self.held = None
        if self.chain is not None:
            self.chain.clear()
        if self.alarm is not None:
            self.connection.server.alarms.give_up(self.alarm)
            self.alarm = None
        if self.writer is not None:
            self.writer.stop()
        for waited in (self.empty, self.arrived):
            if waited is not None:
                waited.set()

    def rebind(self, source: _socket.socket, sink: _socket.socket) -> None:
        """The sockets' descriptors have moved to other objects."""
        self.recv_into, self.sink, self.send = source.recv_into, sink, sink.send

    def close(self) -> None:
        """Let go of the loop."""
        self.drop()
        self.over = self.ended = self.finished = True
        self.reader.stop()
        self.reader.close()
        if self.writer is not None:
            self.writer.close()
        self.detour = nowhere
        # Without the circles they are gone at once, and the garbage collector has nothing to do.
        del self.callback, self.peer


class Look(NamedTuple):
    """A connection at one moment; bytes are those upstream and those downstream."""

    number: int
    client: str
    exchange: int
    handlers: tuple[str, ...]
    received: Directions
    sent: Directions
    held: int


class Connection:
    """One client and its backend, from accept to the end."""

    __slots__ = (
        "address",
        "backend",
        "backend_sock",
        "broken",
        "client",
        "client_sock",
        "closed",
        "dial",
        "down",
        "exchange",
        "first_end",
        "framer",
        "harms",
        "number",
        "quiet",
        "seen",
        "server",
        "timer",
        "up",
    )

    def __init__(
        self, server: Server, number: int, client: _socket.socket, address: object
    ) -> None:
        self.server, self.number, self.address = server, number, address
        self.client = client
        self.backend: _socket.socket | None = None
        self.client_sock: HandlerSocket | None = None  # made when a handler first needs them
        self.backend_sock: HandlerSocket | None = None
        self.framer = Tcp()
        self.up: Flow | None = None
        self.down: Flow | None = None
        self.dial: Dial | None = None
        self.exchange: Exchange | None = None  # the present one, if anybody is to know of it
        self.harms: dict[Picked, int] | None = None  # per handler, for its exact points
        self.first_end: str | None = None  # whose end came first: client or backend
        self.timer: Any = None
        self.broken = False  # one side was reset
        self.closed = False
        self.seen = 0  # `moved` when the server last looked
        self.quiet = 0.0  # when it saw them first, monotonic seconds; 0 is not yet

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self.up is not None else "dialling"
        return (
            f"<Connection {self.number} of {self.server.name!r}: {state},"
            f" exchange {self.framer.exchange}, {self.up!r}, {self.down!r}>"
        )

    def look(self) -> Look:
        """What there is to say of it."""
        flows = [flow for flow in (self.up, self.down) if flow is not None]
        passed = [flow.passed for flow in flows] or [0, 0]
        sent = [flow.sent for flow in flows] or [0, 0]
        held = sum(len(flow.held or b"") + _inside(flow.chain) for flow in flows)
        handlers = self.exchange.handlers if self.exchange is not None else ()
        return Look(
            self.number,
            client_name(self.address),
            self.framer.exchange,
            tuple(dict.fromkeys(one.name for one in handlers)),
            Directions(*passed),
            Directions(*sent),
            held,
        )

    def open(self) -> None:
        """Dial the backend."""
        self.dial = Dial(self.server.dialer, self.dialled)
        self.dial.start()

    def dialled(self, backend: _socket.socket | None, error: OSError | None) -> None:
        """The backend answered, or could not be reached."""
        self.dial = None
        try:
            if backend is None:
                self.server.dial_failed(self, error)
                return self.end("dial")
            self.backend = backend
            up = self.up = Flow(self, True, self.client, backend, self.server)
            down = self.down = Flow(self, False, backend, self.client, self.server)
            up.peer, down.peer = down, up
            for toxic in self.server.toxics.values():
                toxic.attach(self)
                if self.closed:
                    return None
            up.resume()
            down.resume()
        except RAISED:
            self.crashed()
        return None

    # What those do who meet clients, see `vaurien.handlers.connect`

    def open_later(self, seconds: float) -> None:
        """Dial the backend after a time."""
        if self.exchange is not None:
            self.exchange.added[self.exchange.taker] = seconds
        self.timer = get_hub().loop.timer(seconds)
        self.timer.start(self._open_now)

    @guarded
    def _open_now(self) -> None:
        self._stop_timer()
        self.open()

    def wait(self) -> None:
        """Never dial; discard what the client sends, until it closes."""
        self.timer = get_hub().loop.io(self.client.fileno(), READ)
        self.timer.start(self._discard)

    @guarded
    def _discard(self) -> None:
        try:
            if self.client.recv_into(self.server.view):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.first_end = "client"
        self.close()

    def undialled(self, reason: str) -> None:
        """Go on as if the backend could not be reached."""
        self.end("handler")

    def leave(self, gone: set[Picked]) -> None:
        """The behavior picks some no more, and they leave this connection too.

        What they hold goes on; their calls end. The connection ends if nobody knows what a call has
        passed on of what it has read.
        """
        for one in gone if self.harms is not None else ():
            self.harms.pop(one, None)  # type: ignore[union-attr]
        up, down = self.up, self.down
        if up is None or down is None:
            if self.exchange is not None and self.exchange.taker in gone and self.timer is not None:
                if self.timer.callback == self._open_now:
                    self._open_now()
                else:
                    self.end("dropped")
            return
        calls = {flow.owner for flow in (up, down) if flow.owner is not None}
        for flow in (up, down):
            if not self.closed:
                flow.leave(gone)
        for call in calls:
            if not self.closed and call.handler in gone and not call.over and not call.dismiss():
                self.end("dropped")

    # Exchanges

    def begin(self, n: int) -> None:
        """The last `n` bytes read from the client begin an exchange: pick who deals with it."""
        self.framer.client_bytes()
        if self.server.picks is not None or self.exchange is not None:
            up = self.up
            try:
                self.server.begin(self, n)
            except RAISED:
                up.lost(n)  # type: ignore[union-attr]
                raise

    def deal(self, exchange: Exchange | None, choice: Choice) -> None:
        """`exchange` is the present one from now on, None if nobody touches it."""
        self.exchange = exchange
        up, down = self.up, self.down
        assert up is not None and down is not None
        up.deal(exchange, choice.upstream)
        if not self.closed:
            down.deal(exchange, choice.downstream)

    @property
    def shaped(self) -> bool:
        """Whether a chain has something to do."""
        return self.up is not None and (self.up.shaped or self.down.shaped)  # type: ignore[union-attr]

    @property
    def moved(self) -> int:
        """A number that changes with each byte that is read, or leaves what is held."""
        flows = [flow for flow in (self.up, self.down) if flow is not None]
        held = sum(flow.chain.held for flow in flows if flow.chain is not None)
        return sum(flow.passed - len(flow.held or b"") for flow in flows) - held

    @property
    def is_idle(self) -> bool:
        """Nothing is under way: nothing held, no handler runs, the backend spoke last."""
        up, down = self.up, self.down
        if up is None or down is None:
            return True  # it still dials: nothing has passed
        return (
            self.framer.answered
            and up.held is None
            and down.held is None
            and up.owner is None
            and down.owner is None
            and not (up.chain is not None and up.chain.held)
            and not (down.chain is not None and down.chain.held)
        )

    def crashed(self) -> None:
        """Called in an ``except``: log the error and end this connection, and no other."""
        error = sys.exc_info()[1]
        if isinstance(error, HandlerRaised) and error.__cause__ is not None:
            self.server.handler_raised(self, error.handler, error.__cause__, False)  # type: ignore[arg-type]
        else:
            self.server.crashed(self)
        self.end("error")

    def end_if_stuck(self) -> None:
        """End if both sides have ended, and a flow handler keeps an end back for good."""
        up, down = self.up, self.down
        if up is not None and down is not None and up.stuck and down.stuck:
            self.end(self.first_end or "client")

    def done(self) -> bool:
        """Close if both sides were told that nothing more will come, and no handler runs."""
        up, down = self.up, self.down
        if up is None or down is None:
            return True
        if not (up.finished and down.finished) or up.owner is not None or down.owner is not None:
            return False
        if up.over and down.over:
            self.close()
        else:  # a handler has shut down a side whose peer may still be sending
            self.end("handler")
        return True

    # The ways to end. Each leaves the connection closed and its sockets in other hands.

    def close(self) -> None:
        """Both sides have ended and have been told: nothing is left to do."""
        self.finish(close, close, self.first_end or "client")

    def end(self, why: str) -> None:
        """A polite end of both sides."""
        self.finish(None, None, why)

    def reset(self) -> None:
        """RST to both sides, now."""
        self.finish(reset, reset, "reset")

    def told(self, final: Close | Reset) -> None:
        """A flow handler ends the connection."""
        sides = ("client", "backend")
        if isinstance(final, Reset):
            ways = [reset if final.side in (side, "both") else None for side in sides]
            return self.finish(ways[0], ways[1], "handler")
        for flow in (self.up, self.down):
            if flow is not None:
                flow.held = flow.rest(final.side == sides[not flow.to_backend])
        return self.end("handler")

    def reset_later(self) -> None:
        """Reset when what is still on its way has come through, or does not move for a second.

        A handler that holds it may take its time.
        """
        if self.timer is None and not self.closed:
            self.timer = get_hub().loop.timer(LINGER, LINGER)
            self.timer.start(self._reset_if_still)

    @guarded
    def _reset_if_still(self) -> None:
        flows = (self.up, self.down)
        if not any(flow and flow.owner is not None and not flow.finished for flow in flows):
            self.reset()

    def finish(
        self,
        end_client: Callable[[_socket.socket], None] | None,
        end_backend: Callable[[_socket.socket], None] | None,
        why: str,
    ) -> None:
        """End each side in its own way: `close`, `reset`, or None, the polite one.

        `why` is for those who want to know how the exchange ended, see `observe.events.Ended`.
        """
        if self.closed:
            return
        self.closed = True
        if self.dial is not None:
            self.dial.cancel()
        self._stop_timer()
        if self.exchange is not None:
            for flow in (self.up, self.down):
                if flow is not None and flow.owner is not None:
                    flow.owner.count()
            try:
                self.server.over(self, self.exchange, why)
            except RAISED:
                self.server.crashed(self)
        up, down = self.up, self.down
        self.server.counters.add(self)
        held = {flow.to_backend: flow.held for flow in (up, down) if flow is not None}
        for flow in (up, down):
            if flow is not None:
                owner, flow.owner = flow.owner, None
                flow.close()
                if owner is not None:
                    owner.cancel()
        polite: list[tuple[_socket.socket, memoryview | None, bool]] = []
        for sock, handler_sock, how, to_backend in (
            (self.client, self.client_sock, end_client, False),
            (self.backend, self.backend_sock, end_backend, True),
        ):
            raw = handler_sock.give_back() if handler_sock is not None else sock
            if raw is None:
                continue
            if how is None:
                polite.append((raw, held.get(to_backend), to_backend))
            else:
                how(raw)
        self.up = self.down = None
        if polite:
            Linger(polite, self.server.view, self.server.counters.sent, self._gone)
        else:
            self._gone()

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None

    def _gone(self) -> None:
        self.server.closed_one(self)


def _inside(chain: Chain | None) -> int:
    """The bytes in a chain, without what `Chain.held` counts for each piece."""
    if chain is None:
        return 0
    events = [entry[3] for entry in chain._heap] + [event for event, _ in chain.out]
    return sum(len(event.data) for event in events if type(event) is Data)


def client_name(address: object) -> str:
    """A client's address as text; a unix socket's has none."""
    if not isinstance(address, tuple):
        return "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
