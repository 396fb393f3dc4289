"""Connections that we have made to ourselves, so that one is known that comes back.

Two proxies of one process may follow each other; a connection that comes to a proxy through which
it has gone already would go round until no descriptor is left.

Law: who dials no port that this process listens at pays one look into a table of ports.
"""

from __future__ import annotations

import errno
from typing import Any

from vaurien.net.listener import PORTS


class Way:
    """Of a connection: its key in `ways`, if it has one, and through which one of ours it came."""

    __slots__ = ("key", "parent")

    def __init__(self, key: tuple[str, int] | None = None, parent: Any = None) -> None:
        self.key, self.parent = key, parent


#: Connections by the address that we have towards their backends: where a client comes from that
#: is ourselves.
ways: dict[tuple[str, int], Any] = {}


def sets_out(connection: Any) -> None:
    """Its backend, which has been dialled, may be ourselves."""
    if connection.server.dialer.address.port in PORTS:
        try:
            key = _key(connection.backend.getsockname())
        except OSError:  # it is gone again
            return
        connection.way = connection.way or Way()
        connection.way.key = key
        ways[key] = connection


def ended(connection: Any) -> None:
    """It is closed."""
    key = connection.way.key
    if key is not None and ways.get(key) is connection:
        del ways[key]
    connection.way = None


def comes_back(connection: Any) -> OSError | None:
    """What is wrong with a new connection that has come through its own proxy already."""
    parent = _parent(connection)
    if parent is not None:
        connection.way = Way(parent=parent)
    names = [connection.server.name]
    while parent is not None:
        names.append(parent.server.name)
        if parent.server is connection.server:
            way = " -> ".join(reversed(names))
            return OSError(errno.ELOOP, f"proxies lead in a circle: {way}")
        parent = parent.way and parent.way.parent
    return None


def _parent(connection: Any) -> Any:
    """The connection of ours whose backend is the new one's client."""
    address = connection.address
    found = ways.get(_key(address)) if isinstance(address, tuple) else None
    if found is not None:
        # others of this machine may have the same address for another peer
        try:
            if _key(found.backend.getpeername()) == _key(connection.client.getsockname()):
                return found
        except OSError:
            pass
    return None


def _key(address: tuple[Any, ...]) -> tuple[str, int]:
    """A socket's address; one of IPv4 as IPv4 has it, where IPv6 listens for both."""
    return address[0].removeprefix("::ffff:"), address[1]
