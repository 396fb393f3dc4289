"""The frozen events that observers get. When nobody listens, none is built."""

from __future__ import annotations

from typing import NamedTuple

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
    ``answered`` (in full, where the protocol tells), ``client`` or ``backend`` (that side closed
    first), ``reset``, ``handler``, ``idle``, ``dropped`` (by an operation), ``exit``, ``dial``,
    ``error``.
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


class Changed(NamedTuple):
    """A proxy was changed, at `time` (seconds since the epoch), as `change` says in words."""

    time: float
    proxy: str
    change: str
    detail: str


Event = Began | Ended | Changed
