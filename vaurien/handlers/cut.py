"""The flow handlers that end the connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset
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
        "time": ("Cut after this many ms", milliseconds, None),
        "bytes": ("Cut after this many bytes of the exchange", some_bytes, None),
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

    The request reaches the backend, which does its work; when the response comes it is discarded,
    and both sides are closed with a polite end (FIN): done, but not acknowledged. It is ``cut``
    after 0 bytes of the response.
    """

    name = "abort"
    options = {**Cut.options, "bytes": (*Cut.options["bytes"][:2], 0)}


class ResetPeer(FlowHandler):
    """Resets the connection with a real RST for both sides, ``timeout`` ms after the first data.

    Nothing passes in its stream: neither the data that comes first, nor what comes until the reset.
    So downstream a client gets no answer, and upstream a backend gets no request. An end of the
    stream counts as data; a connection on which nothing is sent is not reset. If the handler is
    removed after the first data, the reset comes at once; if its options are changed, ``timeout``
    starts again.

    A unix socket has no RST; the connection just closes.
    """

    name = "reset_peer"
    wants_begin = False
    options: Any = {
        "timeout": ("Time in ms from the first data to the reset", milliseconds, 0),
        "stream": ("Which data it waits for: downstream the backend's, upstream the client's", str,
                   "downstream", STREAMS),
    }  # fmt: skip

    _counts = False  # data has come, and is gone: nothing but a reset can follow

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is WAKE:
            yield 0, Reset()
        elif event is OPEN:
            if self._counts:
                yield self.options("timeout") / 1000, WAKE
        elif event is EOF or isinstance(event, (Data, Close)):
            if not self._counts:
                self._counts = True
                timeout = self.options("timeout") / 1000
                yield timeout, WAKE if timeout else Reset()
        else:
            yield 0, event

    def removed(self, now: float) -> Iterable[tuple[float, Event]]:
        if self._counts:
            yield 0, Reset()


class ResetClient(FlowHandler):
    """Resets the client's connection with a real RST; nothing of the request is passed on.

    With ``timeout`` the reset comes that many ms after the handler first deals with the connection,
    and data flows until then. Upstream the backend is reset, with both streams both are; a side
    that is not reset gets a FIN. A unix socket has no RST; the connection just closes.
    """

    name = "reset"
    options: Any = {
        "timeout": ("Time in ms until the reset", milliseconds, 0),
        "stream": ("Which side it resets: downstream the client, upstream the backend", str,
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
