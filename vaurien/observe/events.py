"""The frozen events that observers get.

Law: an event is built only if an observer wants its kind, for a busy proxy has no time to spare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from vaurien.plan import Specification


class Began(NamedTuple):
    """An exchange began on a connection, and `handlers` were picked for it."""

    proxy: str
    connection: int
    exchange: int
    handlers: tuple[str, ...]


class Ended(NamedTuple):
    """An exchange is over.

    `time` is when it began, in seconds since the epoch, `seconds` how long it took; `seed` is the
    proxy's. The bytes are those that were read. `end` is how it ended: ``next`` (another began),
    ``answered`` (in full, where the protocol shows that), ``client`` or ``backend`` (that side
    closed first), ``reset``, ``handler``, ``idle``, ``dropped`` (by an operation), ``exit``,
    ``dial``, ``error``.
    """

    time: float
    proxy: str
    seed: int
    connection: int
    client: str
    exchange: int
    handlers: tuple[str, ...]
    specifications: tuple[Specification, ...]
    fired: tuple[str, ...]
    from_client: int
    from_backend: int
    seconds: float
    end: str


class Acted(NamedTuple):
    """An exchange is over, and `toxics`, which no behavior picks, did something to it."""

    proxy: str
    connection: int
    exchange: int
    toxics: tuple[str, ...]


class Recorded(Protocol):
    """An operation, as far as observers know it; they import nothing of `vaurien.control`."""

    def to_json(self) -> Mapping[str, Any]:
        """All of it, in plain JSON."""


class Changed(NamedTuple):
    """A proxy was changed, at `time` (seconds since the epoch), as `change` says in words.

    Without words it is for the journal only. `operation` is what was done, `since` how many seconds
    after the proxies had begun to listen, and `ttl` for how many seconds, None for good; `seed` is
    the proxy's.
    """

    time: float
    proxy: str
    change: str
    detail: str
    operation: Recorded | None = None
    since: float = 0.0
    ttl: float | None = None
    seed: int = 0


class Tally:
    """Counts what an observer wants to know no more of than the number.

    While it is `quiet`, no event is made: `n` grows. One who has such an observer asks it for the
    tally of a kind of event, see `vaurien.observe.notifier`.
    """

    __slots__ = ("n", "quiet")

    def __init__(self) -> None:
        self.n, self.quiet = 0, False

    def __repr__(self) -> str:
        return f"<Tally: {self.n}{', quiet' if self.quiet else ''}>"


Event = Began | Ended | Acted | Changed
Observer = Callable[[Event], None]

#: What an observer gets that has no attribute `wants`. `Acted` repeats a part of `Ended`.
USUAL: tuple[type, ...] = (Began, Ended, Changed)


def wanting(observers: Iterable[Observer], kind: type) -> tuple[Observer, ...]:
    """The observers that want events of `kind`.

    An observer may name the kinds in an attribute `wants`; one without gets those in `USUAL`.
    """
    return tuple(one for one in observers if kind in getattr(one, "wants", USUAL))
