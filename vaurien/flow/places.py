"""The places of a chain, and the way of an event along them: the rules of who may pass, wait, end.

A chain is a row of places. An event enters at the first place and leaves behind the last one; in
between it waits at most at one. A *place* has a stage, or none: what a change lets go, or what a
stage gets in parts, waits there. At each place one of three things happens to an event:

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

Laws: pure, its clock is the `now` that it is given. Nothing leaves before what was read before it.
All that is held is counted. `advance` does about as many pieces of work as it is told, and no more:
what is left stays due, and the loop may give way before it.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from vaurien.errors import HandlerRaised
from vaurien.flow.events import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import PIECES
from vaurien.flow.place import NOTHING, Place, Refused, sentence

if TYPE_CHECKING:
    from vaurien.behavior import Exchange

PIECE = 256  # what a held piece counts beside its bytes: about what its objects take
NEVER = 1e18  # seconds; no clock gets there, and beyond it no timer can be set
#: Breaks ties: what is due at the same time keeps its order, and the heap never compares events.
_number = count().__next__


class Places:
    """What a chain holds and where, what is due next, and what has left it."""

    __slots__ = (
        "_alarms",
        "_first",
        "_next",
        "_places",
        "_stop",
        "_work",
        "due",
        "ended",
        "final",
        "held",
        "out",
    )

    def __init__(self) -> None:
        self.out: deque[tuple[Data | None, Exchange]] = deque()  # ready to leave; None is the end
        self.final: Close | Reset | None = None  # how the connection is to end, once it is
        self.held = 0  # bytes in the chain, `out` included, and PIECE for each piece
        self.ended = False  # EOF is in `out`, or has been
        self._places: list[Place] = []
        self._first: Place | None = None  # of these; each knows the one behind it
        #: What stands outside the order: WAKE, and Reset with a delay.
        self._alarms: list[tuple[float, int, Place, Event, Exchange]] = []
        #: When `advance` has something to do next, in seconds, infinity for never; and at which
        #: place, None for an alarm. Kept, since it is asked for more often than it changes.
        self.due = inf
        self._next: Place | None = None
        self._work, self._stop = 0, inf  # done, and allowed; no time, which is the machine's

    def advance(self, now: float, limit: float = inf) -> bool:
        """Do what is due until `now` (seconds), about `limit` pieces of it; whether more is due."""
        # `play` runs until infinity; what is due then is held for good.
        now = now if now < NEVER else NEVER
        stop = self._stop = self._work + limit
        while self.due <= now:
            if self._work >= stop:
                return True
            self._work += 1
            place = self._next
            if place is None:
                due, _, place, event, route = heappop(self._alarms)
                self._renew()
                if event is WAKE:
                    self._run(place, event, route, due)
                else:
                    self._give(place.next, event, route, due)
                continue
            queue = place.queue
            due, _, event, route = queue.popleft()
            if place.turn is not None:
                due = place.turn.passed(due)
            if queue or self._alarms or self._first is not place or place.next is not None:
                self._renew()
            else:  # it was all that there is
                self.due = inf
            if place.next is None and type(event) is Data and event.data and not self.ended:
                if self.final is None:  # the usual case, made short
                    self.out.append((event, route))
            else:
                self._give(place.next, event, route, due)
            # A place without a stage is made for what waits; kept, it would cost every later event.
            if place.stage is None and not place.queue and self.final is None:
                self._places.remove(place)
                self._renumber()
        return False

    def clear(self) -> None:
        """Drop all that is held, alarms too."""
        self._alarms.clear()
        self.out.clear()
        self.held = 0
        for place in self._places:
            place.queue.clear()
        self.due, self._next = inf, None

    # The way of one event

    def _give(self, place: Place | None, event: Event, route: Exchange, now: float) -> None:
        """Give `event` to the first place from `place` on that it concerns."""
        if self.final is not None:
            return None
        kind = type(event)
        if kind is Data:
            if self.ended or not event.data:  # type: ignore[union-attr]
                self.held -= len(event.data) + PIECE  # type: ignore[union-attr]
                return None
            if place is None:  # the usual case, made short
                self.out.append((event, route))  # type: ignore[arg-type]
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
            raise TypeError(f"{event!r} is not an event")
        return None

    def _part(self, place: Place, event: Data, route: Exchange, now: float) -> Data:
        """As much of `event` as `place` wants at a time; the rest waits before it, due at once."""
        size = place.chunk
        rest = Data(event.data[size:])
        self.held += PIECE
        before = self._places[place.position - 1] if place.position else place
        gap = before if before.stage is None else self._new_gap(place.position)
        gap.queue.appendleft((now, _number(), rest, route))  # it came before all that waits there
        self._renew()
        return Data(event.data[:size])

    def _run(self, place: Place, event: Event, route: Exchange, now: float) -> None:
        """Let the stage of `place` deal with `event`, and pass on what it answers."""
        stage = place.stage
        touched, added, kept = False, 0.0, False
        answers: Any = NOTHING
        answer: Any = None
        made: Any
        data, size = None, 0
        if type(event) is Data:
            data = event.data
            size = len(data)
            if place.cost:
                self._work += size * PIECES // place.cost
        self._work += 1
        try:
            if place.route is not route and event is not WAKE:
                place.route = route
                stage.draw.exchange = route.number
            answers = stage.on(event, now)
            for answer in answers:
                delay, made = answer
                if not delay >= 0:
                    raise Refused(sentence(answer))
                kind, same = type(made), made is event
                if kind is Data:
                    if not same or kept:
                        self.held += place.size(made) + PIECE
                        self._work += 1
                    else:
                        kept = True
                        if made.data is not data:  # changed in its place
                            self.held += place.size(made) - size
                elif same:
                    kept = True
                if kind is Data or made is EOF or kind is Begin or kind is Close:
                    if delay or place.queue:
                        touched, added = True, self._hold(place, made, route, now + delay) - now
                    elif same and kind is Data and not (place.next or self.ended) and made.data:
                        self.out.append((made, route))  # the usual case, made short
                    else:
                        touched = touched or not same
                        if self._work < self._stop or place.next is None:
                            self._give(place.next, made, route, now)
                        else:
                            self._hold(self._gap(place.position + 1), made, route, now)
                elif made is WAKE or (delay and kind is Reset):
                    self._alarm(place, made, route, now + delay)
                elif kind is Reset:
                    touched = True
                    self._give(None, made, route, now)
                elif made is not OPEN:
                    raise Refused(sentence(answer))
                if self.final is not None:
                    break
        except HandlerRaised:
            raise
        except BaseException as error:  # a handler may raise what is no Exception, too
            raise HandlerRaised(place.key) from place.reason(error, answers, answer)
        if not kept and (size or event is EOF):
            touched = True
            if size:
                self.held -= size + PIECE
        if self.final is not None and type(self.final) is Reset:
            self.held = 0
        if touched and added >= route.added.get(place.key, 0.0):
            route.added[place.key] = added

    def _hold(self, place: Place, event: Event, route: Exchange, due: float) -> float:
        """Keep `event` at `place` until `due`, or until what came before it goes on; until when."""
        queue = place.queue
        if queue and queue[-1][0] > due:
            due = queue[-1][0]
        queue.append((due, _number(), event, route))
        if len(queue) == 1:
            real = due if place.turn is None else place.turn.real(due)
            if real < self.due:
                self.due, self._next = real, place
        return due

    def _alarm(self, place: Place, event: Event, route: Exchange, due: float) -> None:
        """Keep what stands outside the order until `due`."""
        heappush(self._alarms, (due, _number(), place, event, route))
        if due < self.due:
            self.due, self._next = due, None

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
        self.due, self._next = due, found

    # The places

    def _gap(self, position: int) -> Place:
        """The place without a stage at `position`, made if there is none."""
        if position < len(self._places) and self._places[position].stage is None:
            return self._places[position]
        return self._new_gap(position)

    def _new_gap(self, position: int) -> Place:
        gap = Place(None, None)
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
