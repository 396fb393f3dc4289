"""The chain of one flow: a small discrete-event engine.

Laws: pure, its clock is the `now` that it is given. The engine keeps the order, stages need not:
nothing leaves a flow before what was read before it. `Reset` alone jumps the queue. All that is
held is counted.

What a stage answers with a delay waits in one heap until it is due, and goes on to the next slot
with that time as its `now`: a loop that comes late makes no stage late. A slot whose stage was not
picked for an exchange lets its events by, but never past those that it still holds.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count, groupby
from math import inf
from typing import TYPE_CHECKING, Any

from vaurien.errors import HandlerRaised
from vaurien.flow.events import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import CHUNK

if TYPE_CHECKING:
    from vaurien.behavior import Exchange
    from vaurien.flow.handler import FlowHandler

PIECE = 256  # what a held piece counts beside its bytes: about what its objects take
_number = count().__next__  # what is due at the same time keeps its order


class Slot:
    """A stage's place in a chain. `pinned` acts on every exchange, others where they are picked."""

    __slots__ = ("key", "last", "pending", "pinned", "position", "route", "stage")

    def __init__(self, stage: FlowHandler, key: Any, pinned: bool = False) -> None:
        self.stage, self.key, self.pinned = stage, key, pinned
        self.position = 0
        self.pending = 0  # events in the heap that wait to go on from here
        self.last = 0.0  # when the last of them is due
        self.route: Exchange | None = None  # the exchange that the stage's draws are of

    def __repr__(self) -> str:
        return f"<Slot {self.position}: {self.stage!r}, {self.pending} pending>"


