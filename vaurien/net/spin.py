"""Keeping the loop awake for a moment after the last event.

Law: it costs nothing per event. While it spins, an idle watcher makes the loop poll without
sleeping; when nothing came for `microseconds` it stops, and a check watcher, called when the loop
next wakes, starts it again.
"""

from __future__ import annotations

import logging
from time import perf_counter

from gevent.hub import get_hub

from vaurien.net.guard import guarded
from vaurien.net.system import yield_processor

log = logging.getLogger("vaurien")


class Spin:
    """Polls for `microseconds` after the last event before the loop may sleep."""

    def __init__(self, microseconds: int) -> None:
        loop = get_hub().loop
        self._limit = microseconds / 1e6  # seconds
        self._idle, self._check = loop.idle(), loop.check()
        self._loop = loop
        self._iteration = 0
        self._until = 0.0

    def start(self) -> None:
        """Spin from the next event on."""
        self._check.start(self._wake)

    def stop(self) -> None:
        """Sleep again as usual."""
        for watcher in (self._idle, self._check):
            watcher.stop()
            watcher.close()

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours; the loop sleeps as usual from here on."""
        log.exception("keeping the loop awake: internal error")
        self.stop()

    @guarded
    def _wake(self) -> None:
        self._check.stop()
        self._until = perf_counter() + self._limit
        self._iteration = self._loop.iteration
        self._idle.start(self._empty_poll)

    @guarded
    def _empty_poll(self) -> None:
        # An idle watcher is not called in an iteration that had events: a gap means there were.
        iteration = self._loop.iteration
        now = perf_counter()
        if iteration > self._iteration + 1:
            self._until = now + self._limit
        elif now > self._until:
            self._idle.stop()
            self._check.start(self._wake)
        else:
            yield_processor()  # the process that is to answer may have been woken on this very core
        self._iteration = iteration
