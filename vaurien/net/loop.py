"""The loop of one thread, as the data path sees it: watchers, a clock, a buffer, alarms.

Laws: it is passed in, never looked up, so that a process can have several, each in a thread, and a
test one in memory (`vaurien.net.memory`). Nothing of it may be used from another thread but `call`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from types import CodeType
from typing import Any, Protocol, TypeVar

from gevent import Greenlet, monkey
from gevent.hub import get_hub

from vaurien.errors import Stopping
from vaurien.net.alarms import Alarms

READ, WRITE = 1, 2  # libev's EV_READ and EV_WRITE

#: Bytes that are read at most at a time. 32 KiB stay in a core's first cache (that of 64 KiB does
#: not): measured through the pump, bulk has 0.96 to 1.06 of HAProxy's speed with it, 0.62 to 0.94
#: with 64 KiB and 0.8 with 16 KiB.
READ_SIZE = 32768

_LOOK = 0.5  # seconds between two looks whether a thread that is waited for is still there

T = TypeVar("T")

#: The number of the system's thread, whatever was patched.
_ident: Callable[[], int] = monkey.get_original("_thread", "get_ident")


class Watcher(Protocol):
    """A watcher of the loop, as gevent has it."""

    callback: Callable[[], None] | None

    @property
    def active(self) -> bool: ...

    def start(self, callback: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Loop:
    """The loop of the thread that makes it.

    `io(descriptor, READ or WRITE)` and `timer(seconds, repeat)` make watchers, `now()` is in
    seconds of the monotonic clock. `view` is where all read to: it is never in use for longer than
    a callback.
    """

    def __init__(self) -> None:
        self.hub = get_hub()
        self.io: Callable[..., Any] = self.hub.loop.io
        self.timer: Callable[..., Any] = self.hub.loop.timer
        self.now = monotonic
        self.view = memoryview(bytearray(READ_SIZE))
        self.alarms = Alarms(self.hub.loop)
        self._ident, self._thread = _ident(), threading.current_thread()

    def __repr__(self) -> str:
        return f"<Loop of thread {self._ident}, {self.alarms!r}>"

    @property
    def is_mine(self) -> bool:
        """Whether it is that of the thread that asks."""
        return _ident() == self._ident

    @property
    def caller(self) -> CodeType:
        """The code of the frame that calls all callbacks, by which one can tell them in a stack."""
        return type(self.hub).run.__code__

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have `callback`, which guards itself, called by the loop; from any thread, at once."""
        self.hub.loop.run_callback_threadsafe(callback)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """What `function` returns or raises, called in the loop's thread, in a greenlet there.

        From that thread itself it is a plain call. From any other one it waits, and holds up the
        whole of that thread; the loop must be running. Stopping if its thread has ended, or ends
        before `function` has returned.
        """
        if self.is_mine:
            return function(*args)
        done = monkey.get_original("_thread", "allocate_lock")()
        done.acquire()
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(function(*args))
            except BaseException as error:  # it belongs to the caller
                outcome.extend((None, error))
            finally:
                done.release()

        try:
            self.hub.loop.run_callback_threadsafe(Greenlet.spawn, run)
        except (AttributeError, ValueError):  # its hub is destroyed
            raise _ended() from None
        while not done.acquire(timeout=_LOOK):
            if not self._thread.is_alive() or self.hub.loop is None:
                raise _ended()
        if len(outcome) > 1:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]


def current() -> Loop:
    """The loop of this thread: one for all that ask here, so that they share alarms and buffer."""
    loop: Loop | None = getattr(_own, "loop", None)
    if loop is None or loop.hub is not get_hub():
        loop = _own.loop = Loop()
    return loop


#: The loop of each thread of the system, for those who are given none. It goes with its thread: a
#: table by hub would keep both for good, since a loop has its hub.
_own: Any = monkey.get_original("threading", "local")()


def _ended() -> Stopping:
    return Stopping("the loop has ended, and its proxies with it; nothing can be asked of them")
