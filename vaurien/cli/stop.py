"""SIGINT and SIGTERM while the proxies run: the first one stops them, the second ends the process.

Law: the second one works whatever the loop does. So neither goes by the loop, nor by the main
thread, which a handler may hold: the interpreter writes each signal to a pipe as it comes, and a
thread of the system reads that.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from vaurien.cli.signals import take
from vaurien.net.guard import guarded
from vaurien.net.loop import current
from vaurien.observe import native

log = logging.getLogger("vaurien")

ENDING = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Takes both signals from now on: `first` is called in the loop of the thread that makes it."""

    def __init__(self, first: Callable[[], object]) -> None:
        self._first, self._call_soon = first, current().call_soon
        self._began = False
        make_nonblocking: Any = getattr(os, "set_blocking", None)
        if make_nonblocking is None:  # Windows before Python 3.12: the main thread has to see them
            for number in ENDING:
                take(number, lambda _number, _frame: self._came())
            return
        self._reader, writer = os.pipe()
        make_nonblocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in ENDING:
            take(number, _seen)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_let_go)
        native.start_thread(self._read)

    def _read(self) -> None:
        while numbers := os.read(self._reader, 64):
            for number in numbers:
                if number in ENDING:
                    self._came()

    def _came(self) -> None:
        if self._began:
            os._exit(0)
        self._began = True
        self._call_soon(self._begin)

    @guarded
    def _begin(self) -> None:
        self._first()

    def crashed(self) -> None:
        """Called in an ``except``: the second signal still ends the process."""
        log.exception("stopping: internal error")


def _seen(_number: int, _frame: object) -> None:
    """The thread has been told already."""


def _let_go() -> None:
    """In a process that a handler has forked: its signals are its own, and not told to us."""
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        if signal.getsignal(number) is _seen:
            signal.signal(number, signal.SIG_DFL)
