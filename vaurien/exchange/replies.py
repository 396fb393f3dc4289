"""Replies: an ordered slot for each open exchange, filled by the backend, a handler, or nothing.

Answering instead of the backend, replacing its answer and losing it are three fillings of a slot;
the order of a pipeline is kept by construction, since what a slot holds leaves only when all slots
before it are done.

Laws: pure. A slot is done when its answer has left in full: a reply made for a request that the
backend never saw is done as soon as it is its turn, all others when the backend has answered in
full, so that what was replaced or lost is known to have happened there. Nothing of what the backend
sends is held: what is not passed on is dropped.

What becomes of a piece of the backend's answer, by what fills its slot:

======== ============= ======================================
filling  each piece    the last piece
======== ============= ======================================
backend  passes        passes; the slot is done
made     (none comes)  (none comes; done when it is its turn)
replaced is dropped    the reply takes its place; done
lost     is dropped    is dropped; done
======== ============= ======================================
"""

from __future__ import annotations

from collections import deque
from typing import Literal

Filling = Literal["backend", "made", "replaced", "lost"]


class Slot:
    """The place of one exchange's answer; `reply` is what was made in its stead."""

    __slots__ = ("exchange", "filling", "reply")

    def __init__(self, exchange: int, filling: Filling, reply: bytes) -> None:
        self.exchange, self.filling, self.reply = exchange, filling, reply

    def __repr__(self) -> str:
        return f"<Slot {self.exchange}: {self.filling}>"


class Replies:
    """The slots of one connection."""

    __slots__ = ("_slots", "made")

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        self.made = 0  # bytes that wait for their turn

    def __repr__(self) -> str:
        return f"<Replies {list(self._slots)}>"

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def whose(self) -> int:
        """The exchange whose turn it is; 0 if none waits."""
        return self._slots[0].exchange if self._slots else 0

    @property
    def altered(self) -> int:
        """How many slots are filled by other than the backend."""
        return sum(slot.filling != "backend" for slot in self._slots)

    def open(self, exchange: int, filling: Filling = "backend", reply: bytes = b"") -> None:
        """A slot for `exchange`, behind all others."""
        self._slots.append(Slot(exchange, filling, reply))
        self.made += len(reply)

    def fill(self, exchange: int, filling: Filling, reply: bytes = b"") -> None:
        """Fill the slot of `exchange` in another way; LookupError if it is done."""
        for slot in self._slots:
            if slot.exchange == exchange:
                self.made += len(reply) - len(slot.reply)
                slot.filling, slot.reply = filling, reply
                return
        raise LookupError(f"exchange {exchange} has been answered")

    def piece(self, exchange: int, data: bytes, last: bool) -> bytes:
        """What leaves in place of a piece of the backend's answer, which is for the first slot.

        ValueError if it is another's turn. After the last piece see `turn`.
        """
        if self.whose != exchange or self._slots[0].filling == "made":
            raise ValueError(f"an answer to exchange {exchange}, whose turn it is not: {self!r}")
        slot = self._slots[0]
        if last:
            self._slots.popleft()
            self.made -= len(slot.reply)
        if slot.filling == "backend":
            return data
        return slot.reply if last and slot.filling == "replaced" else b""

    def turn(self, except_of: int = 0) -> bytes | None:
        """The made reply whose turn it is, once; None if there is none.

        That of exchange `except_of` has to wait: its request is not there in full.
        """
        if not self._slots or self._slots[0].filling != "made" or self.whose == except_of:
            return None
        reply = self._slots.popleft().reply
        self.made -= len(reply)
        return reply
