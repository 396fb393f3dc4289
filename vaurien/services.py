"""Addresses in which a port may be named: ``localhost:http``.

The only part of an address that the system has to be asked for when it is read: a table of this
machine, as `getservbyname` reads it. Law: what is not in it is refused, with the name.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import lru_cache, partial

from vaurien import address
from vaurien.address import Address

#: For machines without that table, such as small containers: the names that Go, and with it
#: Toxiproxy, knows without one.
KNOWN: Mapping[str, int] = {
    "domain": 53,
    "ftp": 21,
    "ftps": 990,
    "gopher": 70,
    "http": 80,
    "https": 443,
    "imap2": 143,
    "imap3": 220,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "smtp": 25,
    "ssh": 22,
    "submission": 587,
    "telnet": 23,
}


# The table is a file that is read from its beginning each time, in the loop: so it is read once for
# each name. One that is not found is looked for again, since it may have been added.
@lru_cache(maxsize=256)
def _found(name: str, transport: str) -> int:
    for one in (name, name.lower()):
        try:
            return socket.getservbyname(one, transport)
        except OSError:
            continue
    return KNOWN[name.lower()]


def port_of(name: str, transport: str = "tcp") -> int | None:
    """The port of that name, in any case; None if this machine knows none."""
    try:
        return _found(name, transport)
    except KeyError:
        return None


def parse(
    text: str,
    where: str,
    *,
    port_zero: bool = True,
    any_host: bool = False,
    transport: str = "tcp",
) -> Address:
    """As `address.parse`, with a port by its name too; UsageError if this machine knows none."""
    known = partial(port_of, transport=transport)
    return address.parse(text, where, port_zero=port_zero, any_host=any_host, port_of=known)
