"""The events of a flow: what a stage is given, and what it answers with.

Law: pure. They keep the order in which they came in; `Reset` alone jumps the queue, and `WAKE`,
a stage's own alarm, stands outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

#: Whom an end concerns.
Side = Literal["client", "backend", "both"]


class Signal(Enum):
    """The events that carry nothing."""

    OPEN = "open"
    EOF = "eof"
    WAKE = "wake"

    def __repr__(self) -> str:
        return self.name


#: The first event of each stage: the connection opened, or the stage came to an open one.
OPEN = Signal.OPEN
#: The source has ended; nothing but `Close` and `Reset` follows.
EOF = Signal.EOF
#: A stage's own alarm: ``(delay, WAKE)`` comes back to the stage that asked, and to no other.
WAKE = Signal.WAKE


@dataclass(frozen=True, slots=True)
class Begin:
    """Exchange number `exchange` begins; `length` is what it has in this flow, in bytes.

    `length` is None where the protocol does not tell it.
    """

    exchange: int
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on their way, one or more."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """A polite end (FIN), in its place in the order; the last event of its flow.

    The `side` named is closed at once. The other one gets what is still on its way to it, without
    further delay, and then a FIN too.
    """

    side: Side = "both"


@dataclass(frozen=True, slots=True)
class Reset:
    """A RST for the `side` named, a FIN for the other; jumps the queue and drops what is held."""

    side: Side = "both"


Event = Signal | Begin | Data | Close | Reset
