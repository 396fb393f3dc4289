"""Who may use the control API: a token, and no web page.

Law: on a loopback address no token is needed, but the Host must be this machine's, so that no
page of a browser can reach it by a name of its own (DNS rebinding); anywhere else a token is.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

from vaurien import address
from vaurien.address import Address, is_loopback
from vaurien.errors import UsageError

NO_TOKEN = "none"
TOKEN = ("http-token", "http-token-file")
_OF_THE_API = ("http-host", "http-port", *TOKEN, "http-allowed-host")


class Settings(Protocol):
    """What is asked here of `vaurien.settings.Settings`, which asks us in turn."""

    sources: dict[str, str]
    warnings: list[str]

    @property
    def has_api(self) -> bool: ...

    def __getitem__(self, name: str) -> Any: ...

    def where(self, name: str) -> str: ...


@dataclass(frozen=True)
class Access:
    """Where the control API listens, and what a request must show.

    `addresses` are by the name under which they are told: ``http``, ``toxiproxy``.
    """

    addresses: dict[str, Address]
    token: str | None
    allowed: tuple[str, ...]
    loopback: bool
    unix: bool = False

    def refusal(
        self,
        host: str | None,
        origin: str | None,
        site: str | None,
        authorization: str | None,
        open_to_all: bool,
    ) -> tuple[int, str] | None:
        """Why a request with these headers is refused, as (status, sentence), or None.

        `site` is ``Sec-Fetch-Site``, which browsers send. What is `open_to_all` needs no token, and
        may be called by any address too, as a probe does, though by no name that is not ours.
        """
        name = host_name(host) if host is not None else ""
        if host is not None and not name:
            return 400, f"Host {host!r} is no host"
        checked = self.loopback or self.allowed
        ours = self._is_ours(name) or (open_to_all and _is_address(name))
        if host and checked and not self.unix and not ours:
            return 403, (
                f"Host {host!r} is no name of this machine; call it by localhost, or start vaurien"
                f" with --http-allowed-host {name or 'NAME'}"
            )
        if origin is not None:
            own = host and origin.lower() == f"http://{host.lower()}"
            if not own or not (self._is_ours(name) or _is_address(name)):
                return 403, f"requests of web pages are refused (Origin {origin!r})"
        if site not in (None, "none", "same-origin"):
            return 403, f"requests of web pages are refused (Sec-Fetch-Site {site!r})"
        if self.token is not None and not open_to_all:
            scheme, _, shown = (authorization or "").partition(" ")
            same = hmac.compare_digest(shown.strip().encode(), self.token.encode())
            if scheme.lower() != "bearer" or not same:
                what = "a token is needed" if not shown else "that is not the token"
                return 401, f"{what}; send Authorization: Bearer TOKEN"
        return None

    @property
    def for_unix(self) -> Access:
        """The same for a unix socket, where Host means nothing."""
        return replace(self, unix=True)

    def _is_ours(self, name: str) -> bool:
        return (
            is_loopback(name)
            or name in self.allowed
            or any(name == str(where.host).lower() for where in self.addresses.values())
        )


_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?", re.ASCII)


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case; nothing if it is no host."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").rstrip(".").lower() if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_api(settings: Settings) -> Access | None:
    """Where the API is to listen and for whom, None if there is none; UsageError if it can't be."""
    host = settings["http-host"].strip()
    unix = host.startswith("unix:")
    if not settings.has_api:
        for name in (*_OF_THE_API, "toxiproxy-port"):
            _needs(settings, name, "http", "there is no control API")
        return None
    if not settings["toxiproxy"]:
        _needs(settings, "toxiproxy-port", "toxiproxy", "Toxiproxy's port is not served")
    if not settings["http"]:
        _needs(settings, "http-port", "http", "the API is served at --toxiproxy-port only")
        if unix:
            _needs(settings, "http-host", "http", "--toxiproxy has no unix socket")
    elif unix and not settings["toxiproxy"]:
        why = f"Host means nothing on {settings.where('http-host')}, a unix socket"
        _needs(settings, "http-allowed-host", "toxiproxy", why)
    where = settings.where("http-host")
    addresses = {}
    if settings["http"]:
        if unix:
            if settings.sources["http-port"] != "default":
                raise UsageError(
                    f"{settings.where('http-port')}: {where} is a unix socket, which has no port;"
                    " leave one of them out"
                )
            addresses["http"] = address.parse(host, where)
        else:
            addresses["http"] = _place(host, settings["http-port"], where)
    if settings["toxiproxy"]:
        addresses["toxiproxy"] = _place(
            "localhost" if unix else host, settings["toxiproxy-port"], where
        )
    ports = [place for place in addresses.values() if place.port]
    if len(set(ports)) < len(ports):
        raise UsageError(
            f"{settings.where('toxiproxy-port')}: {settings['toxiproxy-port']} is --http-port too;"
            " give one of them another port"
        )
    allowed = tuple(
        host_name(name.strip()) for name in (settings["http-allowed-host"] or "").split(",")
    )
    if settings["http-allowed-host"] is not None and "" in allowed:
        raise UsageError(
            f"{settings.where('http-allowed-host')}: {settings['http-allowed-host']!r} is not a"
            " list of host names; give for instance toxiproxy,chaos.example.com"
        )
    token = _token(settings)
    outside = [place for place in addresses.values() if not place.path]
    loopback = all(is_loopback(place.host) for place in outside)
    if token is None and not loopback:
        raise UsageError(
            f"{where}: {host!r} can be reached from elsewhere, so that a token is needed; give"
            " --http-token TOKEN or --http-token-file FILE, or --http-token none to let everybody"
            " in"
        )
    return Access(
        addresses,
        None if token == NO_TOKEN else token,
        tuple(filter(None, allowed)),
        loopback,
    )


def _needs(settings: Settings, name: str, other: str, why: str) -> None:
    """UsageError if `name` is given, which does nothing without `other`.

    Of what is set for many programs at once, in the environment, a warning is made.
    """
    source = settings.sources[name]
    if not source.startswith("VAURIEN_"):
        if source != "default":
            raise UsageError(f"{source}: {why}; give --{other} too")
    elif name not in TOKEN:  # vaurienctl reads it too
        settings.warnings.append(f"{source}: {why}; set VAURIEN_{other.upper()} too")


def _place(host: str, port: int, where: str) -> Address:
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return address.parse(f"{host}:{port}", where)


def _token(settings: Settings) -> str | None:
    """The token in force; `NO_TOKEN` if none is to be."""
    token, path = settings["http-token"], settings["http-token-file"]
    if token is not None and path is not None:
        raise UsageError(
            f"{settings.where('http-token-file')}: {settings.where('http-token')} is given too;"
            " give one of them"
        )
    where = settings.where("http-token" if path is None else "http-token-file")
    if path is not None:
        try:
            with open(path, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not ASCII text"
            raise UsageError(f"{where}: cannot read {path!r}: {reason}") from None
        if token == NO_TOKEN:
            raise UsageError(f"{where}: {path!r} has no token; write one into it")
    if token is not None and (not token or not token.isascii() or any(map(str.isspace, token))):
        what = f"the file {path!r} has none" if path is not None else "this is none"
        raise UsageError(f"{where}: a token is ASCII text without spaces, not empty; {what}")
    return token
