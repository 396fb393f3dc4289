"""Changes for a while: what was there before comes back, if the change still stands then.

A change over another one that is for a while, too, lies on top of it, if it ends sooner; otherwise
it takes its place, and brings back in its time what that one would have.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent

#: What was changed: the proxy's name, and what of it.
Key = tuple[str, str]


def _nothing() -> None: ...


class _Layer:
    """One change for a while; `back` brings what stands below it."""

    def __init__(self, back: Callable[[], None], ttl: float, below: _Layer | None) -> None:
        self.back, self.until, self.below = back, monotonic() + ttl, below
        self.timer: gevent.Greenlet[..., None] | None = None

    def stop(self) -> None:
        """Never end; the timer would keep in memory what it brings back."""
        if self.timer is not None:
            self.timer.kill(block=False)
            self.timer = None


class Ttls:
    """The changes that end by themselves."""

    def __init__(self) -> None:
        self._tops: dict[Key, _Layer] = {}

    def changed(self, key: Key, ttl: float | None, back: Callable[[], None] = _nothing) -> None:
        """`key` was changed, for `ttl` seconds or for good; `back` is called if that ends."""
        if ttl is None:
            self._drop(key)
            return
        layer = _Layer(back, ttl, self._tops.get(key))
        while layer.below is not None and layer.below.until <= layer.until:
            # it is over before this one, which then brings back what is below it
            below = layer.below
            layer.back, layer.below = below.back, below.below
            below.stop()
        self._tops[key] = layer
        layer.timer = gevent.spawn_later(ttl, self._end, key, layer)

    def _end(self, key: Key, layer: _Layer) -> None:
        layer.timer = None
        if layer.below is None:
            del self._tops[key]
        else:
            self._tops[key] = layer.below
        layer.back()

    def renew(self, key: Key, ttl: float | None) -> None:
        """If `key` was changed for a while, that ends in `ttl` seconds from now, or never."""
        layer = self._tops.get(key)
        if layer is None or ttl is None:
            self._drop(key)
            return
        layer.stop()
        if layer.below is None:
            del self._tops[key]
        else:
            self._tops[key] = layer.below
        self.changed(key, ttl, layer.back)

    def forget(self, proxy: str, but: str = "") -> None:
        """All that was changed of `proxy` stays as it is; `but` one thing."""
        for key in [key for key in self._tops if key[0] == proxy and key[1] != but]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        """What was changed stays."""
        layer = self._tops.pop(key, None)
        while layer is not None:
            layer.stop()
            layer = layer.below

    def left(self, proxy: str) -> dict[str, float]:
        """What of `proxy` was changed for a while, with the seconds that are left."""
        now = monotonic()
        return {
            what: round(max(0.0, layer.until - now), 3)
            for (name, what), layer in self._tops.items()
            if name == proxy
        }
