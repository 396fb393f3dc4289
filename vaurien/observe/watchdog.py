"""The watch on the loop: names what holds it.

A greenlet beats; a native thread looks at the beat, and when it has stopped for `HELD` seconds
reads the stack of the loop's thread, twice. If the same callback or greenlet is at work both times,
it holds the loop, and the stack names its handler. If not, the loop has much to do at once, as when
thousands of clients leave together: the lag shows that, and no handler is at fault. A timer of the
loop could not do this: while the loop is held, it does not run. Nor could ``settrace``, which would
slow down every call.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from time import monotonic
from types import CodeType, FrameType

import gevent

from vaurien.counts import Buckets
from vaurien.observe import native

log = logging.getLogger("vaurien")

BEAT = 0.1  # seconds between beats
HELD = 0.5  # seconds without a beat that are worth a warning

#: The upper bounds in seconds of the buckets in which the lag is exposed.
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Lag:
    """How late the loop is: how late each beat comes.

    A histogram, because it shows every reader the same, however many there are and however seldom
    they look; with a gauge each would miss what was between two looks.
    """

    def __init__(self) -> None:
        self.buckets = Buckets(LAGS)
        self._last: deque[float] = deque(maxlen=round(1 / BEAT))

    def add(self, seconds: float) -> None:
        """A beat came `seconds` later than it should."""
        self.buckets.add(max(seconds, 0.0))
        self._last.append(max(seconds, 0.0))

    @property
    def worst(self) -> float:
        """The latest of the beats of the last second."""
        return max(self._last, default=0.0)


class Watchdog:
    """Watches the loop of the thread that makes it; `caller` is the code that calls callbacks."""

    def __init__(self, caller: CodeType) -> None:
        self._thread = native.get_ident()
        self._caller = caller
        self._beats = 0
        self._stopped = False
        self.lag = Lag()

    def start(self) -> None:
        """Watch from now on."""
        gevent.spawn(self._beat)
        native.start_thread(self._watch)

    def stop(self) -> None:
        """Watch no more."""
        self._stopped = True

    def _beat(self) -> None:
        while not self._stopped:
            try:
                self._beats += 1
                due = monotonic() + BEAT
                gevent.sleep(BEAT)
                self.lag.add(monotonic() - due)
            except Exception:  # without beats, the watch would report the loop as held for good
                log.exception("the watch on the loop: internal error")

    def _watch(self) -> None:
        last = self._beats
        while not self._stopped:
            native.sleep(HELD)
            if self._beats == last:
                self._wait_for_beat(last)
            last = self._beats

    def _wait_for_beat(self, last: int) -> None:
        """The beat has stopped: name what holds the loop, once, if one thing does."""
        before, named = None, False
        while self._beats == last and not self._stopped:
            frame = sys._current_frames().get(self._thread)
            work = self._work(frame)
            if work is not None and work is before and not named:
                named = True
                log.warning("the loop is held for %g s and more: %s", HELD, _culprit(frame))
            before = work
            native.sleep(BEAT)

    def _work(self, frame: FrameType | None) -> FrameType | None:
        """The callback or greenlet at work: its outermost frame, the same one all along.

        None between two callbacks.
        """
        while frame is not None and frame.f_code is not self._caller:
            outer = frame.f_back
            if outer is None or outer.f_code is self._caller:
                return frame
            frame = outer
        return None


def _culprit(frame: FrameType | None) -> str:
    """Where the loop's thread is, and in which handler."""
    handler = None
    place = "in an unknown place"
    if frame is not None:
        place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    while frame is not None:
        if frame.f_code.co_name == "__call__":
            owner = frame.f_locals.get("self")
            name = getattr(owner, "name", None)
            if isinstance(name, str) and hasattr(owner, "options"):
                handler = name
        frame = frame.f_back
    if handler is None:
        return f"at {place}"
    return (
        f"handler {handler!r} computes at {place};"
        " let it call gevent.sleep(0.001) now and then, or compute in gevent's thread pool"
    )
