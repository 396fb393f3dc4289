"""Lines on their way to a file: a bounded queue, and a native thread that writes them in batches.

Law: `put` never waits, neither for a lock nor for a pipe that is not read. What the queue cannot
take is counted.

The thread and the loop share the interpreter's lock, and a thread that wakes for each line takes
more of it than the line: each wake-up makes the loop wait for the lock twice. So the first line
after a silence is written at once, and then the thread rests for `REST`, formats all that came
meanwhile, and writes it with one call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from vaurien.observe import native

LIMIT = 10_000  # lines waiting

#: Seconds between two batches. A person who follows a log does not notice a delay below a tenth of
#: a second, and 20 wake-ups a second cost nothing that can be measured.
REST = 0.05

#: Lines in one write at most: what a busy proxy makes while the thread rests, and a megabyte or two
#: of text.
BATCH = 4096

T = TypeVar("T")


class Writer(Generic[T]):
    """Writes to `descriptor` what `line` makes of the things that are put.

    `line` is called in the thread. When the other end is gone, `failed` is called there, once, and
    all that comes is only counted. `apology` makes a line of how many were dropped, for when there
    is room again. At most `limit` lines wait; one that is being written waits still.
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
        self.batches = 0  # how often the thread had something to write
        self._line, self._failed, self._apology = line, failed, apology
        self._waiting: deque[T] = deque()
        self._taken = 0  # lines that the thread is writing
        # Each is changed by one side only, so that no count is lost.
        self._refused = 0  # by `put`
        self._lost = 0  # by the thread
        self._told = 0
        self._asleep = self._stopping = False
        self._bell: native.Queue[None] = native.Queue()
        self._done = native.lock()
        self._done.acquire()
        native.start_thread(self._write_all)

    def __repr__(self) -> str:
        return f"<Writer to {self.descriptor}: {len(self._waiting)} wait, {self.dropped} dropped>"

    @property
    def dropped(self) -> int:
        """How many lines were dropped in all."""
        return self._refused + self._lost

    def put(self, thing: T) -> None:
        """Have `thing` written; counted as dropped if too many wait."""
        waiting = self._waiting
        if len(waiting) + self._taken >= self.limit:
            self._refused += 1
            return
        waiting.append(thing)
        # The thread says first that it sleeps and looks then; here it is the other way round, so
        # that one of the two sees the other.
        if self._asleep:
            self._asleep = False
            self._bell.put(None)

    def stop(self, limit: float = 1.0) -> bool:
        """Write what is waiting, for `limit` seconds at most; whether that was enough."""
        self._stopping = True
        self._bell.put(None)
        return bool(self._done.acquire(True, limit))

    def _write_all(self) -> None:
        """The thread: until `stop`, or until the other end is gone."""
        try:
            while self._waits():
                self.batches += 1
                self._write_batch(len(self._waiting))
                if not self._stopping:
                    native.wait(self._bell, REST)
        except OSError as error:
            self.limit = 0  # nobody reads any more: count what comes
            self._lost += len(self._waiting)
            self._waiting.clear()
            if self._failed is not None:
                self._failed(error)
        finally:
            self.limit = 0
            self._done.release()

    def _waits(self) -> bool:
        """Sleep until something waits; False at the end."""
        while not self._waiting and not self._stopping:
            self._asleep = True
            if not self._waiting:
                native.wait(self._bell)
            self._asleep = False
        return bool(self._waiting)

    def _write_batch(self, n: int) -> None:
        """Write `n` of those that wait, and say what was dropped."""
        pop = self._waiting.popleft
        while n:
            self._taken = min(n, BATCH)
            n -= self._taken
            lines = []
            for _ in range(self._taken):
                try:
                    lines.append(self._line(pop()) + "\n")
                except Exception:  # of a user's own value, which no text can be made of
                    self._lost += 1
            self._write(lines)
            self._taken = 0
        if self.dropped > self._told and self._apology is not None:
            dropped = self.dropped
            self._write([self._apology(dropped - self._told) + "\n"])
            self._told = dropped

    def _write(self, lines: list[str]) -> None:
        data = memoryview(_encoded("".join(lines)))
        done = 0
        try:
            while done < len(data):
                try:
                    done += os.write(self.descriptor, data[done:])
                except (
                    BlockingIOError
                ):  # the pipe is full, and another process has made it non-blocking
                    native.sleep(REST)
        except OSError:
            for line in lines:  # those that were written whole are not lost
                done -= len(_encoded(line))
                self._lost += done < 0
            raise


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
