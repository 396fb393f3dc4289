"""The open exchanges of one connection, in the order in which they began.

An exchange is open from the first byte of its request until its answer is over. On plain TCP
nobody knows when that is, so that each is over when the next one begins: there is one at a time,
and both directions are in it. Where a framer tells messages apart, a client may send several
requests before the first is answered: then each direction points at an exchange of its own.

Laws: pure. `up` is the one whose request came last, `down` the oldest one that is open: it is its
turn to be answered. Exchanges are over in the order in which they began.
"""

from __future__ import annotations

from collections import deque

from vaurien.behavior import Exchange


class Ledger:
    """The exchanges of one connection that are open, and where each direction is."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open: deque[Exchange] = deque()

    def __repr__(self) -> str:
        return f"<Ledger of {[exchange.number for exchange in self.open]}>"

    @property
    def up(self) -> Exchange | None:
        """The exchange that the client is in."""
        return self.open[-1] if self.open else None

    @property
    def down(self) -> Exchange | None:
        """The exchange that the backend is in: whose turn it is."""
        return self.open[0] if self.open else None

    def begin(self, exchange: Exchange, from_client: int, from_backend: int) -> None:
        """`exchange` begins when that many bytes had been read before it.

        The counts of an exchange begin below zero, so that what was read until its end, added to
        them, is what belongs to it.
        """
        exchange.from_client, exchange.from_backend = -from_client, -from_backend
        self.open.append(exchange)

    def end(self, from_client: int = 0, from_backend: int = 0) -> Exchange:
        """The oldest one is over, when that many bytes had been read in all."""
        exchange = self.open.popleft()
        exchange.from_client += from_client
        exchange.from_backend += from_backend
        return exchange

    def find(self, number: int) -> Exchange | None:
        """The open exchange of that number."""
        for exchange in self.open:
            if exchange.number == number:
                return exchange
        return None
