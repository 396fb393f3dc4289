"""The alarms of flows: one heap and one timerfd for all proxies of a loop.

Law: an alarm comes at its time, not at the next whole millisecond, as epoll's timeout (and with it
a timer of the loop) does: timerfd_create(2) is exact to some tens of microseconds, and its
descriptor is watched like any other. It is there before anybody listens: where it cannot be had,
no connection has to pay for it.
"""

from __future__ import annotations

import ctypes
import os
import time
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from gevent.hub import get_hub

if TYPE_CHECKING:
    from vaurien.relay.connection import Flow

_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC
_STALE = 1000  # alarms given up that may stay in the heap
_ALARMS = "vaurien_alarms"

_libc = ctypes.CDLL(None, use_errno=True)
_settime = _libc.timerfd_settime
_Spec = ctypes.c_long * 4  # struct itimerspec: interval and value, seconds and nanoseconds each


class Alarm:
    """A flow that is to be woken; `flow` is None once it is given up."""

    __slots__ = ("due", "flow")

    def __init__(self, due: float, flow: Flow) -> None:
        self.due = due
        self.flow: Flow | None = flow


class Alarms:
    """Wakes flows; times are seconds of the monotonic clock."""

    @staticmethod
    def of_loop() -> Alarms:
        """Those of the present loop, for one more until `leave`; OSError if they cannot be had."""
        mine = vars(get_hub())
        if _ALARMS not in mine:
            mine[_ALARMS] = Alarms()
        found = cast(Alarms, mine[_ALARMS])
        found._users += 1
        return found

    def leave(self) -> None:
        """One less has alarms here; the last one takes them away."""
        self._users -= 1
        if not self._users:
            del vars(get_hub())[_ALARMS]
            self._watcher.stop()
            self._watcher.close()
            os.close(self._descriptor)

    def __init__(self) -> None:
        self._descriptor = _libc.timerfd_create(time.CLOCK_MONOTONIC, _FLAGS)
        if self._descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._users = 0
        self._watcher: Any = get_hub().loop.io(self._descriptor, 1, ref=False)
        self._watcher.start(self._ring)
        self._heap: list[tuple[float, int, Alarm]] = []
        self._sequence = count()
        self._set_to = 0.0  # 0 is not at all
        self._given_up = 0
        self._spec = _Spec()
        self._ringing = False

    def set(self, due: float, flow: Flow) -> Alarm:
        """Call ``flow.wake()`` at `due`."""
        alarm = Alarm(due, flow)
        heappush(self._heap, (due, next(self._sequence), alarm))
        if not self._ringing:
            self._hold_loop()
            if due < self._set_to or not self._set_to:
                self._set(due)
        return alarm

    def give_up(self, alarm: Alarm) -> None:
        """Forget an alarm that has not rung."""
        alarm.flow = None
        self._given_up += 1
        if self._given_up > _STALE and self._given_up > len(self._heap) // 2:
            self._heap[:] = [entry for entry in self._heap if entry[2].flow is not None]
            heapify(self._heap)
            self._given_up = 0
        self._hold_loop()

    def _ring(self) -> None:
        # each flow guards itself
        heap, now = self._heap, time.monotonic()
        self._ringing = True
        try:
            while heap and heap[0][0] <= now:
                flow = heappop(heap)[2].flow
                if flow is None:
                    self._given_up -= 1
                else:
                    flow.wake(now)
        finally:
            self._ringing = False
            self._hold_loop()
            self._set(heap[0][0] if heap else 0.0)

    def _hold_loop(self) -> None:
        """Keep a loop going that has nothing else to do while somebody is to be woken."""
        self._watcher.ref = len(self._heap) > self._given_up

    def _set(self, due: float) -> None:
        """Ring next at `due`, or never if it is 0; what has rung is forgotten by this."""
        self._set_to = due
        spec = self._spec
        spec[2] = seconds = int(due)
        spec[3] = int((due - seconds) * 1e9)
        _settime(self._descriptor, _ABSOLUTE, spec, None)
