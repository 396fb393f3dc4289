"""A line that several chains share: which of them wait for it, in which order, and until when.

``bandwidth`` with ``shared`` uses it. A stage joins at OPEN, and books the time that each piece
takes on the line.

Laws: pure. The line sends for one at a time, in the order of booking, and idle time earns no
credit. When a chain goes, the time that it has booked and not used is given back: all behind it
move up. A turn never comes later than first announced.

A turn that moves up is not written down again for each piece that waits, of which there may be
thousands. Bookings are in *planned* seconds, which run as the clock does but know nothing of what
is given back; a list of gaps says by how much the real time is earlier from which place on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable

#: Seconds by which two times may differ that are meant to be the same: planned and real ones are
#: sums of many floats.
_ROUNDING = 1e-9


class Line:
    """One line; stages take part by `join`. All times are in seconds."""

    __slots__ = ("_base", "_free", "_places", "_sums", "_tickets")

    def __init__(self) -> None:
        self._free = 0.0  # planned: when all that is booked has been sent
        self._tickets: deque[_Ticket] = deque()  # what is booked, in order
        self._base = 0.0  # how much earlier real time is, before all gaps
        self._places: list[float] = []  # planned: from where on it is earlier still
        self._sums: list[float] = []  # and by how much in all, `_base` included

    def __repr__(self) -> str:
        waiting = {id(ticket.turn) for ticket in self._tickets if ticket.turn is not None}
        return f"<Line for which {len(waiting)} wait>"

    def join(self) -> Turn:
        """Take part; to be kept as `turn` of the stage, by which the engine finds it."""
        return Turn(self)

    # For `Turn`

    def book(self, turn: Turn, now: float, seconds: float) -> float:
        """Book `seconds` of the line from `now` on; the planned time at which they begin."""
        start = max(now + self._given_back, self._free)
        self._free = start + seconds
        last = self._tickets[-1] if self._tickets else None
        if last is not None and last.turn is turn and last.end == start:
            last.end = self._free  # one who has the line alone has one ticket
        else:
            ticket = _Ticket(turn, start, self._free)
            self._tickets.append(ticket)
            turn.tickets.append(ticket)
        return start

    def real(self, planned: float) -> float:
        """When it is, by the clock, what was planned for `planned`."""
        if not self._places:
            return planned - self._base
        before = bisect_right(self._places, planned)
        return planned - (self._sums[before - 1] if before else self._base)

    def passed(self, turn: Turn, planned: float) -> None:
        """What `turn` planned until `planned` has been sent."""
        mine = turn.tickets
        while mine and mine[0].end <= planned + _ROUNDING:
            mine.popleft().turn = None
        self._tell()

    def leave(self, turn: Turn, now: float) -> None:
        """Give back what `turn` has booked and is not sent at `now`, in seconds."""
        for ticket in turn.tickets:
            ticket.turn = None
            end = self.real(ticket.end)
            left = min(ticket.end - ticket.start, end - now)
            if left > 0:
                self._give_back(ticket.end, left)
        turn.tickets.clear()
        self._tell()

    @property
    def _given_back(self) -> float:
        return self._sums[-1] if self._sums else self._base

    def _give_back(self, place: float, seconds: float) -> None:
        at = bisect_right(self._places, place)
        before = self._sums[at - 1] if at else self._base
        self._places.insert(at, place)
        self._sums[at:] = [before + seconds, *(total + seconds for total in self._sums[at:])]

    def _tell(self) -> None:
        """Call `sooner` of the first turn, if it comes sooner than that turn knows.

        The others learn it when they are first. To call all that wait whenever one leaves would be
        quadratic when thousands of clients leave together.
        """
        tickets = self._tickets
        while tickets and tickets[0].turn is None:
            tickets.popleft()
        if self._places:  # gaps before the first ticket are before all that still waits
            old = bisect_right(self._places, tickets[0].start) if tickets else len(self._places)
            if old:
                self._base = self._sums[old - 1]
                del self._places[:old], self._sums[:old]
        first = tickets[0].turn if tickets else None
        if first is not None and first.known != self._base:
            first.known = self._base
            if first.sooner is not None:
                first.sooner()


class Turn:
    """One stage's part of a line."""

    __slots__ = ("_last", "known", "line", "sooner", "tickets")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.tickets: deque[_Ticket] = deque()
        self.known = line._base  # what the line had given back when this was last told
        #: Called when its turn comes sooner than told; set by the chain in which its stage is.
        self.sooner: Callable[[], None] | None = None
        self._last = 0.0

    def book(self, now: float, seconds: float) -> float:
        """Book `seconds` of the line; when they begin.

        That is for answers, whose delay is from `now` to there and beyond; it is not to be compared
        with other times, since others may leave until then.
        """
        return self.line.book(self, now, seconds)

    def real(self, planned: float) -> float:
        """When it is, by the clock, what was planned for `planned`."""
        return max(self.line.real(planned), self._last)

    def passed(self, planned: float) -> float:
        """What was planned for `planned` goes on from here; when that is, by the clock."""
        # What comes behind the last piece, as the end does, must not be earlier than that piece.
        self._last = self.real(planned)
        self.line.passed(self, planned)
        return self._last

    def leave(self, now: float) -> None:
        """Give back what is booked and not sent at `now`, in seconds."""
        self.line.leave(self, now)


class _Ticket:
    """A part of the line's time, planned; `turn` is None once it is sent or given back."""

    __slots__ = ("end", "start", "turn")

    def __init__(self, turn: Turn, start: float, end: float) -> None:
        self.turn: Turn | None = turn
        self.start, self.end = start, end
