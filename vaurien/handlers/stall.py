"""The flow handler that does what packet loss does to a stream."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from vaurien.flow import OPEN, Begin, Data, Event
from vaurien.flow.handler import CHUNK, PIECES, FlowHandler
from vaurien.handlers.slicer import piece_bytes
from vaurien.options import milliseconds, percent

TRIES = 15  # how often a lost packet is sent again at most; tcp_retries2 of Linux, tcp(7)


class Stall(FlowHandler):
    """Holds the flow as packet loss would: each lost packet stalls all behind it for an RTO.

    A proxy sees streams, not packets: it cannot lose a packet, and dropping bytes would be
    corruption. All that an application notices of a loss is a stall, until the sender's
    retransmission timeout (RTO) has run out; if the retransmitted packet is lost too, the RTO
    doubles, up to ``max_rto``. So no byte is lost here.

    ``loss`` is the chance of each packet. With ``model`` gilbert-elliott the line is good or bad,
    and may change before each packet, with the chances ``go_bad`` and ``go_good``; packets are
    lost only while it is bad, each with the chance ``loss``.
    """

    name = "stall"
    options: Any = {
        "loss": ("Chance that a packet is lost, in percent", percent, 1),
        "model": (
            "How losses come: each on its own, or in bursts",
            str,
            "bernoulli",
            ("bernoulli", "gilbert-elliott"),
        ),
        "go_bad": ("Gilbert-Elliott: chance that a good line turns bad, in percent", percent, 1),
        "go_good": ("Gilbert-Elliott: chance that a bad line turns good, in percent", percent, 25),
        # 200 ms and 120 s: TCP_RTO_MIN and TCP_RTO_MAX of Linux, include/net/tcp.h
        "rto": ("Stall of a loss in ms", milliseconds, 200),
        "max_rto": ("Longest stall of one loss in ms", milliseconds, 120_000),
        # 1460: an Ethernet frame of 1500 bytes without the headers of IPv4 and TCP
        "packet": ("Size of a packet in bytes", piece_bytes, 1460),
    }

    _bad = False
    _part = 0  # bytes of the last packet, if it was not full
    _free = 0.0  # until when the flow is stalled

    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        if event is OPEN:
            self._free = 0.0
            packets = max(1, int(PIECES / self._draws()))
            self.chunk = min(CHUNK, packets * self.options("packet"))
        if isinstance(event, Begin):
            self._part = 0  # what comes later fills no packet of before
        if not isinstance(event, Data):
            yield 0, event
            return
        data, size, sent = event.data, self.options("packet"), 0
        start = (size - self._part) % size if self._part else 0
        self._part = (self._part + len(data)) % size
        for at in range(start, len(data), size):  # each packet that begins here
            if stall := self._stall():
                if at > sent:
                    yield max(self._free - now, 0.0), Data(data[sent:at])
                    sent = at
                self._free = max(now, self._free) + stall
        yield max(self._free - now, 0.0), Data(data[sent:]) if sent else event

    def _draws(self) -> float:
        """How many draws a packet takes on average, at most; each is as much work as a piece."""
        loss = self.options("loss") / 100
        tries = min(TRIES + 1, 1 / (1 - loss)) if loss < 1 else TRIES + 1
        return float(tries if self.options("model") == "bernoulli" else 2 * tries)

    def _stall(self) -> float:
        """How long the next packet stalls the flow, in seconds."""
        rto, longest, stall = self.options("rto"), self.options("max_rto"), 0.0
        for _ in range(TRIES + 1):
            if not self._lost():
                return stall / 1000
            stall += min(rto, longest)
            rto *= 2
        return inf if self.options("loss") >= 100 and not self._may_turn() else stall / 1000

    def _lost(self) -> bool:
        if self.options("model") != "bernoulli":
            turn = self.options("go_good" if self._bad else "go_bad")
            if turn and self.draw("turn") < turn / 100:
                self._bad = not self._bad
            if not self._bad:
                return False
        loss = self.options("loss")
        return bool(loss and self.draw("loss") < loss / 100)

    def _may_turn(self) -> bool:
        return self.options("model") != "bernoulli" and bool(self.options("go_good"))
