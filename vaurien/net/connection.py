"""A connection: a client's socket, its backend's socket, and the pump that moves bytes both ways.

Laws: a flow is the only writer of its sink, and whoever owns it is the only reader of its source;
nothing in a callback blocks; the pump makes no greenlet, keeps no chunk that could be sent, and an
exception in a callback ends this connection only.

A flow holds at most the rest of one chunk: while it does, its source is not read, so that a slow
reader stops its own peer and no other (high watermark 64 KiB, low watermark 0).
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.event import Event
from gevent.hub import get_hub

from vaurien.behavior import Exchange
from vaurien.net.dial import Dial
from vaurien.net.guard import guarded
from vaurien.net.handoff import HandlerSocket, hand_off
from vaurien.net.linger import LINGER, READ, WRITE, Linger, close, reset
from vaurien.protocols.tcp import Tcp

if TYPE_CHECKING:
    from vaurien.net.handoff import Call
    from vaurien.net.server import Picked, Server


class Flow:
    """One direction of a connection: reads its source, writes its sink."""

    __slots__ = (
        "callback",
        "connection",
        "empty",
        "ended",
        "finished",
        "framer",
        "handler",
        "held",
        "loop",
        "owner",
        "passed",
        "peer",
        "reader",
        "recv_into",
        "send",
        "sink",
        "to_backend",
        "view",
        "waiter",
        "writer",
    )

    def __init__(
        self,
        connection: Connection,
        to_backend: bool,
        source: _socket.socket,
        sink: _socket.socket,
        server: Server,
    ) -> None:
        self.connection, self.to_backend = connection, to_backend
        self.framer = connection.framer
        self.view, self.loop = server.view, server.loop
        self.recv_into = source.recv_into
        self.sink, self.send = sink, sink.send
        self.reader = self.loop.io(source.fileno(), READ)
        self.callback = self.from_client if to_backend else self.from_backend
        self.peer: Flow = self  # the other direction; set by the connection
        self.writer: Any = None  # made when the sink first falls behind
        self.held: memoryview | None = None  # read or sent by a handler, not yet taken by the sink
        self.passed = 0  # bytes read
        self.ended = False  # the source has come to its end
        self.finished = False  # the sink was told so, or is gone
        self.handler: Picked | None = None  # who deals with the present exchange; None is dummy
        self.owner: Call | None = None  # the call that reads the source in our place
        self.waiter: Call | None = None  # the call that becomes owner next
        self.empty: Event | None = None  # set when `held` is gone, for handlers that wait

    def __repr__(self) -> str:
        words = [f"{self.passed} bytes"]
        words += [f"{len(self.held)} held"] if self.held is not None else []
        words += ["owned"] if self.owner is not None else []
        words += [name for name in ("ended", "finished") if getattr(self, name)]
        return f"<Flow to {'backend' if self.to_backend else 'client'}: {', '.join(words)}>"

    # The pump. The two callbacks differ in what they tell the framer; apart from that they are the
    # same, written twice because a call here costs more than all the bookkeeping.

    def from_client(self) -> None:
        """The client has sent something."""
        try:
            try:
                n = self.recv_into(self.view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.passed += n
            if self.framer.answered:
                self.connection.begin()
            if self.handler is not None:
                return hand_off(self, bytes(self.view[:n]))
            try:
                sent = self.send(self.view[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.sink_broke()
            if sent != n:
                self.hold(bytes(self.view[sent:n]))
        except Exception:
            self.connection.crashed()

    def from_backend(self) -> None:
        """The backend has sent something."""
        try:
            try:
                n = self.recv_into(self.view)
            except BlockingIOError:
                return
            except OSError:
                return self.source_broke()
            if not n:
                return self.source_ended()
            self.passed += n
            self.framer.answered = True
            if self.handler is not None:
                return hand_off(self, bytes(self.view[:n]))
            try:
                sent = self.send(self.view[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.sink_broke()
            if sent != n:
                self.hold(bytes(self.view[sent:n]))
        except Exception:
            self.connection.crashed()

    def writable(self) -> None:
        """The sink takes more of what is held."""
        try:
            assert self.held is not None
            try:
                rest = self.held[self.send(self.held) :]
            except BlockingIOError:
                return
            except OSError:
                return self.sink_broke()
            if rest:
                self.held = rest
            else:
                self.emptied()
        except Exception:
            self.connection.crashed()

    # What happens more rarely.

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`, holding what the sink does not take now; nothing may be held before."""
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.sink_broke()
        if sent != len(data):
            self.hold(memoryview(data)[sent:])
        return None

    def hold(self, rest: bytes | memoryview) -> None:
        """Keep `rest` until the sink takes it, and stop reading meanwhile."""
        self.held = memoryview(rest)
        self.reader.stop()
        if self.writer is None:
            self.writer = self.loop.io(self.sink.fileno(), WRITE)
        self.writer.start(self.writable)

    def emptied(self) -> None:
        """Nothing is held any more."""
        self.held = None
        self.writer.stop()
        if self.empty is not None:
            self.empty.set()
        if self.owner is not None:
            return
        if self.ended:
            self.finish()
        else:
            self.resume()

    def resume(self) -> None:
        """Read the source again, unless something stands against it."""
        if self.held is None and self.owner is None and not (self.ended or self.finished):
            self.reader.start(self.callback)

    def source_ended(self) -> None:
        """EOF: hand it to the handler, if one deals with the exchange, or pass it on."""
        self.ended = True
        self.reader.stop()
        if self.handler is not None:
            hand_off(self, b"")
        else:
            self.finish()

    def source_broke(self) -> None:
        """A reset by the source: for a handler it is an end; the other side gets a reset too."""
        self.connection.broken = True
        self.source_ended()

    def finish(self) -> None:
        """Tell the sink that nothing more will come; nothing may be held."""
        connection = self.connection
        if connection.closed or self.held is not None or self.finished:
            return None
        if connection.broken:
            return connection.reset()
        self.finished = True
        if connection.done():
            return None
        try:
            self.sink.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # it has gone; its own flow will see that
        return None

    def sink_broke(self) -> None:
        """The sink takes nothing any more: let what it has said come through, then reset."""
        connection = self.connection
        connection.broken = True
        self.ended = self.finished = True
        self.drop()
        self.reader.stop()
        if self.peer.ended and self.peer.held is None and self.peer.owner is None:
            connection.reset()
        else:
            connection.reset_later()

    def drop(self) -> None:
        """Forget what is held, and wake those who wait for it to go."""
        self.held = None
        if self.writer is not None:
            self.writer.stop()
        if self.empty is not None:
            self.empty.set()

    def rebind(self, source: _socket.socket, sink: _socket.socket) -> None:
        """The sockets' descriptors have moved to other objects."""
        self.recv_into, self.sink, self.send = source.recv_into, sink, sink.send

    def close(self) -> None:
        """Let go of the loop."""
        self.drop()
        self.ended = self.finished = True
        self.reader.stop()
        self.reader.close()
        if self.writer is not None:
            self.writer.close()
        # Without the circles they are gone at once, and the garbage collector has nothing to do.
        del self.callback, self.peer


