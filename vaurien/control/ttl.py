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

#: Brings back what was there before, if that is still what it is called with.
Back = Callable[[object], None]


def _nothing(_: object) -> None: ...


class _Layer:
    """One change for a while, to `now`; `back` brings what stands below it."""

    def __init__(self, now: object, back: Back, ttl: float, below: _Layer | None) -> None:
        self.now, self.back = now, back
        self.until, self.below = monotonic() + ttl, below
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

    def changed(
        self, key: Key, ttl: float | None, back: Back = _nothing, now: object = None
    ) -> None:
        """`key` was changed, for `ttl` seconds or for good; `back` is called if that ends.

        It gets what the change has made of it, `now`.
        """
        if ttl is None:
            self._drop(key)
            return
        layer = _Layer(now, back, ttl, self._tops.get(key))
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
        layer.back(layer.now)

    def renew(self, key: Key, ttl: float | None) -> None:
        """If `key` was changed for a while, that ends in `ttl` seconds from now, or never."""
        layer = self._tops.get(key)
        self._drop(key)
        if layer is not None and ttl is not None:
            self.changed(key, ttl, layer.back, layer.now)

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
