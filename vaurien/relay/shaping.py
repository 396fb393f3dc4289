"""Shaping: the chain of a flow at work, between its source and its sink.

What is read goes into the chain (`take`); what has left it goes on as far as the sink takes it and
no call of a socket handler has the flow (`deliver`); when the chain is due next, an alarm says
(`arm`). Handlers come with the exchange that picked them (`enter`) and stay, toxics come and go
with operations (`pin`, `unpin`, `update`).

Laws: `deliver` is called after whatever may have changed what leaves, or may leave. A chain that
has nothing to do costs nothing: the pump goes round it. Chains that make much of what is read take
turns: the loop's turn is short, however many there are.
"""

from __future__ import annotations

from typing import Any

from vaurien.behavior import Exchange
from vaurien.errors import RAISED, HandlerRaised
from vaurien.exchange.picks import Picked
from vaurien.flow import EOF, Begin
from vaurien.flow.chain import Chain, Place
from vaurien.flow.handler import CHUNK, Draws, FlowHandler
from vaurien.flow.places import NEVER, PIECE
from vaurien.net.alarms import TURN, Alarm
from vaurien.relay.flow import Flow
from vaurien.relay.rules import DEAF, FINISH, ROUND, forbidden

#: Pieces that go on in one turn of the loop; each costs some microseconds.
AT_ONCE = 500


