"""The flow handler that lets nothing through, and closes after a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import EOF, OPEN, WAKE, Begin, Close, Event
from vaurien.flow.handler import FlowHandler
from vaurien.options import milliseconds


class Timeout(FlowHandler):
    """Drops all data, and after ``timeout`` ms closes the connection with a polite end (FIN).

    The time counts from when the handler first deals with the connection, whatever it is sent
    meanwhile, the end of the flow included. With ``timeout`` 0 the connection stays open until the
    client closes its side; when the handler is removed from an open connection, the connection is
    closed.
    """

    name = "timeout"
    wants_begin = False
    options: Any = {
        "timeout": ("Time in ms until the connection closes; 0 for never", milliseconds, 1000)
    }

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        timeout = self.options("timeout")  # in ms; in seconds the least of them would be 0, "never"
        if event is OPEN and timeout:
            yield timeout / 1000, WAKE
        elif event is WAKE:
            yield 0, Close()
        elif event is EOF and self.to_backend and not timeout:
            yield 0, Close()  # who waited has gone
        elif isinstance(event, (Begin, Close)):
            yield 0, event

    def removed(self, now: float) -> Iterable[tuple[float, Event]]:
        yield 0, Close()
