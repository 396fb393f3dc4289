"""Any order of reads, writes, ends, resets and changes: what is promised holds after each step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.relay.memory_rig import Pair, Rig, plan, spec, toxic
from vaurien.behavior import parse as behavior
from vaurien.handlers import BaseHandler
from vaurien.plan import Specification, Toxic

BIG = 120_000  # bytes in one direction at most


class Relay(BaseHandler):
    """Passes on what there is, by hand."""

    name = "relay"
    options: Any = {}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        self._pass(client_sock, backend_sock, to_backend)


class Small(BaseHandler):
    """Takes less than there is, and passes that on."""

    name = "small"
    options: Any = {}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        source, sink = client_sock, backend_sock
        if not to_backend:
            source, sink = backend_sock, client_sock
        data = source.recv(700)
        if data:
            sink.sendall(data)


#: What loses nothing, and ends nothing: kind, options to choose from.
LOSSLESS: dict[str, list[dict[str, Any]]] = {
    "latency": [{"latency": 0}, {"latency": 3}, {"latency": 1500}, {"latency": 40, "jitter": 40}],
    "bandwidth": [{"rate": 0}, {"rate": 100}, {"rate": 5000}],
    "slicer": [{"average_size": 700}, {"average_size": 5000, "delay": 2000}],
    "pause": [{"time": 20}, {"time": 2500}],
    "stall": [{"loss": 5}],
    "slow_close": [{"delay": 900}],
    "trickle": [{"duration": 40}],
    "limit_data": [{"bytes": 1_000_000}],
    "noop": [{}],
}
LOSSY: dict[str, list[dict[str, Any]]] = {
    **LOSSLESS,
    "pause": [{"time": 0}, {"time": 20}],
    "blackhole": [{}],
    "limit_data": [{"bytes": 0}, {"bytes": 3000}],
    "timeout": [{"timeout": 0}, {"timeout": 30}, {"timeout": 1500}],
    "cut": [{"bytes": 500}, {"time": 40, "how": "reset", "side": "client"}, {"time": 3000}],
    "truncate": [{"bytes": 900}],
    "corrupt": [{"chance": 1}],
    "reset_peer": [{"timeout": 50}],
}
STREAMS = ["upstream", "downstream", "both"]
OWN = (Specification("relay", Relay), Specification("small", Small))

sizes = st.one_of(st.integers(1, 20), st.integers(1, 40_000))
who = st.booleans()


def kinds(table: dict[str, list[dict[str, Any]]]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """One of the handlers of a table, with options, but the stream."""
    pairs = [(kind, options) for kind, all_of in table.items() for options in all_of]
    return st.sampled_from(pairs)


class Chaos(RuleBasedStateMachine):
    """What both machines have: bytes, ends, time, and changes from `TABLE`."""

    TABLE = LOSSY
    lossless = False
    rig: Rig
    pair: Pair

    @initialize(
        window=st.sampled_from([1, 300, 5000, 65536]),
        max_held=st.sampled_from([2000, 40_000, 1 << 20]),
        seed=st.integers(0, 50),
        picked=st.data(),
    )
    def begin(self, window: int, max_held: int, seed: int, picked: Any) -> None:
        shuffle = random.Random(seed).shuffle
        self.rig = Rig(plan(max_held=max_held, seed=seed), window, shuffle)
        self.pair = self.rig.connect()
        if picked.draw(st.booleans()):
            self.behave(picked.draw(behaviors(self.TABLE)))

    # Bytes and ends

    @rule(by=who, n=sizes, turn=st.booleans())
    def send(self, by: bool, n: int, turn: bool) -> None:
        end = self.pair.end_of(by)
        end.send(min(n, BIG - end.sent))
        if turn:
            self.rig.loop.turn()

    @rule(by=who, n=sizes)
    def read(self, by: bool, n: int) -> None:
        self.pair.end_of(by).read(n)
        self.rig.loop.turn()

    @rule(by=who)
    def shut(self, by: bool) -> None:
        self.pair.end_of(by).shutdown()

    # Time

    @rule()
    def turn(self) -> None:
        self.rig.loop.turn()

    @rule()
    def run(self) -> None:
        self.rig.loop.run()
        self.pair.assert_reading()

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.4, 2.0]), jump=st.booleans())
    def wait(self, seconds: float, jump: bool) -> None:
        (self.rig.loop.jump if jump else self.rig.loop.advance)(seconds)
        self.pair.assert_reading()

    @rule()
    def drain(self) -> None:
        self.pair.drain()

    # Changes

    def toxics(self) -> list[str]:
        return [one.name for one in self.rig.proxy.plan.toxics]

    @rule(data=st.data(), stream=st.sampled_from(STREAMS))
    def add(self, data: Any, stream: str) -> None:
        if len(self.toxics()) < 4:
            kind, options = data.draw(kinds(self.TABLE))
            name = f"t{data.draw(st.integers(0, 1000))}"
            if name not in self.toxics():
                self.rig.proxy.add_toxic(toxic(name, kind, stream=stream, **options))

    @precondition(lambda self: self.toxics())
    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        self.rig.proxy.remove_toxic(data.draw(st.sampled_from(self.toxics())))

    @precondition(lambda self: self.toxics())
    @rule(data=st.data())
    def update(self, data: Any) -> None:
        before = data.draw(st.sampled_from(self.rig.proxy.plan.toxics))
        options = data.draw(st.sampled_from(self.TABLE[before.type]))
        given = {**options, "stream": before.stream}
        self.rig.proxy.update_toxic(toxic(before.name, before.type, **given))

    @rule(data=st.data())
    def reorder(self, data: Any) -> None:
        toxics: list[Toxic] = data.draw(st.permutations(self.rig.proxy.plan.toxics))
        self.rig.proxy.change(replace(self.rig.proxy.plan, toxics=tuple(toxics)))

    @rule(data=st.data())
    def change(self, data: Any) -> None:
        self.behave(data.draw(behaviors(self.TABLE)))

    def behave(self, of: tuple[str, tuple[Specification, ...]]) -> None:
        text, specs = of
        handlers = {one.name: one for one in specs}
        now = replace(self.rig.proxy.plan, behavior=behavior(text, "behavior"), handlers=handlers)
        self.rig.proxy.change(now)

    # What is promised

    @invariant()
    def nothing_raises(self) -> None:
        if hasattr(self, "rig"):
            self.rig.assert_well()
            self.pair.look_at_it()

    @invariant()
    def all_is_counted(self) -> None:
        if hasattr(self, "rig"):
            self.pair.assert_counted(self.lossless)
            self.pair.assert_bounded()

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.finish()
            self.rig.loop.advance(5)
            self.pair.settle()
            self.rig.assert_well()
            self.rig.assert_quiet()
            counters, (up, down) = self.rig.server.counters, self.pair.ends
            assert counters.received[True] <= up.sent
            assert counters.received[False] <= down.sent

    def finish(self) -> None:
        """Bring the connection to its end."""
        self.rig.loop.run()
        self.rig.proxy.drop()


def behaviors(
    table: dict[str, list[dict[str, Any]]],
) -> st.SearchStrategy[tuple[str, tuple[Specification, ...]]]:
    """A behavior that picks by chance, and its handlers."""
    streams = st.sampled_from(STREAMS)
    socket_handlers = st.sampled_from(["", "relay", "small"])

    def make(
        chosen: list[tuple[str, dict[str, Any]]], stream: str, last: str, weight: int
    ) -> tuple[str, tuple[Specification, ...]]:
        specs = tuple(
            spec(f"h{n}{kind}", kind, stream=stream, **options)
            for n, (kind, options) in enumerate(chosen)
        )
        parts = [f"{weight}:{'+'.join([*(one.name for one in specs), *([last] if last else [])])}"]
        if not specs and not last:
            return "100:dummy", ()
        if last and weight < 100 and specs:
            parts.append(f"{100 - weight}:{specs[0].name}")
        return ",".join(parts), (*specs, *OWN)

    return st.builds(
        make,
        st.lists(kinds(table), max_size=2),
        streams,
        socket_handlers,
        st.sampled_from([40, 70, 100]),
    )


class Lossless(Chaos):
    """Nothing here loses a byte: all that was sent arrives, in order, and then the end, once."""

    TABLE = LOSSLESS
    lossless = True

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "rig"):
            self.pair.assert_in_order()

    def behave(self, of: tuple[str, tuple[Specification, ...]]) -> None:
        # A call that has read and not sent is the only one that knows what it has: its connection
        # ends when its handler goes.
        if not self.pair.connection.calls:
            super().behave(of)

    @invariant()
    def it_is_open(self) -> None:
        if hasattr(self, "rig") and self.pair.connection.closed:
            assert all(end.shut for end in self.pair.ends)

    def finish(self) -> None:
        client, backend = self.pair.ends
        for end in self.pair.ends:
            end.shutdown()
        for _ in range(2000):
            self.pair.drain()
            if all(end.ended for end in self.pair.ends):
                break
            self.rig.loop.advance(0.5)
        for source, sink in ((client, backend), (backend, client)):
            assert sink.ended, repr(self.pair.connection)
            assert len(sink.got) == source.sent
            assert sink.far.fins == 1
        self.pair.assert_in_order()
        assert self.pair.connection.closed
        assert self.pair.connection.first_end in ("client", "backend")
        counters = self.rig.server.counters
        assert counters.received == counters.sent == [backend.sent, client.sent]


class Anything(Chaos):
    """Resets, drops, and handlers that lose and end: nothing crashes, hangs or is left behind."""

    @rule(by=who, hard=st.booleans())
    def close(self, by: bool, hard: bool) -> None:
        self.pair.end_of(by).close(hard)

    @rule(how=st.sampled_from(["fin", "reset"]))
    def drop(self, how: str) -> None:
        self.rig.proxy.drop(how=how)


def _test_of(machine: Callable[..., Any], examples: int, steps: int) -> Any:
    case: Any = machine.TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    return case


TestLossless = _test_of(Lossless, 60, 40)
TestAnything = _test_of(Anything, 60, 40)
