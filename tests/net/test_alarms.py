"""Alarms: what wakes flows is there before anybody listens, once for all proxies of a loop."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests import loops
from tests.control.farms import Farm, write
from tests.net.test_accept import limit_descriptors
from tests.support import PATIENCE, Backend, clients, exchange, proxy, wait_for
from vaurien.net.alarms import TURN, Alarms
from vaurien.net.system import LoopTimer, TimerFd

HELD = ("--behavior", "100:latency", "--handlers.latency.latency", 10)

HEAD = """
import os
import resource
import sys

import gevent
from gevent import socket

from vaurien import ListenError, Plan, Proxy, Specification, Toxic
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.handlers.latency import Latency


def made(local="127.0.0.1:0"):
    return Proxy(Plan(
        local=address(local, "local"),
        distant=address(sys.argv[1], "distant"),
        behavior=behavior("100:dummy", "behavior"),
        handlers={},
        seed=1,
        name="one",
    ))


"""


def told(tmp_path: Path, script: str, *arguments: str) -> str:
    """What a program prints that has proxies inside."""
    path = tmp_path / "embedding.py"
    path.write_text(HEAD + script)
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_first_held_when_descriptors_have_run_out_goes_on(echo_backend: Backend) -> None:
    with proxy(echo_backend, *HELD, "--connect-timeout", 60) as vaurien:
        before = vaurien.descriptors()
        with vaurien.dial() as first:
            wait_for(lambda: vaurien.descriptors() == before + 2, "it has been dialled")
            limit_descriptors(vaurien, before + 12)
            with clients(vaurien.address, 30):
                vaurien.wait_log("accepting pauses.*open files")
                assert exchange(first, b"hello") == b"hello"


def test_a_proxy_that_would_have_no_alarms_does_not_listen(
    tmp_path: Path, echo_backend: Backend
) -> None:
    script = """
proxy = made()
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
try:
    while True:
        os.dup(0)
except OSError:
    pass
try:
    proxy.start()
except ListenError as error:
    print(error)
"""
    text = told(tmp_path, script, echo_backend.address)
    assert "proxy 'one': local: cannot listen on 127.0.0.1:0: no descriptor is left" in text


@pytest.mark.needs("libc.timerfd_create")
def test_all_proxies_share_what_wakes_their_flows(tmp_path: Path, echo_backend: Backend) -> None:
    text = "".join(
        f"[proxy:p{n}]\nlocal = 127.0.0.1:0\ndistant = {echo_backend.address}\n"
        "toxics = latency latency=1 stream=both\n"
        for n in range(5)
    )
    with Farm("--config", write(tmp_path / "farm.ini", text), ready=5, has_api=False) as farm:
        with contextlib.ExitStack() as stack:
            for address in farm.proxies.values():
                (client,) = stack.enter_context(clients(address, 1))
                assert exchange(client, b"hello") == b"hello"
        links = Path(f"/proc/{farm.pid}/fd").iterdir()
        assert [os.readlink(link) for link in links].count("anon_inode:[timerfd]") == 1


def test_a_loop_whose_proxies_have_stopped_has_nothing_left_to_do(
    tmp_path: Path, echo_backend: Backend
) -> None:
    script = """
def late(milliseconds):
    return Toxic(Specification("latency", Latency, {"latency": milliseconds}))


proxy = made()
proxy.start()
proxy.add_toxic(late(1))
client = socket.create_connection(("127.0.0.1", proxy.address.port))
client.sendall(b"hello")
print(client.recv(5))
proxy.update_toxic(late(60_000))
client.sendall(b"held")
while not proxy.look()[0].held:
    gevent.sleep(0)
