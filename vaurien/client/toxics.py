"""The client's methods for toxics: what acts on whole connections of a proxy."""

from __future__ import annotations

from typing import Any

from vaurien.client.asked import given, path_of
from vaurien.client.wire import Json, Wire


class Toxics(Wire):
    """The toxics of a proxy."""

    def toxics(self, proxy: str) -> list[Json]:
        """The toxics of a proxy: ``name``, ``type``, ``stream``, ``toxicity``, ``attributes``."""
        return list(self._call("GET", path_of(proxy, "toxics")))

    def add_toxic(
        self,
        proxy: str,
        handler: str,
        /,
        name: str | None = None,
        stream: str | None = None,
        toxicity: float | None = None,
        ttl: float | None = None,
        **attributes: Any,
    ) -> Json:
        """Pin a flow handler to all connections of a proxy, open ones too; the toxic.

        `attributes` are its options; those that are not given are as configured, else its defaults.
        `stream` is ``upstream``, ``downstream`` (the default) or ``both``. `toxicity`, from 0 to
        1 (the default), is the share of the connections that it hits. `name` is HANDLER_STREAM by
        default. After `ttl` seconds, if given, it is removed. Attributes have Toxiproxy's names
        and units: ``latency=100`` is 100 ms.
        """
        body = {"type": handler, "attributes": attributes, "defaults": True}
        body |= given(name=name, stream=stream, toxicity=toxicity, ttl=ttl)
        return self._post(path_of(proxy, "toxics"), body)

    def update_toxic(
        self,
        proxy: str,
        name: str,
        /,
        toxicity: float | None = None,
        ttl: float | None = None,
        **attributes: Any,
    ) -> Json:
        """Change some attributes of a toxic, or its toxicity; the toxic.

        After `ttl` seconds, if given, the former values come back.
        """
        body = {"attributes": attributes, **given(toxicity=toxicity, ttl=ttl)}
        return self._post(path_of(proxy, "toxics", name), body)

    def remove_toxic(self, proxy: str, name: str) -> None:
        """Remove a toxic; what it holds goes on at once."""
        self._call("DELETE", path_of(proxy, "toxics", name))
