"""The handlers that let nothing through for a while: pause, blackhole, hang; and noop."""

from __future__ import annotations

import pytest

from tests.flow.helpers import Flow, near
from vaurien.flow import EOF, Begin, Close, Data
from vaurien.flow.chain import PIECE
from vaurien.handlers.blackhole import Blackhole, Hang
from vaurien.handlers.noop import Noop
from vaurien.handlers.pause import Pause
from vaurien.testing import play

# pause


def test_a_pause_loses_nothing_and_lets_go_after_its_time() -> None:
    events = [(0.1, Data(b"a")), (0.2, Data(b"b")), (0.7, Data(b"c"))]
    assert play([Pause({"time": 500})], events) == near([(0.5, b"a"), (0.5, b"b"), (0.7, b"c")])


def test_a_pause_holds_the_end_too() -> None:
    assert play([Pause({"time": 500})], [(0.1, EOF)]) == near([(0.5, EOF)])


def test_a_pause_without_a_time_holds_until_it_is_removed() -> None:
    stage = Pause()
    flow = Flow(stage)
    flow.push(b"a", b"b", EOF)
    flow.run(1e6)
    assert flow.left == []
    assert flow.chain.held == 2 + 2 * PIECE
    flow.remove(stage)
    assert flow.left == [(1e6, Data(b"ab")), (1e6, EOF)]


def test_a_pause_begins_with_each_exchange_that_it_is_picked_for() -> None:
    stage = Pause({"time": 500})
    flow = Flow()
    flow.insert(stage, pinned=False)
    flow.begin(1, stage)
    flow.push(b"a", at=0.1)
    flow.run(2)
    flow.begin(2)
    flow.push(b"b")
    flow.run(3)
    flow.begin(3, stage)
    flow.push(b"c")
    flow.run(9)
    assert flow.left == near([(0.5, b"a"), (2, b"b"), (3.5, b"c")])


def test_a_pause_that_is_a_toxic_is_over_once_and_for_all() -> None:
    stage = Pause({"time": 500})
    stage.pinned = True
    flow = Flow(stage)
    flow.begin(1)
    flow.push(b"a")
    flow.run(2)
    flow.begin(2)
    flow.push(b"b")
    assert flow.left == near([(0.5, b"a"), (2, b"b")])


def test_an_update_of_pause_starts_its_time_anew() -> None:
    stage = Pause({"time": 500})
    flow = Flow(stage)
    flow.push(b"a")
    flow.run(0.2)
    flow.update(stage, time=1000)
    flow.push(b"b")
    flow.run(9)
    assert flow.left == near([(0.2, b"a"), (1.2, b"b")])


# blackhole, hang


@pytest.mark.parametrize("to_backend", [False, True])
def test_a_blackhole_drops_all_data_until_it_is_removed(to_backend: bool) -> None:
    stage = Blackhole(None, to_backend)
    flow = Flow(stage)
    flow.push(b"a", b"b")
    flow.run(1e6)
    assert flow.left == []
    assert flow.chain.held == 0
    assert flow.chain.deadline is None
    flow.remove(stage)
    flow.push(b"c", EOF)
    assert flow.left == [(1e6, Data(b"c")), (1e6, EOF)]


def test_a_blackhole_keeps_the_end_of_the_backend_until_it_is_removed() -> None:
    stage = Blackhole()
    flow = Flow(stage)
    flow.push(b"a", EOF)
    flow.run(1e6)
    assert flow.left == []
    flow.remove(stage)
    assert flow.left == [(1e6, EOF)]


@pytest.mark.parametrize("cls", [Blackhole, Hang])
def test_the_end_of_the_client_ends_the_connection(cls: type[Blackhole]) -> None:
    assert play([cls(None, True)], [(1, Data(b"a")), (2, EOF)]) == [(2, Close())]


def test_hang_is_in_both_directions() -> None:
    assert Hang().options["stream"] == "both"
    assert play([Hang()], [(1, Data(b"a"))]) == []


# noop


def test_noop_changes_nothing_and_is_never_told_to_have_done_something() -> None:
    stage = Noop()
    flow = Flow(stage)
    exchange = flow.begin(1)
    flow.push(b"a", b"b", at=1)
    flow.push(EOF, at=2)
    assert flow.left == [(1, Data(b"a")), (1, Data(b"b")), (2, EOF)]
    assert exchange.added == {}


def test_begin_goes_through_noop() -> None:
    assert list(Noop().on(Begin(3), 1)) == [(0, Begin(3))]
