"""Messages: a connection whose protocol has a framer, piece by piece.

It joins the framer, the ledger and the replies (all pure) with the two flows. What is read of a
side is cut into pieces by the framer. Each piece of a request goes up, or not, as its exchange
says; each piece of an answer goes down when it is that exchange's turn. Several exchanges may begin
in one read, and each direction is in an exchange of its own.

Laws: what nobody touches travels as one, in order, unchanged. An answer leaves when all before it
have left. What the framer does not understand makes this connection plain ``tcp``, said once in the
log; no byte is lost by that. No more than `OPEN` exchanges are open at a time, and no more than the
proxy's ``--max-held`` bytes of made answers wait: until then the client is not read.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from vaurien.errors import RAISED, HandlerRaised
from vaurien.exchange.ledger import Ledger
from vaurien.exchange.picks import Choice
from vaurien.exchange.replies import Filling, Replies
from vaurien.handlers.message import Action, Answer, Lose, Replace, Request, Send
from vaurien.observe.log import fields
from vaurien.protocols.framer import Framer, FramingError, Piece
from vaurien.relay.flow import Flow

log = logging.getLogger("vaurien")

OPEN = 1000  # exchanges that may be open on a connection; each takes about a KiB


class Messages:
    """The messages of one connection; `framer` is its own."""

    __slots__ = ("_connection", "_framer", "_instead", "_queues", "_replies", "_runs", "begun")

    def __init__(self, connection: Any, framer: Framer) -> None:
        self._connection, self._framer = connection, framer
        self._replies = Replies()
        self.begun = 0  # exchanges
        self._instead = 0  # the exchange whose request does not go up as it came
        #: By direction: pieces that wait for a call to return, and data that goes on as one.
        self._queues: tuple[deque[Piece], deque[Piece]] = (deque(), deque())
        self._runs: tuple[list[bytes], list[bytes]] = ([], [])
        connection.ledger = Ledger()
        for flow in connection.flows:
            flow.callback = flow.from_source

    def __repr__(self) -> str:
        return f"<Messages: {self.begun} begun, {self._replies!r}>"

    @property
    def answered(self) -> bool:
        """Whether all that was asked has been answered."""
        return not self._replies

    @property
    def full(self) -> bool:
        """Whether no more requests may be read for now."""
        connection = self._connection
        waiting = self._replies.made + len(connection.down.sink.held or b"")
        return len(self._replies) >= OPEN or waiting > connection.server.plan.max_held

    # What was read

    def read(self, flow: Flow, data: bytes) -> None:
        """`data` was read by `flow`: cut it, and pass on what may go now."""
        flow.passed += len(data)
        if self._cut(flow, data):
            self.go_on(flow)

    def _cut(self, flow: Flow, data: bytes) -> bool:
        """Have the pieces of `data` wait for their turn; False if messages end here."""
        try:
            if data:
                self._queues[flow.to_backend].extend(self._framer.feed(flow.to_backend, data))
        except FramingError as error:
            self._unframed(flow, error)
            return False
        return True

    def go_on(self, flow: Flow) -> None:
        """Pass on the pieces that wait, as far as they may go."""
        connection, queue = self._connection, self._queues[flow.to_backend]
        if not flow.to_backend:
            self._turn()
        while queue and not _owned(flow) and connection.messages is self:
            if flow.to_backend and queue[0].first and self.full:
                flow.source.reader.stop()
                break
            piece = queue.popleft()
            data = self._up(piece) if flow.to_backend else self._down(piece)
            if data:
                self._runs[flow.to_backend].append(data)
            if piece.last and not flow.to_backend and piece.exchange:
                self._answered("answered")
        if connection.messages is self:
            self._flush(flow)

    def look(self) -> None:
        """There may be room for more requests."""
        up = self._connection.up
        if self._queues[True]:
            self.go_on(up)
        if not self._connection.closed:
            up.resume()

    def _flush(self, flow: Flow) -> None:
        """Send on what travels as one."""
        run = self._runs[flow.to_backend]
        if run:
            data = b"".join(run)
            run.clear()
            flow.feed(data)

    def _inject(self, flow: Flow, data: bytes) -> None:
        """Send on what was not read, behind what was."""
        self._flush(flow)
        if data and not self._connection.closed:
            flow.astray += len(data)
            flow.feed(data)

    # Requests

    def _up(self, piece: Piece, stays: bool = False) -> bytes:
        """What goes up of a piece of a request."""
        if not piece.exchange:
            return piece.data
        if piece.first:
            self._begin(piece, stays)
        exchange = self._connection.ledger and self._connection.ledger.find(piece.exchange)
        if exchange is not None:
            exchange.from_client += len(piece.data)
        if piece.exchange != self._instead:
            return piece.data
        self._connection.up.astray -= len(piece.data)
        return b""

    def _begin(self, piece: Piece, stays: bool) -> None:
        """An exchange begins: who deals with it, and what becomes of its request?"""
        connection, exchanges = self._connection, self._connection.exchanges
        up, down = connection.flows
        before, self.begun = connection.ledger.up, piece.exchange
        if stays and before is not None:
            exchanges.all_picks.stays(connection, piece.exchange)
            choice = Choice(before.handlers)
        else:
            choice = exchanges.all_picks.pick(connection, piece.exchange)
        if choice.handlers or up.detour is not None:
            self._flush(up)
        exchange = exchanges.open(connection, piece.exchange, choice)
        exchange.summary = piece.summary
        exchanges.enter(up, exchange, choice.upstream)
        if connection.ledger.down is exchange and not connection.closed:
            exchanges.enter(down, exchange, choice.downstream)
        if connection.closed:
            return
        action = _ask(choice, Request(exchange, piece.summary, piece.data))
        self._replies.open(piece.exchange, *_filling(action))
        if isinstance(action, (Answer, Send)):
            self._instead = piece.exchange
        if isinstance(action, Send):
            self._inject(up, action.data)
        elif isinstance(action, Answer):
            self._framer.withheld(piece.exchange)
            self._turn()

    # Answers

    def _down(self, piece: Piece) -> bytes:
        """What goes down in place of a piece of an answer."""
        if not piece.exchange:
            return piece.data
        connection = self._connection
        connection.ledger.down.from_backend += len(piece.data)
        data = self._replies.piece(piece.exchange, piece.data, piece.last)
        if data is piece.data:
            return data
        connection.down.astray -= len(piece.data)
        self._inject(connection.down, data)
        return b""

    def _answered(self, end: str) -> None:
        """The oldest exchange has been answered: the next one has its turn."""
        connection, exchanges = self._connection, self._connection.exchanges
        if connection.messages is not self:
            return  # it has ended, and all that was open with it
        down = connection.down
        if down.detour is not None:
            self._flush(down)
        exchanges.told(connection, connection.ledger.end(), end)
        after = connection.ledger.down
        if after is not None:
            picked = [one for one in after.handlers if one.call is None and one.acts[False]]
            if picked or down.detour is not None:
                self._flush(down)
            exchanges.enter(down, after, picked)
        if not connection.closed:
            self._turn()
            self.look()

    def _turn(self) -> None:
        """Send the made answers whose turn it is."""
        connection = self._connection
        while connection.messages is self and not _owned(connection.down):
            reply = self._replies.turn()
            if reply is None:
                return
            self._inject(connection.down, reply)
            self._answered("handler")

    # Socket handlers

    def taken_by_call(self, flow: Flow) -> bytes:
        """What a call that has `flow` reads next of the pieces that wait; b'' if none does."""
        queue = self._queues[flow.to_backend]
        while queue:
            piece = queue.popleft()
            data = self._up(piece, stays=True) if flow.to_backend else self._down(piece)
            if piece.last and not flow.to_backend and piece.exchange:
                self._answered("answered")
            if data:
                flow.astray -= len(data)
                return data
        return b""

    def read_by_call(self, flow: Flow, data: bytes) -> bytes:
        """A call reads `data` itself; what it gets of it."""
        if not self._cut(flow, data):
            return b""
        return self.taken_by_call(flow)

    # Ends

    def ended(self, flow: Flow) -> None:
        """The source of `flow` has ended: what the framer kept goes on."""
        kept = self._framer.kept(flow.to_backend)
        if kept:
            flow.feed(kept)

    def _unframed(self, flow: Flow, error: FramingError) -> None:
        """Go on as plain tcp, for good."""
        connection = self._connection
        log.warning(
            "%s: connection %d goes on as tcp: %s",
            connection.server.name,
            connection.number,
            error,
            extra=fields(proxy=connection.server.name, connection=connection.number),
        )
        left = []
        for one in connection.flows:
            pieces = [piece.data for piece in self._queues[one.to_backend]]
            run = self._runs[one.to_backend]
            left.append(b"".join([*run, *pieces, self._framer.kept(one.to_backend)]))
        self._become_tcp()
        for one, data in zip(connection.flows, left, strict=False):
            if data:
                one.feed(data)

    def _become_tcp(self) -> None:
        connection, framer = self._connection, self._connection.framer
        connection.messages = None
        framer.exchange, framer.answered = self.begun, False
        up, down = connection.flows
        while len(connection.ledger.open) > 1:
            connection.exchanges.told(connection, connection.ledger.end(), "next")
        for exchange in connection.ledger.open:  # from here on its counts are as tcp has them
            exchange.from_client -= up.passed
            exchange.from_backend -= down.passed
        up.callback, down.callback = up.from_client, down.from_backend
        for flow in (up, down):
            flow.source.reader.callback = flow.callback


def _owned(flow: Flow) -> bool:
    return flow.desk is not None and flow.desk.owner is not None


def _ask(choice: Choice, request: Request) -> Action:
    """What the message handlers picked want to become of a request: the first that says so."""
    for one in choice.asked:
        try:
            action: Action = one.call.on_request(request)
        except RAISED as error:
            raise HandlerRaised(one) from error
        if action is not None:
            request.exchange.added[one] = 0.0
            return action
    return None


def _filling(action: Action) -> tuple[Filling, bytes]:
    """How the slot of an exchange is filled."""
    if isinstance(action, Answer):
        return "made", action.data
    if isinstance(action, Replace):
        return "replaced", action.data
    return ("lost" if isinstance(action, Lose) else "backend"), b""
