"""Addresses as users write them: ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH``.

Law: pure; nothing is resolved or bound here (see `vaurien.net`), and no port is known by a name
(see `vaurien.services`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from vaurien.errors import UsageError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: A host name or IPv4 address: labels of 1 to 63 characters, RFC 1035 2.3.4.
_HOST = re.compile(r"[^\s.\[\]/@,'\"\0:]{1,63}(\.[^\s.\[\]/@,'\"\0:]{1,63})*\.?")
#: The name of a port: RFC 6335 5.1 and what tables have beyond it (``z39.50``, ``whois++``).
_SERVICE = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.+*/-]{0,31}")


NETWORKS = 1_000  # in one list at most: each is looked at for a client
#: All addresses of this machine, to listen at; to connect to, its own.
ANY = ("::", "0.0.0.0")


#: A host, or the path of a unix socket, and a port.
Place = tuple[str, int]


@dataclass(frozen=True)
class Address:
    """A place to listen at or to connect to: a host and port, or the path of a unix socket.

    Without a host it is all addresses of this machine.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    #: The name by which the port was given; it says nothing more than the port does.
    service: str = field(default="", compare=False)
    #: Whether 0.0.0.0 is all addresses of both kinds, as Toxiproxy has it. Where they are compared
    #: it makes no difference: a client that sends back what it was shown changes nothing.
    both: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        port = self.service or self.port
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def is_everywhere(self) -> bool:
        """Whether it is all addresses of this machine, of both kinds where there are two."""
        return not self.path and (not self.host or self.both)

    @property
    def canonical(self) -> Address:
        """The same address in the one way to write it; names stay as they are."""
        host = _canonical(self.host)
        return self if host == self.host else replace(self, host=host)

    def meets(self, other: Address) -> bool:
        """Whether only one can listen at the two of them, as far as the texts tell."""
        if self.path or other.path or self.port != other.port or not self.port:
            return bool(self.path) and self.path == other.path
        pairs = [(one, two) for one in _hosts(self) for two in _hosts(other)]
        return any(_covers(one, two) or _covers(two, one) for one, two in pairs)

    def leads_to(self, local: Address) -> bool:
        """Whether who connects to it comes to who listens at `local`, as far as the texts tell."""
        return not self.leads_by.isdisjoint(local.listens_as)

    # Both are kept: to see whether thousands of proxies lead to each other takes one look for each.

    @cached_property
    def listens_as(self) -> frozenset[Place]:
        """Where it is found by what leads to it: it has one of these in its `leads_by`."""
        if self.path:
            return frozenset([(f"unix:{self.path}", 0)])
        return frozenset((host, self.port) for host in _hosts(self) if self.port)

    @cached_property
    def leads_by(self) -> frozenset[Place]:
        """Whatever listens as one of these is reached by a connect to it."""
        if self.path or not self.port:
            return self.listens_as
        to = replace(self, host="localhost", both=False) if _hosts(self)[0] in ANY else self
        hosts = {*_hosts(to)}
        if is_loopback(to.host):  # who listens at all addresses has this one, too
            hosts |= {"::"} | ({"0.0.0.0"} if any(":" not in host for host in hosts) else set())
        return frozenset((host, self.port) for host in hosts)

    @cached_property  # each dial asks
    def is_literal(self) -> bool:
        """True when nothing has to be resolved: an IP address or a unix path."""
        if self.path:
            return True
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@lru_cache(1024)
def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _hosts(address: Address) -> tuple[str, ...]:
    host = "" if address.both else _canonical(address.host).lower()
    return ("127.0.0.1", "::1") if host == "localhost" else (host or "::",)


def _covers(host: str, other: str) -> bool:
    """Whether who listens at `host` has `other`, too; IPv6's has both kinds."""
    return host in ("::", other) or (host == "0.0.0.0" and ":" not in other)


