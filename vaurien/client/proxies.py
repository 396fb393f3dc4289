"""The client's methods for proxies: make, change, list and remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vaurien.client.asked import check, given, path_of
from vaurien.client.wire import Json, Wire


class Proxies(Wire):
    """The proxies themselves: where they listen, and whether."""

    def proxies(self) -> list[Json]:
        """The state of each proxy, in the order in which they were made."""
        return list(self._call("GET", "/state")["proxies"])

    def proxy(self, name: str) -> Json:
        """The state of one proxy: addresses, behavior, toxics, connections, counters, and more."""
        return self._get(path_of(name, "state"))

    def create(
        self,
        name: str,
        local: str,
        distant: str,
        behavior: str | None = None,
        on_connect: str | None = None,
        enabled: bool = True,
        protocol: str | None = None,
        seed: int | None = None,
        ttl: float | None = None,
    ) -> Json:
        """Make a proxy that listens at `local`, and return its state, with the real port.

        After `ttl` seconds, if given, it is deleted again.
        """
        fields = given(
            behavior=behavior, on_connect=on_connect, protocol=protocol, seed=seed, ttl=ttl
        )
        body = {"name": name, "listen": local, "upstream": distant, "enabled": enabled, **fields}
        self._post("/proxies", body)
        return self.proxy(name)

    def change(
        self,
        name: str,
        local: str | None = None,
        distant: str | None = None,
        enabled: bool | None = None,
    ) -> Json:
        """Change what is given of a proxy, and return its state.

        Another address ends the open connections. If Vaurien cannot listen at the new `local`,
        nothing is changed.
        """
        self._post(path_of(name), given(listen=local, upstream=distant, enabled=enabled))
        return self.proxy(name)

    def populate(self, proxies: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Make, replace or leave each of `proxies` as needed: ``name``, ``listen``, ``upstream``,
        and what else Toxiproxy's JSON files have; all are checked before the first is made.
        """
        check("proxies", proxies, (Sequence,), "a list of proxies, each a dictionary")
        return list(self._call("POST", "/populate", list(proxies))["proxies"])

    def delete(self, name: str) -> None:
        """Delete a proxy, and end its connections."""
        self._call("DELETE", path_of(name))

    def enable(self, name: str, ttl: float | None = None) -> Json:
        """Let a proxy listen, for `ttl` seconds if given; its state."""
        return self._post(path_of(name, "enable"), given(ttl=ttl))

    def disable(self, name: str, ttl: float | None = None) -> Json:
        """Let a proxy neither listen nor keep its connections, for `ttl` seconds if given."""
        return self._post(path_of(name, "disable"), given(ttl=ttl))

    def reset(self, proxy: str | None = None) -> None:
        """One proxy, by default all: enabled, no toxics, behavior ``100:dummy``."""
        self._call("POST", path_of(proxy, "reset"), {})
