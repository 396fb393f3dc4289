"""The event stream of the API: what happens, as it happens.

Law: it ends in one of three ways, and the reader sees which: Vaurien says that it stops, it is
closed here, or it breaks off (`Unreachable`). A quiet stream still has a sign of life.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

from vaurien.client.wire import Json, Wire
from vaurien.errors import Unreachable

_QUIET = 45.0  # seconds without a byte on an event stream that has a sign of life each 15 s
_LAST = "stopping"  # the event that says that Vaurien stops


class Event(NamedTuple):
    """One event of the stream: its kind (``began``, ``ended``, ``change``), and its data.

    ``dropped`` says how many were lost because they were not read in time.
    """

    kind: str
    data: Json


class Events(Iterator[Event]):
    """The event stream: an iterator that waits for the next event.

    It listens from when it is made. It ends when Vaurien says that it stops, and when it is closed,
    which any thread may do; `Unreachable` if it breaks off, or if nothing, not even a sign of life,
    comes for 45 s.
    """

    def __init__(self, wire: Wire, path: str) -> None:
        self._wire = wire
        self._response, self._sock = wire.send("GET", path)
        self._sock.settimeout(_QUIET)
        self._closed = False
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        return f"<Events of {self._wire.address}{', closed' if self._closed else ''}>"

    def __next__(self) -> Event:
        kind, data = "message", list[str]()
        while line := self._line():
            name, _, value = line.rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif not name and data and not value:
                if kind == _LAST:
                    self.close()
                    raise StopIteration
                return Event(kind, dict(json.loads("\n".join(data))))
        broken = not self._closed
        self.close()
        if broken:
            raise Unreachable(
                f"Vaurien at {self._wire.address} broke off: it has ended, or the connection to it"
            )
        raise StopIteration

    def _line(self) -> str:
        """A line with its end; empty when there are no more."""
        try:
            with self._reading, self._wire.talking(_QUIET):
                return "" if self._closed else self._response.readline().decode(errors="replace")
        except Unreachable:
            if self._closed:  # by another thread, which woke this one
                return ""
            raise
        finally:
            self._release()

    def close(self) -> None:
        """Listen no longer."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
            self._release()

    def _release(self) -> None:
        """Close the socket, once the stream is closed and no thread reads from it.

        If one does, it calls this itself when it is done: to close the descriptor under it could
        make it read from another file that gets the same number.
        """
        if self._closed and self._reading.acquire(blocking=False):
            try:
                self._response.close()
                self._sock.close()
            finally:
                self._reading.release()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
