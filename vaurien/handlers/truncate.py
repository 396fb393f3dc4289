"""The flow handler that ends a flow too early."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaurien.flow import EOF, Begin, Data, Event
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.slicer import some_bytes
from vaurien.options import Bounded, number

share = Bounded(number, "share", 0, 1)


class Truncate(FlowHandler):
    """Ends the flow after some bytes of an exchange; what follows is dropped.

    Downstream, the client gets the beginning of the response and then the end of the stream.
    ``fraction`` is a share of the message instead, where the protocol gives its length; ``tcp``
    does not.
    """

    name = "truncate"
    options: Any = {
        "bytes": ("How many bytes of the exchange pass", some_bytes, 100),
        "fraction": ("How much of the message passes, from 0 to 1; in place of bytes", share, None),
    }
    needs_length = ("fraction",)

    _length: int | None = None  # of the message, where the protocol tells it
    _passed = 0  # bytes of the exchange
    _ended = False

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if isinstance(event, Begin):
            self._length, self._passed = event.length, 0
        if self._ended and (isinstance(event, Data) or event is EOF):
            return
        if not isinstance(event, Data):
            yield 0, event
            return
        left = max(0, self._limit() - self._passed)
        self._passed += len(event.data)
        if len(event.data) < left:
            yield 0, event
            return
        self._ended = True
        yield 0, Data(event.data[:left])
        yield 0, EOF

    def _limit(self) -> int:
        fraction = self.options("fraction")
        if fraction is None or self._length is None:
            return self.options("bytes")  # type: ignore[no-any-return]
        return int(self._length * fraction + 1e-6)  # 0.29 of 100 is 29