@lru_cache(1024)
def is_loopback(host: str) -> bool:
    """Whether a host name or address can be this machine's only (RFC 6761 6.3 for names)."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse(
    text: str,
    where: str,
    *,
    port_zero: bool = True,
    any_host: bool = False,
    port_of: Callable[[str], int | None] | None = None,
) -> Address:
    """The address in `text`; UsageError naming `where` if it is none.

    `port_zero` says whether port 0 (any free port) makes sense there, `any_host` whether the host
    may be left out, for all addresses of this machine. `port_of` tells the port of a name, None
    for one that is not known; without it, a port is a number.
    """
    text = text.strip()
    if _CONTROL.search(text):
        raise UsageError(f"{where}: {text!r} has control characters; write HOST:PORT or unix:PATH")
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path or "\0" in path:
            raise UsageError(f"{where}: {text!r} has no path; write unix:PATH")
        try:
            size = len(os.fsencode(path))
        except UnicodeEncodeError:
            raise UsageError(f"{where}: {text!r} is no path; write unix:PATH") from None
        if size > 107:  # sockaddr_un.sun_path, unix(7)
            raise UsageError(f"{where}: {text!r} is longer than the 107 bytes a socket path may be")
        return Address(path=path)
    if "://" in text:
        raise UsageError(f"{where}: {text!r} is a URL; write HOST:PORT, [IPV6]:PORT or unix:PATH")
    host, colon, port = text.rpartition(":")
    if text and not colon:
        raise UsageError(f"{where}: {text!r} has no port; write HOST:PORT or unix:PATH")
    if not colon or not (host or any_host):
        raise UsageError(f"{where}: {text!r} has no host and port; write HOST:PORT or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(f"{where}: {host!r} is no IPv6 address; write [::1]:PORT") from None
    elif ":" in host:
        raise UsageError(f"{where}: {text!r} is ambiguous; write an IPv6 address as [::1]:PORT")
    elif host and not (
        len(host) <= 253 and _HOST.fullmatch(host) and _encodes(host)
    ):  # RFC 1035 2.3.4
        shown = host if len(host) <= 253 else f"{host[:20]}..."
        raise UsageError(f"{where}: {shown!r} is no host name; write HOST:PORT or unix:PATH")
    if port_of is not None and _SERVICE.fullmatch(port):
        number = port_of(port)
        if number is None:
            raise UsageError(
                f"{where}: {port!r} is not the name of a port on this machine; give its number"
            )
        return Address(host, number, service=port)
    if not (port.isascii() and port.isdigit() and len(port) < 6) or int(port) > 65535:
        raise UsageError(f"{where}: {port!r} is no port; give a number from 0 to 65535")
    if int(port) == 0 and not port_zero:
        raise UsageError(f"{where}: {text!r} has port 0; a backend needs its real port")
    return Address(host, int(port))


def _encodes(host: str) -> bool:
    """Whether the resolver can be asked for it."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


class Networks:
    """Networks that clients may come from: ``10.0.0.0/8,!10.1.0.0/16``; ``!`` excludes.

    ValueError if one is no network. An address counts if it is in any that is not excluded (or none
    such is given), and in none that is.
    """

    def __init__(self, text: object) -> None:
        self.text = str(text)
        self._in: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._out: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        parts = self.text.split(",")
        if len(parts) > NETWORKS:
            raise ValueError(f"has {len(parts):,} networks; give {NETWORKS:,} at most")
        for part in (piece.strip() for piece in parts):
            excluded = part.startswith("!")
            try:
                network = ipaddress.ip_network(part.removeprefix("!").strip(), strict=False)
            except ValueError:
                raise ValueError(
                    f"has {part!r}, which is no network; write for instance 10.0.0.0/8 or !::1"
                ) from None
            (self._out if excluded else self._in).append(network)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def allow(self, client: object) -> bool:
        """Whether a client counts: ``(host, port, ...)``, or anything else for a unix socket."""
        if not isinstance(client, tuple):
            return not self._in
        address = ipaddress.ip_address(client[0].partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._out):
            return False
        return not self._in or any(address in network for network in self._in)


def networks(text: object) -> Networks:
    """The networks in `text`; ValueError if one is none."""
    return Networks(text)
