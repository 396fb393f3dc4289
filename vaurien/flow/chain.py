"""The chain of one flow: a small discrete-event engine.

Laws: pure, its clock is the `now` that it is given. The engine keeps the order, stages need not:
nothing leaves a flow before what was read before it. `Reset` alone jumps the queue. All that is
held is counted. No call does more than `PIECES` pieces of work at a time, but an `advance` that is
told to: what is left is due at once, and the loop may give way before it.

An event walks along the *places* of the chain. A place is a slot with its stage, or one without
(what a change lets go, or what a stage gets in parts, waits there). At each place one of three
things happens:

=====================================  ===========================================================
the place                              the event
=====================================  ===========================================================
has a stage, pinned or picked for the  is given to the stage, in parts if it is more than the stage
event's exchange                       wants; what the stage answers walks on
holds something                        waits behind that: it may go by, but never past
else                                   walks on
=====================================  ===========================================================

And of what a stage answers with, or what leaves the last place:

===========  ===================  =======================  =======================================
event        with a delay         with none                when it leaves the chain
===========  ===================  =======================  =======================================
Data, Begin  waits at its place,  walks on, or waits       Data is ready to leave; Begin is no more
             in order             behind what is held
EOF          as Data              as Data                  once; no Data follows, and no second EOF
Close        as Data              as Data                  the end: nothing follows
Reset        waits for its own    drops all that is held,  the end: nothing follows
             time only            wherever it is
WAKE         comes back to its stage alone, at its time    never
OPEN         goes nowhere         goes nowhere             never
===========  ===================  =======================  =======================================

What waits goes on with the time when it was *due* as its `now`: a loop that comes late makes no
stage late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count, groupby
from math import inf
from typing import TYPE_CHECKING, Any

from vaurien.errors import HandlerRaised
from vaurien.flow.events import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import CHUNK, PIECES
from vaurien.flow.slot import NOTHING, Refused, Slot, sentence

if TYPE_CHECKING:
    from vaurien.behavior import Exchange

PIECE = 256  # what a held piece counts beside its bytes: about what its objects take
NEVER = 1e18  # seconds; no clock gets there, and beyond it no timer can be set
_number = count().__next__  # what is due at the same time keeps its order


class Chain:
    """Some slots, what they hold, and what has left them."""

    __slots__ = (
        "_alarms",
        "_due",
        "_first",
        "_next",
        "_places",
        "_work",
        "ended",
        "final",
        "held",
        "limit",
        "out",
        "route",
        "slots",
        "sooner",
        "wants_begin",
    )

    def __init__(self, route: Exchange) -> None:
        self.slots: list[Slot] = []
        self.out: deque[tuple[Data | None, Exchange]] = deque()  # ready to leave; None is the end
        self.final: Close | Reset | None = None  # how the connection is to end, once it is
        self.held = 0  # bytes in the chain, `out` included, and PIECE for each piece
        self.ended = False  # EOF is in `out`, or has been
        self.route = route  # of what came in last
        self.wants_begin = False  # whether any stage does
        self.limit = CHUNK  # bytes that the stages want to be given at a time at most
        #: Called when `deadline` has come nearer by itself: who else used a shared line has gone.
        self.sooner: Callable[[], None] | None = None
        self._places: list[Slot] = []  # the slots, and places without a stage between them
        self._first: Slot | None = None  # of these; each knows the one behind it
        #: What stands outside the order: WAKE, and Reset with a delay.
        self._alarms: list[tuple[float, int, Slot, Event, Exchange]] = []
        # When the next is due, and at which place, None for an alarm. They are kept and not looked
        # for, since they are asked for more often than they change.
        self._due, self._next = inf, None
        self._work = 0  # what stages have been given and have answered, all added up

    _due: float
    _next: Slot | None

    def __repr__(self) -> str:
        return f"<Chain of {len(self.slots)}: {self.held} held, deadline {self.deadline}>"

    @property
    def deadline(self) -> float | None:
        """When `advance` has something to do next, in seconds; None for never."""
        return self._due if self._due < NEVER else None

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
        if self._due <= now and self.advance(now, PIECES):
            if self.final is None:  # a stage's time must not run backwards: what is due goes before
                self._hold(self._gap(0), event, route, now)
            return
        self._give(self._first, event, route, now)
        if self._due <= now:
            self.advance(now, PIECES)

    def feed(self, data: bytes, route: Exchange, now: float) -> None:
        """Take in `data`, as much at a time as the stages want; the rest is due at once."""
        limit = self.limit
        if len(data) <= limit or self.final is not None:
            return self.push(Data(data), route, now)
        self.push(Data(data[:limit]), route, now)
        if self.final is None:
            self.held += len(data) - limit + PIECE
            self._hold(self._gap(0), Data(data[limit:]), route, now)
            self.advance(now, PIECES)
        return None

    def advance(self, now: float, limit: float = inf) -> bool:
        """Do what is due until `now`, about `limit` pieces of it; whether more is due."""
        if now > NEVER:
            now = NEVER
        stop = self._work + limit
        while self._due <= now:
            if self._work >= stop:
                return True
            place = self._next
            if place is None:
                due, _, place, event, route = heappop(self._alarms)
                self._renew()
                if event is WAKE:
                    self._run(place, event, route, due)
                else:
                    self._give(place.next, event, route, due)
                continue
            due, _, event, route = place.queue.popleft()
            if place.turn is not None:
                due = place.turn.passed(due)
            self._renew()
            self._work += 1
            self._give(place.next, event, route, due)
            if place.stage is None and not place.queue and self.final is None:
                self._places.remove(place)
                self._renumber()
        return False

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

    def clear(self) -> None:
        """Drop all that is held, alarms too."""
        self._alarms.clear()
        self.out.clear()
        self.held = 0
        for place in self._places:
            place.queue.clear()
        self._due, self._next = inf, None

    def close(self, now: float) -> None:
        """The flow is over: drop all that is held, and let each stage give back what it shares.

        Nothing goes through it any more. HandlerRaised by the first stage that raises, once all
        were told.
        """
        self.clear()
        self.ended, self.sooner = True, None
        slots, self.slots, self._places, self._first = self.slots, [], [], None
        raised: HandlerRaised | None = None
        for slot in slots:
            try:
                slot.close(now)
            except HandlerRaised as error:
                raised = raised or error
        if raised is not None:
            raise raised

    # Changes

    def insert(self, position: int, slot: Slot, now: float) -> None:
        """Put `slot` before the one at `position`; its stage gets OPEN."""
        self.advance(now, PIECES)
        # What a change has let go stays behind the new one: it is on its way already.
        self._places.insert(self.slots[position - 1].position + 1 if position else 0, slot)
        self.slots.insert(position, slot)
        self._renumber()
        self._open(slot, self.route, now)

    def remove(self, slot: Slot, now: float) -> None:
        """Take `slot` away: what it holds goes on to the next at once, in order."""
        self._release(slot, now)
        self.slots.remove(slot)
        self._places.remove(slot)
        self._renumber()
        self._survey()
        try:
            last = slot.removed(now)
        finally:
            slot.close(now)
        if last and self.final is None:
            for event in last:
                if type(event) is Reset:
                    self._give(None, event, self.route, now)
                    return
                self.held += len(event.data) + PIECE if type(event) is Data else 0
                self._hold(self._gap(slot.position), event, self.route, now)
        self.advance(now, PIECES)

    def update(self, slot: Slot, now: float) -> None:
        """The options of `slot` have changed: pass on what it holds, and start its clock anew."""
        self._release(slot, now)
        self.advance(now, PIECES)
        self._open(slot, slot.route or self.route, now)

    def _open(self, slot: Slot, route: Exchange, now: float) -> None:
        """Give OPEN to the stage of `slot`, and read what it wants."""
        self._run(slot, OPEN, route, now)
        self._survey()
        if slot.turn is not None:
            slot.turn.sooner = self._sooner

    def _survey(self) -> None:
        """Look at what the stages want."""
        for slot in self.slots:
            slot.look()
        self.wants_begin = any([slot.wants_begin for slot in self.slots])
        self.limit = min([slot.chunk for slot in self.slots], default=CHUNK)

    def _sooner(self) -> None:
        """A stage's turn comes sooner."""
        self._renew()
        if self.sooner is not None:
            self.sooner()

    def _release(self, slot: Slot, now: float) -> None:
        """Let go what `slot` holds, to a place behind it, and forget its alarms.

        Data of an exchange that lies side by side goes on as one, as much as the next want at a
        time: a slot may hold thousands of pieces, and each would cost the loop a turn and a send.
        """
        self.advance(now, PIECES)
        if self._alarms:
            self._alarms[:] = [entry for entry in self._alarms if entry[2] is not slot]
            heapify(self._alarms)
        mine = [entry[2:] for entry in slot.queue]
        slot.queue.clear()
        if slot.turn is not None:
            slot.turn.leave(now)
        self._renew()
        self._survey()
        size = min([other.chunk for other in self.slots if other.position > slot.position] + [CHUNK])
        for of, run in groupby(mine, lambda entry: type(entry[0]) is Data and entry[1]):
            left: list[tuple[Any, Exchange]] = list(run)
            if of:
                data, pieces = b"".join([event.data for event, _ in left]), len(left)
                left = [(Data(data[i : i + size]), of) for i in range(0, len(data), size)]
                self.held += PIECE * (len(left) - pieces)
            for event, route in left:
                self._hold(self._gap(slot.position + 1), event, route, now)

    def _gap(self, position: int) -> Slot:
        """The place without a stage at `position`, made if there is none."""
        if position < len(self._places) and self._places[position].stage is None:
            return self._places[position]
        return self._new_gap(position)

    def _new_gap(self, position: int) -> Slot:
        gap = Slot(None, None)
        self._places.insert(position, gap)
        self._renumber()
        return gap

    def _renumber(self) -> None:
        """The places have changed."""
        behind = None
        for position in range(len(self._places) - 1, -1, -1):
            place = self._places[position]
            place.position, place.next = position, behind
            behind = place
        self._first = behind

    # The way of one event

    def _give(self, place: Slot | None, event: Event, route: Exchange, now: float) -> None:
        """Give `event` to the first place from `place` on that it concerns."""
        if self.final is not None:
            return None
        kind = type(event)
        if kind is Data:
            if self.ended or not event.data:  # type: ignore[union-attr]
                self.held -= len(event.data) + PIECE  # type: ignore[union-attr]
                return None
        elif kind is Reset:
            self.clear()
            self.final = event  # type: ignore[assignment]
            return None
        while place is not None:
            if place.pinned or place.key in route.handlers:
                if kind is Data and len(event.data) > place.chunk and place is not self._first:  # type: ignore[union-attr]
                    event = self._part(place, event, route, now)  # type: ignore[arg-type]
                return self._run(place, event, route, now)
            if place.queue:
                self._hold(place, event, route, now)
                return None
            place = place.next
        if kind is Data:
            self.out.append((event, route))  # type: ignore[arg-type]
        elif event is EOF:
            if not self.ended:
                self.ended = True
                self.out.append((None, route))
        elif kind is Close:
            self.final = event  # type: ignore[assignment]
        elif kind is not Begin:
            raise TypeError(f"{event!r} is no event")
        return None

    def _part(self, slot: Slot, event: Data, route: Exchange, now: float) -> Data:
        """As much of `event` as `slot` wants at a time; the rest waits before it, due at once."""
        size = slot.chunk
        rest = Data(event.data[size:])
        self.held += PIECE
        before = self._places[slot.position - 1] if slot.position else slot
        gap = before if before.stage is None else self._new_gap(slot.position)
        gap.queue.appendleft((now, _number(), rest, route))
        self._renew()
        return Data(event.data[:size])

    def _run(self, slot: Slot, event: Event, route: Exchange, now: float) -> None:
        """Let the stage of `slot` deal with `event`, and pass on what it answers."""
        stage = slot.stage
        touched, added, kept = False, 0.0, False
        answers, answer = NOTHING, None
        data, size = None, 0
        if type(event) is Data:
            data = event.data
            size = len(data)
        try:
            if slot.route is not route and event is not WAKE:
                slot.route = route
                stage.draw.exchange = route.number
            answers = stage.on(event, now)
            for answer in answers:
                delay, made = answer
                if not delay >= 0:
                    raise Refused(sentence(answer))
                kind = type(made)
                if kind is Data:
                    if made is not event or kept:
                        self.held += slot.size(made) + PIECE
                        self._work += 1
                    else:
                        kept = True
                        if made.data is not data:  # changed in its place
                            self.held += slot.size(made) - size
                elif made is event:
                    kept = True
                if kind is Data or made is EOF or kind is Begin or kind is Close:
                    if delay or slot.queue:
                        touched, added = True, self._hold(slot, made, route, now + delay) - now
                    else:
                        touched = touched or made is not event
                        self._give(slot.next, made, route, now)
                elif made is WAKE or (delay and kind is Reset):
                    self._alarm(slot, made, route, now + delay)
                elif kind is Reset:
                    touched = True
                    self._give(None, made, route, now)
                elif made is not OPEN:
                    raise Refused(sentence(answer))
                if self.final is not None:
                    break
        except HandlerRaised:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a handler may raise what is no Exception, too
            raise HandlerRaised(slot.key) from slot.reason(error, answers, answer)
        if not kept and (size or event is EOF):
            touched = True
            if size:
                self.held -= size + PIECE
        if self.final is not None and type(self.final) is Reset:
            self.held = 0
        if touched and added >= route.added.get(slot.key, 0.0):
            route.added[slot.key] = added

    def _hold(self, place: Slot, event: Event, route: Exchange, due: float) -> float:
        """Keep `event` at `place` until `due`, and not shorter than what came before it: until when."""
        queue = place.queue
        if queue:
            last = queue[-1][0]
            if last > due:
                due = last
            queue.append((due, _number(), event, route))
            return due
        queue.append((due, _number(), event, route))
        real = due if place.turn is None else place.turn.real(due)
        if real < self._due:
            self._due, self._next = real, place
        return due

    def _alarm(self, slot: Slot, event: Event, route: Exchange, due: float) -> None:
        """Keep what stands outside the order until `due`."""
        heappush(self._alarms, (due, _number(), slot, event, route))
        if due < self._due:
            self._due, self._next = due, None

    def _renew(self) -> None:
        """Find what is due next."""
        due, number, found = inf, 0, None
        if self._alarms:
            due, number = self._alarms[0][:2]
        place = self._first
        while place is not None:
            if place.queue:
                head = place.queue[0]
                at = head[0] if place.turn is None else place.turn.real(head[0])
                if at < due or (at == due and head[1] < number):
                    due, number, found = at, head[1], place
            place = place.next
        self._due, self._next = due, found
