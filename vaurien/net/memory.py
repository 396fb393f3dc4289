"""A loop in memory: the data path without a system, in time that passes when it is told to.

`MemoryLoop` stands where a `vaurien.net.loop.Loop` does, and sockets of `MemoryLoop.pair` where
sockets of the system do, so that a real connection runs on them as it is::

    loop = MemoryLoop()
    near, far = loop.pair(window=1000)
    far.send(b"hello")  # a watcher of `near` is ready now
    loop.run()          # calls all that is ready, until nothing is
    loop.advance(1.5)   # the same, while 1.5 s pass

Laws: the same calls give the same, always: nothing depends on the time of day, on threads or on the
order of a hash. A watcher that is stopped is not called, though it was ready. What a callback
raises comes out of `run`: none of the data path may raise.

Calls of socket handlers are greenlets, which need a real hub: they run on that of the thread, which
gets a turn in each turn of this loop. What they read and send is in memory as all else; what they
sleep is real time.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

import gevent

from vaurien.net.alarms import Alarms
from vaurien.net.loop import READ, READ_SIZE, WRITE, Loop
from vaurien.net.memory_sockets import WINDOW, MemorySocket, pair

SPINS = 100_000  # turns without time passing, after which something is ready for good
#: Turns of the real hub in one of ours. One greenlet that wakes another takes two, as from the
#: desk's event to the call that waits for it; what takes more goes on in our next turn.
_HOPS = 4

T = TypeVar("T")


class Spinning(RuntimeError):
    """Somebody is called again and again, and does nothing about what he is called for."""


class MemoryLoop(Loop):
    """A loop in memory. `now` is in seconds, and begins at `start`.

    `shuffle` may bring those who are ready at the same time, a list, into another order, as
    ``random.Random(1).shuffle`` does; otherwise it is that in which they were started.
    """

    def __init__(
        self, start: float = 1000.0, shuffle: Callable[[list[Any]], object] | None = None
    ) -> None:
        super().__init__()
        self.io, self.timer, self.now = self._io, self._make_timer, self._clock
        self.view = memoryview(bytearray(READ_SIZE))
        self.alarms = Alarms(self, self.now, MemoryBell)
        self.watchers: dict[MemoryWatcher, None] = {}  # the active ones, in order of their start
        self._time, self._shuffle = start, shuffle
        self._due: list[tuple[float, int, MemoryTimer]] = []
        self._sockets: dict[int, MemorySocket] = {}
        self._next = count(1000).__next__  # no number is given twice

    def __repr__(self) -> str:
        return f"<MemoryLoop at {self._time:.6f}, {len(self.watchers)} active, {self.alarms!r}>"

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """What `function` returns: the caller is in the loop's thread."""
        return function(*args)

    # What the data path asks

    def _clock(self) -> float:
        return self._time

    def _io(self, descriptor: int, events: int, ref: bool = True) -> MemoryIo:
        return MemoryIo(self, self._sockets[descriptor], events)

    def _make_timer(self, after: float, repeat: float = 0.0, ref: bool = True) -> MemoryTimer:
        return MemoryTimer(self, after, repeat)

    # Sockets

    def pair(self, window: int = WINDOW) -> tuple[MemorySocket, MemorySocket]:
        """Two sockets that are connected; each takes `window` bytes that are not read yet."""
        return pair(self._sockets, window)

    @property
    def open_sockets(self) -> list[MemorySocket]:
        """Those that are not closed."""
        return list(self._sockets.values())

    # Time

    def set_timer(self, timer: MemoryTimer, due: float) -> None:
        """Have `timer` called at `due`, in seconds."""
        heappush(self._due, (due, self._next(), timer))

    @property
    def deadline(self) -> float | None:
        """When the next timer is due, in seconds; None if there is none."""
        while self._due and self._due[0][2].due != self._due[0][0]:
            heappop(self._due)  # it was stopped, or set anew
        return self._due[0][0] if self._due else None

    def turn(self) -> bool:
        """Call everybody once who is ready now; whether there was anybody."""
        ready: list[MemoryWatcher] = []
        while (deadline := self.deadline) is not None and deadline <= self._time:
            timer = heappop(self._due)[2]
            timer.rings()
            ready.append(timer)
        ready += [one for one in self.watchers if isinstance(one, MemoryIo) and one.ready]
        if self._shuffle is not None:
            self._shuffle(ready)
        for watcher in ready:
            watcher.pending = True
        for watcher in ready:
            if watcher.pending:  # nobody has stopped it meanwhile
                watcher.call()
        self._let_greenlets_run()
        return bool(ready)

    def run(self) -> None:
        """Call all that is ready, until nothing is; no time passes."""
        for _ in range(SPINS):
            if not self.turn() and not self._is_anybody_ready():
                return
        raise Spinning(f"{self!r}: {[one for one in self.watchers if one.active]}")

    @staticmethod
    def _let_greenlets_run() -> None:
        """Calls of socket handlers, as far as they go without a system to wait for."""
        for _ in range(_HOPS):
            gevent.sleep(0)

    def _is_anybody_ready(self) -> bool:
        """Whether greenlets have made something ready."""
        deadline = self.deadline
        if deadline is not None and deadline <= self._time:
            return True
        return any(isinstance(one, MemoryIo) and one.ready for one in self.watchers)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; each timer is called at its time."""
        until = self._time + seconds
        self.run()
        while (deadline := self.deadline) is not None and deadline <= until:
            self._time = max(self._time, deadline)
            self.run()
        self._time = until

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass at one go, as for a loop that is held up meanwhile."""
        self._time += seconds
        self.run()


