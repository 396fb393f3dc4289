"""The handlers that end a connection or a flow, and those that delay an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.helpers import Flow, ends, joined, near, pieces
from tests.rivals.differences import differs
from vaurien.flow import EOF, OPEN, Begin, Close, Data, Event, Reset
from vaurien.flow.handler import FlowHandler
from vaurien.handlers.blackhole import Blackhole, Hang
from vaurien.handlers.cut import Abort, Blackout, Cut, ResetClient, ResetPeer
from vaurien.handlers.latency import Latency
from vaurien.handlers.limit_data import LimitData
from vaurien.handlers.slow_close import SlowClose
from vaurien.handlers.timeout import Timeout
from vaurien.handlers.truncate import Truncate
from vaurien.testing import play

Events = list[tuple[float, Event]]
BYTES = bytes(range(200))


def every(seconds: float, n: int) -> Events:
    """A byte at a time."""
    return [(number * seconds, Data(b"x")) for number in range(n)]


@pytest.mark.parametrize(
    ("one", "other"),
    [(Cut, Blackout), (Cut, Abort), (Blackhole, Hang)],
)
def test_two_names_of_one_thing_share_one_implementation(
    one: type[FlowHandler], other: type[FlowHandler]
) -> None:
    assert other.on is one.on
    assert other.name != one.name


# cut, blackout, abort


def test_cut_without_options_ends_the_connection_at_once() -> None:
    assert play([Cut()], [(0, Data(b"a"))]) == [(0, Close())]


def test_blackout_is_a_polite_end_at_once() -> None:
    assert play([Blackout()], [(1, Data(b"a"))]) == [(0, Close())]


def test_cut_by_time_though_data_flows() -> None:
    left = play([Cut({"time": 950})], every(0.2, 20))
    assert joined(left) == b"x" * 5
    assert left[-1] == near([(0.95, Close())])[0]


def test_cut_by_time_though_nothing_flows() -> None:
    assert play([Cut({"time": 950})], []) == near([(0.95, Close())])


def test_a_cut_after_no_time_lets_nothing_pass() -> None:
    assert play([Cut({"time": 0})], [(0, Data(b"a"))]) == [(0, Close())]


def test_cut_by_bytes_lets_exactly_those_pass() -> None:
    assert play([Cut({"bytes": 5})], [(0, Data(b"abc")), (1, Data(b"defg"))]) == [
        (0, Data(b"abc")),
        (1, Data(b"de")),
        (1, Close()),
    ]


def test_a_cut_comes_with_the_last_byte_and_does_not_wait_for_the_next() -> None:
    assert play([Cut({"bytes": 3})], [(0, Data(b"abc"))]) == [(0, Data(b"abc")), (0, Close())]


def test_a_cut_after_0_bytes_waits_for_the_first() -> None:
    assert play([Cut({"bytes": 0})], []) == []
    assert play([Cut({"bytes": 0})], [(7, Data(b"a"))]) == [(7, Close())]


def test_bytes_of_a_cut_count_in_each_exchange() -> None:
    events: Events = [
        (0, Begin(1)),
        (0, Data(b"abc")),
        (1, Begin(2)),
        (1, Data(b"def")),
        (2, Data(b"gh")),
    ]
    left = play([Cut({"bytes": 4})], events)
    assert joined(left) == b"abcdefg"
    assert left[-1] == (2, Close())


@pytest.mark.parametrize(
    ("options", "when"), [({"time": 500, "bytes": 9}, 0.5), ({"time": 500, "bytes": 2}, 0.2)]
)
def test_a_cut_comes_with_whichever_is_first(options: dict[str, int], when: float) -> None:
    left = play([Cut(options)], every(0.2, 10))
    assert left[-1] == near([(when, Close())])[0]


@pytest.mark.parametrize("side", ["client", "backend", "both"])
@pytest.mark.parametrize(("how", "end"), [("fin", Close), ("reset", Reset)])
def test_a_cut_says_how_and_whose_connection_ends(side: Any, how: str, end: Any) -> None:
    assert play([Cut({"side": side, "how": how})], []) == [(0, end(side))]


def test_a_reset_by_cut_drops_what_is_on_its_way() -> None:
    stages = [Cut({"bytes": 2, "how": "reset"}), Latency({"latency": 500})]
    assert play(stages, [(0, Data(b"a")), (0.1, Data(b"b"))]) == [(0.1, Reset())]


def test_a_fin_by_cut_comes_behind_what_is_on_its_way() -> None:
    stages = [Cut({"bytes": 2}), Latency({"latency": 500})]
    assert play(stages, [(0, Data(b"a")), (0.1, Data(b"b"))]) == near(
        [(0.5, b"a"), (0.6, b"b"), (0.6, Close())]
    )


def test_abort_throws_the_response_away_once_it_comes() -> None:
    stage = Abort()
    assert stage.options["bytes"] == 0
    assert play([stage], []) == []
    assert play([Abort()], [(0, Begin(1)), (3, Data(b"response"))]) == [(3, Close())]


@pytest.mark.parametrize("cls", [Cut, LimitData])
def test_an_update_to_less_than_has_passed_ends_with_the_next_byte(cls: Any) -> None:
    stage = cls({"bytes": 100})
    flow = Flow(stage)
    flow.push(bytes(50))
    flow.update(stage, bytes=20)
    assert len(flow.data) == 50
    flow.push(bytes(40))
    assert len(flow.data) == 50
    assert flow.left[-1] == (0, Close())


def test_an_update_of_cut_starts_its_time_anew() -> None:
    stage = Cut({"time": 1000})
    flow = Flow(stage)
    flow.run(0.6)
    flow.update(stage, time=700)
    flow.run(5)
    assert flow.left == near([(1.3, Close())])


def test_a_removed_cut_cuts_nothing() -> None:
    stage = Cut({"time": 1000})
    flow = Flow(stage)
    flow.run(0.6)
    flow.remove(stage)
    flow.run(5)
    assert flow.left == []


@pytest.mark.parametrize("cls", [Cut, LimitData, Truncate])
@given(st.integers(0, 210), st.lists(st.integers(0, 200), max_size=6))
@settings(deadline=None, max_examples=50)
def test_how_data_is_cut_changes_nothing_about_what_passes(
    cls: Any, limit: int, cuts: list[int]
) -> None:
    left = play([cls({"bytes": limit})], [(0, Data(piece)) for piece in pieces(BYTES, *cuts)])
    whole = play([cls({"bytes": limit})], [(0, Data(BYTES))])
    assert joined(left) == joined(whole) == BYTES[:limit]
    assert ends(left) == ends(whole)


# reset_peer: what Toxiproxy's does, as measured


@pytest.mark.parametrize("stream", ["downstream", "upstream", "both"])
def test_reset_peer_resets_both_sides_after_its_time_from_the_first_data(stream: str) -> None:
    stage = ResetPeer({"timeout": 1000, "stream": stream}, stream == "upstream")
    assert play([stage], [(7, Data(b"a"))]) == [(8, Reset())]


@differs("reset-peer-waits")
def test_reset_peer_drops_the_first_data_and_what_comes_behind_it() -> None:
    assert play([ResetPeer({"timeout": 1000})], every(0.3, 10)) == [(1, Reset())]


def test_reset_peer_without_a_time_resets_at_the_first_data() -> None:
    assert play([ResetPeer()], [(3, Data(b"a"))]) == [(3, Reset())]


@pytest.mark.parametrize("timeout", [0, 500])
def test_reset_peer_does_not_reset_a_connection_on_which_nothing_is_sent(timeout: int) -> None:
    flow = Flow(ResetPeer({"timeout": timeout}))
    flow.run(3600)
    assert flow.left == [] and not flow.chain.busy


@pytest.mark.parametrize("end", [EOF, Close()])
def test_an_end_counts_as_data_for_reset_peer(end: Event) -> None:
    assert play([ResetPeer({"timeout": 500})], [(1, end)]) == [(1.5, Reset())]


def test_reset_peer_on_an_open_connection_counts_from_the_first_data_too() -> None:
    # R6
    flow = Flow()
    flow.push(b"before")
    flow.run(100)
    flow.insert(ResetPeer({"timeout": 500}))
    flow.run(200)
    flow.push(b"after")
    flow.run(300)
    assert flow.data == b"before"
    assert flow.left[1:] == [(200.5, Reset())]


def test_reset_peer_gets_data_when_those_before_it_let_it_go() -> None:
    stages = [Latency({"latency": 300}), ResetPeer({"timeout": 1000})]
    assert play(stages, [(0, Data(b"a"))]) == near([(1.3, Reset())])


@differs("reset-peer-waits")
def test_a_removed_reset_peer_resets_at_once_where_data_is_gone() -> None:
    stage = ResetPeer({"timeout": 60_000})
    flow = Flow(stage)
    flow.push(b"a")
    flow.run(1)
    flow.remove(stage)
    assert flow.left == [(1, Reset())]


def test_a_removed_reset_peer_has_harmed_nobody_who_has_sent_nothing() -> None:
    stage = ResetPeer({"timeout": 60_000})
    flow = Flow(stage)
    flow.run(1)
    flow.remove(stage)
    flow.push(b"a")
    assert flow.data == b"a"


@pytest.mark.parametrize("sent", [True, False])
@differs("reset-peer-waits")
def test_an_update_of_reset_peer_starts_its_time_anew(sent: bool) -> None:
    stage = ResetPeer({"timeout": 1000})
    flow = Flow(stage)
    if sent:
        flow.push(b"a")
    flow.run(0.5)
    flow.update(stage, timeout=2000)
    flow.run(9)
    assert flow.left == (near([(2.5, Reset())]) if sent else [])


# reset


@pytest.mark.parametrize(("to_backend", "side"), [(False, "client"), (True, "backend")])
def test_a_reset_is_of_the_side_that_the_flow_goes_to(to_backend: bool, side: Any) -> None:
    stream = "upstream" if to_backend else "downstream"
    assert play([ResetClient({"stream": stream}, to_backend)], []) == [(0, Reset(side))]


@pytest.mark.parametrize("to_backend", [False, True])
def test_with_both_streams_both_sides_are_reset(to_backend: bool) -> None:
    assert play([ResetClient({"stream": "both"}, to_backend)], []) == [(0, Reset("both"))]


def test_a_reset_comes_after_its_time_though_data_flows() -> None:
    left = play([ResetClient({"timeout": 1000})], every(0.3, 10))
    assert joined(left) == b"xxxx"
    assert left[-1] == (1, Reset("client"))


def test_a_reset_comes_after_its_time_though_nothing_flows() -> None:
    assert play([ResetClient({"timeout": 1000})], []) == [(1, Reset("client"))]


def test_a_reset_does_not_wait_for_what_is_held() -> None:
    stages = [Latency({"latency": 60_000}), ResetClient({"timeout": 1000})]
    assert play(stages, [(0, Data(b"a"))]) == [(1, Reset("client"))]


def test_reset_lets_nothing_pass() -> None:
    assert play([ResetClient()], [(0, Data(b"a"))]) == [(0, Reset("client"))]


# timeout


def test_a_timeout_fires_though_data_flows_and_passes_none_of_it() -> None:
    # R7: a byte each 200 ms
    assert play([Timeout({"timeout": 1000})], every(0.2, 50)) == [(1, Close())]


def test_a_timeout_fires_though_nothing_flows() -> None:
    assert play([Timeout({"timeout": 1000})], []) == [(1, Close())]


def test_a_timeout_of_0_drops_all_and_never_closes() -> None:
    assert play([Timeout({"timeout": 0})], every(0.2, 50)) == []


def test_a_removed_timeout_closes_its_connections() -> None:
    for options in ({"timeout": 0}, {"timeout": 9000}):
        stage = Timeout(options)
        flow = Flow(stage)
        flow.push(b"a")
        flow.run(1)
        flow.remove(stage)
        assert flow.left == [(1, Close())]


def test_an_update_of_timeout_starts_its_time_anew() -> None:
    stage = Timeout({"timeout": 1000})
    flow = Flow(stage)
    flow.run(0.5)
    flow.update(stage, timeout=2000)
    flow.run(9)
    assert flow.left == [(2.5, Close())]


# limit_data


def test_limit_data_closes_once_so_many_bytes_have_passed() -> None:
    left = play([LimitData({"bytes": 5})], [(0, Data(b"abc")), (1, Data(b"de")), (2, Data(b"f"))])
    assert left == [(0, Data(b"abc")), (1, Data(b"de")), (1, Close())]


def test_limit_data_counts_over_all_exchanges() -> None:
    events: Events = [(0, Begin(1)), (0, Data(b"abc")), (1, Begin(2)), (1, Data(b"def"))]
    assert joined(play([LimitData({"bytes": 4})], events)) == b"abcd"


def test_a_limit_of_0_closes_with_the_first_byte_and_sends_none() -> None:
    assert play([LimitData()], []) == []
    assert play([LimitData()], [(5, Data(b"a"))]) == [(5, Close())]


def test_an_update_of_limit_data_keeps_its_count() -> None:
    stage = LimitData({"bytes": 100})
    flow = Flow(stage)
    flow.push(bytes(60))
    flow.update(stage, bytes=70)
    flow.push(bytes(60))
    assert len(flow.data) == 70
    assert flow.left[-1] == (0, Close())


# slow_close


def test_slow_close_delays_the_end_and_no_data() -> None:
    assert play([SlowClose({"delay": 300})], [(0, Data(b"a")), (1, EOF)]) == near(
        [(0, b"a"), (1.3, EOF)]
    )


def test_slow_close_delays_an_end_by_another_handler() -> None:
    left = play([Cut({"time": 100}), SlowClose({"delay": 300})], [])
    assert left == near([(0.4, Close())])


@pytest.mark.parametrize("change", ["update", "remove"])
def test_a_change_of_slow_close_passes_on_the_end_that_it_holds(change: str) -> None:
    stage = SlowClose({"delay": 300})
    flow = Flow(stage)
    flow.push(EOF)
    flow.run(0.1)
    (flow.update if change == "update" else flow.remove)(stage)
    flow.run(9)
    assert flow.left == near([(0.1, EOF)])


# truncate


def test_truncate_ends_the_flow_and_drops_what_follows() -> None:
    events: Events = [
        (0, Begin(1)),
        (0, Data(b"abc")),
        (1, Data(b"def")),
        (2, Data(b"g")),
        (3, EOF),
    ]
    left = play([Truncate({"bytes": 4})], events)
    assert left == [(0, Data(b"abc")), (1, Data(b"d")), (1, EOF)]


def test_truncate_leaves_a_shorter_exchange_alone() -> None:
    events: Events = [(0, Begin(1)), (0, Data(b"abc")), (1, Begin(2)), (1, Data(b"def")), (2, EOF)]
    left = play([Truncate({"bytes": 4})], events)
    assert left == [(0, Data(b"abc")), (1, Data(b"def")), (2, EOF)]


def test_truncate_counts_in_each_exchange() -> None:
    events: Events = [(0, Begin(1)), (0, Data(b"abc")), (1, Begin(2)), (1, Data(b"defgh"))]
    left = play([Truncate({"bytes": 4})], events)
    assert joined(left) == b"abcdefg"
    assert left[-1] == (1, EOF)


def test_truncate_after_0_bytes_sends_none() -> None:
    assert play([Truncate({"bytes": 0})], [(2, Begin(1)), (3, Data(b"a"))]) == [(3, EOF)]


@pytest.mark.parametrize(
    ("fraction", "length", "passes"), [(0.5, 10, 5), (0.25, 10, 2), (0, 10, 0), (0.999, 10, 9)]
)
def test_truncate_after_a_fraction_where_the_length_is_told(
    fraction: float, length: int, passes: int
) -> None:
    flow = Flow(Truncate({"fraction": fraction, "bytes": 1}))
    flow.begin(1, length=length)
    flow.push(bytes(4), bytes(6))
    assert len(flow.data) == passes
    assert flow.left[-1] == (0, EOF)


def test_an_update_of_truncate_keeps_its_count() -> None:
    stage = Truncate({"bytes": 1000})
    flow = Flow(stage)
    flow.begin(1)
    flow.push(bytes(60))
    flow.update(stage, bytes=70)
    flow.push(bytes(60))
    assert len(flow.data) == 70
    assert flow.left[-1] == (0, EOF)


@pytest.mark.parametrize(
    "cls", [Cut, ResetPeer, ResetClient, Timeout, LimitData, SlowClose, Truncate]
)
def test_open_never_comes_back(cls: Any) -> None:
    assert all(event is not OPEN or not delay for delay, event in cls().on(OPEN, 0))
