"""The client's methods for handlers and behaviors: what deals with which share of the exchanges."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import EllipsisType
from typing import Any

from vaurien.client.asked import given, path_of
from vaurien.client.wire import Json, Wire


class Behaviors(Wire):
    """What a proxy does with its exchanges."""

    def list_handlers(self) -> list[Json]:
        """All handlers: ``name``, ``kind`` (flow, socket or connect), ``summary``, ``options``."""
        return list(self._call("GET", "/handlers")["handlers"])

    def list_presets(self) -> list[Json]:
        """All presets: ``name`` and ``summary``."""
        return list(self._call("GET", "/handlers")["presets"])

    def get_handler(self, proxy: str | None = None) -> Json:
        """The one handler of a proxy, by default the first: ``proxy``, ``name``, ``options``,
        ``behavior``. If the behavior is a mixture, ``name`` and ``options`` are None.
        """
        return self._get(path_of(proxy, "handler"))

    def set_handler(
        self,
        name: str,
        /,
        proxy: str | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> Json:
        """Let the handler `name` deal with all exchanges of a proxy, by default of the first.

        `options` are the handler's own, the others keep their defaults. After `ttl` seconds, if
        given, the former behavior comes back. The answer is that of `get_handler`.
        """
        body = {"name": name, **options, **given(ttl=ttl)}
        return self._post(path_of(proxy, "handler"), body)

    def get_behavior(self, proxy: str | None = None) -> Json:
        """How a proxy, by default the first, chooses: ``proxy``, ``behavior``, ``on_connect``, and
        the options of those handlers in ``handlers``.
        """
        return self._get(path_of(proxy, "behavior"))

    def set_behavior(
        self,
        behavior: str | None = None,
        on_connect: str | EllipsisType | None = ...,
        handlers: Mapping[str, Mapping[str, Any]] | None = None,
        proxy: str | None = None,
        ttl: float | None = None,
    ) -> Json:
        """Set the behavior of a proxy, by default of the first, or the handlers that meet clients.

        `behavior` and `on_connect` are weighted choices such as ``20:delay,5:error``; what is not
        given stays, and ``on_connect=None`` means none. `handlers` are options by handler. After
        `ttl` seconds, if given, the former ones come back. The answer is that of `get_behavior`.
        """
        body: Json = given(behavior=behavior, handlers=handlers, ttl=ttl)
        if on_connect is not ...:
            body["on_connect"] = on_connect
        return self._post(path_of(proxy, "behavior"), body)

    @contextlib.contextmanager
    def with_handler(
        self,
        name: str,
        /,
        proxy: str | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> Iterator[Json]:
        """`set_handler` for a ``with`` block; at its end the former behavior comes back, also after
        an exception.

        With `ttl` the proxy does that itself after `ttl` seconds, in case this program has died by
        then.
        """
        with self._restoring(proxy) as chosen:
            yield self.set_handler(name, proxy=chosen, ttl=ttl, **options)

    @contextlib.contextmanager
    def with_behavior(
        self,
        behavior: str | None = None,
        on_connect: str | EllipsisType | None = ...,
        handlers: Mapping[str, Mapping[str, Any]] | None = None,
        proxy: str | None = None,
        ttl: float | None = None,
    ) -> Iterator[Json]:
        """`set_behavior` for a ``with`` block, like `with_handler`; `ttl` is in seconds."""
        with self._restoring(proxy) as chosen:
            yield self.set_behavior(behavior, on_connect, handlers, proxy=chosen, ttl=ttl)

    @contextlib.contextmanager
    def _restoring(self, proxy: str | None) -> Iterator[str]:
        """The name of the proxy, whose behavior now is its behavior again afterwards."""
        before = self.get_behavior(proxy)
        # The API shows a preset's parts as a list; they belong to it, and cannot be set.
        options = {name: o for name, o in before["handlers"].items() if isinstance(o, dict)}
        try:
            yield before["proxy"]
        finally:
            self.set_behavior(
                before["behavior"], before["on_connect"], options, proxy=before["proxy"]
            )
