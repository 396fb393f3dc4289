"""A loop and its proxies from other threads, and several loops at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.relay.memory_rig import plan, spec, toxic
from tests.support import PATIENCE, Backend, dial, exchange, wait_for
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.errors import Stopping, UsageError
from vaurien.net.loop import Loop
from vaurien.relay.proxy import Proxy


class Running:
    """A loop in a thread of its own, with a proxy that has started."""

    def __init__(self, backend: Backend) -> None:
        self._ready = threading.Event()
        self._backend = backend
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self._ready.wait(PATIENCE)

    def _run(self) -> None:
        self.loop = Loop()
        distant = address(self._backend.address, "distant")
        self.proxy = Proxy(replace(plan(), distant=distant), loop=self.loop)
        self.proxy.start()
        self.over = Event()
        # Once its proxy has stopped nothing else keeps the loop from ending.
        awake = gevent.get_hub().loop.async_()
        awake.start(lambda: None)
        self._ready.set()
        self.over.wait()
        awake.close()
        self.proxy.stop()
        gevent.get_hub().destroy(destroy_loop=True)

    def end(self) -> None:
        """End the thread."""
        with contextlib.suppress(Stopping):
            self.loop.call(self.over.set)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    @property
    def address(self) -> str:
        return str(self.proxy.address)


@pytest.fixture
def running(echo_backend: Backend) -> Iterator[Running]:
    one = Running(echo_backend)
    yield one
    one.end()


def test_a_call_from_another_thread_runs_in_the_loops_and_gives_what_it_gives(
    running: Running,
) -> None:
    assert not running.loop.is_mine
    assert running.loop.call(threading.get_ident) == running.thread.ident
    assert running.loop.call(lambda a, b: a + b, 1, 2) == 3


def test_a_call_may_block_its_greenlet_and_others_go_on(running: Running) -> None:
    go = running.loop.call(Event)
    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(running.loop.call, go.wait, PATIENCE)
        assert running.loop.call(lambda: 7) == 7
        running.loop.call(go.set)
        assert waits.result(PATIENCE) is True


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, gevent.GreenletExit])
def test_what_a_call_raises_is_raised_where_it_was_called(
    running: Running, error: type[BaseException]
) -> None:
    def fails() -> None:
        raise error("on purpose")

    with pytest.raises(error, match="on purpose"):
        running.loop.call(fails)
    assert running.loop.call(lambda: "goes on") == "goes on"


def test_a_call_of_a_loop_that_has_ended_says_so(running: Running) -> None:
    running.end()
    with pytest.raises(Stopping, match="loop has ended"):
        running.loop.call(lambda: None)
    with pytest.raises(Stopping, match="loop has ended"):
        running.proxy.totals()


def test_a_call_that_waits_while_the_loop_ends_says_so(running: Running) -> None:
    began = threading.Event()

    def waits_for_good() -> None:
        began.set()
        Event().wait()

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(running.loop.call, waits_for_good)
        assert began.wait(PATIENCE)
        running.end()
        with pytest.raises(Stopping):
            waits.result(PATIENCE)


OPERATIONS: dict[str, Callable[[Proxy], Any]] = {
    "change": lambda proxy: proxy.change(
        replace(
            proxy.plan,
            behavior=behavior("100:slow", "behavior"),
            handlers={"slow": spec("slow", "latency", latency=1)},
        )
    ),
    "add_toxic": lambda proxy: proxy.add_toxic(toxic("late", "latency", latency=1)),
    "update_toxic": lambda proxy: proxy.update_toxic(toxic("there", "latency", latency=2)),
    "remove_toxic": lambda proxy: proxy.remove_toxic("there"),
    "look": lambda proxy: proxy.look(),
    "totals": lambda proxy: proxy.totals(),
    "connections": lambda proxy: proxy.connections,
    "stats": lambda proxy: proxy.stats,
    "done": lambda proxy: proxy.done(),
    "unmet": lambda proxy: proxy.unmet(),
    "drop": lambda proxy: proxy.drop(),
    "disable": lambda proxy: proxy.disable(),
    "stop": lambda proxy: proxy.stop(1.0),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_may_come_from_any_thread(running: Running, operation: str) -> None:
    proxy = running.proxy
    proxy.add_toxic(toxic("there", "latency", latency=1))
    with dial(running.address) as client:
        assert exchange(client, b"hello") == b"hello"
        OPERATIONS[operation](proxy)
        if operation in ("drop", "disable", "stop"):
            assert client.recv(1) == b""
            wait_for(lambda: proxy.connections == 0)
        else:
            assert exchange(client, b"again") == b"again"
            assert proxy.totals().received == (10, 10)


def test_an_operation_that_is_refused_raises_in_the_thread_that_asked(running: Running) -> None:
    with pytest.raises(UsageError, match="no toxic"):
        running.proxy.remove_toxic("missing")


def test_a_proxy_starts_again_from_another_thread(running: Running) -> None:
    running.proxy.disable()
    with pytest.raises(ConnectionRefusedError), dial(running.address):
        pass
    running.proxy.change(replace(running.proxy.plan, enabled=True))
    with dial(running.address) as client:
        assert exchange(client, b"hello") == b"hello"


def test_loops_in_several_threads_serve_at_once_while_others_steer_them(
    echo_backend: Backend,
) -> None:
    all_of = [Running(echo_backend) for _ in range(4)]

    def talk(one: Running) -> None:
        with dial(one.address) as client:
            for n in range(50):
                assert exchange(client, b"%06d" % n) == b"%06d" % n

    def steer(one: Running) -> None:
        for n in range(25):
            one.proxy.add_toxic(toxic(f"t{n}", "latency", latency=1))
            one.proxy.look()
            one.proxy.totals()
            one.proxy.remove_toxic(f"t{n}")

    try:
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(do, one) for one in all_of for do in (talk, steer)]:
                done.result(PATIENCE)
        for one in all_of:
            assert one.proxy.totals().received == (300, 300)
            assert one.proxy.totals().internal_errors == 0
    finally:
        for one in all_of:
            one.end()
