"""A connection: from accept over the dial to two sides and two flows, and to its end.

Laws: nothing in a callback blocks. Each way to end leaves it closed, its sockets in other hands,
and is taken once. What happens to one connection touches no other.
"""

from __future__ import annotations

import _socket
import sys
from typing import Any

from vaurien.behavior import Exchange
from vaurien.errors import RAISED, HandlerRaised
from vaurien.exchange.ledger import Ledger
from vaurien.exchange.picks import Picked
from vaurien.flow import Close, Reset
from vaurien.net.dial import Dial
from vaurien.net.linger import Way, close, reset
from vaurien.net.side import Side
from vaurien.protocols.tcp import Tcp
from vaurien.relay import home
from vaurien.relay.call import Call
from vaurien.relay.ending import LastWords, finish
from vaurien.relay.flow import Flow
from vaurien.relay.handoff import Desk
from vaurien.relay.lent import Lending
from vaurien.relay.meeting import Meeting
from vaurien.relay.pump import Pump


class Connection:
    """One client and its backend. `proxy` is the server that has accepted it."""

    __slots__ = (
        "_dial",
        "_last_words",
        "address",
        "backend",
        "broken",
        "client",
        "closed",
        "counters",
        "down",
        "exchanges",
        "first_end",
        "flows",
        "framer",
        "harms",
        "ledger",
        "lending",
        "loop",
        "meeting",
        "messages",
        "number",
        "quiet",
        "seen",
        "server",
        "up",
        "way",
    )

    def __init__(self, server: Any, number: int, client: _socket.socket, address: object) -> None:
        self.server, self.number, self.address, self.client = server, number, address, client
        self.loop, self.exchanges, self.counters = server.loop, server.exchanges, server.counters
        self.backend: _socket.socket | None = None
        self.framer = Tcp()
        self.messages: Any = None  # where the protocol tells messages apart
        self.ledger: Ledger | None = None  # made for the first exchange that is touched
        self.up: Pump | None = None
        self.down: Pump | None = None
        self.flows: tuple[Pump, ...] = ()  # up and down, once the backend has answered
        self.lending: Lending | None = None  # once a socket handler was picked
        self._dial: Dial | None = None
        self.meeting: Meeting | None = None  # before it is dialled, if a handler meets it
        self._last_words: LastWords | None = None  # once one side was reset
        self.harms: dict[Picked, int] | None = None  # per handler, for its exact points
        self.first_end: str | None = None  # whose end came first: client or backend
        self.broken = self.closed = False  # broken: one side was reset
        self.way: home.Way | None = None  # if it may be one of ours on either side
        self.seen = 0  # `moved` when it was last looked at
        self.quiet = 0.0  # when it was seen first, in seconds of the loop's clock; 0 is not yet

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self.up is not None else "dialling"
        return (
            f"<Connection {self.number} of {self.server.name!r}: {state},"
            f" exchange {self.number_of_exchange}, {self.up!r}, {self.down!r}>"
        )

    # What flows ask

    @property
    def number_of_exchange(self) -> int:
        """How many exchanges have begun."""
        return self.framer.exchange if self.messages is None else int(self.messages.begun)

    # The beginning

    def open(self) -> None:
        """Dial the backend, unless it has come back to where it came from."""
        if home.ways and (error := home.comes_back(self)):
            self._dialled(None, error)
        else:
            self._dial = Dial(self.server.dialer, self._dialled)
            self._dial.start()

    @property
    def dials(self) -> bool:
        """Whether it waits for the backend to answer."""
        return self._dial is not None

    def _dialled(self, backend: _socket.socket | None, error: OSError | None) -> None:
        """The backend answered, or could not be reached."""
        self._dial = None
        try:
            if backend is None:
                self.server.reports.dial_failed(self, error)
                self.end("dial")
                return
            self.backend = backend
            home.sets_out(self)
            client_side, backend_side = Side(self.client, self.loop), Side(backend, self.loop)
            up = self.up = Pump(self, True, client_side, backend_side)
            down = self.down = Pump(self, False, backend_side, client_side)
            up.peer, down.peer = down, up
            self.flows = up, down
            self.server.opened(self)
            if not self.closed:
                up.resume()
                down.resume()
        except RAISED:
            self.crashed()

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
        flow.received += len(data)
        if not flow.to_backend:
            self.framer.backend_bytes()
        elif self.framer.answered:
            self.begin(len(data))
        flow.feed(data)

    def read_by_call(self, flow: Flow, data: bytes) -> bytes:
        """A call of a socket handler reads `data` of `flow` itself; what it gets of that."""
        if not flow.to_backend:
            self.framer.backend_bytes()
        elif self.framer.client_bytes():
            self.exchanges.stays(self, len(data))
        return data

    @property
    def calls(self) -> set[Call]:
        """The calls of socket handlers that have a flow."""
        return self.lending.calls if self.lending is not None else set()

    def desk_of(self, flow: Flow) -> Desk:
        """Where socket handlers take what leaves `flow`."""
        if self.lending is None:
            self.lending = Lending(self)
        return self.lending.desk_of(flow)

    # What is seen of it

    @property
    def moved(self) -> int:
        """A number that changes with each byte that is read from a side, or sent to one."""
        return sum(flow.received + flow.sent + flow.unread for flow in self.flows)

    def crashed(self) -> None:
        """Called in an ``except``: log the error and end this connection, and no other."""
        error = sys.exc_info()[1]
        if isinstance(error, HandlerRaised) and error.__cause__ is not None:
            self.server.reports.handler_raised(self, error.handler, error.__cause__, False)
        else:
            self.server.reports.crashed(self)
        self.end("error")

    # Towards the end

    def side_ended(self, flow: Flow) -> None:
        """The source of `flow` has come to its end."""
        if self.first_end is None:
            self.first_end = "client" if flow.to_backend else "backend"

    def sink_broke(self, flow: Flow) -> None:
        """The sink of `flow` is gone: let what it has said come through, then reset."""
        self.broken = True
        if not flow.peer.ended or flow.peer.waiting or self.calls:
            self._last_words = self._last_words or LastWords(self)
        else:
            self.reset()

    def end_if_stuck(self) -> None:
        """End if both sides have ended, and a flow handler keeps an end back for good."""
        up, down = self.up, self.down
        if up is not None and up.stuck and down is not None and down.stuck:
            self.end(self.first_end or "client")

    def done(self) -> bool:
        """Close if both sides were told that nothing more will come, and no handler runs."""
        up, down = self.up, self.down
        if up is None or down is None:
            return True
        if not (up.finished and down.finished) or self.calls:
            return False
        if up.over and down.over:
            self.close()
        else:  # a handler has shut down a side whose peer may still be sending
            self.end("handler")
        return True

    # The ways to end. Each leaves the connection closed and its sockets in other hands.

    def close(self) -> None:
        """Both sides have ended and have been told: nothing is left to do."""
        self._finish(close, close, self.first_end or "client")

    def end(self, why: str) -> None:
        """A polite end of both sides."""
        if self.lending is not None:
            self.lending.pass_on()
        self._finish(None, None, why)

    def reset(self) -> None:
        """RST to both sides, now."""
        self._finish(reset, reset, "reset")

    def end_side(self, client: bool, hard: bool) -> None:
        """End the client's side or the backend's, with RST if `hard`, and the other politely."""
        if self.lending is not None:
            self.lending.pass_on()
        how = reset if hard else None
        self._finish(how if client else None, None if client else how, "handler")

    def end_as(self, final: Close | Reset) -> None:
        """A flow handler ends the connection."""
        sides = ("client", "backend")
        if isinstance(final, Reset):
            ways = [reset if final.side in (side, "both") else None for side in sides]
            self._finish(ways[0], ways[1], "handler")
            return
        for flow in self.flows:
            flow.let_out(final.side == sides[not flow.to_backend])
        self.end("handler")

    def _finish(self, client: Way | None, backend: Way | None, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        if self._dial is not None:
            self._dial.cancel()
        for one in (self.meeting, self._last_words):
            if one is not None:
                one.over()
        finish(self, client, backend, why)
        if self.lending is not None:
            self.lending.over()
        self.up = self.down = self.messages = self.meeting = self._last_words = self.lending = None
        self.flows = ()
