"""What only Linux has of what the data path uses, each beside a portable way to do the same.

Law: nowhere else in this room or above it is a system asked for what others lack. Both ways behave
the same, but for how exact they are.

- An alarm: timerfd_create(2) is exact to some tens of microseconds. A timer of the loop is only as
  good as epoll's or kqueue's timeout, which libev gives in whole milliseconds, rounded up.
- A socket that never blocks: SOCK_NONBLOCK, socket(2), spares an ioctl.
- Keepalive: its time is TCP_KEEPIDLE, or TCP_KEEPALIVE on a Mac; where there is neither, it is the
  system's own, of two hours mostly.
- Yielding the processor while the loop spins: sched_yield(2). Windows has none; there a core that
  spins is the spinner's until the system takes it away.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

_ABSOLUTE = 1  # TFD_TIMER_ABSTIME, timerfd_create(2)
_READ = 1  # libev's EV_READ


def _nothing() -> None: ...


#: Give the processor to another thread or process that waits for it on this core.
yield_processor: Callable[[], None] = getattr(os, "sched_yield", _nothing)


# Linux and the BSDs make a socket so in one call; elsewhere it takes an ioctl more.
_AT_ONCE: int = getattr(_socket, "SOCK_NONBLOCK", 0)


def stream_socket(family: int) -> _socket.socket:
    """A stream socket that does not block; its descriptor is not inherited."""
    sock = _socket.socket(family, _socket.SOCK_STREAM | _AT_ONCE)
    if not _AT_ONCE:
        sock.setblocking(False)
    return sock


# How long a peer is silent before it is asked, and how long until it is asked again.
_IDLE: int | None = getattr(_socket, "TCP_KEEPIDLE", getattr(_socket, "TCP_KEEPALIVE", None))
_INTERVAL: int | None = getattr(_socket, "TCP_KEEPINTVL", None)

#: The seconds of both that are Go's, and so Toxiproxy's.
KEEPALIVE = 15

#: Level, option and value, as ``setsockopt`` takes them.
SocketOption = tuple[int, int, int]


def tcp_options(keepalive: int) -> tuple[SocketOption, ...]:
    """What is set on each TCP socket: small writes go at once, silent peers are asked.

    They are asked after `keepalive` seconds, and then as often until one has missed all the probes
    that the system sends (9 on Linux); 0 is never. A listener hands all of it on to what it
    accepts, on all systems; for a socket that dials it is a call each.
    """
    found = [(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)]
    if keepalive:
        found.append((_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1))
        times = [option for option in (_IDLE, _INTERVAL) if option is not None]
        found += [(_socket.IPPROTO_TCP, option, keepalive) for option in times]
    return tuple(found)


#: Seconds of the monotonic clock, some 60 years, that each system's timers can tell: nothing
#: rings later than that. Who is woken too early looks, and goes to sleep again.
_LAST = 2e9


class Bell(Protocol):
    """Calls something at one moment, and again once it has been set anew."""

    def set(self, due: float) -> None:
        """Ring at `due`, in seconds of the monotonic clock, or never if it is 0."""

    def hold_loop(self, held: bool) -> None:
        """Whether the loop goes on for its sake, though it has nothing else to do."""

    def close(self) -> None:
        """Give all back."""


def bell(loop: Any, ring: Callable[[], None]) -> Bell:
    """The most exact bell of this system, on a loop of gevent; OSError if none can be had."""
    return TimerFd(loop, ring) if _create is not None else LoopTimer(loop, ring)


class LoopTimer:
    """A bell from a timer of the loop: portable, up to some milliseconds late."""

    def __init__(self, loop: Any, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._timer: Any = None
        self._held = False

    def set(self, due: float) -> None:
        """Ring at `due` (seconds), or never if it is 0."""
        self.close()
        if due:
            # A timer keeps the delay that it is made with. It counts from when the loop last read
            # the clock, which may be long ago, and is read anew only after ours: else it would ring
            # too soon.
            delay = max(0.0, min(due, _LAST) - time.monotonic())
            self._loop.update_now()
            self._timer = self._loop.timer(delay, ref=self._held)
            self._timer.start(self._ring)

    def hold_loop(self, held: bool) -> None:
        self._held = held
        if self._timer is not None:
            self._timer.ref = held

    def close(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


class TimerFd:
    """A bell from a descriptor that the loop watches like any other."""

    def __init__(self, loop: Any, ring: Callable[[], None]) -> None:
        assert _create is not None
        # TFD_NONBLOCK and TFD_CLOEXEC are those of open(2)
        self._descriptor = _create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._watcher = loop.io(self._descriptor, _READ, ref=False)
        self._watcher.start(ring)
        self._spec = (ctypes.c_long * 4)()  # struct itimerspec: interval and value, s and ns each

    def set(self, due: float) -> None:
        """Ring at `due` (seconds), or never if it is 0."""
        if due > _LAST:  # it would wrap round, and ring at once
            due = _LAST
        spec = self._spec
        spec[2] = seconds = int(due)
        spec[3] = int((due - seconds) * 1e9)
        # It forgets that it has rung, too: nothing need be read.
        _settime(self._descriptor, _ABSOLUTE, spec, None)

    def hold_loop(self, held: bool) -> None:
        self._watcher.ref = held

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        os.close(self._descriptor)


def _find() -> tuple[Any, Any]:
    """Timerfd's two calls; None twice where there are none."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        return library.timerfd_create, library.timerfd_settime
    except (AttributeError, OSError, TypeError):  # another libc; Windows has no CDLL(None)
        return None, None


_create, _settime = _find()