class MemoryWatcher:
    """What io and timers have in common, as gevent has it."""

    def __init__(self, loop: MemoryLoop) -> None:
        self.callback: Callable[[], None] | None = None
        self.ref = True
        self.pending = False  # ready, and not called yet in this turn
        self.closed = False
        self._loop = loop

    @property
    def active(self) -> bool:
        """Whether it is started."""
        return self in self._loop.watchers

    def start(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is ready."""
        assert not self.closed, f"{self!r} is closed"
        self.callback = callback
        self._loop.watchers[self] = None

    def stop(self) -> None:
        """Have nothing called any more."""
        self._loop.watchers.pop(self, None)
        self.callback, self.pending = None, False

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self.closed = True

    def call(self) -> None:
        """It is its turn."""
        self.pending = False
        assert self.callback is not None
        self.callback()


class MemoryIo(MemoryWatcher):
    """A watcher of a socket; `events` is `READ` or `WRITE`, or both."""

    def __init__(self, loop: MemoryLoop, sock: MemorySocket, events: int) -> None:
        super().__init__(loop)
        self.sock, self.events = sock, events

    def __repr__(self) -> str:
        return f"<MemoryIo of {self.sock!r}, {'active' if self.active else 'not active'}>"

    @property
    def ready(self) -> bool:
        """Whether reading or writing would not block."""
        reads = self.events & READ and self.sock.is_readable
        return bool(reads or (self.events & WRITE and self.sock.is_writable))


class MemoryTimer(MemoryWatcher):
    """A timer: `after` seconds from its start, then each `repeat` seconds unless that is 0."""

    def __init__(self, loop: MemoryLoop, after: float, repeat: float = 0.0) -> None:
        super().__init__(loop)
        self._after, self._repeat = after, repeat
        self.due: float | None = None

    def __repr__(self) -> str:
        return f"<MemoryTimer due at {self.due}>"

    def start(self, callback: Callable[[], None]) -> None:
        super().start(callback)
        self._set(self._loop.now() + max(0.0, self._after))

    def _set(self, due: float) -> None:
        self.due = due
        self._loop.set_timer(self, due)

    def rings(self) -> None:
        """Its time has come."""
        assert self.due is not None
        if self._repeat:
            self._set(self.due + self._repeat)
        else:
            self.due = None

    def call(self) -> None:
        callback, self.pending = self.callback, False
        if self.due is None:  # as gevent has it: one that does not repeat is over when it is called
            self._loop.watchers.pop(self, None)
        assert callback is not None
        callback()

    def stop(self) -> None:
        super().stop()
        self.due = None


class MemoryBell:
    """A bell for `vaurien.net.alarms`, exact to the float."""

    def __init__(self, loop: MemoryLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._timer: MemoryTimer | None = None

    def set(self, due: float) -> None:
        """Ring at `due`, in seconds, or never if it is 0."""
        self.close()
        if due:
            self._timer = MemoryTimer(self._loop, 0.0)
            self._timer.start(self._ring)
            self._timer.due = due
            self._loop.set_timer(self._timer, due)

    def hold_loop(self, held: bool) -> None:
        """Nothing: this loop runs only while it is told to."""

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
