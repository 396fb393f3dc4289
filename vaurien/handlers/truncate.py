"""The flow handler that ends a flow too early."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import EOF, Begin, Data, Event
from vaurien.handlers.flow import FlowHandler
from vaurien.handlers.slicer import some_bytes
from vaurien.options import Bounded, number

share = Bounded(number, "share", 0, 1)


class Truncate(FlowHandler):
    """Ends the flow after some bytes of an exchange; what follows is dropped.

    Downstream, the client gets the beginning of the response and then the end of the stream.
    ``fraction`` is a share of the message instead, where the protocol tells its length; ``tcp``
    does not.
    """

    name = "truncate"
    options: Any = {
        "bytes": ("How many bytes of the exchange pass", some_bytes, 100),
        "fraction": ("How much of the message passes, from 0 to 1; in place of bytes", share, None),
    }
    needs_length = ("fraction",)

    _left: int | None = None
    _ended = False

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if isinstance(event, Begin):
            self._left = self._limit(event.length)
        if self._ended and (isinstance(event, Data) or event is EOF):
            return
        if not isinstance(event, Data):
            yield 0, event
            return
        if self._left is None:  # what came before the first exchange
            self._left = self._limit(None)
        if len(event.data) <= self._left:
            self._left -= len(event.data)
            yield 0, event
            return
        self._ended = True
        yield 0, Data(event.data[: self._left])
        yield 0, EOF

    def _limit(self, length: int | None) -> int:
        fraction = self.options("fraction")
        if fraction is None or length is None:
            return self.options("bytes")  # type: ignore[no-any-return]
        return int(length * fraction)
