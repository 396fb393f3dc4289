"""A loop that times its callbacks, in seconds of the processor: others' load does not count."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any

from vaurien.net.loop import Loop
from vaurien.net.system import bell


class TimedLoop(Loop):
    """Knows how long its longest callback took, which it was, and how much all of them did."""

    def __init__(self) -> None:
        super().__init__()
        self.longest, self.which = 0.0, ""
        self.calls, self.spent = 0, 0.0  # of all callbacks
        io, timer = self.io, self.timer
        self.io = lambda *given, **named: _Watcher(self, io(*given, **named))
        self.timer = lambda *given, **named: _Watcher(self, timer(*given, **named))
        self.alarms._make = lambda loop, ring: bell(loop, self.timed(ring))

    def timed(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """`callback`, timed."""

        def run(*given: Any) -> Any:
            start = thread_time()
            try:
                return callback(*given)
            finally:
                took = thread_time() - start
                self.calls, self.spent = self.calls + 1, self.spent + took
                if took > self.longest:
                    self.longest, self.which = took, repr(callback)

        return run


class _Watcher:
    """One of gevent's, whose callback is timed."""

    def __init__(self, loop: TimedLoop, watcher: Any) -> None:
        self._loop, self._watcher = loop, watcher

    @property
    def active(self) -> bool:
        return bool(self._watcher.active)

    @property
    def callback(self) -> Any:
        return self._watcher.callback

    @callback.setter
    def callback(self, callback: Callable[..., Any] | None) -> None:
        self._watcher.callback = callback and self._loop.timed(callback)

    def start(self, callback: Callable[..., Any], *given: Any, **named: Any) -> None:
        self._watcher.start(self._loop.timed(callback), *given, **named)

    def stop(self) -> None:
        self._watcher.stop()

    def close(self) -> None:
        self._watcher.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watcher, name)
