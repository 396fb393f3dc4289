"""The alarms of flows: one heap and one bell for all proxies of a loop.

Laws: an alarm comes at its time, as exactly as the system can (`vaurien.net.system`). The bell is
there before anybody listens: where it cannot be had, no connection has to pay for it. However many
are due at once, the others of the loop get their turn after `TURN` seconds; those left ring in the
next turns, in the order in which they were found due, and one that sets itself anew is behind them,
however long it has been due.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Protocol

from vaurien.errors import RAISED
from vaurien.net.system import Bell, bell

log = logging.getLogger("vaurien")

_STALE = 1000  # alarms given up that may stay in the heap
TURN = 0.005  # seconds of ringing until others are let in
_FOUND = 4000  # alarms that are found due in one turn, which takes some milliseconds


class Sleeper(Protocol):
    """Who is woken; it guards itself."""

    def wake(self, now: float) -> None:
        """Its time has come; `now` is in seconds of the monotonic clock."""


class Alarm:
    """One that is to be woken at `due` (seconds); `sleeper` is None once it is given up."""

    __slots__ = ("due", "sleeper")

    def __init__(self, due: float, sleeper: Sleeper) -> None:
        self.due = due
        self.sleeper: Sleeper | None = sleeper

    def __repr__(self) -> str:
        return f"<Alarm at {self.due:.6f} of {self.sleeper!r}>"


class Alarms:
    """Wakes sleepers; times are seconds of the monotonic clock."""

    def __init__(
        self, loop: Any, now: Callable[[], float] = monotonic, make: Callable[..., Bell] = bell
    ) -> None:
        """`loop` is gevent's; `make` makes the bell that rings on it."""
        self._loop, self._now, self._make = loop, now, make
        self._users = 0
        self._bell: Bell | None = None
        self._heap: list[tuple[float, int, Alarm]] = []
        self._due: deque[Alarm] = deque()  # taken from there, and not rung yet
        self._next = count().__next__
        self._set_to = 0.0  # 0 is not at all
        self._given_up = 0
        self._ringing = self._held = False
        #: Seconds of like work that others have done since it rang last; see `Shaping`.
        self.spent = 0.0

    def __repr__(self) -> str:
        return f"<Alarms: {self._left()} set, {self._users} users>"

    def join(self) -> None:
        """One more needs them, until `leave`; OSError if they cannot be had."""
        if self._bell is None:
            self._bell = self._make(self._loop, self._ring)
            self._set_to, self._held = 0.0, False
        self._users += 1

    def leave(self) -> None:
        """One less needs them; the last one gives the bell back."""
        self._users -= 1
        if not self._users and self._bell is not None:
            self._bell.close()
            self._bell = None

    def set(self, due: float, sleeper: Sleeper) -> Alarm:
        """Wake `sleeper` at `due`, in seconds of the monotonic clock."""
        alarm = Alarm(due, sleeper)
        heappush(self._heap, (due, self._next(), alarm))
        if not self._ringing:
            if not self._held:
                self._hold_loop()
            if due < self._set_to or not self._set_to:
                self._set(due)
        return alarm

    def give_up(self, alarm: Alarm) -> None:
        """Forget an alarm that has not rung."""
        if alarm.sleeper is None:
            return
        alarm.sleeper = None
        self._given_up += 1
        if self._ringing:  # `_ring` looks at the heap
            return
        if self._given_up > _STALE and self._given_up > len(self._heap) // 2:
            self._heap[:] = [entry for entry in self._heap if entry[2].sleeper is not None]
            heapify(self._heap)
            self._given_up = sum(alarm.sleeper is None for alarm in self._due)
        self._hold_loop()

    def _ring(self) -> None:
        heap, due, now = self._heap, self._due, self._now()
        until, most = now + TURN, len(due) + _FOUND
        self._ringing, self.spent = True, 0.0
        # What is due now, and not what sets itself anew meanwhile: that is for the next turn.
        while heap and heap[0][0] <= now and len(due) < most:
            due.append(heappop(heap)[2])
        try:
            while due:
                sleeper = due.popleft().sleeper
                if sleeper is None:
                    self._given_up -= 1
                    continue
                sleeper.wake(now)
                if due and self._now() > until:
                    break  # the bell rings again at once, once others had their turn
        except RAISED:  # each guards itself; this is for what nobody has thought of
            log.exception("alarms: internal error")
        finally:
            self._ringing = False
            self._hold_loop()
            self._set(now if due else heap[0][0] if heap else 0.0)

    def _left(self) -> int:
        """How many are still to ring."""
        return len(self._heap) + len(self._due) - self._given_up

    def _hold_loop(self) -> None:
        """Keep a loop going that has nothing else to do while a sleeper is to be woken."""
        held = self._left() > 0
        if held is not self._held and self._bell is not None:
            self._held = held
            self._bell.hold_loop(held)

    def _set(self, due: float) -> None:
        self._set_to = due
        if self._bell is not None:
            self._bell.set(due)
