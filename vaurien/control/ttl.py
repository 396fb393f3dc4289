"""Changes for a while: what was there before comes back, if the change still stands then.

A change over another one that is for a while, too, lies on top of it; when it ends, what comes back
is the topmost whose time is not over.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent

#: What was changed: the proxy's name, and what of it.
Key = tuple[str, str]


class _Layer:
    """One change for a while; `back` undoes it and what is below it is what then stands."""

    def __init__(self, back: Callable[[], None], until: float, below: _Layer | None) -> None:
        self.back, self.until, self.below = back, until, below
        self.over = False


class Ttls:
    """The changes that end by themselves."""

    def __init__(self) -> None:
        self._tops: dict[Key, _Layer] = {}

    def changed(self, key: Key, ttl: float | None, back: Callable[[], None]) -> None:
        """`key` was changed, for `ttl` seconds or for good; `back` is called if that ends."""
        below = self._tops.pop(key, None)
        if ttl is not None:
            layer = self._tops[key] = _Layer(back, monotonic() + ttl, below)
            gevent.spawn_later(ttl, self._end, key, layer)

    def _end(self, key: Key, layer: _Layer) -> None:
        layer.over = True
        if self._tops.get(key) is not layer:
            return
        top: _Layer | None = layer
        while top is not None and top.over:
            layer, top = top, top.below
        if top is None:
            del self._tops[key]
        else:
            self._tops[key] = top
        layer.back()

    def forget(self, proxy: str, but: str = "") -> None:
        """All that was changed of `proxy` stays as it is; `but` one thing."""
        for key in [key for key in self._tops if key[0] == proxy and key[1] != but]:
            del self._tops[key]

    def left(self, proxy: str) -> dict[str, float]:
        """What of `proxy` was changed for a while, with the seconds that are left."""
        now = monotonic()
        return {
            what: round(max(0.0, layer.until - now), 3)
            for (name, what), layer in self._tops.items()
            if name == proxy
        }
