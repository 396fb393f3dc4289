"""A connection: from accept over the dial to two sides and two flows, and to its end.

Laws: nothing in a callback blocks. Each way to end leaves it closed, its sockets in other hands,
and is taken once. What happens to one connection touches no other.
"""

from __future__ import annotations

import _socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from vaurien.behavior import Exchange
from vaurien.counts import Directions
from vaurien.errors import RAISED, HandlerRaised
from vaurien.exchange.ledger import Ledger
from vaurien.exchange.picks import Picked
from vaurien.flow import Close, Reset
from vaurien.net.dial import Dial
from vaurien.net.guard import guarded
from vaurien.net.linger import LINGER, Linger
from vaurien.net.loop import READ, Watcher
from vaurien.net.side import Side, close, reset
from vaurien.protocols.tcp import Tcp
from vaurien.relay.exchanges import client_name
from vaurien.relay.handoff import Call, Desk
from vaurien.relay.lent import HandlerSocket
from vaurien.relay.pump import Flow


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
    """One client and its backend. `proxy` is the server that has accepted it."""

    __slots__ = (
        "_backend_sock",
        "_client_sock",
        "_dial",
        "_lingering",
        "_timer",
        "address",
        "backend",
        "broken",
        "client",
        "closed",
        "down",
        "exchanges",
        "first_end",
        "framer",
        "harms",
        "ledger",
        "messages",
        "number",
        "quiet",
        "seen",
        "server",
        "up",
    )

    def __init__(self, server: Any, number: int, client: _socket.socket, address: object) -> None:
        self.server, self.number, self.address = server, number, address
        self.exchanges = server.exchanges
        self.client = client
        self.backend: _socket.socket | None = None
        self.framer = Tcp()
        self.messages: Any = None  # where the protocol tells messages apart
        self.ledger: Ledger | None = None  # made when somebody is to know of an exchange
        self.up: Flow | None = None
        self.down: Flow | None = None
        self._client_sock: HandlerSocket | None = None  # made when a handler first needs them
        self._backend_sock: HandlerSocket | None = None
        self._dial: Dial | None = None
        self._timer: Watcher | None = None
        self.harms: dict[Picked, int] | None = None  # per handler, for its exact points
        self.first_end: str | None = None  # whose end came first: client or backend
        self.broken = False  # one side was reset
        self.closed = False
        self.seen = 0  # `moved` when it was last looked at
        self.quiet = 0.0  # when it was seen first, in seconds of the loop's clock; 0 is not yet
        self._lingering = 0  # sockets on their way out

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self.up is not None else "dialling"
        return (
            f"<Connection {self.number} of {self.server.name!r}: {state},"
            f" exchange {self.number_of_exchange}, {self.up!r}, {self.down!r}>"
        )

    # What flows ask

    @property
    def loop(self) -> Any:
        """The loop that it runs in."""
        return self.server.loop

    @property
    def view(self) -> memoryview:
        """Where its flows read to."""
        return self.server.loop.view  # type: ignore[no-any-return]

    @property
    def max_held(self) -> int:
        """The bytes that may be on their way through a chain."""
        return int(self.server.plan.max_held)

    @property
    def dice(self) -> Any:
        """The draws of its proxy."""
        return self.server.dice

    @property
    def counters(self) -> Any:
        """What is counted in its proxy."""
        return self.server.counters

    @property
    def number_of_exchange(self) -> int:
        """How many exchanges have begun."""
        return self.framer.exchange if self.messages is None else int(self.messages.begun)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Upstream and downstream, once the backend has answered."""
        return (self.up, self.down) if self.up is not None and self.down is not None else ()

    def desk_of(self, flow: Flow) -> Desk:
        """Where socket handlers take what leaves `flow`."""
        if flow.desk is None:
            flow.desk = Desk(flow)
        return flow.desk  # type: ignore[no-any-return]

    # The beginning

    def open(self) -> None:
        """Dial the backend."""
        self._dial = Dial(self.server.dialer, self._dialled)
        self._dial.start()

    def _dialled(self, backend: _socket.socket | None, error: OSError | None) -> None:
        """The backend answered, or could not be reached."""
        self._dial = None
        try:
            if backend is None:
                self.server.dial_failed(self, error)
                self.end("dial")
                return
            self.backend = backend
            client_side, backend_side = Side(self.client, self.loop), Side(backend, self.loop)
            up = self.up = Flow(self, True, client_side, backend_side)
            down = self.down = Flow(self, False, backend_side, client_side)
            up.peer, down.peer = down, up
            self.server.opened(self)
            if not self.closed:
                up.resume()
                down.resume()
        except RAISED:
            self.crashed()

    # What those do who meet clients, see `vaurien.handlers.connect`

    def open_later(self, seconds: float) -> None:
        """Dial the backend after that time."""
        exchange = self.present()
        exchange.added[exchange.taker] = seconds
        self._timer = self.loop.timer(seconds)
        self._timer.start(self._open_now)

    @guarded
    def _open_now(self) -> None:
        self._stop_timer()
        self.open()

    def wait(self) -> None:
        """Never dial; discard what the client sends, until it closes."""
        self._timer = self.loop.io(self.client.fileno(), READ)
        self._timer.start(self._discard)

    @guarded
    def _discard(self) -> None:
        try:
            if self.client.recv_into(self.view):
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

    # Exchanges; what they are is told in `vaurien.relay.exchanges`

    def begin(self, n: int) -> None:
        """The last `n` bytes read from the client begin an exchange: pick who deals with it."""
        self.framer.client_bytes()
        if self.exchanges.picks is not None or (self.ledger is not None and self.ledger.open):
            try:
                self.exchanges.begin(self, n)
            except RAISED:
                self.up.lost(n)  # type: ignore[union-attr]
                raise

    def present(self) -> Exchange:
        """The present exchange, made if nobody touched it so far."""
        return self.exchanges.present(self)  # type: ignore[no-any-return]

    def read(self, flow: Flow, data: bytes) -> None:
        """`data` was read by `flow` some time ago, and is to go on as if it were now."""
        if self.messages is not None:
            self.messages.read(flow, data)
            return
        if not data:
            return
        flow.passed += len(data)
        if not flow.to_backend:
            self.framer.backend_bytes()
        elif self.framer.answered:
            self.begin(len(data))
        flow.feed(data)

    def read_by_call(self, flow: Flow, data: bytes) -> bytes:
        """A call of a socket handler reads `data` of `flow` itself; what it gets of that."""
        if self.messages is not None:
            return self.messages.read_by_call(flow, data)  # type: ignore[no-any-return]
        if not flow.to_backend:
            self.framer.backend_bytes()
        elif self.framer.client_bytes():
            self.exchanges.stays(self, len(data))
        return data

    def unframe(self, begun: int) -> None:
        """Messages cannot be told apart any more: go on as plain tcp, after `begun` exchanges."""
        self.messages, framer = None, self.framer
        framer.exchange, framer.answered = begun, False
        up, down = self.flows
        if self.ledger is not None:
            while len(self.ledger.open) > 1:
                self.exchanges.told(self, self.ledger.end(), "next")
            for exchange in self.ledger.open:
                exchange.from_client -= up.passed
                exchange.from_backend -= down.passed
        up.callback, down.callback = up.from_client, down.from_backend
        for flow in (up, down):
            flow.source.reader.callback = flow.callback

    def leave(self, gone: set[Picked]) -> None:
        """The behavior picks some no more, and they leave this connection too.

        What they hold goes on; their calls end. The connection ends if nobody knows what a call has
        passed on of what it has read.
        """
        for one in gone if self.harms is not None else ():
            self.harms.pop(one, None)  # type: ignore[union-attr]
        if not self.flows:
            met = self.ledger.down if self.ledger is not None else None
            if met is not None and met.taker in gone and self._timer is not None:
                if self._will_dial:
                    self._open_now()
                else:
                    self.end("dropped")
            return
        calls = self.calls
        for flow in self.flows:
            if not self.closed:
                self.exchanges.leave(flow, gone)
        for call in calls:
            if not self.closed and call.handler in gone and not call.over and not call.dismiss():
                self.end("dropped")

    @property
    def calls(self) -> set[Call]:
        """The calls of socket handlers that have a flow."""
        desks = [flow.desk for flow in self.flows if flow.desk is not None]
        return {desk.owner for desk in desks if desk.owner is not None}

    # What socket handlers do

    def lent(self) -> tuple[HandlerSocket, HandlerSocket]:
        """The two sockets that calls get."""
        if self._client_sock is None or self._backend_sock is None:
            up, down = self.flows
            self._client_sock = HandlerSocket(self.desk_of(up), down)
            self._backend_sock = HandlerSocket(self.desk_of(down), up)
        return self._client_sock, self._backend_sock

    def call_over(self, call: Call) -> None:
        """`call` has given its flows back: nothing of it lasts on what it was lent."""
        last = not self.calls
        for sock in (self._client_sock, self._backend_sock):
            if sock is not None:
                sock.call_over(call)
                if last:
                    sock.settimeout(None)

    def shut(self, flow: Flow) -> None:
        """A handler sends nothing more by `flow`."""
        flow.finish()
        flow.pause()

    def closed_by_handler(self, flow: Flow, hard: bool) -> None:
        """A handler closes the side that `flow` reads, with a RST if it is to be `hard`."""
        how = reset if hard else None
        client, backend = (how, None) if flow.to_backend else (None, how)
        self._finish(client, backend, "handler")

    def handler_raised(self, picked: Picked | None, error: BaseException, logged: bool) -> None:
        """A handler raised; `logged`: that is in the log already."""
        self.server.handler_raised(self, picked, error, logged)

    # What is seen of it

    def look(self) -> Look:
        """What there is to say of it."""
        flows = self.flows
        exchange = self.ledger.up if self.ledger is not None else None
        handlers = exchange.handlers if exchange is not None else ()
        return Look(
            self.number,
            client_name(self.address),
            self.number_of_exchange,
            tuple(dict.fromkeys(one.name for one in handlers)),
            Directions(*([flow.passed for flow in flows] or [0, 0])),
            Directions(*([flow.sent for flow in flows] or [0, 0])),
            sum(flow.waiting for flow in flows),
        )

    @property
    def moved(self) -> int:
        """A number that changes with each byte that is read from a side, or sent to one."""
        return sum(flow.passed + flow.sent + flow.unread for flow in self.flows)

    @property
    def is_idle(self) -> bool:
        """Nothing is under way: nothing waits, no handler runs, the backend spoke last."""
        flows = self.flows
        if not flows:
            return not self._will_dial or not self._has_sent()
        answered = self.framer.answered if self.messages is None else self.messages.answered
        return answered and not self.calls and not any(flow.waiting for flow in flows)

    @property
    def _will_dial(self) -> bool:
        """Whether it dials, or waits to."""
        waits = self._timer is not None and self._timer.callback == self._open_now
        return self._dial is not None or waits

    def _has_sent(self) -> bool:
        """Whether the client has sent something that nobody has read yet."""
        try:
            return bool(self.client.recv(1, _socket.MSG_PEEK))
        except OSError:
            return False

    def crashed(self) -> None:
        """Called in an ``except``: log the error and end this connection, and no other."""
        error = sys.exc_info()[1]
        if isinstance(error, HandlerRaised) and error.__cause__ is not None:
            self.handler_raised(error.handler, error.__cause__, False)  # type: ignore[arg-type]
        else:
            self.server.crashed(self)
        self.end("error")

    # Towards the end

    def side_ended(self, flow: Flow) -> None:
        """The source of `flow` has come to its end."""
        if self.first_end is None:
            self.first_end = "client" if flow.to_backend else "backend"
        if self.messages is not None:
            self.messages.ended(flow)

    def sink_broke(self, flow: Flow) -> None:
        """The sink of `flow` is gone: let what it has said come through, then reset."""
        self.broken = True
        if not flow.peer.ended or flow.peer.waiting or self.calls:
            self._reset_later()
        else:
            self.reset()

    def end_if_stuck(self) -> None:
        """End if both sides have ended, and a flow handler keeps an end back for good."""
        if self.flows and all(flow.stuck for flow in self.flows):
            self.end(self.first_end or "client")

    def done(self) -> bool:
        """Close if both sides were told that nothing more will come, and no handler runs."""
        flows = self.flows
        if not flows:
            return True
        if not all(flow.finished for flow in flows) or self.calls:
            return False
        if all(flow.over for flow in flows):
            self.close()
        else:  # a handler has shut down a side whose peer may still be sending
            self.end("handler")
        return True

    def _reset_later(self) -> None:
        """Reset when what is still on its way has come through, or stands still for a second.

        What has its time still before it does not stand still, nor does what a handler has: they
        may take their time.
        """
        if self._timer is None and not self.closed:
            self.seen = self.moved
            self._timer = self.loop.timer(LINGER, LINGER)
            self._timer.start(self._reset_if_still)

    @guarded
    def _reset_if_still(self) -> None:
        moved, self.seen = self.seen != self.moved, self.moved
        if not moved and not self.calls and not any(flow.is_due for flow in self.flows):
            self.reset()

    # The ways to end. Each leaves the connection closed and its sockets in other hands.

    def close(self) -> None:
        """Both sides have ended and have been told: nothing is left to do."""
        self._finish(close, close, self.first_end or "client")

    def end(self, why: str) -> None:
        """A polite end of both sides."""
        self._finish(None, None, why)

    def reset(self) -> None:
        """RST to both sides, now."""
        self._finish(reset, reset, "reset")

    def told(self, final: Close | Reset) -> None:
        """A flow handler ends the connection."""
        sides = ("client", "backend")
        if isinstance(final, Reset):
            ways = [reset if final.side in (side, "both") else None for side in sides]
            self._finish(ways[0], ways[1], "handler")
            return
        for flow in self.flows:
            flow.let_out(final.side == sides[not flow.to_backend])
        self.end("handler")

    def _finish(
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
        if self._dial is not None:
            self._dial.cancel()
        self._stop_timer()
        calls, flows = self.calls, self.flows
        for call in calls:
            call.count()
        try:
            self.exchanges.over_all(self, why)
        except RAISED:
            self.server.crashed(self)
        self.counters.add(self)
        held = [flows[1].sink.held, flows[0].sink.held] if flows else [None, None]
        for flow in flows:
            flow.close()
        for flow in flows:
            flow.source.let_go()
        for call in calls:
            call.cancel()
        for lent in (self._client_sock, self._backend_sock):
            if lent is not None:
                lent.forget()
        self.up = self.down = self.messages = None
        self._lingering = 1  # until all have been begun
        for sock, how, to_backend in (
            (self.client, end_client, False),
            (self.backend, end_backend, True),
        ):
            if sock is not None and how is not None:
                how(sock)
            elif sock is not None:
                self._lingering += 1
                sent = partial(self.counters.sent_late, to_backend)
                Linger(sock, held[to_backend], self.loop, sent, self._gone)
        self._gone()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _gone(self) -> None:
        self._lingering -= 1
        if not self._lingering:
            self.server.closed_one(self)
