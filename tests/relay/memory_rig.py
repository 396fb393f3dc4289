"""A real proxy on a loop in memory: its connections' far ends are the test's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.net.linger import ABORT, LINGER
from vaurien.net.loop import READ_SIZE
from vaurien.net.memory import MemoryLoop
from vaurien.net.memory_sockets import MemorySocket
from vaurien.plan import Plan, Specification, Toxic
from vaurien.registry import builtins
from vaurien.relay.connection import Connection
from vaurien.relay.flow import Flow
from vaurien.relay.looks import look
from vaurien.relay.proxy import Proxy
from vaurien.relay.rules import READ, forbidden

_BLOCK = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(32768))
UP, DOWN = True, False


def stream(start: int, n: int, to_backend: bool) -> bytes:
    """Bytes `start` to `start + n` of what that direction is to carry; nowhere alike."""
    offset = 500_000 if to_backend else 0
    assert start + n <= 500_000
    return _BLOCK[offset + start : offset + start + n]


def spec(name: str, kind: str, **options: Any) -> Specification:
    """The built-in handler `kind`, configured under `name`."""
    return Specification(name, builtins()[kind], options)


def toxic(name: str, kind: str, **options: Any) -> Toxic:
    """The built-in flow handler `kind`, pinned."""
    return Toxic(spec(name, kind, **options))


def plan(behaving: str = "100:dummy", *specs: Specification, **more: Any) -> Plan:
    """A plan for `Rig`."""
    return Plan(
        address("127.0.0.1:0", "local"),
        address("127.0.0.1:9", "distant"),
        behavior(behaving, "behavior"),
        {one.name: one for one in specs},
        more.pop("seed", 1),
        **more,
    )


class End:
    """One far end: the client's or the backend's. `got` is what it has read."""

    def __init__(self, near: MemorySocket, far: MemorySocket, to_backend: bool) -> None:
        """`to_backend`: what it sends goes there, so it is the client."""
        self.near, self.far, self.to_backend = near, far, to_backend
        self.sent = 0  # bytes
        self.got = bytearray()
        self.ended = self.shut = self.closed = self.was_reset = False

    @property
    def taken(self) -> int:
        """How many of its bytes the proxy has read, unless that has closed its socket."""
        return self.sent - len(self.near.inbox)

    @property
    def come(self) -> int:
        """How many bytes have come, read or not."""
        return len(self.got) + len(self.far.inbox)

    def send(self, n: int) -> int:
        """Send the next `n` bytes, or as many as are taken."""
        if self.shut or self.closed or self.was_reset:
            return 0
        try:
            sent = self.far.send(stream(self.sent, n, self.to_backend))
        except BlockingIOError:
            return 0
        except OSError:
            self.was_reset = True
            return 0
        self.sent += sent
        return sent

    def read(self, n: int = 1 << 20) -> int:
        """Read at most `n` bytes; how many there were."""
        if self.closed:
            return 0
        try:
            data = self.far.recv(n)
        except BlockingIOError:
            return 0
        except ConnectionError:
            self.was_reset = True
            return 0
        self.ended = self.ended or (not data and not self.was_reset)
        self.got += data
        return len(data)

    def shutdown(self) -> None:
        """Send FIN."""
        if not (self.shut or self.closed or self.far.was_reset):
            self.shut = True
            self.far.shutdown(1)

    def close(self, hard: bool = False) -> None:
        """Close, with a RST if it is to be `hard`."""
        if not self.closed:
            self.closed = True
            if hard:
                self.far.setsockopt(1, 13, ABORT)
            self.far.close()


class Rig:
    """A proxy in memory. `window` is how much each far end takes that it has not read."""

    def __init__(
        self,
        of: Plan | None = None,
        window: int = 65536,
        shuffle: Callable[[list[Any]], object] | None = None,
        **more: Any,
    ) -> None:
        self.loop = MemoryLoop(shuffle=shuffle)
        self.window = window
        self.proxy = Proxy(of or plan(), loop=self.loop, **more)
        self.server = self.proxy._server
        self.loop.alarms.join()

    def connect(self) -> Pair:
        """A new connection whose backend has answered."""
        near_client, far_client = self.loop.pair()
        near_backend, far_backend = self.loop.pair()
        far_client.window = far_backend.window = self.window
        self.server.counters.connections += 1
        number = self.server.counters.connections
        client, backend = End(near_client, far_client, UP), End(near_backend, far_backend, DOWN)
        sock: Any = near_client
        connection = Connection(self.server, number, sock, ("127.0.0.1", number))
        self.server.connections[number] = connection
        pair = Pair(self, connection, client, backend)
        sock = near_backend
        connection._dialled(sock, None)
        return pair

    def assert_quiet(self) -> None:
        """Nothing of any connection is left: no watcher, no alarm, no descriptor."""
        assert not self.server.connections
        assert ": 0 set" in repr(self.loop.alarms)
        self.loop.alarms.leave()
        assert not self.loop.watchers, repr(list(self.loop.watchers))
        self.loop.alarms.join()

    def assert_well(self) -> None:
        """No callback has raised."""
        assert self.server.counters.crashes == 0
        assert self.server.counters.handler_errors == 0


class Pair:
    """A connection and its two far ends."""

    def __init__(self, rig: Rig, connection: Connection, client: End, backend: End) -> None:
        self.rig, self.connection, self.client, self.backend = rig, connection, client, backend

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.backend

    def end_of(self, to_backend: bool) -> End:
        """Where that direction begins."""
        return self.client if to_backend else self.backend

    def look_at_it(self) -> None:
        """All of it has a readable state."""
        for one in (self.rig.proxy, self.rig.loop, self.connection, *self.connection.flows):
            assert repr(one).startswith("<")
        for flow in self.connection.flows:
            for part in (flow.source, flow.sink, flow.shaping, flow.desk):
                assert repr(part)

    def assert_counted(self, lossless: bool) -> None:
        """The numbers are those of the sockets, to the byte."""
        if self.connection.closed:
            return
        seen = look(self.connection)
        for flow in self.connection.flows:
            source, sink = self.end_of(flow.to_backend), self.end_of(not flow.to_backend)
            assert flow.received + flow.unread == source.taken, repr(flow)
            assert seen.received[not flow.to_backend] == flow.received
            assert seen.sent[not flow.to_backend] == flow.sent
            if not sink.closed and not sink.far.was_reset:
                assert flow.sent == sink.come, repr(flow)
            if lossless and not self.connection.broken:
                assert flow.received - flow.sent == flow.waiting, repr(flow)
        assert seen.held == sum(flow.waiting for flow in self.connection.flows)

    def assert_in_order(self) -> None:
        """What came is what was sent, from the beginning on."""
        for source, sink in ((self.client, self.backend), (self.backend, self.client)):
            assert len(sink.got) <= source.sent
            assert bytes(sink.got) == stream(0, len(sink.got), source.to_backend)
            assert sink.far.fins <= 1

    def assert_bounded(self) -> None:
        """Nobody holds more than may be, and who is full is not read."""
        for flow in self.connection.flows:
            chained = flow.shaping is not None and flow.shaping.active
            if not chained and flow.desk is None and flow.sink.held is not None:
                assert len(flow.sink.held) <= READ_SIZE + self.rig.proxy.plan.max_held
                assert not flow.source.reader.active

    def assert_reading(self) -> None:
        """A flow reads unless the table forbids it, or what is to start it again is to come."""
        if self.connection.closed:
            return
        for flow in self.connection.flows:
            if flow.source.reader.active:
                assert not forbidden(flow, READ), repr(flow)
            elif not forbidden(flow, READ):
                assert _goes_on(flow), repr(flow)

    def drain(self, seconds: float = 0.0) -> None:
        """Read at both ends until nothing more comes, while that much time passes each time."""
        loop = self.rig.loop
        while True:
            loop.run()
            if not sum(end.read() for end in self.ends):
                if not seconds or not any(flow.waiting for flow in self.connection.flows):
                    break
                loop.advance(seconds)

    def settle(self) -> None:
        """Let everything be over that lingers."""
        for _ in range(3):
            self.drain()
            self.rig.loop.advance(LINGER + 0.01)


def _goes_on(flow: Flow) -> bool:
    """Whether it will read again: when its sink holds nothing any more, or its chain has room."""
    shaping = flow.shaping
    half_full = shaping is not None and shaping.chain.held > shaping.max_held // 2
    return half_full or flow.sink.held is not None