class Chain:
    """Some slots, what they hold, and what has left them."""

    __slots__ = ("_heap", "ended", "final", "held", "out", "route", "slots", "wants_begin")

    def __init__(self, route: Exchange) -> None:
        self.slots: list[Slot] = []
        self.out: deque[tuple[Data | None, Exchange]] = deque()  # ready to leave; None is the end
        self.final: Close | Reset | None = None  # how the connection is to end, once it is
        self.held = 0  # bytes in the chain, `out` included, and PIECE for each piece
        self.ended = False  # EOF is in `out`, or has been
        self.route = route  # of what came in last
        self.wants_begin = False  # whether any stage does
        self._heap: list[tuple[float, int, Slot, Event, Exchange]] = []

    def __repr__(self) -> str:
        return f"<Chain of {len(self.slots)}: {self.held} held, deadline {self.deadline}>"

    @property
    def deadline(self) -> float | None:
        """When `advance` has something to do next, in seconds; None for never."""
        return self._heap[0][0] if self._heap and self._heap[0][0] < inf else None

    @property
    def is_due(self) -> bool:
        """Whether anything that it holds has its time still before it; alarms do not count."""
        return any(entry[0] < inf and entry[3] is not WAKE for entry in self._heap)

    def chunk(self, position: int = 0) -> int:
        """How many bytes the slots from `position` on want to be given at a time at most."""
        return min((max(1, slot.stage.chunk) for slot in self.slots[position:]), default=CHUNK)

    @property
    def empty(self) -> bool:
        """True when nothing is on its way."""
        return not self.out and not any(slot.pending for slot in self.slots)

    @property
    def inside(self) -> int:
        """The bytes that it holds, without what `held` counts for each piece."""
        events = [entry[3] for entry in self._heap] + [event for event, _ in self.out]
        return sum(len(event.data) for event in events if type(event) is Data)

    @property
    def busy(self) -> bool:
        """True when something is on its way, or a stage waits for its alarm."""
        return bool(self.out or self._heap)

    def push(self, event: Event, route: Exchange, now: float) -> None:
        """Take in `event` of the exchange `route`."""
        if self._heap:
            self.advance(now)
        self.route = route
        if type(event) is Data and self.final is None:
            self.held += len(event.data) + PIECE
        self._give(0, event, route, now)

    def advance(self, now: float) -> None:
        """Do all that is due until `now`."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, slot, event, route = heappop(heap)
            if event is WAKE:
                self._run(slot, event, route, due)
                continue
            slot.pending -= type(event) is not Reset
            self._give(slot.position + 1, event, route, due)

    def take(self) -> tuple[Data | None, Exchange]:
        """The next of `out`, which must not be empty."""
        event, route = self.out.popleft()
        if event is not None:
            self.held -= len(event.data) + PIECE
        return event, route

    def flush(self, everything: bool) -> bytes:
        """The bytes ready to leave, or all that it holds, in order, but for a socket handler's."""
        inside = sorted(self._heap, key=lambda entry: (-entry[2].position, entry[:2]))
        left = [*self.out, *(entry[3:] for entry in inside if everything)]
        self.clear()
        return b"".join(e.data for e, route in left if type(e) is Data and not route.taken)

    def clear(self) -> None:
        """Drop all that is held, alarms too."""
        self._heap.clear()
        self.out.clear()
        self.held = 0
        for slot in self.slots:
            slot.pending = 0

    def insert(self, position: int, slot: Slot, now: float) -> None:
        """Put `slot` before the one at `position`; its stage gets OPEN."""
        self.advance(now)
        self.slots.insert(position, slot)
        self._renumber()
        self._run(slot, OPEN, self.route, now)

    def remove(self, slot: Slot, now: float) -> None:
        """Take `slot` away: what it holds goes on to the next at once, in order."""
        self._release(slot, now)
        self.slots.remove(slot)
        self._renumber()
        try:
            last = [event for _, event in slot.stage.removed(now)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a handler may raise what is no Exception, too
            raise HandlerRaised(slot.key) from error
        for event in last:
            self.held += len(event.data) + PIECE if type(event) is Data else 0
            self._give(slot.position, event, self.route, now)

    def update(self, slot: Slot, now: float) -> None:
        """The options of `slot` have changed: pass on what it holds, and start its clock anew."""
        self._release(slot, now)
        self._run(slot, OPEN, slot.route or self.route, now)

    def _release(self, slot: Slot, now: float) -> None:
        """Pass on what `slot` holds, in order, and forget its alarms.

        Data of an exchange that lies side by side goes on as one, as much as the next want at a
        time: a slot may hold thousands of pieces, and each would cost the loop a turn and a send.
        """
        self.advance(now)
        mine = sorted(entry for entry in self._heap if entry[2] is slot)
        self._heap[:] = [entry for entry in self._heap if entry[2] is not slot]
        heapify(self._heap)
        slot.pending = 0
        mine = [entry for entry in mine if entry[3] is not WAKE and type(entry[3]) is not Reset]
        size = self.chunk(slot.position + 1)
        for of, run in groupby(mine, lambda entry: type(entry[3]) is Data and entry[4]):
            left: list[tuple[Any, Exchange]] = [entry[3:] for entry in run]
            if of:
                data, pieces = b"".join(event.data for event, _ in left), len(left)
                left = [(Data(data[i : i + size]), of) for i in range(0, len(data), size)]
                self.held += PIECE * (len(left) - pieces)
            for event, route in left:
                self._give(slot.position + 1, event, route, now)

    def _renumber(self) -> None:
        """The slots have changed."""
        self.wants_begin = any(slot.stage.wants_begin for slot in self.slots)
        for position, slot in enumerate(self.slots):
            slot.position = position

    # The way of one event

    def _give(self, position: int, event: Event, route: Exchange, now: float) -> None:
        """Give `event` to the first slot from `position` on that it concerns."""
        if self.final is not None:
            return
        if type(event) is Reset:
            self.clear()
            self.final = event
            return
        if type(event) is Data and (self.ended or not event.data):
            self.held -= len(event.data) + PIECE
            return
        for slot in self.slots[position:]:
            if slot.pinned or slot.key in route.handlers:
                return self._run(slot, event, route, now)
            if slot.pending:
                return self._hold(slot, event, route, now)
        if type(event) is Data:
            self.out.append((event, route))
        elif event is EOF and not self.ended:
            self.ended = True
            self.out.append((None, route))
        elif type(event) is Close:
            self.final = event
        elif type(event) is not Begin and event is not EOF:
            raise TypeError(f"{event!r} is no event")

    def _run(self, slot: Slot, event: Event, route: Exchange, now: float) -> None:
        """Let the stage of `slot` deal with `event`, and pass on what it answers."""
        if event is not WAKE:
            slot.route = route
            slot.stage.draw.exchange = route.number
        touched, added, kept = False, 0.0, False
        try:
            for delay, made in slot.stage.on(event, now):
                if not delay >= 0:
                    raise ValueError(f"answered with a delay of {delay} s")
                if made is event and not kept:
                    kept = True
                elif type(made) is Data:
                    self.held += len(made.data) + PIECE
                if made is WAKE or (delay and type(made) is Reset):
                    heappush(self._heap, (now + delay, _number(), slot, made, route))
                elif (delay or slot.pending) and made is not OPEN and type(made) is not Reset:
                    self._hold(slot, made, route, now + delay)
                    touched, added = True, slot.last - now
                elif made is not OPEN:
                    touched = touched or made is not event
                    self._give(slot.position + 1, made, route, now)
                if self.final is not None:
                    break
            if event is OPEN and not slot.stage.chunk >= 1:  # to read 0 bytes is to see the end
                raise ValueError(f"has a chunk of {slot.stage.chunk} bytes; 1 is the least")
        except HandlerRaised:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a handler may raise what is no Exception, too
            raise HandlerRaised(slot.key) from error
        if type(event) is Data and not kept:
            self.held -= len(event.data) + PIECE
        if type(self.final) is Reset:
            self.held = 0
        touched = touched or (not kept and (type(event) is Data or event is EOF))
        if touched and added >= route.added.get(slot.key, 0.0):
            route.added[slot.key] = added

    def _hold(self, slot: Slot, event: Event, route: Exchange, due: float) -> None:
        """Keep `event` at `slot` until `due`, and not shorter than what came before it."""
        slot.last = max(due, slot.last) if slot.pending else due
        slot.pending += 1
        heappush(self._heap, (slot.last, _number(), slot, event, route))
