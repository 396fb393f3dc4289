"""The log, as text or as JSON: one bounded queue to a native thread that formats and writes.

The lines about faults are made in `faults`.

Law: a call that logs never waits, neither for a lock nor for a pipe that is not read. What the
queue cannot take is counted, and reported as soon as there is room.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from traceback import TracebackException
from typing import Any

from vaurien.errors import UsageError
from vaurien.observe.files import open_to_append
from vaurien.observe.writer import LIMIT, Writer

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMAT = "%(asctime)s %(levelname)s %(message)s"
FORMATS = ("text", "json")
STDERR = "-"

log = logging.getLogger("vaurien")

_Waiting = tuple[logging.LogRecord, TracebackException | None]


def fields(**named: object) -> dict[str, object]:
    """For ``extra`` of a line of the log: what is a field of its own in JSON."""
    return {"fields": named}


class JsonFormatter(logging.Formatter):
    """Makes an object of a line: time, level, message, the `fields` given, exception."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "time": time.isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, default=str)


class _NoLock:
    """In place of a logging handler's lock: `emit` needs none.

    It only appends to a deque. `logging` would take a lock for each line, and a thread of a user
    that holds it while it waits for the interpreter would hold up the loop.
    """

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class QueueWriter(logging.Handler):
    """A logging handler: `emit` queues the record, or counts it as dropped above `limit` lines."""

    def __init__(self, descriptor: int, limit: int = LIMIT, form: str = "text") -> None:
        super().__init__()
        self._json = form == "json"
        self.setFormatter(JsonFormatter() if self._json else logging.Formatter(FORMAT))
        self.writer: Writer[_Waiting | str] = Writer(
            descriptor, self._text, limit, apology=self._apology
        )

    @property
    def dropped(self) -> int:
        """How many lines were dropped in all."""
        return self.writer.dropped

    def createLock(self) -> None:  # noqa: N802
        self.lock: Any = _NoLock()

    def emit(self, record: logging.LogRecord) -> None:
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
        self.writer.put((record, trace))

    def tell(self, text: str) -> None:
        """Write `text` as it is, whatever the level of the log."""
        self.writer.put(text)

    def stop(self, limit: float = 1.0) -> None:
        """Write what is waiting, for `limit` seconds at most."""
        self.writer.stop(limit)

    def _text(self, waiting: _Waiting | str) -> str:
        if isinstance(waiting, str):
            return self.format(_record("info", waiting)) if self._json else waiting
        record, trace = waiting
        if trace is not None:
            record.exc_text = "".join(trace.format()).rstrip()
        return self.format(record)

    def _apology(self, n: int) -> str:
        text = "1 line of the log was dropped" if n == 1 else f"{n} lines of the log were dropped"
        return self.format(_record("warning", text)) if self._json else text


def _record(level: str, text: str) -> logging.LogRecord:
    number = logging.getLevelName(level.upper())
    return logging.LogRecord("vaurien", number, "", 0, text, None, None)


def start(level: str, output: str, form: str = "text") -> QueueWriter:
    """Send Vaurien's log to `output`, a file's path or ``-`` for standard error.

    Its `form` is one of `FORMATS`.
    """
    if output == STDERR:
        descriptor = 2
    else:
        try:
            descriptor = open_to_append(output, os.O_WRONLY)
        except OSError as error:
            raise UsageError(
                f"--log-output: cannot write {output!r}: {error.strerror}; give a file's path, or -"
            ) from None
    writer = QueueWriter(descriptor, form=form)
    log.setLevel(level.upper())
    log.propagate = False
    log.handlers[:] = [writer]
    return writer
