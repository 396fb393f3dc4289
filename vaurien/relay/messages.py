"""Messages: a connection whose protocol has a framer, piece by piece.

It joins the framer, the ledger and the replies (all pure) with the two flows. What is read of a
side is cut into pieces (`vaurien.protocols.cutter`). Each piece of a request goes up, or not, as
its exchange says; each piece of an answer goes down when it is that exchange's turn
(`vaurien.relay.turns`). Several exchanges may begin in one read, and each direction is in an
exchange of its own.

::

   client -> cutter -> begin: who? -> up flow ------------------> backend
                          | a slot
                          v
   client <- down flow <- replies: whose turn? <- cutter <------- backend

All of it is one loop, `go_on`, that takes from both directions until nothing moves. Whatever may
have made room or changed a turn calls it; called from within itself it only goes round once more,
so that 100,000 requests in one write are a loop and not a recursion.

Laws: what nobody touches travels as one, in order, unchanged. An answer leaves when all before it
have left. What the framer does not understand makes this connection plain ``tcp``, said once in the
log; no byte of either side is lost by that. While `OPEN` exchanges are open, or answers of more
than the proxy's ``--max-held`` bytes wait for the client, no request is begun, and the client is
not read. A request that has begun goes on being read, since its answer may wait for it.
"""

from __future__ import annotations

import logging
from typing import Any

from vaurien.errors import RAISED, HandlerRaised, many
from vaurien.exchange.ledger import Ledger
from vaurien.observe.log import fields
from vaurien.protocols.cutter import Cutter
from vaurien.protocols.framer import Framer, FramingError
from vaurien.relay.flow import Flow
from vaurien.relay.turns import Turns
from vaurien.relay.unframed import read_anew, unframe

log = logging.getLogger("vaurien")


class Way:
    """One direction: what is to come, and what goes on as one."""

    __slots__ = ("cutter", "done", "run")

    def __init__(self, framer: Framer, to_backend: bool) -> None:
        self.cutter = Cutter(framer, to_backend)
        self.run: list[bytes] = []
        self.done = False  # the end of the source has gone on


