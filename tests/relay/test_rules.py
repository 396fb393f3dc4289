"""Each row of the table of `vaurien.relay.rules`, seen in a flow; resets and the sweep in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.relay.memory_rig import Pair, Rig, plan, spec, toxic
from tests.relay.test_properties import OWN
from vaurien.relay import rules
from vaurien.relay.flow import Flow
from vaurien.relay.rules import FINISH, READ, ROUND, forbidden, state
from vaurien.relay.sweep import AT_ONCE, TICK, Sweep

STATES = {
    name: getattr(rules, name)
    for name in ("OVER", "SHUT", "DEAF", "FULL", "OPEN", "HELD", "OWNED", "BUSY", "PINNED", "CUT")
}


def states(flow: Flow) -> set[str]:
    """The names of the states that a flow is in."""
    return {name for name, bit in STATES.items() if state(flow) & bit}


def up(pair: Pair) -> Flow:
    """The flow to the backend of a connection that is open."""
    assert pair.connection.up is not None
    return pair.connection.up


def reads(flow: Flow) -> bool:
    """Whether the loop watches its source."""
    return flow.source.reader.active


def test_the_table_in_the_words_is_the_one_in_force() -> None:
    lines = (rules.__doc__ or "").splitlines()
    rule = next(line for line in lines if line.startswith("==="))
    columns = [at for at in range(len(rule)) if f" {rule}"[at : at + 2] == " ="][2:]
    rows = [at for at, line in enumerate(lines) if line[:8].strip() in STATES]
    assert len(rows) == len(STATES)
    for at in rows:
        name = lines[at][:8].strip()
        words = lines[at]
        if lines[at + 1].startswith("  "):  # it goes on in the next
            words = lines[at + 1]
        for mask, column in zip((READ, FINISH, ROUND), columns, strict=True):
            says_no = words[column : column + 5].strip() == "no"
            assert says_no == bool(STATES[name] & mask), name


def test_open_a_flow_reads_and_does_not_end() -> None:
    pair = Rig().connect()
    assert states(up(pair)) == {"OPEN"}
    assert reads(up(pair))
    assert forbidden(up(pair), FINISH)
    assert not forbidden(up(pair), ROUND)


def test_held_and_full_a_flow_does_not_read_until_its_sink_has_taken_all() -> None:
    rig = Rig(window=10)
    pair = rig.connect()
    pair.client.send(30)
    rig.loop.run()
    assert states(up(pair)) == {"OPEN", "HELD", "FULL"}
    assert not reads(up(pair))
    pair.backend.read()
    rig.loop.run()
    assert not reads(up(pair))
    pair.drain()
    assert reads(up(pair))


def test_over_and_held_the_end_waits_for_what_is_before_it() -> None:
    rig = Rig(window=10)
    pair = rig.connect()
    pair.client.send(15)
    rig.loop.run()
    pair.client.shutdown()
    pair.backend.read()
    rig.loop.run()
    assert pair.backend.far.fins == 0 or not pair.backend.near.inbox
    pair.drain()
    assert states(up(pair)) == {"OVER", "SHUT", "DEAF"}
    assert not reads(up(pair))
    assert pair.backend.ended
    assert len(pair.backend.got) == 15
    assert reads(up(pair).peer)  # a half-close: the other direction goes on


def test_busy_a_flow_reads_on_and_its_end_waits() -> None:
    rig = Rig(plan("100:slow", spec("slow", "latency", latency=500, stream="upstream")))
    pair = rig.connect()
    pair.client.send(10)
    rig.loop.run()
    assert states(up(pair)) == {"OPEN", "BUSY"}
    assert reads(up(pair))
    pair.client.shutdown()
    rig.loop.run()
    assert states(up(pair)) == {"OPEN", "BUSY", "OVER"}
    assert not pair.backend.far.fins
    rig.loop.advance(0.5)
    pair.drain()
    assert pair.backend.ended


def test_full_of_what_its_chain_holds_a_flow_is_not_read_until_half_of_it_has_gone() -> None:
    rig = Rig(
        plan("100:slow", spec("slow", "latency", latency=500, stream="upstream"), max_held=2000)
    )
    pair = rig.connect()
    for _ in range(3):
        pair.client.send(600)
        rig.loop.run()
        rig.loop.advance(0.1)
    assert {"FULL", "BUSY"} <= states(up(pair))
    assert not reads(up(pair))
    rig.loop.advance(0.35)  # two of the three have left
    assert reads(up(pair))


def test_pinned_a_flow_goes_through_its_chain_though_nothing_is_on_its_way() -> None:
    rig = Rig()
    pair = rig.connect()
    rig.proxy.add_toxic(toxic("there", "latency", latency=1, stream="upstream"))
    assert states(up(pair)) == {"OPEN", "PINNED"}
    assert forbidden(up(pair), ROUND)
    rig.proxy.remove_toxic("there")
    assert not forbidden(up(pair), ROUND)
    assert up(pair).detour is None


def test_cut_a_flow_is_read_and_what_comes_is_dropped() -> None:
    rig = Rig(plan("100:short", spec("short", "truncate", bytes=5, stream="upstream")))
    pair = rig.connect()
    pair.client.send(20)
    pair.drain()
    assert {"CUT", "SHUT"} <= states(up(pair))
    assert "DEAF" not in states(up(pair))
    assert reads(up(pair))
    assert len(pair.backend.got) == 5
    assert pair.backend.ended
    pair.client.send(20)
    rig.loop.run()
    assert up(pair).received == 40
    assert up(pair).sent == 5


def test_owned_a_flow_is_read_up_to_what_waits_for_its_call() -> None:
    rig = Rig(plan("100:relay", *OWN), window=1)
    pair = rig.connect()
    pair.client.send(2)
    rig.loop.run()
    assert {"OWNED", "HELD"} <= states(up(pair))
    pair.client.send(rules.WAITING)
    rig.loop.run()
    pair.client.send(10)
    rig.loop.run()
    assert {"OWNED", "FULL"} <= states(up(pair))
    assert not reads(up(pair))
    assert forbidden(up(pair), FINISH)
    rig.proxy.drop()
    pair.settle()


# Resets and ends in time


def broken(rig: Rig) -> Pair:
    """A connection whose backend is gone while the client still sends."""
    pair = rig.connect()
    pair.client.send(10)
    rig.loop.run()
    pair.backend.read()
    pair.backend.send(200)
    rig.loop.run()
    pair.backend.close(hard=True)
    pair.client.send(10)
    return pair


def test_an_answer_on_its_way_comes_through_though_its_sender_was_reset() -> None:
    rig = Rig(plan("100:slow", spec("slow", "latency", latency=30_000)))
    pair = broken(rig)
    rig.loop.advance(29)
    assert not pair.connection.closed
    rig.loop.advance(1.5)
    pair.drain()
    assert len(pair.client.got) == 200
    rig.loop.advance(3)
    assert pair.connection.closed
    rig.assert_quiet()


def test_an_answer_that_a_client_takes_slowly_comes_through() -> None:
    rig = Rig(window=10)
    pair = broken(rig)
    for _ in range(30):
        rig.loop.advance(0.7)
        pair.client.read()
    assert len(pair.client.got) == 200
    rig.loop.advance(3)
    assert pair.connection.closed


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    rig = Rig(window=10)
    pair = broken(rig)
    rig.loop.advance(3)
    assert pair.connection.closed
    assert pair.client.far.was_reset
    rig.assert_quiet()


@pytest.mark.parametrize(("kind", "option"), [("timeout", "timeout"), ("reset_peer", "timeout")])
def test_what_only_waits_for_its_alarm_does_not_keep_a_broken_connection(
    kind: str, option: str
) -> None:
    rig = Rig(window=10)
    rig.proxy.add_toxic(toxic("late", kind, stream="downstream", **{option: 3_600_000}))
    pair = broken(rig)
    rig.loop.advance(5)
    assert pair.connection.closed
    rig.assert_quiet()


ENDS: dict[str, Callable[[Rig, Pair], object]] = {
    "drop": lambda rig, _: rig.proxy.drop(),
    "drop one": lambda rig, _: rig.proxy.drop(1),
    "disable": lambda rig, _: rig.proxy.disable(),
    "idle": lambda _, pair: pair.connection.end("idle"),
    "exit": lambda _, pair: pair.connection.end("exit"),
    "close": lambda rig, _: rig.proxy.add_toxic(toxic("over", "limit_data", bytes=0)),
    "late close": lambda rig, _: rig.proxy.add_toxic(toxic("over", "timeout", timeout=10)),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_polite_end_lets_through_what_moves(end: str) -> None:
    rig = Rig(window=10)
    pair = rig.connect()
    pair.client.send(5)
    rig.loop.run()
    pair.backend.send(300)
    rig.loop.run()
    ENDS[end](rig, pair)
    if end == "close":
        pair.backend.send(1)  # which comes to the end of its count
    for _ in range(40):
        rig.loop.advance(0.7)
        pair.client.read()
    assert len(pair.client.got) == 300
    assert pair.client.ended
    assert pair.client.far.fins == 1
    pair.settle()
    rig.assert_quiet()


@pytest.mark.parametrize("end", ENDS)
def test_each_polite_end_gives_up_on_what_stands(end: str) -> None:
    rig = Rig(window=10)
    pair = rig.connect()
    pair.backend.send(300)
    rig.loop.run()
    ENDS[end](rig, pair)
    rig.loop.advance(2.1)
    assert pair.connection.closed == (end != "close")  # whose end is behind what stands
    rig.proxy.drop()
    rig.loop.advance(1.1)
    rig.assert_quiet()


# The sweep


def test_a_sweep_never_looks_at_more_than_its_share_in_a_turn() -> None:
    looked = 0

    class One:
        closed, seen, quiet = False, 0, 0.0

        @property
        def moved(self) -> int:
            nonlocal looked
            looked += 1
            return 0

    rig = Rig()
    ended: list[Any] = []
    ones = [One() for _ in range(AT_ONCE * 5 // 2)]

    def end(one: Any) -> None:
        one.closed = True
        ended.append(one)

    sweep = Sweep(rig.loop, lambda: ones, 2.0, end)
    most = 0
    for _ in range(2000):
        before = looked
        rig.loop.turn()
        most = max(most, looked - before)
        rig.loop.jump(0)
        rig.loop._time += TICK / 4
    assert most == AT_ONCE
    assert ended == ones
    sweep.stop()
    assert not rig.loop.watchers
