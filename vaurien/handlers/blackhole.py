"""The flow handler that drops everything."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from vaurien.flow import EOF, Close, Data, Event
from vaurien.handlers.flow import STREAMS, FlowHandler


class Blackhole(FlowHandler):
    """Drops all data until it is removed; the connection stays open.

    The backend's end is kept from the client, too. The client's end, if it is among what is
    dropped, ends the connection: nobody is left who waits.
    """

    name = "blackhole"
    wants_begin = False
    options: Any = {}

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is EOF:
            yield (0, Close()) if self.to_backend else (inf, event)
        elif not isinstance(event, Data):
            yield 0, event


class Hang(Blackhole):
    """Reads what the client sends and never answers.

    Nothing of it reaches the backend, and nothing of the backend reaches the client. The connection
    stays open until the client closes its side, or ``--timeout`` ends it. It is ``blackhole`` in
    both directions.
    """

    name = "hang"
    options = {"stream": ("In which direction it acts", str, "both", STREAMS)}
