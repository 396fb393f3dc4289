"""The frozen events that observers get. When nobody listens, none is built."""

from __future__ import annotations

from typing import NamedTuple


class Began(NamedTuple):
    """An exchange began on a connection, and `handler` was picked for it."""

    proxy: str
    connection: int
    exchange: int
    handler: str


Event = Began
