"""The exchanges of a proxy: picked when they begin, counted and told when they are over.

It joins what is pure (`vaurien.exchange`: the ledger, the picks) with flows at work. On plain TCP
an exchange begins with bytes of the client, and both flows are in it at once, since nobody knows
where its answer begins; where messages are told apart `vaurien.relay.messages` does the same piece
by piece.

Law: while nothing can be picked and nobody looks, none of this is called. Nothing is made for an
exchange that nobody touches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vaurien.behavior import Dice, Exchange
from vaurien.counts import Stats
from vaurien.exchange.ledger import Ledger
from vaurien.exchange.picks import NOBODY, Choice, Picked, Picks
from vaurien.observe.events import Observer
from vaurien.observe.notifier import Notifier
from vaurien.relay.flow import Flow
from vaurien.relay.shaping import Shaping


class Exchanges:
    """Begins and ends the exchanges of one proxy's connections.

    `observers` get the events of those that a handler touches; with `everything`, of all. `picks`
    is None while nothing can be picked and nobody looks.
    """

    def __init__(
        self,
        name: str,
        dice: Dice,
        now: Callable[[], float],
        observers: tuple[Observer, ...],
        everything: bool,
    ) -> None:
        self.name, self.dice, self.now = name, dice, now
        self.notifier, self.everything = Notifier(name, observers), everything
        self.picks: Picks | None = None
        self.all_picks: Any = None  # who would pick

    def begin(self, connection: Any, n: int) -> None:
        """An exchange begins with the last `n` bytes read from the client: who deals with it?"""
        ledger = connection.ledger
        before = ledger is not None and bool(ledger.open)
        up, down = connection.flows
        if before:
            self.account_for(connection, ledger.end(up.received - n, down.received), "next")
        number = connection.framer.exchange
        choice = self.all_picks.pick(connection, number)
        if choice.handlers or self.everything or _is_shaped(up) or _is_shaped(down):
            exchange = self.open(connection, number, choice, up.received - n, down.received)
            if choice.upstream or up.detour is not None or choice.taker is not None:
                self.enter(up, exchange, choice.upstream)
            if not connection.closed:
                self.enter(down, exchange, choice.downstream)
        elif before:
            self.deal(connection, None, choice)

    def open(
        self,
        connection: Any,
        number: int,
        choice: Choice,
        from_client: int = 0,
        from_backend: int = 0,
    ) -> Exchange:
        """The exchange that begins after so many bytes were read, told if anybody touches it."""
        handlers = choice.handlers
        exchange = Exchange(self.dice, connection.number, number, handlers, choice.taker)
        exchange.began = self.now()
        if connection.ledger is None:
            connection.ledger = Ledger()
        connection.ledger.begin(exchange, from_client, from_backend)
        if self.notifier.on_began and (handlers or self.everything):
            self.notifier.began(connection.number, number, handlers)
        return exchange

    def present(self, connection: Any) -> Exchange:
        """The present exchange of `connection`, made if nobody touched it so far."""
        ledger = connection.ledger
        if ledger is not None and ledger.open:
            return ledger.up  # type: ignore[no-any-return]
        if connection.messages is not None and connection.messages.begun:  # between two of them
            return Exchange(self.dice, connection.number, connection.messages.begun)
        return self.open(connection, connection.number_of_exchange, NOBODY, *_read(connection, 0))

    def stays(self, connection: Any, n: int) -> None:
        """An exchange begins with `n` bytes that a handler has read itself: it stays with it."""
        ledger = connection.ledger
        if ledger is not None and ledger.open:
            before = ledger.down
            self.over(connection, "next", n)
            choice = Choice(before.handlers)
            number = connection.framer.exchange
            self.all_picks.stays(connection, number)
            exchange = self.open(connection, number, choice, *_read(connection, n))
            self.deal(connection, exchange, choice)

    def deal(self, connection: Any, exchange: Exchange | None, choice: Choice) -> None:
        """`exchange` is the present one from now on, None if nobody touches it."""
        up, down = connection.flows
        self.enter(up, exchange, choice.upstream)
        if not connection.closed:
            self.enter(down, exchange, choice.downstream)

    @staticmethod
    def enter(flow: Flow, exchange: Exchange | None, picked: list[Picked]) -> None:
        """`exchange` begins in `flow`, on which `picked` act; None if nobody touches it."""
        shaping = flow.shaping
        if picked or (shaping is not None and not shaping.may_go_round()):
            assert exchange is not None
            if shaping is None:
                shaping = flow.shaping = Shaping(flow, exchange)
            shaping.enter(exchange, picked)
            return
        taken = exchange is not None and exchange.taken
        if flow.detour is None and not taken:
            return  # as before, straight on
        if shaping is not None:
            shaping.go_round()
        flow.exchange = exchange
        flow.handler = exchange.taker if taken else None  # type: ignore[union-attr]
        flow.detour = flow.connection.desk_of(flow).hand_over if taken else None

    def dismiss(self, connection: Any, gone: set[Picked]) -> None:
        """The behavior picks some no more, and they leave that connection too.

        What they hold goes on; their calls end. The connection ends if nobody knows what a call has
        passed on of what it has read.
        """
        for one in gone if connection.harms is not None else ():
            connection.harms.pop(one, None)
        if not connection.flows:
            meeting = connection.meeting
            if meeting is not None and meeting.picked in gone and not connection.dials:
                meeting.dismiss()
            return
        calls = connection.calls
        for flow in connection.flows:
            if not connection.closed:
                self._dismiss(flow, gone)
        for call in calls:
            waits = not connection.closed and call.handler in gone and not call.over
            if waits and not call.dismiss():
                connection.end("dropped")

    @staticmethod
    def _dismiss(flow: Flow, gone: set[Picked]) -> None:
        """Some leave a flow: what they hold goes on."""
        shaping = flow.shaping
        if flow.handler in gone:
            flow.handler = None
            if shaping is None or not shaping.engaged:
                flow.detour = None
        if shaping is not None:
            shaping.dismiss(gone)

    def over_all(self, connection: Any, end: str) -> None:
        """The connection ends, and with it all that is open."""
        framed = connection.messages is not None  # which counts each piece
        while connection.ledger:
            if framed:
                self.account_for(connection, connection.ledger.end(), end)
            else:
                self.over(connection, end)

    def over(self, connection: Any, end: str, n: int = 0) -> None:
        """The oldest exchange has ended as `end` says: count what it was, and tell the observers.

        The last `n` bytes of the client are not part of it.
        """
        self.account_for(connection, connection.ledger.end(*_read(connection, n)), end)

    def account_for(self, connection: Any, exchange: Exchange, end: str) -> None:
        """Count what an exchange was that is over, and tell the observers."""
        notifier, added = self.notifier, exchange.added
        if added:
            n = exchange.from_client + exchange.from_backend
            if len(added) == 1:
                ((one, seconds),) = added.items()
                one.stats.fire(seconds, n)
            else:
                fired: dict[Stats, float] = {}  # the handlers of a preset count as one
                for one, seconds in added.items():
                    if seconds >= fired.get(one.stats, 0.0):
                        fired[one.stats] = seconds
                for stats, seconds in fired.items():
                    stats.fire(seconds, n)
        ended = notifier.on_ended and (exchange.handlers or added or self.everything)
        if ended or (added and notifier.on_acted):
            seconds = self.now() - exchange.began
            notifier.ended(exchange, self.dice.seed, connection.address, seconds, end)


def _is_shaped(flow: Flow) -> bool:
    return flow.shaping is not None and flow.shaping.active


def _read(connection: Any, n: int) -> tuple[int, int]:
    """The bytes read from the client, without the last `n`, and from the backend.

    None where messages are told apart: there each piece is counted with its exchange.
    """
    flows = connection.flows if connection.messages is None else ()
    return (flows[0].received - n, flows[1].received) if flows else (0, 0)