class Messages:
    """The messages of one connection; `framer` is its own."""

    __slots__ = ("_again", "_busy", "_connection", "_down", "_up", "turns")

    def __init__(self, connection: Any, framer: Framer) -> None:
        self._connection = connection
        self._up, self._down = Way(framer, True), Way(framer, False)
        connection.ledger = Ledger()
        self.turns = Turns(connection, framer, self._flush)
        self._busy = self._again = False
        for flow in connection.flows:
            flow.callback = flow.from_source

    def __repr__(self) -> str:
        return f"<Messages: {self.turns!r}, {self._up.cutter!r}, {self._down.cutter!r}>"

    @property
    def begun(self) -> int:
        """How many exchanges have begun."""
        return self.turns.begun

    @property
    def answered(self) -> bool:
        """Whether nothing is under way: all that was asked has been answered, and has left."""
        under_way = self.turns.replies or self._connection.ledger.leaving
        return not under_way and not any(map(self.waits, self._connection.flows))

    @property
    def full(self) -> bool:
        """Whether no more of the client may be read for now."""
        if self._up.cutter.error is not None:
            return True
        return not self.turns.asking and self.turns.crowded

    def waits(self, flow: Flow) -> bool:
        """Whether something that was read has not gone on yet, so that neither may the end."""
        cutter = self._way(flow).cutter
        return bool(cutter.pieces or cutter.kept)

    def _way(self, flow: Flow) -> Way:
        return self._up if flow.to_backend else self._down

    @property
    def _alive(self) -> bool:
        return self._connection.messages is self

    # What was read goes on

    def read(self, flow: Flow, data: bytes) -> None:
        """`data` was read by `flow`, perhaps nothing: pass on what may go now."""
        if data:
            self._cut(flow, data)
        self.go_on()

    def _cut(self, flow: Flow, data: bytes) -> None:
        flow.received += len(data)
        flow.astray -= len(data)  # until it is sent on, or something else in its place
        self._way(flow).cutter.feed(data)

    def go_on(self) -> None:
        """Pass on what may go, both ways, until nothing moves."""
        self._again = True
        if self._busy:
            return
        self._busy = True
        try:
            while self._again and self._alive:
                self._again = False
                up, down = self._connection.flows
                try:
                    self._pass(up)
                except HandlerRaised:  # what was before it is none of its affair
                    self._flush(up)
                    self._pass(down)
                    self.turns.end_answered()
                    raise
                self._pass(down)
                if not self._again:
                    self._look()
        finally:
            self._busy = False

    def _pass(self, flow: Flow) -> None:
        """Pass on what waits in one direction, until a call has it."""
        way = self._way(flow)
        while self._alive and not _claimed(flow):
            if way.run and flow.detour is not None and self._turns_now(flow):
                self._flush(flow)  # a call may have the flow now, and what is next
                continue
            data = self._next(flow)
            if data is None:
                break
            self._again = True  # what has moved here may have made room there
            if data:
                way.run.append(data)
        self._flush(flow)

    def _turns_now(self, flow: Flow) -> bool:
        """Whether the next step takes a direction into another exchange."""
        if not flow.to_backend:
            return self.turns.over
        pieces = self._up.cutter.pieces
        return bool(pieces) and pieces[0].first

    def _next(self, flow: Flow, call: Any = None) -> bytes | None:
        """What goes on next; b'' if that is nothing, None if nothing may. `call` has the flow."""
        turns, cutter = self.turns, self._way(flow).cutter
        pieces = cutter.pieces
        if flow.to_backend:
            if not pieces or (pieces[0].first and pieces[0].exchange and turns.crowded):
                return None
            return turns.request(pieces.popleft(), call)
        if turns.over:
            turns.advance()
            return b""
        if (reply := turns.made()) is not None:
            return reply
        if not pieces:
            return None
        if not turns.fits(pieces[0]):
            cutter.error = cutter.error or FramingError("an answer that nobody waits for")
            return None
        return turns.answer(pieces.popleft())

    def _flush(self, flow: Flow) -> None:
        """Send on what travels as one."""
        way = self._way(flow)
        if not way.run or not self._alive:
            return
        data = way.run[0] if len(way.run) == 1 else b"".join(way.run)
        way.run.clear()
        if not way.done and not (flow.finished and flow.detour is None):
            flow.astray += len(data)
            flow.feed(data)

    # Socket handlers

    def taken_by_call(self, flow: Flow) -> bytes:
        """What the call that has `flow` reads next; b'' if nothing is there yet."""
        try:
            data = self._take(flow)
            self.go_on()
        except RAISED:  # not the fault of the handler that reads
            self._connection.crashed()
            return b""
        return data

    def _take(self, flow: Flow) -> bytes:
        desk, cutter = flow.desk, self._way(flow).cutter
        while self._alive and not desk.pending:
            self._past(desk.owner)
            data = self._next(flow, desk.owner)
            if data:
                return data
            if data is not None:
                continue
            if cutter.pieces and flow.to_backend:  # there is no room for more requests
                return b""
            if desk.unread:
                self._cut(flow, bytes(desk.unread))
                desk.unread.clear()
                flow.resume()
            elif cutter.error is not None:
                self._unframe(cutter.error)
            else:
                return cutter.rest() if flow.over else b""
        return b""

    def _past(self, call: Any) -> None:
        """Made answers go past `call`, which has not seen their requests.

        It reads again, so that it is done with the answer before them.
        """
        turns, down = self.turns, self._connection.down
        if down.desk is None or down.desk.owner is not call:
            return
        while self._alive:
            if turns.over:
                turns.advance()
            elif (reply := turns.made()) is not None:
                down.write(reply)
            else:
                return

    # Ends

    def _look(self) -> None:
        """Nothing moves any more: what follows from that?"""
        for flow in self._connection.flows:
            if self._alive and not _claimed(flow):
                self._end(flow)
            elif self._alive:
                flow.desk.look()  # there may be something for the call now
        if self._alive and self.turns.end_answered():
            self._again = True  # there is room for others
        if self._alive:
            up = self._connection.up
            up.source.reader.stop() if self.full else up.resume()

    def _end(self, flow: Flow) -> None:
        """Pass on what comes behind all pieces: the end of the source, or what nobody can cut."""
        way = self._way(flow)
        cutter = way.cutter
        if flow.to_backend and cutter.pieces:
            return
        if cutter.error is not None:
            if not (flow.to_backend and self._in_order()):
                self._unframe(cutter.error)
        elif flow.over and not flow.ended and not way.done:
            if cutter.kept:
                way.run.append(cutter.rest())
                self._flush(flow)
            if self._alive and not _claimed(flow):
                way.done = True
                flow.pass_end()

    def _in_order(self) -> bool:
        """Whether what the client has sent has to wait, since altered answers are due before it."""
        return bool(self.turns.replies.altered) and not self._connection.down.over

    def _unframe(self, error: BaseException) -> None:
        """Go on as plain tcp, for good."""
        connection, lost = self._connection, self.turns.replies.altered
        known = isinstance(error, FramingError)
        log.warning(
            "%s: connection %d goes on as tcp, in exchange %d: %s%s",
            connection.server.name,
            connection.number,
            self.begun,
            error if known else "its framer raised",
            f"; {many(lost, 'answer')} of handlers no more in place" if lost else "",
            exc_info=None if known else error,
            extra=fields(proxy=connection.server.name, connection=connection.number),
        )
        left = []
        for flow in connection.flows:
            way = self._way(flow)
            data = way.cutter.rest()
            flow.received -= len(data)  # it is read anew
            flow.astray += len(data)
            left.append((flow, data, flow.over and not flow.ended and not way.done))
        unframe(connection, self.begun)
        for flow, data, ends in left:
            if not connection.closed:
                read_anew(connection, flow, data, ends)


def _claimed(flow: Flow) -> bool:
    """Whether what is read goes to a call at once, and not through a chain first."""
    desk = flow.desk
    return desk is not None and desk.owner is not None and not desk.chained
