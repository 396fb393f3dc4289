"""The events of a flow: what a stage is given, and what it answers with.

Law: pure. They keep the order in which they came in; `Reset` alone jumps the queue, and `WAKE`,
a stage's own alarm, stands outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Side = Literal["client", "backend", "both"]  # the side or sides that an end concerns


class Signal(Enum):
    """The events that carry nothing."""

    #: The first event of each stage: the connection opened, or the stage came to an open one.
    OPEN = "open"
    #: The source has ended; nothing but `Close` and `Reset` follows.
    EOF = "eof"
    #: A stage's own alarm: ``(delay, WAKE)`` comes back to the stage that asked, and to no other.
    WAKE = "wake"

    def __repr__(self) -> str:
        return self.name


OPEN, EOF, WAKE = Signal.OPEN, Signal.EOF, Signal.WAKE


@dataclass(slots=True)  # not frozen: that would make each take three times as long to make
class Begin:
    """Exchange number `exchange` begins; `length` is its bytes in this flow, None if unknown."""

    exchange: int
    length: int | None = None


@dataclass(slots=True)
class Data:
    """Bytes on their way, one or more."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """A FIN for the `side` named, in the order; the other side gets what is on its way, and one."""

    side: Side = "both"


@dataclass(frozen=True, slots=True)
class Reset:
    """A RST for the `side` named, a FIN for the other; jumps the queue and drops what is held."""

    side: Side = "both"


Event = Signal | Begin | Data | Close | Reset
