"""Lines on their way to a file: one bounded queue to a native thread that formats and writes.

Law: whoever puts a line never waits, neither for a lock nor for a pipe that nobody reads. What the
queue cannot take is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from vaurien.observe import native

LIMIT = 10_000  # lines waiting

T = TypeVar("T")


class Writer(Generic[T]):
    """Writes to `descriptor` what `line` makes of the things that are put.

    `line` is called in the thread. When the other end is gone, `failed` is called there, once, and
    all that comes is only counted. `apology` makes a line of how many were dropped, for when there
    is room again.
    """

    def __init__(
        self,
        descriptor: int,
        line: Callable[[T], str],
        limit: int = LIMIT,
        failed: Callable[[OSError], None] | None = None,
        apology: Callable[[int], str] | None = None,
    ) -> None:
        self.descriptor, self.limit = descriptor, limit
        self.dropped = 0  # in all
        self._line, self._failed, self._apology = line, failed, apology
        self._told = 0
        self._queue: native.Queue[T | None] = native.Queue()
        self._done = native.lock()
        self._done.acquire()
        native.start_thread(self._write_all)

    def put(self, thing: T) -> None:
        """Have `thing` written; counted as dropped if too many wait."""
        if self._queue.qsize() >= self.limit:
            self.dropped += 1
        else:
            self._queue.put(thing)

    def stop(self, limit: float = 1.0) -> bool:
        """Write what is waiting, for `limit` seconds at most; whether that was enough."""
        self._queue.put(None)
        return bool(self._done.acquire(True, limit))

    def _write_all(self) -> None:
        """The thread: until None comes, or the other end is gone."""
        try:
            while (thing := self._queue.get()) is not None:
                try:
                    line = self._line(thing)
                except Exception:  # of a user's own value, which no text can be made of
                    self.dropped += 1
                    continue
                self._write(line)
                dropped = self.dropped
                if dropped > self._told and self._apology is not None:
                    self._write(self._apology(dropped - self._told))
                    self._told = dropped
        except OSError as error:
            self.limit = 0  # nobody reads any more: count what comes
            self.dropped += self._queue.qsize()
            if self._failed is not None:
                self._failed(error)
        finally:
            self._done.release()

    def _write(self, line: str) -> None:
        data = (line + "\n").encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:  # a pipe that somebody made non-blocking is full
                native.sleep(0.05)
