"""The log: one bounded queue to a native thread that formats and writes.

Law: whoever logs never waits, neither for a lock nor for a pipe that nobody reads. What the queue
cannot take is counted, and said as soon as there is room.
"""

from __future__ import annotations

import logging
import os
from traceback import TracebackException
from typing import Any

from vaurien.behavior import DUMMY
from vaurien.errors import UsageError
from vaurien.observe import native
from vaurien.observe.events import Event

LIMIT = 10_000  # lines waiting
LEVELS = ("debug", "info", "warning", "error", "critical")
FORMAT = "%(asctime)s %(levelname)s %(message)s"
STDERR = "-"

log = logging.getLogger("vaurien")

_Waiting = tuple[logging.LogRecord, TracebackException | None]


class _NoLock:
    """In place of a logging handler's lock: `emit` needs none."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class QueueWriter(logging.Handler):
    """A logging handler whose `emit` puts the record into the queue, or counts it as dropped."""

    def __init__(self, descriptor: int, limit: int = LIMIT) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self.descriptor, self.limit = descriptor, limit
        self.dropped = 0  # in all
        self._told = 0
        self._queue: native.Queue[_Waiting | None] = native.Queue()
        self._done = native.lock()
        self._done.acquire()
        native.start_thread(self._write_all)

    def createLock(self) -> None:  # noqa: N802
        self.lock: Any = _NoLock()

    def emit(self, record: logging.LogRecord) -> None:
        if self._queue.qsize() >= self.limit:
            self.dropped += 1
            return
        # What waits must not keep frames and what is in them. The lines of the traceback's files
        # are read by the thread.
        trace = None
        if record.exc_info and record.exc_info[1] is not None:
            trace = TracebackException.from_exception(record.exc_info[1], lookup_lines=False)
            record.exc_info = None
        try:
            record.msg = record.getMessage()
        except Exception as error:
            record.msg = f"a line of the log could not be made of {record.msg!r}: {error!r}"
        record.args = None
        self._queue.put((record, trace))

    def stop(self, limit: float = 1.0) -> None:
        """Write what is waiting, for `limit` seconds at most."""
        self._queue.put(None)
        self._done.acquire(True, limit)

    def _write_all(self) -> None:
        """The thread: until None comes, or the other end is gone."""
        try:
            while (waiting := self._queue.get()) is not None:
                self._write(self._text(*waiting))
                dropped = self.dropped
                if dropped > self._told:
                    self._write(f"{dropped - self._told} lines of the log were dropped")
                    self._told = dropped
        except OSError:
            self.limit = 0  # nobody reads any more: count what comes
        finally:
            self._done.release()

    def _text(self, record: logging.LogRecord, trace: TracebackException | None) -> str:
        if trace is not None:
            record.exc_text = "".join(trace.format()).rstrip()
        return self.format(record)

    def _write(self, line: str) -> None:
        data = (line + "\n").encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:  # a pipe that somebody made non-blocking is full
                native.sleep(0.05)


def start(level: str, output: str) -> QueueWriter:
    """Send Vaurien's log to `output`, a file's path or ``-`` for standard error."""
    if output == STDERR:
        descriptor = 2
    else:
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(
                f"--log-output: cannot write {output!r}: {error.strerror}; give a file's path, or -"
            ) from None
    writer = QueueWriter(descriptor)
    log.setLevel(level.upper())
    log.propagate = False
    log.handlers[:] = [writer]
    return writer


def log_fault(event: Event) -> None:
    """An observer: one line for each exchange that a handler deals with, quiet for dummy."""
    if event.handler != DUMMY:
        log.info(
            "%s: connection %d, exchange %d: %s",
            event.proxy,
            event.connection,
            event.exchange,
            event.handler,
        )
