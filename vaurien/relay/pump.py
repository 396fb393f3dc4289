"""The pump: what a flow does for each chunk as long as nothing acts on it.

One bounded read, one write; what the sink does not take is held there, and the source is not read
until that is gone (high watermark one read, low watermark 0), so that a slow reader stops its own
peer and no other.

Laws: the pump makes no greenlet, no copy and no object for a chunk that the sink takes, and looks
nothing up; an exception in a callback ends this connection only. The two callbacks differ in what
they tell the framer. Apart from that they are the same, written twice because a call here costs
more than all the bookkeeping. This file and `vaurien.net.side` are all that runs per chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vaurien.errors import RAISED
from vaurien.net.side import Side
from vaurien.relay.flow import Flow


class Pump(Flow):
    """A flow with its callbacks."""

    __slots__ = ()

    def __init__(self, connection: Any, to_backend: bool, source: Side, sink: Side) -> None:
        super().__init__(connection, to_backend, source, sink)
        self.callback: Callable[[], None] = self.from_client if to_backend else self.from_backend

    def from_client(self) -> None:
        """The client has sent something."""
        try:
            view = self.view
            try:
                n = self.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.received += n
            if self.framer.answered:
                self.connection.begin(n)
            if self.detour is not None:
                return self.detour(bytes(view[:n]))
            try:
                sent = self.send(view[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.sink_broke(n)
            if sent != n:
                self.hold(bytes(view[sent:n]))
        except RAISED:
            self.connection.crashed()

    def from_backend(self) -> None:
        """The backend has sent something."""
        try:
            view = self.view
            try:
                n = self.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.received += n
            self.framer.answered = True
            if self.detour is not None:
                return self.detour(bytes(view[:n]))
            try:
                sent = self.send(view[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.sink_broke(n)
            if sent != n:
                self.hold(bytes(view[sent:n]))
        except RAISED:
            self.connection.crashed()

    def hold(self, rest: bytes) -> None:
        """The sink takes no more: it holds `rest`, and nothing is read meanwhile."""
        self.sink.hold(rest)
        self.source.reader.stop()

    def from_source(self) -> None:
        """The source has sent something, and the protocol tells messages apart."""
        try:
            try:
                n = self.recv_into(self.view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.connection.messages.read(self, bytes(self.view[:n]))
        except RAISED:
            self.connection.crashed()
