"""Exchanges and changes as they happen, for those who watch over HTTP.

Laws: whoever watches slowly holds up nobody: what does not fit into his queue is dropped and
counted. While nobody watches, nothing is made for him.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from gevent.queue import Empty, Full, Queue

from vaurien.control.farm import Farm
from vaurien.observe.events import Began, Changed, Ended, Event
from vaurien.observe.lines import line

KEPT = 1000  # exchanges that `Recent` remembers
_WAITING = 1000  # events that wait for one who watches
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


class Streams:
    """The event streams that are open."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._queues: set[Queue[Event | None]] = set()

    def stop(self) -> None:
        """End those that are open: a last event says so."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    def open(self, proxy: str | None) -> Iterator[bytes]:
        """Server-sent events of one proxy, or of all; ends when it is closed."""
        queue: Queue[Event | None] = Queue(_WAITING)
        dropped = [0]

        def put(event: Event) -> None:
            if isinstance(event, Changed) and not event.change:
                return  # for the journal only
            if proxy in (None, event.proxy):
                try:
                    queue.put_nowait(event)
                except Full:
                    dropped[0] += 1

        return self._stream(queue, put, dropped)

    def _stream(self, queue: Any, put: Any, dropped: list[int]) -> Iterator[bytes]:
        self._farm.observe(put)
        self._queues.add(queue)
        try:
            yield b": from here on\n\n"
            while True:
                try:
                    event = queue.get(timeout=BEAT)
                    if event is not None:
                        yield _text(event)
                except Empty:
                    yield b": alive\n\n"
                    continue
                if dropped[0]:
                    yield _sent("dropped", {"events": dropped[0]})
                    dropped[0] = 0
                if event is None:
                    yield _sent("stopping", {})
                    return
        finally:
            self._queues.discard(queue)
            self._farm.unobserve(put)


def _text(event: Event) -> bytes:
    if isinstance(event, Ended):
        return b"event: ended\ndata: " + line(event).encode() + b"\n\n"
    if isinstance(event, Began):
        return _sent("began", {**event._asdict(), "handlers": list(event.handlers)})
    told = {name: getattr(event, name) for name in ("time", "proxy", "change", "detail")}
    return _sent("change", told)


def _sent(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
