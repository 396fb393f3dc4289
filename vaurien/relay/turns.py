"""Turns: the exchanges of a connection whose protocol tells messages apart, from piece to piece.

It is asked with each piece what goes on in its place, and does what follows from that: an exchange
begins, a handler is picked for it, a message handler is asked, its answer is due, it is over. When
pieces are asked for, and where what goes on goes, is `vaurien.relay.messages`.

Laws: an exchange begins in the up flow with its request's first piece, and in the down flow when
all before it have been answered. It is over when its request is there in full and nothing of its
answer is on its way any more: what a flow or socket handler does to the answer is still its.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from reprlib import repr as short
from typing import Any

from vaurien.behavior import Exchange
from vaurien.errors import HandlerRaised
from vaurien.exchange.ledger import Ledger
from vaurien.exchange.picks import Choice, Picked
from vaurien.exchange.replies import Filling, Replies
from vaurien.handlers.message import Action, Answer, Lose, Replace, Request, Send
from vaurien.protocols.framer import Framer, Piece
from vaurien.relay.flow import Flow

OPEN = 1000  # exchanges that may be open on a connection; each takes about a KiB


class Turns:
    """The exchanges of one connection; `flush` sends on what has travelled as one so far."""

    __slots__ = (
        "_connection",
        "_flush",
        "_framer",
        "_instead",
        "_ledger",
        "_picked",
        "_unready",
        "asking",
        "begun",
        "over",
        "replies",
    )

    def __init__(self, connection: Any, framer: Framer, flush: Callable[[Flow], None]) -> None:
        self._connection, self._framer, self._flush = connection, framer, flush
        self._ledger: Ledger = connection.ledger
        self.replies = Replies()
        self._picked: deque[list[Picked]] = deque()  # of each slot, who acts on the answer
        self.begun = 0  # exchanges
        self.asking = 0  # the exchange whose request has begun, and is not there in full
        self._instead = 0  # the exchange whose request does not go up as it came
        self._unready = 0  # the exchange whose made answer waits for the rest of its request
        self.over = False  # the answer whose turn it was has gone on in full

    def __repr__(self) -> str:
        return f"<Turns: {self.begun} begun, {self.replies!r}>"

    @property
    def crowded(self) -> bool:
        """Whether no more requests may begin for now."""
        down, waiting = self._connection.down, self.replies.made
        if down.sink.held is not None:
            waiting += len(down.sink.held)
        if down.shaping is not None:
            waiting += down.shaping.chain.held
        return len(self._ledger) >= OPEN or waiting > self._connection.server.plan.max_held

    # Requests

    def request(self, piece: Piece, call: Any = None) -> bytes:
        """What goes up in place of a piece of a request; `call` has read it itself."""
        data, number = piece.data, piece.exchange
        if not number:
            return data
        instead = self._begin(piece, call) if piece.first else b""
        if piece.last:
            self.asking = self._unready = 0
        present = self._ledger.newest
        if present is not None and present.number == number:
            present.from_client += len(data)
        return instead if self._instead == number else data

    def _begin(self, piece: Piece, call: Any) -> bytes:
        """An exchange begins: who deals with it? What goes up in place of its request, if any."""
        connection, ledger, number = self._connection, self._ledger, piece.exchange
        exchanges = connection.exchanges
        if ledger.open and not self.replies:  # made for a toxic or a look, before any request
            exchanges.account_for(connection, ledger.open.popleft(), "next")
        self.begun = number
        self.asking = 0 if piece.last else number
        choice = self._choose(number, call)
        exchange: Exchange = exchanges.open(connection, number, choice)
        exchange.summary = piece.summary
        up, down = connection.flows
        self._enter(up, exchange, choice.upstream)
        if ledger.down is exchange:
            self._enter(down, exchange, choice.downstream)
        if connection.closed:
            return b""
        self._picked.append(choice.downstream)
        action = ask(choice, Request(exchange, piece.summary, piece.data))
        self.replies.open(number, *filling(action))
        if not isinstance(action, (Answer, Send)):
            return b""
        self._instead = number
        data = action.data if isinstance(action, Send) else b""
        if isinstance(action, Answer) and self.asking and not action.early:
            self._unready = number
        self._framer.instead(number, data)
        return data

    def _choose(self, number: int, call: Any) -> Choice:
        """Who deals with an exchange: a draw, or the one who has read it itself."""
        all_picks = self._connection.exchanges.all_picks
        if call is None or call.exchange is None:
            return all_picks.pick(self._connection, number)  # type: ignore[no-any-return]
        all_picks.stays(self._connection, number)
        return Choice(call.exchange.handlers)

    def _enter(self, flow: Flow, exchange: Exchange, picked: list[Picked]) -> None:
        """`exchange` begins in `flow`; what travels there as one is not of it."""
        connection = self._connection
        if connection.closed:
            return
        if any(one.gone for one in picked):  # since it began
            picked = [one for one in picked if not one.gone]
        if exchange.handlers or flow.detour is not None:
            self._flush(flow)
        if not connection.closed:
            connection.exchanges.enter(flow, exchange, picked)

    # Answers

    def made(self) -> bytes | None:
        """The answer of a handler whose turn it is; None if there is none."""
        reply = self.replies.turn(self._unready)
        self.over = reply is not None
        return reply

    def fits(self, piece: Piece) -> bool:
        """Whether a piece of an answer is of the exchange whose turn it is, or of none."""
        return not piece.exchange or piece.exchange == self.replies.whose

    def answer(self, piece: Piece) -> bytes:
        """What goes down in place of a piece of an answer, which fits."""
        present = self._ledger.down
        if present is not None:
            present.from_backend += len(piece.data)
        if not piece.exchange:
            return piece.data
        self.over = piece.last
        return self.replies.piece(piece.exchange, piece.data, piece.last)

    def advance(self) -> None:
        """The exchange whose turn it was has been answered: the next one has its turn."""
        self.over = False
        self._ledger.answered()
        self._picked.popleft()
        present = self._ledger.down
        if present is not None:
            self._enter(self._connection.down, present, self._picked[0])

    # The end of exchanges

    def end_answered(self) -> bool:
        """Tell of those that are over; whether there were any."""
        connection, leaving = self._connection, self._ledger.leaving
        before = len(leaving)
        while leaving and leaving[0].number != self.asking and not self._holds(leaving[0]):
            connection.exchanges.account_for(connection, self._ledger.end(), "answered")
        return len(leaving) < before

    def _holds(self, exchange: Exchange) -> bool:
        """Whether something of `exchange`, which has been answered, is still on its way."""
        up, down = self._connection.flows
        if down.shaping is not None and not down.shaping.chain.empty:
            last = down.exchange  # that has left
            if last is None or last.number <= exchange.number:
                return True
        if up.desk is None and down.desk is None:
            return False
        return any(call.exchange is exchange for call in self._connection.calls)


def ask(choice: Choice, request: Request) -> Action:
    """What the message handlers picked want to become of a request: the first that says so."""
    for one in choice.asked:
        try:
            action: Action = one.call.on_request(request)
            if not isinstance(action, (Answer, Send, Replace, Lose, type(None))):
                raise TypeError(
                    f"on_request() gave {action!r}; return answer(), send(), replace(), lose()"
                    " or None"
                )
            data = getattr(action, "data", b"")
            if not isinstance(data, bytes):
                action = _with_bytes(action, data)
        except BaseException as error:  # of any kind, as in the chain
            raise HandlerRaised(one) from error
        if action is not None:
            request.exchange.added[one] = 0.0
            return action
    return None


def _with_bytes(action: Any, data: object) -> Any:
    """`action` with bytes, which do not change, for what is like them; TypeError if it is not."""
    if not isinstance(data, (bytearray, memoryview)):
        what = type(action).__name__.lower()
        raise TypeError(
            f"on_request() gave {what}({short(data)}); its data is bytes, such as {what}(b'text')"
        )
    return replace(action, data=bytes(data))


def filling(action: Action) -> tuple[Filling, bytes]:
    """How the slot of an exchange is filled."""
    if isinstance(action, Answer):
        return "made", action.data
    if isinstance(action, Replace):
        return "replaced", action.data
    return ("lost" if isinstance(action, Lose) else "backend"), b""
