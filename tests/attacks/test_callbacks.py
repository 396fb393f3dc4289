"""No callback of the loop takes longer than 20 ms, whatever is configured and however many come."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.attacks.crowd import Crowd
from tests.attacks.helpers import Bystander
from tests.attacks.timed import TimedLoop
from tests.control.served import Served as Program
from tests.relay.rig import Served, builtin
from tests.support import Backend, wait_for
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.cli.run import GARBAGE
from vaurien.plan import Plan, Toxic
from vaurien.registry import builtins
from vaurien.registry import kind as registry_kind

MOST = 0.02  # seconds of the processor
CLIENTS = 40
SIZE = 1 << 16  # bytes that each of them sends at once
WORK = 1.0  # seconds of the processor after which a chain has shown what it does
CALLS = 1000  # callbacks after which it has, too: some chains have little to do, but without end
RUNS = 3  # of which one has to be within `MOST`: a machine under load takes its time from any

#: Handlers at the options with which they have most to do, some of them joined: each is a chain of
#: toxics, the first one nearest to the source.
WORST: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "slicer": [("slicer", {"average_size": 1})],
    "slicer, a little apart": [("slicer", {"average_size": 1, "delay": 1})],
    "slicer, any sizes": [("slicer", {"average_size": 1, "size_variation": 3})],
    "slicers": [("slicer", {"average_size": 1})] * 3,
    "latency": [("latency", {"latency": 200})],
    "latency, all at once": [("slicer", {"average_size": 1}), ("latency", {"latency": 200})],
    "latency of any kind": [
        ("slicer", {"average_size": 7}),
        ("latency", {"latency": 50, "jitter": 50, "distribution": "pareto", "correlation": 50}),
    ],
    "wave": [
        ("slicer", {"average_size": 1}),
        ("wave", {"latency": 100, "sine_amplitude": 100, "sine_period": 200}),
    ],
    "bandwidth": [("bandwidth", {"rate": 1})],
    "bandwidth, a lot": [("slicer", {"average_size": 1}), ("bandwidth", {"rate": 1_000_000})],
    "bandwidth, shared": [("bandwidth", {"rate": 100, "shared": True})],
    "bandwidth, shared in small pieces": [
        ("slicer", {"average_size": 1}),
        ("bandwidth", {"rate": 1000, "shared": True}),
    ],
    "stall": [("stall", {"packet": 1, "loss": 100, "rto": 1, "max_rto": 1})],
    "stall, in bursts": [
        ("stall", {"packet": 1, "loss": 90, "rto": 1, "model": "gilbert-elliott", "go_bad": 50})
    ],
    "trickle": [("trickle", {"duration": 100})],
    "trickle, cut": [("trickle", {"duration": 100}), ("slicer", {"average_size": 1})],
    "corrupt": [("corrupt", {"chance": 100})],
    "corrupt, cut": [("slicer", {"average_size": 1}), ("corrupt", {"chance": 50})],
    "pause": [("slicer", {"average_size": 1}), ("pause", {"time": 300})],
    "truncate": [("slicer", {"average_size": 1}), ("truncate", {"bytes": 60_000})],
    "blackhole": [("slicer", {"average_size": 1}), ("blackhole", {})],
    "cut": [("slicer", {"average_size": 1}), ("cut", {"bytes": 60_000})],
    "limit_data": [("slicer", {"average_size": 1}), ("limit_data", {"bytes": 60_000})],
    "slow_close": [("slicer", {"average_size": 1}), ("slow_close", {"delay": 100})],
    "timeout": [("slicer", {"average_size": 1}), ("timeout", {"timeout": 300})],
    "reset_peer": [("slicer", {"average_size": 1}), ("reset_peer", {"timeout": 300})],
    "noop": [("slicer", {"average_size": 1}), ("noop", {})],
    "delay": [("slicer", {"average_size": 1}), ("delay", {"sleep": 0.2})],
    "abort": [("slicer", {"average_size": 1}), ("abort", {"bytes": 60_000})],
    "ends": [
        ("latency", {"latency": 100}),
        ("slicer", {"average_size": 1}),
        ("blackout", {}),
        ("reset", {}),
        ("hang", {}),
    ],
}


class Timed(Served):
    """A proxy whose loop times its callbacks."""

    make_loop = TimedLoop


def plan(backend: str, *chain: tuple[str, dict[str, Any]], **more: Any) -> Plan:
    """Those handlers as toxics of a proxy before `backend`, in both directions."""
    toxics = tuple(
        Toxic(replace(builtin(name, **options), name=f"{stream}{number}"), stream=stream)
        for stream in ("upstream", "downstream")
        for number, (name, options) in enumerate(chain)
    )
    return Plan(
        address("127.0.0.1:0", ":"),
        address(backend, ":"),
        behavior("100:dummy", ":"),
        {},
        7,
        toxics=toxics,
        **more,
    )


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The garbage collector as the command line sets it."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def longest(chain: list[tuple[str, dict[str, Any]]]) -> tuple[float, str]:
    """How long the longest callback took with that many clients, and which it was."""
    with Crowd(CLIENTS, SIZE) as crowd, Timed(plan(crowd.address, *chain)) as served:
        crowd.begin(served.address)
        looks = [0]

        def over() -> bool:
            """Enough was done, or nothing is left to do: nothing is called, and nothing will be."""
            loop = served.loop
            looks.append(loop.calls)
            rests = looks[-1] == looks[-2] > CLIENTS and ": 0 set" in repr(loop.alarms)
            return loop.spent >= WORK or loop.calls >= CALLS or rests

        wait_for(over, "the chain is at work")
        return served.loop.longest, served.loop.which


@pytest.mark.parametrize("kind", WORST)
def test_no_callback_takes_long(kind: str) -> None:
    for run in range(RUNS):
        took, which = longest(WORST[kind])
        if took < MOST:
            return
        assert run < RUNS - 1, f"{took * 1000:.0f} ms in {which}"


def test_all_flow_handlers_are_among_them() -> None:
    names = {name for name, cls in builtins().items() if registry_kind(cls) == "flow"}
    shown = {name for chain in WORST.values() for name, _ in chain}
    assert shown == names


#: Toxics that make most of what is read, and many clients; each of these took seconds of the loop.
CROWDS = {
    "slicer": "slicer average_size=1, up: slicer average_size=1 stream=upstream",
    "many pieces at once": "slicer average_size=1, latency latency=200",
    "pieces of pieces": "trickle duration=200, slicer average_size=1",
    "one line for all": "slicer average_size=1, bandwidth rate=1000 shared=yes",
    "losses": "latency latency=100, stall packet=1 loss=50 rto=1 max_rto=1",
}


@pytest.mark.parametrize("kind", CROWDS)
def test_many_that_are_cut_hold_up_nobody(echo_backend: Backend, kind: str) -> None:
    # No callback takes long, and 100 of them in one turn of the loop do.
    with (
        Crowd(100, SIZE) as crowd,
        Program("--distant", crowd.address, "--toxics", CROWDS[kind]) as vaurien,
        Bystander(vaurien.create("others", echo_backend.address), vaurien.pid) as others,
    ):
        crowd.begin(vaurien.address)
        others.unharmed(100)
        vaurien.api.get("/version")  # in less than a second


def test_a_toxic_that_goes_lets_go_of_all_that_it_holds_at_once(echo_backend: Backend) -> None:
    with (
        Crowd(100, SIZE) as crowd,
        Program("--distant", crowd.address) as vaurien,
        Bystander(vaurien.create("others", echo_backend.address), vaurien.pid) as others,
    ):
        add = f"/proxies/{vaurien.name}/toxics"
        vaurien.api.post(add, {"type": "slicer", "attributes": {"average_size": 1}})
        vaurien.api.post(add, {"type": "latency", "attributes": {"latency": 60_000}})
        crowd.begin(vaurien.address)
        others.unharmed(100)
        vaurien.api.delete(f"{add}/latency_downstream")
        others.unharmed(100)
