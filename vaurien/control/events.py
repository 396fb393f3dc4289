"""Exchanges and changes as they happen, for those who watch over HTTP.

Laws: a slow watcher holds up nothing: what does not fit into its queue is dropped and
counted. While nobody watches, nothing is made for him; however many do, each event is encoded once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator

from gevent.queue import Empty, Full, Queue

from vaurien.control.farm import Farm
from vaurien.errors import TooMany
from vaurien.net.turn import give_way
from vaurien.observe.events import Began, Changed, Ended, Event
from vaurien.observe.lines import line

KEPT = 1000  # exchanges that `Recent` remembers
_WAITING = 1000  # events that wait for one who watches
STREAMS = 100  # that may be open at a time: each takes some microseconds of every exchange
_AT_ONCE = 50  # events that are sent in one go
BEAT = 15.0  # seconds of silence after which a comment says that the stream lives


class Recent:
    """An observer that remembers the last exchanges that a handler touched."""

    wants = (Ended,)

    def __init__(self) -> None:
        self.events: deque[Ended] = deque(maxlen=KEPT)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Ended) and (event.handlers or event.fired):
            self.events.append(event)
        elif isinstance(event, Changed) and event.change == "deleted":
            # another of that name would count its connections from 1 again
            left = (one for one in self.events if one.proxy != event.proxy)
            self.events = deque(left, maxlen=KEPT)


class _Once:
    """An event on its way to all who watch: encoded once, by the first that sends it."""

    __slots__ = ("_event", "_text")

    def __init__(self, event: Event) -> None:
        self._event, self._text = event, b""

    @property
    def text(self) -> bytes:
        """As it is sent."""
        self._text = self._text or _text(self._event)
        return self._text


class _Stream:
    """One who watches `proxy`, or all if that is None."""

    def __init__(self, proxy: str | None) -> None:
        self.proxy, self.dropped = proxy, 0
        self.queue: Queue[_Once | None] = Queue(_WAITING)

    def next(self) -> list[_Once | None]:
        """All that waits, `_AT_ONCE` events at most, once there is something; None is the end."""
        events: list[_Once | None] = []
        try:
            events.append(self.queue.get(timeout=BEAT))
            while events[-1] is not None and len(events) < _AT_ONCE:
                events.append(self.queue.get_nowait())
        except Empty:
            pass
        return events


class Streams:
    """The event streams that are open."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._open: set[_Stream] = set()

    def stop(self) -> None:
        """End those that are open: a last event says so."""
        for stream in self._open:
            if stream.queue.full():
                stream.queue.get_nowait()
            stream.queue.put_nowait(None)

    def open(self, proxy: str | None) -> Iterator[bytes]:
        """Server-sent events of one proxy, or of all; ends when it is closed. TooMany if it is."""
        if len(self._open) >= STREAMS:
            raise TooMany(
                f"{STREAMS} streams of events are open, which is as many as there can be; close one"
            )
        return self._stream(_Stream(proxy))

    def __call__(self, event: Event) -> None:
        """An observer's: one for all streams."""
        if isinstance(event, Changed) and not event.change:
            return  # for the journal only
        once = _Once(event)
        for stream in self._open:
            if stream.proxy in (None, event.proxy):
                try:
                    stream.queue.put_nowait(once)
                except Full:
                    stream.dropped += 1

    def _stream(self, stream: _Stream) -> Iterator[bytes]:
        if not self._open:
            self._farm.observe(self)
        self._open.add(stream)
        try:
            yield b": from here on\n\n"
            while True:
                events = stream.next()
                texts = [event.text for event in events if event is not None]
                if texts and stream.dropped:
                    texts.append(_sent("dropped", {"events": stream.dropped}))
                    stream.dropped = 0
                if None in events:
                    yield b"".join([*texts, _sent("stopping", {})])
                    return
                yield b"".join(texts) or b": alive\n\n"
                give_way()  # there may be always more, and a socket that takes it
        finally:
            self._open.discard(stream)
            if not self._open:
                self._farm.unobserve(self)


def _text(event: Event) -> bytes:
    if isinstance(event, Ended):
        return b"event: ended\ndata: " + line(event).encode() + b"\n\n"
    if isinstance(event, Began):
        return _sent("began", {**event._asdict(), "handlers": list(event.handlers)})
    told = {name: getattr(event, name) for name in ("time", "proxy", "change", "detail")}
    return _sent("change", told)


def _sent(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
