"""The chain of one flow: a small discrete-event engine.

Handlers are given events and answer with later ones; nothing here sleeps. `push` and `feed` take
events in, `deadline` says when something is due next, `advance` does what is due, and `out` has
what is ready to leave. Whoever runs the chain asks for the deadline after each of these, and sets
an alarm for it (`vaurien.relay.shaping`; in tests `vaurien.flow.play`). A loop over generators or
a greenlet a stage would be shorter to write; but then a change would have to stop them in the
middle, and neither what is held nor the order could be counted in one place.

Laws: pure, its clock is the `now` that it is given. The engine keeps the order, stages need not:
nothing leaves a flow before what was read before it. `Reset` alone jumps the queue. All that is
held is counted. No call but `advance` without a limit does more than some hundred pieces of work:
what is left is due at once, and the loop may give way before it.

Here is what goes in and comes out, and how stages come, change and go. The rules by which an event
goes from stage to stage are in `vaurien.flow.places`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify
from typing import TYPE_CHECKING

from vaurien.errors import HandlerRaised
from vaurien.flow.events import OPEN, Data, Event, Reset
from vaurien.flow.handler import CHUNK, PIECES
from vaurien.flow.place import Place
from vaurien.flow.places import NEVER, PIECE, Places

if TYPE_CHECKING:
    from vaurien.behavior import Exchange

__all__ = ["PIECE", "Chain", "Place"]


class Chain(Places):
    """Some places, what they hold, and what has left them."""

    __slots__ = ("limit", "route", "sooner", "staged", "wants_begin")

    def __init__(self, route: Exchange) -> None:
        super().__init__()
        self.staged: list[Place] = []  # those with a stage
        self.route = route  # of what came in last
        self.wants_begin = False  # whether any stage does
        self.limit = CHUNK  # bytes that the stages want to be given at a time at most
        #: Called when `deadline` has come nearer by itself: another user of a shared line has gone.
        self.sooner: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Chain of {len(self.staged)}: {self.held} held, deadline {self.deadline}>"

    @property
    def deadline(self) -> float | None:
        """`due`, None for never."""
        return self.due if self.due < NEVER else None

    @property
    def empty(self) -> bool:
        """True when nothing is on its way."""
        return not self.out and not any(place.queue for place in self._places)

    @property
    def busy(self) -> bool:
        """True when something is on its way, or a stage waits for its alarm."""
        return bool(self.out or self._alarms) or any(place.queue for place in self._places)

    @property
    def inside(self) -> int:
        """The bytes in the chain, without what `held` counts for each piece."""
        waiting = [*self.waiting(), *(event for event, _ in self.out)]
        return sum(len(event.data) for event in waiting if type(event) is Data)

    def waiting(self) -> Iterator[Event]:
        """What is held at the places, that nearest to leaving first."""
        for place in reversed(self._places):
            for entry in place.queue:
                yield entry[2]

    # What comes in and goes out

    def push(self, event: Event, route: Exchange, now: float) -> None:
        """Take in `event` of the exchange `route`; Data is given to the first stage as it is."""
        self.route = route
        if type(event) is Data and self.final is None:
            self.held += len(event.data) + PIECE
        self._stop = self._work + PIECES
        # What is due goes first: a stage's time must not run backwards. If that is more than one
        # call may do, the new event waits behind it.
        if self.due <= now and self.advance(now, PIECES):
            if self.final is None:
                self._hold(self._gap(0), event, route, now)
            return
        self._give(self._first, event, route, now)
        if self.due <= now:
            self.advance(now, PIECES)

    def feed(self, data: bytes, route: Exchange, now: float) -> None:
        """Take in bytes at `now` (seconds), as many at a time as stages want; the rest is due."""
        limit = self.limit
        if len(data) <= limit or self.final is not None:
            return self.push(Data(data), route, now)
        self.push(Data(data[:limit]), route, now)
        if self.final is None:
            self.held += len(data) - limit + PIECE
            self._hold(self._gap(0), Data(data[limit:]), route, now)
            self.advance(now, PIECES)
        return None

    def put_off(self, data: bytes, route: Exchange, now: float) -> None:
        """Take in bytes at `now` (seconds) and do nothing with them yet: they are due at once.

        The loop has spent its turn on such work; the flow's alarm calls `advance` in a later one.
        """
        self.route = route
        if self.final is None:
            self.held += len(data) + PIECE
            self._hold(self._gap(0), Data(data), route, now)

    def take(self) -> tuple[Data | None, Exchange]:
        """The next of `out`, which must not be empty."""
        left = self.out.popleft()
        event = left[0]
        if event is not None:
            self.held -= len(event.data) + PIECE
        return left

    def flush(self, everything: bool) -> bytes:
        """The bytes ready to leave, or all that it holds, in order, but for a socket handler's."""
        left: list[tuple[Event | None, Exchange]] = list(self.out)
        for place in reversed(self._places) if everything else ():
            left += [entry[2:] for entry in place.queue]
        self.clear()
        return b"".join(e.data for e, route in left if type(e) is Data and not route.taken)

    def close(self, now: float) -> None:
        """The flow is over at `now`, in seconds: let each stage give back what it shares.

        Nothing goes through it any more. HandlerRaised by the first stage that raises, once all
        have been closed: a handler's bug must not keep what another one shares.
        """
        self.clear()
        self.ended, self.sooner = True, None
        staged, self.staged, self._places, self._first = self.staged, [], [], None
        raised: HandlerRaised | None = None
        for place in staged:
            try:
                place.close(now)
            except HandlerRaised as error:
                raised = raised or error
        if raised is not None:
            raise raised

    @property
    def is_due(self) -> bool:
        """Whether anything that it holds has its time still before it; alarms do not count."""
        return any(place.queue and place.queue[0][0] < NEVER for place in self._places)

    # Changes

    def insert(self, position: int, place: Place, now: float) -> None:
        """Put `place` before the one at `position`; its stage gets OPEN at `now` (seconds)."""
        self.advance(now, PIECES)  # what is due was so before the change
        # What a change has let go stays behind the new one: it is on its way already.
        self._places.insert(self.staged[position - 1].position + 1 if position else 0, place)
        self.staged.insert(position, place)
        self._renumber()
        self._open(place, self.route, now)

    def remove(self, place: Place, now: float) -> None:
        """Take `place` away at `now`, in seconds: what it holds goes on at once, in order."""
        self._release(place, now)
        self.staged.remove(place)
        self._places.remove(place)
        self._renumber()
        self._survey()
        try:
            last = place.removed(now)
        finally:
            place.close(now)
        if last and self.final is None:
            for event in last:
                if type(event) is Reset:
                    self._give(None, event, self.route, now)
                    return
                self.held += len(event.data) + PIECE if type(event) is Data else 0
                self._hold(self._gap(place.position), event, self.route, now)
        self.advance(now, PIECES)

    def update(self, place: Place, now: float) -> None:
        """The options of `place` have changed: pass on what it holds, and restart its clock.

        The stage stays, with its state, and gets a second OPEN at `now`, in seconds. A new stage
        would forget what it has counted (``limit_data`` would let as many bytes pass again).
        """
        self._release(place, now)
        self.advance(now, PIECES)
        self._open(place, place.route or self.route, now)

    def _open(self, place: Place, route: Exchange, now: float) -> None:
        """Give OPEN to the stage of `place`, and read what it wants."""
        self._run(place, OPEN, route, now)
        self._survey()
        if place.turn is not None:
            place.turn.sooner = self._sooner

    def _survey(self) -> None:
        """Look at what the stages want."""
        for place in self.staged:
            place.look()
        self.wants_begin = any(place.wants_begin for place in self.staged)
        self.limit = min([place.chunk for place in self.staged], default=CHUNK)

    def _sooner(self) -> None:
        """A stage's turn comes sooner."""
        self._renew()
        if self.sooner is not None:
            self.sooner()

    def _release(self, place: Place, now: float) -> None:
        """Let go what `place` holds, to a place behind it, and forget its alarms.

        Data of an exchange that lies side by side goes on as one, as much as the next want at a
        time: a place may hold thousands of pieces, and each would cost the loop a turn and a send.
        """
        self.advance(now, PIECES)
        if self._alarms:
            self._alarms[:] = [entry for entry in self._alarms if entry[2] is not place]
            heapify(self._alarms)
        mine = place.queue.copy()
        place.queue.clear()
        if place.turn is not None:
            place.turn.leave(now)
        self._renew()
        self._survey()
        size = min(
            [other.chunk for other in self.staged if other.position > place.position] + [CHUNK]
        )
        parts: list[bytes] = []
        of: Exchange | None = None  # theirs
        for _, _, event, route in mine:  # many: an operation does this for all connections
            if type(event) is Data:
                if route is of:
                    parts.append(event.data)
                    continue
                self._join(place, parts, of, size, now)
                parts, of = [event.data], route
                continue
            self._join(place, parts, of, size, now)
            parts, of = [], None
            self._hold(self._gap(place.position + 1), event, route, now)
        self._join(place, parts, of, size, now)

    def _join(
        self, place: Place, parts: list[bytes], route: Exchange | None, size: int, now: float
    ) -> None:
        """Hold `parts` of one exchange behind `place`, as events of `size` bytes, due at `now`."""
        if route is not None:
            data = b"".join(parts)
            pieces = range(0, len(data), size)
            self.held += PIECE * (len(pieces) - len(parts))
            for at in pieces:
                self._hold(self._gap(place.position + 1), Data(data[at : at + size]), route, now)
