"""A change of behavior ends the calls of the handlers that go, and waits for none of them.

The farm's operations are called as the API calls them, in this process's loop.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.control.test_farm import built, dial, plan, set_behavior
from tests.loops import wait_for
from tests.support import PATIENCE, Backend, echo
from tests.test_settings import resolved
from vaurien.behavior import parse
from vaurien.control.farm import Farm
from vaurien.handlers import BaseHandler
from vaurien.relay.call import Call


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend(echo) as made:
        yield made


@pytest.fixture
def farm(backend: Backend) -> Iterator[Farm]:
    """One with a proxy, ``a``."""
    made = Farm(resolved(http="yes", http_port="0", seed="7"))
    made.create(plan(backend))
    yield made
    for name in list(made.proxies):
        made.delete(name)


def living() -> list[Call]:
    """The calls whose greenlets have not ended."""
    return [one for one in gc.get_objects() if isinstance(one, Call) and not one.dead]


class Reluctant(BaseHandler):
    """Is called, and takes its time to go; the events are made by the test."""

    name = "building"
    options: Any = {}
    called: Event
    told: Event
    may_go: Event

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        self.called.set()
        try:
            gevent.sleep(3600)
        finally:
            self.told.set()
            self.may_go.wait()


class Asleep(BaseHandler):
    """Reads nothing for as long as it is there."""

    name = "building"
    options: Any = {}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        gevent.sleep(3600)


class Deaf(Reluctant):
    """Goes on as if it had not been told to end."""

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        try:
            super().__call__(client_sock, backend_sock, to_backend)
        except gevent.GreenletExit:
            self.may_go.wait()


@pytest.mark.parametrize("base", [Reluctant, Deaf])
def test_a_handler_that_is_slow_to_go_holds_up_no_change(farm: Farm, base: type[Reluctant]) -> None:
    class Slow(base):  # type: ignore[valid-type,misc]
        called, told, may_go = Event(), Event(), Event()

    behaviors = {"behavior": parse("100:building", "")}
    with dial(farm.get("a")) as client:
        farm.set_behavior("a", behaviors, built(Slow))
        client.sendall(b"hello")
        assert Slow.called.wait(PATIENCE)
        with gevent.Timeout(PATIENCE):
            set_behavior(farm, "a", "100:dummy")
        assert living(), "it still waits, and the change is done"
        assert client.recv(5) == b"hello", "what it had not read is passed on"
        assert Slow.told.wait(PATIENCE), "it was not told to end"
        client.sendall(b"again")
        assert client.recv(5) == b"again"
        Slow.may_go.set()
        wait_for(lambda: not living())


def test_a_change_ends_every_call_that_has_read_nothing(farm: Farm) -> None:
    clients = [dial(farm.get("a")) for _ in range(10)]
    farm.set_behavior("a", {"behavior": parse("100:building", "")}, built(Asleep))
    for client in clients:
        client.sendall(b"hello")
    wait_for(lambda: len(living()) == 10)
    set_behavior(farm, "a", "100:dummy")
    for client in clients:
        assert client.recv(5) == b"hello"
    wait_for(lambda: not living())
    for client in clients:
        client.close()


def test_a_call_that_is_ended_leaves_no_greenlet(farm: Farm) -> None:
    with dial(farm.get("a")) as client:
        farm.set_behavior("a", {"behavior": parse("100:building", "")}, built(Asleep))
        client.sendall(b"hello")
        wait_for(living)
        set_behavior(farm, "a", "100:dummy")
        wait_for(lambda: not living())
        assert client.recv(5) == b"hello", "what it had not read is passed on"
        assert farm.get("a").connections == 1