proxy.stop()
client.close()
print(gevent.wait(timeout=10))
"""
    assert told(tmp_path, script, echo_backend.address).split() == ["b'hello'", "True"]


class Sleepers:
    """Who notes when it is woken, and passes time by that."""

    def __init__(self, clock: list[float], takes: float) -> None:
        self.clock, self.takes = clock, takes
        self.woken: list[float] = []

    def wake(self, now: float) -> None:
        self.woken.append(now)
        self.clock[0] += self.takes


class Rung:
    """A bell that a test rings."""

    def __init__(self, _loop: object, ring: Callable[[], None]) -> None:
        self.ring = ring
        self.due = 0.0
        self.held = False

    def set(self, due: float) -> None:
        self.due = due

    def hold_loop(self, held: bool) -> None:
        self.held = held

    def close(self) -> None: ...


def test_many_alarms_at_once_give_way_to_others_after_a_turn() -> None:
    clock, bells = [100.0], []

    def make(loop: object, ring: Callable[[], None]) -> Rung:
        bells.append(Rung(loop, ring))
        return bells[-1]

    alarms = Alarms(None, lambda: clock[0], make)
    alarms.join()
    sleeper = Sleepers(clock, TURN / 100)
    for n in range(1000):
        alarms.set(50.0 + n / 1000, sleeper)
    (bell,) = bells
    turns = []
    while bell.due:
        before, start = len(sleeper.woken), clock[0]
        bell.ring()
        turns.append(len(sleeper.woken) - before)
        assert clock[0] - start < TURN * 1.2
    assert sum(turns) == 1000
    assert len(turns) >= 8
    assert not bell.held


def test_an_alarm_that_is_given_up_does_not_ring_and_leaves_nothing() -> None:
    clock, bells = [100.0], []

    def make(loop: object, ring: Callable[[], None]) -> Rung:
        bells.append(Rung(loop, ring))
        return bells[-1]

    alarms = Alarms(None, lambda: clock[0], make)
    alarms.join()
    sleeper = Sleepers(clock, 0)
    for _ in range(5000):
        alarms.give_up(alarms.set(200.0, sleeper))
    assert ": 0 set" in repr(alarms)
    assert len(alarms._heap) < 2500  # not all that were ever set
    assert not bells[0].held
    clock[0] = 300.0
    bells[0].ring()
    assert sleeper.woken == []
    assert bells[0].due == 0.0


KINDS = [
    LoopTimer,
    pytest.param(TimerFd, marks=pytest.mark.needs("libc.timerfd_create")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_both_bells_ring_once_at_their_time_and_anew_when_set_anew(
    kind: Callable[..., Any],
) -> None:
    rang: list[float] = []

    def ring() -> None:
        rang.append(time.monotonic())
        bell.set(0.0)

    bell = kind(gevent.get_hub().loop, ring)
    try:
        due = time.monotonic() + 0.05
        bell.set(due)
        until_rung(rang, 1)
        assert due <= rang[0]
        bell.set(time.monotonic() + 60)
        bell.set(time.monotonic() - 1)  # the past is now
        until_rung(rang, 2)
        later: list[float] = []

        def ring_other() -> None:
            later.append(time.monotonic())
            other.set(0.0)

        other: Any = kind(gevent.get_hub().loop, ring_other)
        try:
            bell.set(time.monotonic() + 0.02)
            bell.set(0.0)
            other.set(time.monotonic() + 0.04)
            until_rung(later, 1)
        finally:
            other.close()
        assert len(rang) == 2
    finally:
        bell.close()


@pytest.mark.parametrize("kind", KINDS)
def test_both_bells_keep_a_loop_going_only_while_held(kind: Callable[..., Any]) -> None:
    rang: list[bool] = []
    bell = kind(gevent.get_hub().loop, lambda: rang.append(True))
    try:
        bell.set(time.monotonic() + 0.05)
        bell.hold_loop(True)
        assert gevent.wait(timeout=0.02) is False
        bell.hold_loop(False)
        assert gevent.wait(timeout=5) is True
        assert not rang
    finally:
        bell.close()


def until_rung(rang: list[float], n: int) -> None:
    """Let the loop run until it has rung so often."""
    loops.wait_for(lambda: len(rang) >= n)
    assert len(rang) == n


# the third one, as the system's 64 bits have it, is long over: it rang without end
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("delay", [2.0**63, 2.0**64, 2.0**64 - time.monotonic() / 2, 1e300])
def test_an_alarm_that_no_clock_can_tell_never_rings(make: Any, delay: float) -> None:
    rung: list[float] = []

    class Sleeper:
        def wake(self, now: float) -> None:
            rung.append(now)

    class Counting(Alarms):
        rings = 0

        def _ring(self) -> None:
            self.rings += 1
            super()._ring()

    alarms = Counting(gevent.get_hub().loop, make=make)
    alarms.join()
    try:
        sleeper = Sleeper()
        alarms.set(time.monotonic() + delay, sleeper)
        soon = alarms.set(time.monotonic() + 0.05, sleeper)
        loops.wait_for(lambda: rung)
        alarms.set(time.monotonic() + 0.1, sleeper)
        loops.wait_for(lambda: len(rung) > 1)
        assert len(rung) == 2
        assert soon.sleeper is sleeper
        assert alarms.rings < 5
    finally:
        alarms.leave()


def test_one_that_is_due_for_long_and_sets_itself_anew_keeps_nobody_waiting() -> None:
    # A flow whose backlog has been due for seconds wakes again and again, each time as due as ever.
    class Backlog:
        def __init__(self) -> None:
            self.woken = 0

        def wake(self, now: float) -> None:
            self.woken += 1
            until = time.monotonic() + 2 * TURN
            while time.monotonic() < until:
                pass
            alarms.set(1.0, self)

    class Short:
        woken = False

        def wake(self, now: float) -> None:
            self.woken = True

    alarms = Alarms(gevent.get_hub().loop)
    alarms.join()
    try:
        behind, late = [Backlog() for _ in range(5)], Short()
        for one in behind:
            alarms.set(1.0, one)
        alarms.set(2.0, late)
        loops.wait_for(lambda: late.woken)
        assert max(one.woken for one in behind) <= 2  # the first may be next to it
    finally:
        alarms.leave()


def test_alarms_that_are_given_up_once_they_were_found_due_are_forgotten() -> None:
    class Slow:
        def wake(self, now: float) -> None:
            woken.append(now)
            time.sleep(2 * TURN)

    woken: list[float] = []
    alarms = Alarms(gevent.get_hub().loop)
    alarms.join()
    try:
        found = [alarms.set(1.0, Slow()) for _ in range(3000)]
        loops.wait_for(lambda: woken)
        n = len(woken)
        for alarm in found[n:]:
            alarms.give_up(alarm)
        far = alarms.set(time.monotonic() + 1000, Slow())
        after: list[float] = []
        mark = LoopTimer(gevent.get_hub().loop, lambda: after.append(time.monotonic()))
        mark.set(time.monotonic() + TURN)
        loops.wait_for(lambda: after)
        mark.close()
        assert len(woken) == n
        assert repr(alarms) == "<Alarms: 1 set, 1 users>"
        alarms.give_up(far)
        assert repr(alarms) == "<Alarms: 0 set, 1 users>"
    finally:
        alarms.leave()
