"""Changes for a while: what was there before comes back, if the change still stands then.

A change over another one that is for a while, too, lies on top of it, if it ends sooner; otherwise
it takes its place, and brings back in its time what that one would have.

Law: values only. What brings back is an `Operation`; the code that is called when a change ends
puts it in force. Nothing else is done here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import gevent

from vaurien.control.operations import Operation
from vaurien.errors import TooMany
from vaurien.net.guard import guarded

log = logging.getLogger("vaurien")

LAYERS = 100  # changes for a while that may lie on each other

#: What was changed: the proxy's name, and the part of it.
Key = tuple[str, str]


class Undo(NamedTuple):
    """What brings a part back, `operation`, if it still is what the change has made of it."""

    operation: Operation
    now: object = None


class _Layer:
    """One change for a while; its `undo` brings what stands below it."""

    def __init__(self, undo: Undo, ttl: float, below: _Layer | None) -> None:
        self.undo = undo
        self.until, self.below = monotonic() + ttl, below
        self.timer: gevent.Greenlet[..., None] | None = None

    def stop(self) -> None:
        """Never end; the timer would keep in memory what it brings back."""
        if self.timer is not None:
            self.timer.kill(block=False)
            self.timer = None


class Ttls:
    """The changes that end by themselves; `end` is called with the key and what undoes each."""

    def __init__(self, end: Callable[[Key, Undo], None]) -> None:
        self._ended = end
        self._tops: dict[Key, _Layer] = {}

    def refuse_more(self, key: Key) -> None:
        """TooMany if no change for a while can come on top of those that `key` has."""
        layer, n = self._tops.get(key), 0
        while layer is not None:
            layer, n = layer.below, n + 1
        if n >= LAYERS:
            raise TooMany(
                f"ttl: {n} changes of {key[1]} of proxy {key[0]!r} are for a while already, which"
                " is as many as there can be; wait for one to end, or make one without a ttl"
            )

    def changed(self, key: Key, ttl: float | None, undo: Undo | None = None) -> None:
        """`key` was changed, for `ttl` seconds, after which `undo` is due; or for good."""
        if ttl is None or undo is None:
            self._drop(key)
            return
        layer = _Layer(undo, ttl, self._tops.get(key))
        while layer.below is not None and layer.below.until <= layer.until:
            # It is over before this one, which then brings back what is below it, if what is there
            # is still its own.
            below = layer.below
            layer.undo = Undo(below.undo.operation, layer.undo.now)
            layer.below = below.below
            below.stop()
        self._tops[key] = layer
        layer.timer = gevent.spawn_later(ttl, self._end, key, layer)

    @guarded
    def _end(self, key: Key, layer: _Layer) -> None:
        layer.timer = None
        if layer.below is None:
            del self._tops[key]
        else:
            self._tops[key] = layer.below
        self._ended(key, layer.undo)

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours; the other changes end all the same."""
        log.exception("a change that was for a while: internal error")

    def renew(self, key: Key, ttl: float | None) -> None:
        """If `key` was changed for a while, that ends in `ttl` seconds from now, or never."""
        layer = self._tops.get(key)
        self._drop(key)
        if layer is not None and ttl is not None:
            self.changed(key, ttl, layer.undo)

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
