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
    """One change for a while; `back` brings what stands below it."""

    def __init__(self, back: Callable[[], None], ttl: float, below: _Layer | None) -> None:
        self.back, self.until, self.below = back, monotonic() + ttl, below
        self.timer: gevent.Greenlet[..., None] | None = None


class Ttls:
    """The changes that end by themselves."""

    def __init__(self) -> None:
        self._tops: dict[Key, _Layer] = {}

    def changed(self, key: Key, ttl: float | None, back: Callable[[], None]) -> None:
        """`key` was changed, for `ttl` seconds or for good; `back` is called if that ends."""
        if ttl is None:
            self._drop(key)
            return
        layer = _Layer(back, ttl, self._tops.get(key))
        self._tops[key] = layer
        layer.timer = gevent.spawn_later(ttl, self._end, key, layer)

    def _end(self, key: Key, layer: _Layer) -> None:
        layer.timer = None
        top = self._tops[key]
        if top is not layer:  # what lies on it will bring back what is below it
            while top.below is not layer:
                assert top.below is not None
                top = top.below
            top.back, top.below = layer.back, layer.below
            return
        if layer.below is None:
            del self._tops[key]
        else:
            self._tops[key] = layer.below
        layer.back()

    def forget(self, proxy: str, but: str = "") -> None:
        """All that was changed of `proxy` stays as it is; `but` one thing."""
        for key in [key for key in self._tops if key[0] == proxy and key[1] != but]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        """What was changed stays; the timers would keep what they bring back in memory."""
        layer = self._tops.pop(key, None)
        while layer is not None:
            if layer.timer is not None:
                layer.timer.kill(block=False)
            layer = layer.below

    def left(self, proxy: str) -> dict[str, float]:
        """What of `proxy` was changed for a while, with the seconds that are left."""
        now = monotonic()
        return {
            what: round(max(0.0, layer.until - now), 3)
            for (name, what), layer in self._tops.items()
            if name == proxy
        }
