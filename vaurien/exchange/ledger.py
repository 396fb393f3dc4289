"""The open exchanges of one connection, in the order in which they began.

An exchange is open from the first byte of its request until its answer is over. On plain TCP
nobody knows when that is, so that each is over when the next one begins: there is one at a time,
and both directions are in it. Where a framer tells messages apart, a client may send several
requests before the first is answered: then each direction points at an exchange of its own.

An answer may have been read and still be on its way, held by a flow handler: then the next exchange
has its turn, but the first is not over.

Laws: pure. `up` is the one whose request came last, `down` the oldest one that has not been
answered: it is its turn. Exchanges are over in the order in which they began.
"""

from __future__ import annotations

from collections import deque

from vaurien.behavior import Exchange


class Ledger:
    """The exchanges of one connection that are not over, and where each direction is."""

    __slots__ = ("leaving", "open")

    def __init__(self) -> None:
        self.open: deque[Exchange] = deque()  # not answered yet
        self.leaving: deque[Exchange] = deque()  # answered, but that is still on its way

    def __repr__(self) -> str:
        leaving, waiting = (
            [exchange.number for exchange in some] for some in (self.leaving, self.open)
        )
        return f"<Ledger of {waiting}{f', leaving {leaving}' if leaving else ''}>"

    def __len__(self) -> int:
        return len(self.open) + len(self.leaving)

    @property
    def up(self) -> Exchange | None:
        """The exchange that the client is in."""
        return self.open[-1] if self.open else None

    @property
    def newest(self) -> Exchange | None:
        """The one whose request came last, if it is not over."""
        found = self.open or self.leaving
        return found[-1] if found else None

    @property
    def down(self) -> Exchange | None:
        """The exchange that the backend is in: whose turn it is."""
        return self.open[0] if self.open else None

    def begin(self, exchange: Exchange, from_client: int = 0, from_backend: int = 0) -> None:
        """`exchange` begins when that many bytes had been read before it.

        The counts of an exchange begin below zero, so that what was read until its end, added to
        them, is what belongs to it. Where each byte is known to be of one exchange, they begin at 0
        and are counted up.
        """
        # So the pump, which counts the bytes of a flow, need not count those of an exchange too.
        exchange.from_client, exchange.from_backend = -from_client, -from_backend
        self.open.append(exchange)

    def answered(self) -> None:
        """`down` has been answered in full, and is over once that has left; the next has its turn.

        IndexError if none is open.
        """
        self.leaving.append(self.open.popleft())

    def end(self, from_client: int = 0, from_backend: int = 0) -> Exchange:
        """The oldest one is over, when that many bytes had been read in all."""
        exchange = (self.leaving or self.open).popleft()
        exchange.from_client += from_client
        exchange.from_backend += from_backend
        return exchange