class Shaping:
    """The chain of one flow, and what it takes to run it.

    `active` says that it has something to do; `engaged`, that what is read goes through it, which
    may begin later, when a call has given the flow back.
    """

    __slots__ = ("_alarm", "_loop", "active", "chain", "engaged", "flow", "max_held", "picked")

    def __init__(self, flow: Flow, exchange: Exchange) -> None:
        self.flow = flow
        self.chain = Chain(exchange)
        self.chain.sooner = self.arm
        self.active = self.engaged = False
        self.picked: list[Picked] = []  # who acts on the exchange that came in last
        self.max_held: int = flow.connection.server.plan.max_held  # bytes
        self._loop = flow.connection.loop
        self._alarm: Alarm | None = None

    def __repr__(self) -> str:
        return f"<Shaping{', engaged' if self.engaged else ''}: {self.chain!r}>"

    # What comes in

    def take(self, data: bytes) -> None:
        """The flow's detour: `data` was read, b'' at the end."""
        flow, chain = self.flow, self.chain
        flow.astray -= len(data)
        if flow.connection.closed or (flow.finished and forbidden(flow, DEAF)):
            return
        if not data:
            chain.push(EOF, chain.route, self._loop.now())
        elif chain.limit < CHUNK:
            self._in_turn(data)
        else:
            chain.feed(data, chain.route, self._loop.now())
        if chain.out or flow.over or chain.final is not None:
            self.deliver()
            return
        if chain.held >= self.max_held:
            flow.source.reader.stop()
        self.arm()

    def _in_turn(self, data: bytes) -> None:
        """Take what a stage makes much of, if there is time; else it is due when alarms ring."""
        chain, alarms, now = self.chain, self._loop.alarms, self._loop.now()
        take = chain.feed if alarms.spent < TURN else chain.put_off
        take(data, chain.route, now)
        alarms.spent += 2 * (self._loop.now() - now)  # to pass it on takes as long again

    def enter(self, exchange: Exchange, picked: list[Picked]) -> None:
        """`exchange` begins in this flow, for which `picked` act on it."""
        chain = self.chain
        chain.route = exchange
        if picked is not self.picked or not self.active:
            self.active, self.picked = True, picked
            self.engage()
            for one in picked:
                if not self.places_of(one):
                    before = sum(
                        place.pinned or place.key.place < one.place for place in chain.staged
                    )
                    self._insert(before, one)
            self._limit_reads()
        elif not chain.wants_begin:
            return
        if chain.wants_begin:
            chain.push(Begin(exchange.number), exchange, self._loop.now())
        if chain.out or chain.final is not None:
            self.deliver()
        else:
            self.arm()

    def engage(self) -> None:
        """Go through the chain if it has something to do, once no call has the flow."""
        desk = self.flow.desk
        if self.active and (desk is None or desk.owner is None):
            self.engaged, self.flow.detour = True, self.take

    def may_go_round(self) -> bool:
        """Whether what is read may go past the chain."""
        return not self.active or not forbidden(self.flow, ROUND)

    def go_round(self) -> None:
        """Let what is read go past the chain, until a handler acts on the flow again."""
        self.active = self.engaged = False
        self.picked = []
        self.flow.view = self._loop.view

    # Who is at work

    def _insert(self, position: int, one: Picked, pinned: bool = False) -> None:
        """Put a stage of `one` into the chain."""
        try:
            stage = _stage(one, self.flow, pinned)
        except BaseException as error:  # of any kind, as in the chain
            raise HandlerRaised(one) from error
        self.chain.insert(position, Place(stage, one, pinned), self._loop.now())

    def pin(self, one: Picked, order: list[Picked]) -> None:
        """A toxic comes to this flow, to its place among the toxics, as `order` has them."""
        chain = self.chain
        if not self.active:
            chain.route, self.active = self.flow.connection.present(), True
        self.engage()
        staged = [place for place in chain.staged if place.pinned]
        before = sum(order.index(place.key) < order.index(one) for place in staged)
        self._insert(before, one, pinned=True)
        self._limit_reads()
        self.deliver()

    def unpin(self, one: Picked) -> None:
        """A toxic leaves this flow; what it holds goes on."""
        for place in self.places_of(one):
            self.chain.remove(place, self._loop.now())
        self._limit_reads()
        self.deliver()

    def update(self, one: Picked) -> None:
        """The options of a toxic have changed; what it holds goes on."""
        for place in self.places_of(one):
            place.stage.options = one.specification.options
            self.chain.update(place, self._loop.now())
        self._limit_reads()
        self.deliver()

    def dismiss(self, gone: set[Picked]) -> None:
        """The behavior picks some no more: what they hold goes on."""
        left = [place for place in self.chain.staged if not place.pinned and place.key in gone]
        if left:
            self.picked = [one for one in self.picked if one not in gone]
            for place in left:
                self.chain.remove(place, self._loop.now())
            self._limit_reads()
            self.deliver()

    def places_of(self, one: Picked) -> list[Place]:
        """Where `one` is at work in the chain: once, or not at all."""
        return [place for place in self.chain.staged if place.key is one]

    def _limit_reads(self) -> None:
        """Read no more at a time than the stages want to be given."""
        self.flow.view = self._loop.view[: self.chain.limit]

    # What leaves

    def deliver(self) -> None:
        """Pass on what has left the chain, as far as the sink takes it and no call has the flow."""
        flow, chain, connection = self.flow, self.chain, self.flow.connection
        if connection.closed:
            return
        if chain.final is not None:
            connection.end_as(chain.final)
            return
        out, sink, left = chain.out, flow.sink, AT_ONCE
        while out and left and sink.held is None and (flow.desk is None or flow.desk.owner is None):
            left -= 1
            event, exchange = out.popleft()
            if exchange is not flow.exchange:
                flow.exchange = exchange
                taker = exchange.taker
                flow.handler = None if taker is None or taker.gone else taker
            if event is None:
                data, flow.ended = b"", True
            else:
                data = event.data
                n = len(data)
                chain.held -= n + PIECE
                flow.astray += n  # the chain had it, and now the sink or the handler does
            if flow.handler is not None:
                connection.desk_of(flow).hand_over(data)
            elif event is None:
                flow.finish()
            else:
                sink.write(data)
            if connection.closed:
                return
        if flow.desk is not None:
            flow.desk.look()
        reader = flow.source.reader
        if chain.held >= self.max_held:
            reader.stop()
        elif not reader.active and chain.held <= self.max_held // 2:
            flow.resume()
        self.arm(soon=bool(out) and not left)
        if self.engaged and not chain.staged and self.may_go_round():  # the last toxic has gone
            self.go_round()
            flow.detour = connection.desk_of(flow).hand_over if flow.handler is not None else None
        if flow.ended and not forbidden(flow, FINISH):
            flow.finish()  # the end was handed over while something was held
        if flow.over and not connection.closed:
            connection.end_if_stuck()
        if connection.messages is not None:
            connection.messages.go_on()  # there may be room, or an exchange over

    def drained(self) -> None:
        """The sink takes more: what is ready goes, if there is time; else when alarms ring."""
        alarms, now = self._loop.alarms, self._loop.now()
        if self.chain.out and alarms.spent > TURN:
            self.arm(soon=True)
            return
        self.deliver()
        alarms.spent += self._loop.now() - now

    def rest(self, everything: bool) -> bytes:
        """What is ready to leave, or all that it holds if `everything`, for the end."""
        return self.chain.flush(everything)

    # When it is due

    def arm(self, soon: bool = False) -> None:
        """Have `wake` called when the chain has something to do; `soon`: once others had a turn."""
        due = self._loop.now() if soon else self.chain.due
        alarm = self._alarm
        if alarm is not None:
            if alarm.due == due:
                return
            self._loop.alarms.give_up(alarm)
            self._alarm = None
        if due < NEVER:
            self._alarm = self._loop.alarms.set(due, self)

    def wake(self, now: float) -> None:
        """The chain's deadline has come; `now` is in seconds."""
        self._alarm = None
        try:
            self.chain.advance(now, AT_ONCE)
            self.deliver()
        except RAISED:
            self.flow.connection.crashed()

    def stuck(self) -> bool:
        """Whether nothing that it holds can ever leave by itself; a toxic may be taken away."""
        chain = self.chain
        if chain.held or chain.out or chain.due < NEVER:
            return False
        return not any(place.pinned and place.pending for place in chain.staged)

    def drop(self) -> None:
        """Nothing goes through it any more: the stages give back what they share with others."""
        if self._alarm is not None:
            self._loop.alarms.give_up(self._alarm)
            self._alarm = None
        try:
            self.chain.close(self._loop.now())
        except HandlerRaised as error:
            connection = self.flow.connection
            connection.server.reports.handler_raised(
                connection, error.handler, error.__cause__, False
            )


def _stage(one: Picked, flow: Flow, pinned: bool) -> FlowHandler:
    """An instance of a flow handler, for one flow of one connection."""
    spec, connection = one.specification, flow.connection
    kind = "toxic " if pinned else ""
    prefix = f"{kind}{one.name}.{one.place[1]} {'up' if flow.to_backend else 'down'}"
    draws = Draws(connection.server.dice, connection.number, prefix)
    made: Any = spec.cls(spec.options, flow.to_backend, draws, one.shared)
    made.pinned = pinned
    return made  # type: ignore[no-any-return]