class Connection:
    """One client and its backend, from accept to the end."""

    __slots__ = (
        "address",
        "backend",
        "backend_sock",
        "broken",
        "client",
        "client_sock",
        "closed",
        "dial",
        "down",
        "exchange",
        "framer",
        "harms",
        "number",
        "quiet",
        "seen",
        "server",
        "timer",
        "up",
    )

    def __init__(
        self, server: Server, number: int, client: _socket.socket, address: object
    ) -> None:
        self.server, self.number, self.address = server, number, address
        self.client = client
        self.backend: _socket.socket | None = None
        self.client_sock: HandlerSocket | None = None  # made when a handler first needs them
        self.backend_sock: HandlerSocket | None = None
        self.framer = Tcp()
        self.up: Flow | None = None
        self.down: Flow | None = None
        self.dial: Dial | None = None
        self.exchange: Exchange | None = None  # the draws of the present one, once asked for
        self.harms: dict[str, int] | None = None  # per handler, for its exact points
        self.timer: Any = None
        self.broken = False  # one side was reset
        self.closed = False
        self.seen = 0  # `moved` when the server last looked
        self.quiet = 0.0  # when it saw them first, monotonic seconds; 0 is not yet

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self.up is not None else "dialling"
        return (
            f"<Connection {self.number} of {self.server.name!r}: {state},"
            f" exchange {self.framer.exchange}, {self.up!r}, {self.down!r}>"
        )

    def open(self) -> None:
        """Dial the backend."""
        self.dial = Dial(self.server.dialer, self.dialled)
        self.dial.start()

    def dialled(self, backend: _socket.socket | None, error: OSError | None) -> None:
        """The backend answered, or could not be reached."""
        self.dial = None
        try:
            if backend is None:
                self.server.dial_failed(self, error)
                return self.end()
            self.backend = backend
            up = self.up = Flow(self, True, self.client, backend, self.server)
            down = self.down = Flow(self, False, backend, self.client, self.server)
            up.peer, down.peer = down, up
            up.resume()
            down.resume()
        except Exception:
            self.crashed()
        return None

    def begin(self) -> None:
        """Client bytes were read that begin an exchange: pick who deals with it."""
        self.framer.client_bytes()
        picks = self.server.picks
        if picks is not None:
            self.exchange = None
            self.up.handler = self.down.handler = picks.pick(self)  # type: ignore[union-attr]

    def exchange_now(self) -> Exchange:
        """The present exchange: its number and its draws."""
        if self.exchange is None:
            self.exchange = Exchange(self.server.dice, self.number, self.framer.exchange)
        return self.exchange

    @property
    def moved(self) -> int:
        """A number that changes with each byte that is read, or leaves what is held."""
        flows = (self.up, self.down)
        return sum(flow.passed - len(flow.held or b"") for flow in flows if flow is not None)

    @property
    def is_idle(self) -> bool:
        """Nothing is under way: nothing held, no handler runs, the backend spoke last."""
        up, down = self.up, self.down
        if up is None or down is None:
            return True  # it still dials: nothing has passed
        return (
            self.framer.answered
            and up.held is None
            and down.held is None
            and up.owner is None
            and down.owner is None
        )

    def crashed(self) -> None:
        """Called in an ``except``: log the error and end this connection, and no other."""
        self.server.crashed(self)
        self.end()

    def done(self) -> bool:
        """Close if both sides were told that nothing more will come, and no handler runs."""
        up, down = self.up, self.down
        if up is None or down is None:
            return True
        if not (up.finished and down.finished) or up.owner is not None or down.owner is not None:
            return False
        if up.ended and down.ended:
            self.close()
        else:  # a handler has shut down a side whose peer may still be sending
            self.end()
        return True

    # The ways to end. Each leaves the connection closed and its sockets in other hands.

    def close(self) -> None:
        """Both sides have ended and have been told: nothing is left to do."""
        self.finish(close, close)

    def end(self) -> None:
        """A polite end of both sides."""
        self.finish(None, None)

    def reset(self) -> None:
        """RST to both sides, now."""
        self.finish(reset, reset)

    def reset_later(self) -> None:
        """Reset when what is still on its way has come through, or does not move for a second.

        A handler that holds it may take its time.
        """
        if self.timer is None and not self.closed:
            self.timer = get_hub().loop.timer(LINGER, LINGER)
            self.timer.start(self._reset_if_still)

    @guarded
    def _reset_if_still(self) -> None:
        flows = (self.up, self.down)
        if not any(flow and flow.owner is not None and not flow.finished for flow in flows):
            self.reset()

    def finish(
        self,
        end_client: Callable[[_socket.socket], None] | None,
        end_backend: Callable[[_socket.socket], None] | None,
    ) -> None:
        """End each side in its own way: `close`, `reset`, or None, the polite one."""
        if self.closed:
            return
        self.closed = True
        if self.dial is not None:
            self.dial.cancel()
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
        up, down = self.up, self.down
        held = {flow.to_backend: flow.held for flow in (up, down) if flow is not None}
        for flow in (up, down):
            if flow is not None:
                owner, flow.owner = flow.owner, None
                flow.close()
                if owner is not None:
                    owner.cancel()
        polite: list[tuple[_socket.socket, memoryview | None]] = []
        for sock, handler_sock, how, to_backend in (
            (self.client, self.client_sock, end_client, False),
            (self.backend, self.backend_sock, end_backend, True),
        ):
            raw = handler_sock.give_back() if handler_sock is not None else sock
            if raw is None:
                continue
            if how is None:
                polite.append((raw, held.get(to_backend)))
            else:
                how(raw)
        self.up = self.down = None
        if polite:
            Linger(polite, self.server.view, self._gone)
        else:
            self._gone()

    def _gone(self) -> None:
        self.server.closed_one(self)
