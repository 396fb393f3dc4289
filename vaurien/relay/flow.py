"""A flow: one direction of a connection, from one side to the other.

A flow reads its source and writes its sink. As long as nothing acts on it, that is all
(`vaurien.relay.pump`). What acts on it stands beside it, made when it is first needed: `shaping` is
the chain of flow handlers that bytes go through (`vaurien.relay.shaping`), `desk` is where a socket
handler takes what leaves that (`vaurien.relay.handoff`). Then `detour` says where what was read
goes.

Laws: nothing overtakes what is held. An end is told once, after all that came before it. What was
read is sent, held, on its way, or counted as lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vaurien.behavior import Exchange
from vaurien.exchange.picks import Picked
from vaurien.net.side import Side
from vaurien.relay.rules import FINISH, HELD, READ, SHUT, forbidden


class Flow:
    """One direction of a connection: `to_backend` is True (upstream) or False (downstream)."""

    __slots__ = (
        "astray",
        "callback",
        "connection",
        "desk",
        "detour",
        "ended",
        "exchange",
        "finished",
        "framer",
        "handler",
        "over",
        "peer",
        "received",
        "recv_into",
        "send",
        "shaping",
        "sink",
        "source",
        "to_backend",
        "view",
    )

    def __init__(self, connection: Any, to_backend: bool, source: Side, sink: Side) -> None:
        self.connection, self.to_backend = connection, to_backend
        self.source, self.sink = source, sink
        sink.feeder = self
        self.recv_into, self.send = source.recv_into, sink.send
        self.framer, self.view = connection.framer, connection.loop.view
        self.callback: Callable[[], None]  # of the reader: the pump's, or what stands in
        self.peer: Flow = self  # the other direction; set by the connection
        self.received = 0  # bytes read
        #: What was sent differs by this from what was read and is not held: less what was dropped
        #: or is still on its way, and more what others have sent. The pump never touches it.
        self.astray = 0
        self.over = False  # the source has come to its end
        self.ended = False  # so it has for the sink and for handlers: the end has come through
        self.finished = False  # the sink was told so, or is gone
        #: Where what was read goes, None for straight on to the sink.
        self.detour: Callable[[bytes], None] | None = None
        self.exchange: Exchange | None = None  # of what leaves; None where nobody touches it
        self.handler: Picked | None = None  # the socket handler that takes what leaves
        self.shaping: Any = None
        self.desk: Any = None

    def __repr__(self) -> str:
        words = [f"{self.received} bytes"]
        words += [f"{len(self.sink.held)} held"] if self.sink.held is not None else []
        words += [repr(one) for one in (self.shaping, self.desk) if one is not None]
        words += [name for name in ("over", "ended", "finished") if getattr(self, name)]
        return f"<Flow to {'backend' if self.to_backend else 'client'}: {', '.join(words)}>"

    # What happens more rarely.

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`, which nobody has read just now, behind what the sink holds."""
        self.astray += len(data)
        self.sink.write(data)
        if self.sink.held is not None:
            self.pause()

    def feed(self, data: bytes) -> None:
        """What was read goes on, as the callbacks have it."""
        if self.detour is not None:
            self.detour(data)
            return
        self.sink.write(data)
        if self.sink.held is not None:
            self.pause()

    def drained(self) -> None:
        """The sink holds nothing any more."""
        if self.desk is not None:
            self.desk.drained()
        if self.shaping is not None:
            self.shaping.drained()
        elif not forbidden(self, FINISH):
            self.finish()
        else:
            self.resume()
        if self.connection.messages is not None:
            self.connection.messages.go_on()

    def resume(self) -> None:
        """Read the source again, unless something stands against it."""
        reader = self.source.reader
        if not reader.active and not forbidden(self, READ):
            reader.start(self.callback)

    def pause(self) -> None:
        """Read the source no more, if something stands against it."""
        if forbidden(self, READ):
            self.source.reader.stop()

    @property
    def sent(self) -> int:
        """How many bytes the sink has taken."""
        held = self.sink.held
        return self.received + self.astray - (len(held) if held is not None else 0)

    @property
    def unread(self) -> int:
        """How many bytes of the source wait at the desk, not counted as read yet."""
        return len(self.desk.unread) if self.desk is not None else 0

    @property
    def waiting(self) -> int:
        """How many bytes are on their way, or wait for a handler."""
        held = len(self.sink.held) if self.sink.held is not None else 0
        inside = self.shaping.chain.inside if self.shaping is not None else 0
        return held + inside + (len(self.desk.pending) if self.desk is not None else 0)

    @property
    def stuck(self) -> bool:
        """Nothing can ever pass any more: the source has ended, and nothing waits that may go."""
        if self.sink.held is not None or not self.over:
            return False
        if self.desk is not None and self.desk.owner is not None:
            return False
        return self.finished or (self.shaping is not None and self.shaping.stuck())

    @property
    def is_due(self) -> bool:
        """Whether something on its way has its time still before it."""
        return self.shaping is not None and self.shaping.chain.is_due

    def let_out(self, everything: bool) -> None:
        """Have the sink hold what is ready to leave, or all that is on its way, for the end."""
        data = self.shaping.rest(everything) if self.shaping is not None else b""
        if data:
            self.astray += len(data)
            self.sink.hold(data)

    def lost(self, n: int) -> None:
        """Of what was read, or was to be sent, `n` bytes are nowhere any more."""
        if self.connection.closed:  # and has been added up
            self.connection.counters.sent[self.to_backend] -= n
        else:
            self.astray -= n

    # The end

    def source_ended(self) -> None:
        """EOF: hand it to what acts on the flow, or pass it on."""
        messages = self.connection.messages
        self.over = True
        self.source.reader.stop()
        self.connection.side_ended(self)
        if messages is not None:
            messages.go_on()  # the end comes behind what waits there
            return
        self.pass_end()

    def pass_end(self) -> None:
        """All that was read has gone on: so does the end."""
        if self.detour is not None:
            self.detour(b"")
            return
        self.ended = True
        self.finish()

    def source_broke(self) -> None:
        """A reset by the source: for a handler it is an end; the other side gets a reset too."""
        self.connection.broken = True
        self.source_ended()

    def finish(self) -> None:
        """Tell the sink that nothing more will come; nothing may be held."""
        connection = self.connection
        if connection.closed or forbidden(self, HELD | SHUT):
            return
        if connection.broken:
            connection.reset()
            return
        self.finished = True
        if connection.done():
            return
        self.sink.shutdown()  # if it has gone, its own flow will see that
        connection.end_if_stuck()

    def sink_broke(self, n: int) -> None:
        """The sink takes nothing any more, nor the `n` bytes just read or made."""
        self.astray -= n
        self.over = self.ended = self.finished = True
        self.drop()
        self.source.reader.stop()
        self.connection.sink_broke(self)

    def drop(self) -> None:
        """Forget all that is on its way, and wake those who wait for it."""
        self.astray -= self.sink.drop()
        for one in (self.shaping, self.desk):
            if one is not None:
                one.drop()

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this connection, and no other."""
        self.connection.crashed()

    def close(self) -> None:
        """Let go of all that stands beside it."""
        self.drop()
        self.over = self.ended = self.finished = True
        self.detour = self._nowhere
        # Without the circles they are gone at once, and the garbage collector has nothing to do.
        del self.callback, self.peer

    def _nowhere(self, data: bytes) -> None:
        """The detour of a flow whose connection has ended while the data was being read."""
        self.lost(len(data))
