"""The flow handler that drops everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import EOF, Close, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.kinds import STREAMS


class Blackhole(FlowHandler):
    """Drops all data until it is removed; the connection stays open.

    The backend's end is kept from the client, too. With ``stream`` upstream or both, the
    client's end closes the connection, since no client waits any more.
    """

    name = "blackhole"
    wants_begin = False
    options: Any = {}

    _ended = False

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is EOF:
            self._ended = True
            if self.to_backend:
                yield 0, Close()
        elif not isinstance(event, Data):
            yield 0, event

    def removed(self, now: float) -> Iterable[tuple[float, Event]]:
        if self._ended:
            yield 0, EOF


class Hang(Blackhole):
    """Reads what the client sends and never answers.

    Nothing of it reaches the backend, and nothing of the backend reaches the client. The connection
    stays open until the client closes its side, or ``--timeout`` ends it. It is ``blackhole`` in
    both directions.
    """

    name = "hang"
    options = {"stream": ("In which direction it acts", str, "both", STREAMS)}
