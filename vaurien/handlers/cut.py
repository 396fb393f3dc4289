"""The flow handlers that end the connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import OPEN, WAKE, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.slicer import some_bytes
from vaurien.kinds import STREAMS
from vaurien.options import milliseconds


class Cut(FlowHandler):
    """Ends the connection after a time, after some bytes, or at once if neither is given.

    ``time`` counts from when the handler first deals with the connection, ``bytes`` in the data of
    each exchange; whichever comes first. ``side`` says whose connection is ended at once, with a
    FIN or with a RST; the other side then gets what is still on its way to it, and a FIN. A RST
    drops what is on its way, what may have passed of the same piece included.
    """

    name = "cut"
    options: Any = {
        "time": ("Cut after so many ms", milliseconds, None),
        "bytes": ("Cut after so many bytes of the exchange", some_bytes, None),
        "how": ("With FIN or with RST", str, "fin", ("fin", "reset")),
        "side": ("Whose connection is ended", str, "both", ("client", "backend", "both")),
    }

    _passed = 0

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        time, limit = self.options("time"), self.options("bytes")
        if event is OPEN:
            if time is not None:
                yield time / 1000, WAKE
            elif limit is None:
                yield 0, self._end()
            return
        if event is WAKE:
            yield 0, self._end()
            return
        if isinstance(event, Begin):
            self._passed = 0
        if limit is None or not isinstance(event, Data):
            yield 0, event
            return
        left = max(0, limit - self._passed)
        self._passed += len(event.data)
        yield 0, event if len(event.data) <= left else Data(event.data[:left])
        if len(event.data) >= left:
            yield 0, self._end()

    def _end(self) -> Event:
        side = self.options("side")
        return Reset(side) if self.options("how") == "reset" else Close(side)


class Blackout(Cut):
    """Closes the client at once, with a polite end (FIN); nothing of the request is passed on.

    It is ``cut``, by another name.
    """

    name = "blackout"


class Abort(Cut):
    """Cuts the connection to the backend before the response.

    The request reaches the backend, which does its work; when the response comes it is thrown away
    and both sides are closed with a polite end (FIN): done, but not acknowledged. It is ``cut``
    after 0 bytes of the response.
    """

    name = "abort"
    options = {**Cut.options, "bytes": (*Cut.options["bytes"][:2], 0)}


class ResetPeer(FlowHandler):
    """Resets the connection with a real RST, after a time, though data flows until then.

    Downstream the client is reset, upstream the backend; the other side is closed with a FIN. The
    time counts from when the handler first deals with the connection; with 0 it comes at once, and
    nothing of the request is passed on. On a unix socket, where there is no RST, the
    connection just closes.
    """

    name = "reset_peer"
    options: Any = {
        "timeout": ("Time in ms until the reset", milliseconds, 0),
        "stream": ("Whom it resets: downstream the client, upstream the backend", str,
                   "downstream", STREAMS),
    }  # fmt: skip

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        timeout = self.options("timeout") / 1000
        if event is OPEN and timeout:
            yield timeout, WAKE
        elif event is OPEN or event is WAKE:
            both = self.options("stream") == "both"
            yield 0, Reset("both" if both else "backend" if self.to_backend else "client")
        else:
            yield 0, event


class ResetClient(ResetPeer):
    """Resets the client's connection with a real RST; nothing of the request is passed on.

    On a unix socket, where there is no RST, the client sees the connection close. It is
    ``reset_peer``, by another name.
    """

    name = "reset"
