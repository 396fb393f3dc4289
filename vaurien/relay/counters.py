"""What happened in a proxy since its start, in numbers that only grow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vaurien.counts import Directions, Totals
from vaurien.errors import many


@dataclass
class Counters:
    """Plain numbers that only grow; `received` and `sent` are bytes of connections that ended."""

    connections: int = 0
    failed_dials: int = 0
    handler_errors: int = 0
    crashes: int = 0
    accept_errors: int = 0
    refused: int = 0  # of those connections, by `refuse`
    exchanges: int = 0
    # To the client first, then to the backend.
    received: list[int] = field(default_factory=lambda: [0, 0])
    sent: list[int] = field(default_factory=lambda: [0, 0])

    def __str__(self) -> str:
        counts = {
            "failed dial": self.failed_dials,
            "handler error": self.handler_errors,
            "internal error": self.crashes,
            "accept error": self.accept_errors,
        }
        told = [many(number, what) for what, number in counts.items() if number]
        return ", ".join([many(self.connections, "connection"), *told])

    def add(self, connection: Any) -> None:
        """Add up what passed through a connection; called once, at its end."""
        self.exchanges += connection.number_of_exchange
        for flow in connection.flows:
            self.received[flow.to_backend] += flow.received
            self.sent[flow.to_backend] += flow.sent

    def sent_late(self, to_backend: bool, n: int) -> None:
        """A connection that has ended has sent `n` bytes more."""
        self.sent[to_backend] += n

    def totals(self, connections: Iterable[Any]) -> Totals:
        """What happened since the start, with what passed through the open `connections`."""
        exchanges, received, sent = self.exchanges, self.received.copy(), self.sent.copy()
        number = 0
        for connection in connections:
            number += 1
            flows = connection.flows
            exchanges += connection.number_of_exchange if flows else 0  # else it is added, or dials
            for flow in flows:
                received[flow.to_backend] += flow.received
                sent[flow.to_backend] += flow.sent
        return Totals(
            connections_open=number,
            connections=self.connections,
            refused=self.refused,
            failed_dials=self.failed_dials,
            handler_errors=self.handler_errors,
            internal_errors=self.crashes,
            accept_errors=self.accept_errors,
            exchanges=exchanges,
            received=Directions(received[True], received[False]),
            sent=Directions(sent[True], sent[False]),
        )
