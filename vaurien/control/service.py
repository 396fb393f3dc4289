"""The control API at work: its addresses, and what it is told by the process that runs it."""

from __future__ import annotations

from collections.abc import Callable

from vaurien.access import Access
from vaurien.address import Address, is_loopback
from vaurien.control.api import application
from vaurien.control.context import Context
from vaurien.control.events import Recent, Streams
from vaurien.control.farm import Farm
from vaurien.control.http import HttpServer
from vaurien.errors import UsageError

_SETTINGS = {"http": "--http-port", "toxiproxy": "--toxiproxy-port"}


class Service:
    """Serves the control API of a farm wherever `access` says."""

    def __init__(
        self,
        farm: Farm,
        access: Access,
        metrics: Callable[[], tuple[bytes, str]],
        reload: Callable[[], dict[str, list[str]]],
    ) -> None:
        """Bind all addresses; ListenError if one cannot be had."""
        self._context = Context(farm, Recent(), Streams(farm), metrics, reload)
        self._access = access
        self._servers: dict[str, HttpServer] = {}
        for name, place in access.addresses.items():
            setting = "--http-host" if place.path else _SETTINGS[name]
            server = self._servers[name] = HttpServer(place, setting, farm.common["keepalive"])
            where = server.address
            if access.loopback and not (where.path or is_loopback(where.host)):
                self.stop()
                raise UsageError(
                    f"--http-host: {place.host!r} is {where.host} here, which can be reached from"
                    " elsewhere; give localhost or an address"
                )

    @property
    def addresses(self) -> dict[str, Address]:
        """Where it listens, by name: ``http``, ``toxiproxy``."""
        return {name: server.address for name, server in self._servers.items()}

    def start(self) -> None:
        """Serve from now on."""
        self._context.farm.observe(self._context.recent)
        self._context.farm.apis = tuple(self.addresses.values())
        for server in self._servers.values():
            access = self._access if not server.address.path else self._access.for_unix
            server.start(application(self._context, access))

    def stopping(self) -> None:
        """Say so to those who ask for its health."""
        self._context.stopping = True

    def stop(self) -> None:
        """Serve no more."""
        self._context.streams.stop()
        for server in self._servers.values():
            server.stop()
