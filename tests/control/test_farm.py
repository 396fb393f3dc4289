"""The farm's operations, called as the API calls them: done when they return, whole or not at all.

They run in this process's loop; only who resolves a name slowly is a stand-in.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket
from gevent.event import Event

from tests.control.farms import free_port
from tests.loops import wait_for
from tests.support import ABORT, PATIENCE, Backend, echo
from tests.test_settings import resolved
from vaurien.behavior import parse
from vaurien.control.farm import Entry, Farm
from vaurien.errors import (
    AlreadyThere,
    ListenError,
    NotFound,
    Stopping,
    UsageError,
    VaurienError,
)
from vaurien.flow import Data
from vaurien.handlers import BaseHandler, FlowHandler
from vaurien.net import dial as dial_
from vaurien.net import listener
from vaurien.observe.events import Began, Changed
from vaurien.observe.events import Event as Told
from vaurien.options import Raw
from vaurien.plan import NOTHING, Plan, Specification, Toxic
from vaurien.relay.proxy import Proxy


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as backend:
        yield backend


@pytest.fixture
def farm() -> Iterator[Farm]:
    """One without proxies."""
    farm = Farm(resolved(http="yes", http_port="0", seed="7"))
    farm.start()
    yield farm
    for name in list(farm.proxies):
        farm.delete(name)


def plan(backend: Backend | str, name: str = "a", **options: Any) -> Plan:
    """A plan as a section would make it."""
    behavior = options.pop("behavior", "100:dummy")
    local = options.pop("local", "127.0.0.1:0")
    distant = backend if isinstance(backend, str) else backend.address
    made = resolved(local=local, distant=distant, behavior=behavior, seed="7").plan
    return replace(made, name=name, **options)


def toxic(farm: Farm, kind: str = "latency", name: str = "t", **options: Any) -> Toxic:
    raws = {key: Raw(value, key) for key, value in options.items()}
    return farm.catalog.toxic(kind, name, "downstream", 1.0, raws)


def set_behavior(
    farm: Farm, name: str, text: str, ttl: float | None = None, **options: Any
) -> None:
    behavior = parse(text, "behavior")
    given = {
        handler: {key: Raw(value, key) for key, value in values.items()}
        for handler, values in options.items()
    }
    handlers = farm.catalog.choose(behavior, options=given)
    farm.set_behavior(name, {"behavior": behavior}, handlers, ttl)


def populate(farm: Farm, wanted: Plan, *given: str, ttl: float | None = None) -> Proxy:
    (proxy,) = farm.populate([Entry(wanted, given, ttl)])
    return proxy


def dial(proxy: Proxy | str) -> Any:
    """A client in this loop."""
    place = proxy if isinstance(proxy, str) else str(proxy.address)
    host, _, port = place.rpartition(":")
    return gsocket.create_connection((host, int(port)), timeout=PATIENCE)


def exchange(client: Any, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return bytes(client.recv(len(data)))


def serves(proxy: Proxy | str) -> bool:
    with dial(proxy) as client:
        return exchange(client) == b"hello"


def is_closed(place: str) -> bool:
    try:
        dial(place).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Names do not resolve before this is set."""
    answers, real = Event(), dial_.resolve

    def resolve(*arguments: Any, **keywords: Any) -> Any:
        assert answers.wait(PATIENCE)
        return real(*arguments, **keywords)

    monkeypatch.setattr(listener, "resolve", resolve)
    return answers


# Making and ending


def test_a_proxy_that_is_changed_before_it_is_started_does_not_listen_for_it(
    farm: Farm, backend: Backend
) -> None:
    proxy = Proxy(plan(backend, local="127.0.0.1:1"))
    proxy.change(replace(proxy.plan, local=parse_local(f"127.0.0.1:{free_port()}")))
    proxy.add_toxic(toxic(farm))
    assert is_closed(str(proxy.plan.local))
    proxy.start()
    assert serves(proxy)
    proxy.disable()


def test_a_proxy_serves_when_create_returns_and_is_gone_when_delete_does(
    farm: Farm, backend: Backend
) -> None:
    proxy = farm.create(plan(backend))
    place = str(proxy.address)
    with dial(proxy) as client:
        assert exchange(client) == b"hello"
        assert farm.get("a") is farm.first() is proxy
        farm.delete("a")
        assert is_closed(place)
        assert client.recv(1) == b""
    assert list(farm) == []


def test_who_is_not_there_is_not_found(farm: Farm) -> None:
    for call in (
        lambda: farm.first(),
        lambda: farm.get("a"),
        lambda: farm.delete("a"),
        lambda: farm.enable("a"),
        lambda: farm.disable("a"),
        lambda: farm.drop("a"),
        lambda: farm.reset("a"),
        lambda: farm.toxic("a", "t"),
        lambda: farm.change("a", lambda before: before),
        lambda: farm.add_toxic("a", toxic(farm)),
        lambda: farm.remove_toxic("a", "t"),
        lambda: set_behavior(farm, "a", "100:dummy"),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_toxic_or_connection_that_is_not_there_is_not_found(farm: Farm, backend: Backend) -> None:
    farm.create(plan(backend))
    for call in (
        lambda: farm.toxic("a", "t"),
        lambda: farm.update_toxic("a", toxic(farm)),
        lambda: farm.remove_toxic("a", "t"),
        lambda: farm.drop("a", 1),
    ):
        with pytest.raises(NotFound):
            call()
    assert farm.drop("a") == 0


def test_a_name_that_is_taken_is_refused_and_nothing_listens(farm: Farm, backend: Backend) -> None:
    before = farm.create(plan(backend))
    place = f"127.0.0.1:{free_port()}"
    with pytest.raises(AlreadyThere):
        farm.create(plan(backend, local=place))
    assert farm.get("a") is before
    assert is_closed(place)


def test_a_port_in_use_makes_no_proxy(farm: Farm, backend: Backend) -> None:
    with pytest.raises(ListenError) as caught:
        farm.create(plan("127.0.0.1:1", local=backend.address))
    assert backend.address in str(caught.value) and "'a'" in str(caught.value)
    assert list(farm) == []
    farm.create(plan(backend))


def test_a_handler_that_cannot_be_made_makes_no_proxy(farm: Farm, backend: Backend) -> None:
    place = f"127.0.0.1:{free_port()}"
    with pytest.raises(VaurienError, match="no luck"):
        farm.create(plan(backend, local=place, behavior="10:tests.control.broken.Broken"))
    assert list(farm) == []
    assert is_closed(place)


def test_if_one_cannot_listen_none_does(backend: Backend) -> None:
    places = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    settings = resolved(http="yes")
    plans = [plan(backend, name, local=place) for name, place in zip("abc", places, strict=True)]
    settings.plans = (*plans, plan("127.0.0.1:1", "last", local=backend.address))
    farm = Farm(settings)
    with pytest.raises(ListenError, match="last"):
        farm.start()
    assert all(map(is_closed, places))


def test_a_disabled_one_does_not_listen_before_it_is_enabled(farm: Farm, backend: Backend) -> None:
    place = f"127.0.0.1:{free_port()}"
    proxy = farm.create(plan(backend, local=place, enabled=False))
    assert is_closed(place) and not proxy.enabled
    assert farm.enable("a") is proxy
    assert serves(place)
    for name in ("x", "y"):  # a port of its own, when it is enabled or reset
        farm.create(plan(backend, name, enabled=False))
    assert serves(farm.enable("x"))
    farm.reset()
    assert serves(farm.get("y"))


# Changing


def test_a_change_that_cannot_be_leaves_the_old_listener(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend, behavior="10:noop"))
    place, before = str(proxy.address), proxy.plan
    with socket.create_server(("127.0.0.1", 0)) as taken, dial(proxy) as client:
        exchange(client)
        used = parse_local(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ListenError):
            farm.change("a", lambda p: replace(p, local=used, behavior=parse("20:noop", "b")))
        assert exchange(client) == b"hello"
        assert proxy.plan == before
    assert serves(place)


def parse_local(text: str) -> Any:
    return resolved(local=text, distant="a:1").plan.local


def test_another_address_and_another_backend(farm: Farm, backend: Backend) -> None:
    def other_one(sock: socket.socket) -> None:
        sock.sendall(b"other")

    proxy = farm.create(plan(backend))
    old, new = str(proxy.address), f"127.0.0.1:{free_port()}"
    farm.add_toxic("a", toxic(farm, latency=1))
    with Backend(other_one) as other:
        distant = parse_local(other.address)
        with dial(old) as client:
            exchange(client)
            farm.change("a", lambda p: replace(p, local=parse_local(new), distant=distant))
            assert client.recv(1) == b""
        assert is_closed(old)
        with dial(new) as client:
            assert client.recv(5) == b"other"
        assert [toxic.name for toxic in proxy.plan.toxics] == ["t"]


def test_a_change_to_the_same_keeps_connections(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend))
    with dial(proxy) as client:
        exchange(client)
        farm.change("a", lambda p: p)
        farm.change("a", lambda p: replace(p, local=parse_local(str(proxy.address))))
        farm.enable("a")
        assert exchange(client) == b"hello"


def test_populate_leaves_what_is_the_same_and_replaces_what_differs(
    farm: Farm, backend: Backend
) -> None:
    proxy = populate(farm, plan(backend))
    place = proxy.address
    with dial(proxy) as client:
        exchange(client)
        assert populate(farm, plan(backend)) is proxy  # port 0 is the port that it got
        assert populate(farm, plan(backend, local=str(place))) is proxy
        populate(farm, plan(backend, toxics=(toxic(farm, latency=1),)), "toxics")
        assert exchange(client) == b"hello"
        assert [one.name for one in proxy.plan.toxics] == ["t"]
        populate(farm, plan(backend))
        assert [one.name for one in proxy.plan.toxics] == ["t"], "nobody spoke of toxics"
        with Backend(echo) as other:
            populate(farm, plan(other))
            assert client.recv(1) == b""
            assert serves(farm.get("a"))
        assert farm.get("a").plan.toxics == ()


def test_reset_goes_on_if_one_cannot_listen(farm: Farm, backend: Backend) -> None:
    first = farm.create(plan(backend, "first"))
    place = str(first.address)
    farm.create(plan(backend, "last", behavior="10:noop"))
    farm.disable("first")
    with socket.create_server((place.rpartition(":")[0], first.address.port)):
        with pytest.raises(ListenError):
            farm.reset()
        assert str(farm.get("last").plan.behavior) == "100:dummy"
    farm.reset()
    assert serves(place)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_no_proxy_is_its_own_backend(farm: Farm, backend: Backend, host: str) -> None:
    proxy = farm.create(plan(backend))
    own = parse_local(f"{host}:{proxy.address.port}")
    with pytest.raises(UsageError, match="listens itself"):
        farm.change("a", lambda p: replace(p, distant=own))
    with pytest.raises(UsageError, match="listens itself"):
        farm.change("a", lambda p: replace(p, local=parse_local(backend.address)))
    assert serves(proxy)


# In their order, on open connections too


class Mark(FlowHandler):
    """Puts a letter behind each piece of data."""

    name = "mark"
    options: Any = {"letter": ("Which", str, "?")}

    def on(self, event: Any, now: float) -> Any:
        if type(event) is not Data:
            return ((0.0, event),)
        return ((0.0, Data(event.data + self.options["letter"].encode())),)


def mark(name: str) -> Specification:
    return Specification(name, Mark, {"letter": name})


@pytest.mark.parametrize(
    ("before", "after"), [("ac", "abc"), ("abc", "cab"), ("abc", "cba"), ("abcd", "xdbay")]
)
def test_open_connections_pass_toxics_in_the_order_of_the_plan(
    farm: Farm, backend: Backend, before: str, after: str
) -> None:
    proxy = farm.create(plan(backend, toxics=tuple(Toxic(mark(name)) for name in before)))
    with dial(proxy) as client:
        client.sendall(b"-")
        assert client.recv(100) == b"-" + before.encode()
        farm.change("a", lambda p: replace(p, toxics=tuple(Toxic(mark(name)) for name in after)))
        client.sendall(b"-")
        assert client.recv(100) == b"-" + after.encode()


@pytest.mark.parametrize("after", ["100:b+a", "100:c+b+a", "100:a+c+b", "50:b+a,50:b+a+c"])
def test_open_connections_pass_handlers_in_the_order_of_the_behavior(
    farm: Farm, backend: Backend, after: str
) -> None:
    proxy = farm.create(plan(backend))
    handlers = {name: mark(name) for name in "abc"}
    farm.set_behavior("a", {"behavior": parse("100:a+b", "")}, handlers)
    with dial(proxy) as client:
        client.sendall(b"-")
        assert client.recv(100) == b"-ab"
        behavior = parse(after, "")
        farm.set_behavior("a", {"behavior": behavior}, handlers)
        allowed = {f"-{part.replace('+', '')}".encode() for _, part in behavior.parts}
        seen = set()
        for _ in range(40):
            client.sendall(b"-")
            seen.add(client.recv(100))
        assert seen == allowed


def test_a_handler_that_keeps_its_place_keeps_what_it_holds(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend))
    hour = {"latency": 3_600_000}
    set_behavior(farm, "a", "50:noop,50:latency", latency=hour)
    with dial(proxy) as client:
        set_behavior(farm, "a", "100:latency", latency=hour)
        client.sendall(b"hello")
        wait_for(lambda: proxy.look() and proxy.look()[0].held)
        # never together, so that which comes first says nothing
        set_behavior(farm, "a", "20:latency,20:cut,20:noop,20:bandwidth+cut", latency=hour)
        set_behavior(farm, "a", "20:bandwidth+noop,20:latency", latency=hour)
        assert proxy.look()[0].held


# Nothing waits for the data path


@pytest.mark.parametrize("behavior", ["100:delay", "100:latency", "100:hang", "100:pause"])
def test_a_handler_at_work_holds_up_no_operation(
    behavior: str, farm: Farm, backend: Backend
) -> None:
    proxy = farm.create(plan(backend))
    name = behavior.partition(":")[2]
    options: dict[str, Any] = {"delay": {"sleep": 3600}, "latency": {"latency": 3_600_000}}
    set_behavior(farm, "a", behavior, **{n: values for n, values in options.items() if n == name})
    with dial(proxy) as client:
        client.sendall(b"hello")
        wait_for(lambda: proxy.look() and proxy.look()[0].received[0])
        for operation in (
            lambda: farm.add_toxic("a", toxic(farm, latency=1)),
            lambda: farm.update_toxic("a", toxic(farm, latency=2)),
            lambda: set_behavior(farm, "a", "100:dummy"),
            lambda: farm.remove_toxic("a", "t"),
            lambda: farm.reset("a"),
            lambda: farm.disable("a"),
            lambda: farm.enable("a"),
        ):
            start = time.monotonic()
            operation()
            assert time.monotonic() - start < 0.5
    assert serves(proxy)


# While a name is resolved, others go on


def test_two_of_one_name_at_once_and_one_is_refused(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    def create() -> object:
        try:
            return farm.create(plan(backend, local="localhost:0"))
        except AlreadyThere as error:
            return error

    both = [gevent.spawn(create) for _ in range(2)]
    gevent.sleep(0)
    assert list(farm) == []
    slow.set()
    found = [one.get(timeout=PATIENCE) for one in both]
    assert sorted(type(one).__name__ for one in found) == ["AlreadyThere", "Proxy"]
    assert serves(farm.get("a"))


def test_a_proxy_deleted_while_its_new_name_is_resolved(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    farm.create(plan(backend))
    port = free_port()
    moving = gevent.spawn(
        lambda: farm.change("a", lambda p: replace(p, local=parse_local(f"localhost:{port}")))
    )
    gevent.sleep(0)
    farm.delete("a")
    again = farm.create(plan(backend))
    slow.set()
    with pytest.raises(NotFound):
        moving.get(timeout=PATIENCE)
    assert is_closed(f"127.0.0.1:{port}")
    assert serves(again)


def test_what_another_changes_meanwhile_is_not_lost(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    proxy = farm.create(plan(backend))
    moving = gevent.spawn(
        lambda: farm.change("a", lambda p: replace(p, local=parse_local("localhost:0")))
    )
    gevent.sleep(0)
    farm.add_toxic("a", toxic(farm, latency=1))
    set_behavior(farm, "a", "10:noop")
    slow.set()
    moving.get(timeout=PATIENCE)
    assert [one.name for one in proxy.plan.toxics] == ["t"]
    assert str(proxy.plan.behavior) == "10:noop"
    assert serves(proxy)


def test_a_change_while_a_reload_resolves_is_whole(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    farm.create(plan(backend, "mine"))
    settings = resolved(http="yes")
    settings.plans = (plan(backend, "a", local="localhost:0"),)
    reloading = gevent.spawn(farm.reload, settings)
    gevent.sleep(0)
    farm.delete("mine")
    farm.create(plan(backend, "other"))
    slow.set()
    assert reloading.get(timeout=PATIENCE)["created"] == ["a"]
    assert [proxy.name for proxy in farm] == ["a", "other"]
    assert serves(farm.get("a")) and serves(farm.get("other"))


def test_two_reloads_at_once_are_one_after_the_other(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    def settings(*names: str) -> Any:
        made = resolved(http="yes")
        made.plans = tuple(plan(backend, name, local="localhost:0") for name in names)
        return made

    one = gevent.spawn(farm.reload, settings("a", "b"))
    other = gevent.spawn(farm.reload, settings("b", "c"))
    gevent.sleep(0)
    slow.set()
    one.get(timeout=PATIENCE)
    other.get(timeout=PATIENCE)
    assert [proxy.name for proxy in farm] in (["a", "b"], ["b", "c"])
    assert all(serves(proxy) for proxy in farm)


def test_a_name_that_does_not_resolve_changes_nothing(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend))
    before = proxy.plan
    nowhere = parse_local("nothing.invalid:1")
    with pytest.raises(ListenError, match=r"nothing\.invalid"):
        farm.change("a", lambda p: replace(p, local=nowhere))
    with pytest.raises(ListenError, match=r"nothing\.invalid"):
        farm.create(plan(backend, "b", local="nothing.invalid:1"))
    assert proxy.plan == before
    assert [one.name for one in farm] == ["a"]
    assert serves(proxy)


# While a handler is built, others go on


@pytest.fixture
def building() -> type[BaseHandler]:
    """A handler that takes until `done` is set to be made, and counts how often it is."""

    class Building(BaseHandler):
        """Takes its time."""

        name = "building"
        options: Any = {}
        done, made = Event(), 0

        def __init__(self, settings: Any, proxy: Any) -> None:
            super().__init__(settings, proxy)
            type(self).made += 1
            assert self.done.wait(PATIENCE)

        def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
            data = self._get_data(client_sock, backend_sock, to_backend)
            (backend_sock if to_backend else client_sock).sendall(data.upper())

    return Building


def built(cls: type[BaseHandler]) -> dict[str, Any]:
    """What a behavior ``100:building`` stands for."""
    return {"building": Specification("building", cls)}


def test_what_another_changes_while_a_handler_is_built_is_not_lost(
    farm: Farm, backend: Backend, building: Any
) -> None:
    proxy = farm.create(plan(backend))
    behaviors = {"behavior": parse("100:building", "")}
    setting = gevent.spawn(farm.set_behavior, "a", behaviors, built(building))
    gevent.sleep(0)
    farm.add_toxic("a", toxic(farm, latency=1))
    building.done.set()
    setting.get(timeout=PATIENCE)
    assert [one.name for one in proxy.plan.toxics] == ["t"]
    with dial(proxy) as client:
        assert exchange(client) == b"HELLO"
    assert building.made == 1, "the one that is there is used"


def test_a_proxy_deleted_while_its_handler_is_built_listens_no_more(
    farm: Farm, backend: Backend, building: Any
) -> None:
    place = str(farm.create(plan(backend)).address)
    behaviors = {"behavior": parse("100:building", "")}
    setting = gevent.spawn(farm.set_behavior, "a", behaviors, built(building))
    gevent.sleep(0)
    farm.delete("a")
    building.done.set()
    with pytest.raises(NotFound):
        setting.get(timeout=PATIENCE)
    assert is_closed(place)


def test_of_two_with_one_name_the_one_that_is_built_first_is_made(
    farm: Farm, backend: Backend, building: Any
) -> None:
    behavior = parse("100:building", "")
    slow = replace(plan(backend), behavior=behavior, handlers=built(building))
    creating = gevent.spawn(farm.create, slow)
    gevent.sleep(0)
    quick = farm.create(plan(backend))
    building.done.set()
    with pytest.raises(AlreadyThere):
        creating.get(timeout=PATIENCE)
    assert [*farm] == [quick]


def test_a_proxy_deleted_while_a_reload_builds_handlers(
    farm: Farm, backend: Backend, building: Any
) -> None:
    place = str(farm.create(plan(backend, "mine")).address)
    settings = resolved(http="yes")
    behavior = parse("100:building", "")
    settings.plans = tuple(
        replace(plan(backend, name), behavior=behavior, handlers=built(building))
        for name in ("a", "b")
    )
    reloading = gevent.spawn(farm.reload, settings)
    gevent.sleep(0)
    farm.delete("mine")
    building.done.set()
    assert reloading.get(timeout=PATIENCE)["created"] == ["a", "b"]
    assert [proxy.name for proxy in farm] == ["a", "b"]
    assert building.made == 2
    assert is_closed(place)


def test_populate_makes_nothing_if_a_handler_cannot_be_built(farm: Farm, backend: Backend) -> None:
    class Fails(BaseHandler):
        """Cannot be made."""

        name = "fails"
        options: Any = {}

        def __init__(self, settings: Any, proxy: Any) -> None:
            raise ValueError("no such thing")

    wrong = replace(
        plan(backend, "b"),
        behavior=parse("100:fails", ""),
        handlers={"fails": Specification("fails", Fails)},
    )
    with pytest.raises(UsageError, match="no such thing"):
        list(farm.populate([Entry(plan(backend), ()), Entry(wrong, ("behavior",))]))
    assert [*farm] == []


def test_many_populate_the_same_and_all_get_the_one_proxy(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    wanted = plan(backend, local="localhost:0")
    asking = [gevent.spawn(populate, farm, wanted) for _ in range(8)]
    gevent.sleep(0)
    slow.set()
    assert {one.get(timeout=PATIENCE) for one in asking} == {farm.get("a")}


# For a while, and who is told


def test_a_behavior_that_comes_back_leaves_the_other_one_alone(
    farm: Farm, backend: Backend
) -> None:
    def meet(seconds: int) -> None:
        behavior = parse("100:slow_accept", "")
        raws = {"slow_accept": {"delay": Raw(seconds, "")}}
        handlers = farm.catalog.choose(NOTHING, behavior, options=raws)
        farm.set_behavior("a", {"on_connect": behavior}, handlers)

    proxy = farm.create(plan(backend))
    meet(100)
    set_behavior(farm, "a", "10:noop", ttl=0.05)
    meet(5)
    wait_for(lambda: str(proxy.plan.behavior) == "100:dummy")
    (spec,) = proxy.plan.specifications("slow_accept")
    assert spec.options["delay"] == 5
    assert [*proxy.plan.handlers] == ["slow_accept"]


def test_populate_ends_the_whiles_of_what_it_gives_only(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend))
    set_behavior(farm, "a", "10:noop", ttl=3600)
    farm.add_toxic("a", toxic(farm), ttl=3600)
    farm.add_toxic("a", toxic(farm, name="u"), ttl=3600)
    populate(farm, plan(backend), "seed", "listen")
    assert {*farm.ttls.left("a")} == {"behavior", "toxic t", "toxic u"}
    populate(farm, plan(backend, behavior="20:noop"), "behavior")
    assert {*farm.ttls.left("a")} == {"toxic t", "toxic u"}
    assert [*proxy.plan.handlers] == ["noop"]
    populate(farm, plan(backend, toxics=(toxic(farm),)), "toxics")
    assert farm.ttls.left("a") == {}
    populate(farm, plan(backend, behavior="100:dummy"), "behavior")
    assert proxy.plan.handlers == {}


def test_populate_tells_what_it_has_changed(
    farm: Farm, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vaurien")
    populate(farm, plan(backend))
    for _ in range(2):
        populate(farm, plan(backend, behavior="20:noop"), "behavior")
    assert caplog.text.count("a: changed by populate") == 1


def test_a_reload_that_cannot_listen_leaves_what_names_stand_for(
    farm: Farm, backend: Backend
) -> None:
    before = farm.catalog, farm.common, farm.seed
    settings = resolved(http="yes", seed="99")
    settings.plans = (replace(plan("127.0.0.1:1"), local=parse_local(backend.address)),)
    with pytest.raises(ListenError):
        farm.reload(settings)
    assert (farm.catalog, farm.common, farm.seed) == before


def test_populate_renews_the_time_of_a_proxy_that_has_one(farm: Farm, backend: Backend) -> None:
    farm.create(plan(backend), ttl=3600)
    populate(farm, plan(backend), ttl=1000)
    assert 999 < farm.ttls.left("a")["proxy"] <= 1000
    populate(farm, plan(backend))
    assert farm.ttls.left("a") == {}
    populate(farm, plan(backend), ttl=0.01)  # it is there for good
    populate(farm, plan(backend, "b"), ttl=0.01)
    wait_for(lambda: "b" not in farm.proxies)
    assert farm.ttls.left("a") == {} and serves(farm.get("a"))


def test_what_takes_time_to_come_back_does_not_if_another_was_set_meanwhile(
    farm: Farm, backend: Backend, building: Any
) -> None:
    proxy = farm.create(plan(backend))
    behaviors = {"behavior": parse("100:building", "")}
    building.done.set()
    farm.set_behavior("a", behaviors, built(building))
    building.done.clear()
    set_behavior(farm, "a", "10:noop", ttl=0.02)
    wait_for(lambda: building.made == 2)  # it is on its way back
    set_behavior(farm, "a", "20:noop")
    building.done.set()
    farm.create(plan(backend, "later"), ttl=0.05)
    wait_for(lambda: "later" not in farm.proxies)
    assert str(proxy.plan.behavior) == "20:noop"


def test_who_looks_while_a_proxy_is_built_is_told_of_it(
    farm: Farm, backend: Backend, building: Any
) -> None:
    events: list[Told] = []
    behavior = parse("100:building", "")
    slow = replace(plan(backend), behavior=behavior, handlers=built(building))
    creating = gevent.spawn(farm.create, slow)
    gevent.sleep(0)
    farm.observe(events.append)
    building.done.set()
    creating.get(timeout=PATIENCE)
    with dial(farm.get("a")) as client:
        assert exchange(client) == b"HELLO"
    assert any(isinstance(event, Began) for event in events)


def test_what_is_picked_while_a_change_is_built_counts(
    farm: Farm, backend: Backend, building: Any
) -> None:
    proxy = farm.create(plan(backend))
    raws = {"noop": {"scope": Raw("proxy", ""), "after": Raw("5", "")}}
    behavior = parse("100:noop", "")
    handlers = farm.catalog.choose(behavior, options=raws)
    farm.set_behavior("a", {"behavior": behavior}, handlers)
    mixed = {"behavior": parse("100:noop+building", "")}
    with dial(proxy) as client:
        setting = gevent.spawn(farm.set_behavior, "a", mixed, {**handlers, **built(building)})
        gevent.sleep(0)
        for _ in range(6):
            exchange(client)
        assert proxy.stats["noop"].picked == 6
        building.done.set()
        setting.get(timeout=PATIENCE)
        assert proxy._server._picks._count == 6


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_a_proxy_that_drains_can_be_ended(farm: Farm, backend: Backend, how: str) -> None:
    proxy = farm.create(plan(backend, behavior="100:hang"))
    with dial(proxy) as client:
        client.sendall(b"hello")
        wait_for(lambda: proxy.look() and proxy.look()[0].received[0])
        stopping = gevent.spawn(proxy.stop, 3600)
        wait_for(lambda: is_closed(str(proxy.address)))
        getattr(farm, how)("a")
        assert client.recv(1) == b""
    assert stopping.get(timeout=PATIENCE) == 0


def test_what_the_file_names_is_there_for_good(farm: Farm, backend: Backend) -> None:
    settings = resolved(http="yes")
    settings.plans = (plan(backend),)
    farm.create(plan(backend), ttl=3600)
    set_behavior(farm, "a", "10:noop")
    set_behavior(farm, "a", "100:dummy", ttl=3600)  # as the file says, but for a while
    assert farm.reload(settings)["unchanged"] == ["a"]
    assert farm.ttls.left("a") == {}


def test_enabled_for_good_and_for_a_while_at_once_ends_enabled(
    farm: Farm, backend: Backend, slow: Event
) -> None:
    proxy = farm.create(plan(backend, local="localhost:0", enabled=False))
    both = [gevent.spawn(farm.enable, "a", 0.01), gevent.spawn(farm.enable, "a")]
    gevent.sleep(0)
    slow.set()
    gevent.joinall(both, raise_error=True)
    farm.create(plan(backend, "later"), ttl=0.05)
    wait_for(lambda: "later" not in farm.proxies)
    assert proxy.enabled


def test_nothing_listens_any_more_once_it_stops_but_faults_can_be_lifted(
    backend: Backend,
) -> None:
    farm = Farm(resolved(http="yes"))
    proxy = farm.create(plan(backend, behavior="100:hang"))
    place = str(proxy.address)
    other = farm.create(plan(backend, "b"))
    farm.disable("b", ttl=0.5)
    with dial(proxy) as client:
        client.sendall(b"hello")
        wait_for(lambda: proxy.look() and proxy.look()[0].received[0])
        stopping = gevent.spawn(farm.stop, PATIENCE)
        wait_for(lambda: is_closed(place))
        with pytest.raises(Stopping):
            farm.enable("b")
        with pytest.raises(Stopping):
            farm.create(plan(backend, "c"))
        with pytest.raises(Stopping):
            farm.change("a", lambda p: replace(p, local=parse_local("127.0.0.2:0")))
        wait_for(lambda: not farm.ttls.left("b"))
        set_behavior(farm, "a", "100:dummy")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""  # a hanging exchange has nothing to say any more
        assert stopping.get(timeout=PATIENCE) == {"a": 0, "b": 0}
    assert is_closed(place) and not other.enabled


def test_a_while_of_a_proxy_that_was_made_anew_ends_nothing(farm: Farm, backend: Backend) -> None:
    farm.create(plan(backend))
    set_behavior(farm, "a", "10:noop", ttl=0.05)
    farm.disable("a", ttl=0.05)
    farm.add_toxic("a", toxic(farm), ttl=0.05)
    farm.delete("a")
    proxy = farm.create(plan(backend, behavior="20:noop", toxics=(toxic(farm),)))
    farm.create(plan(backend, name="later"), ttl=0.1)
    wait_for(lambda: "later" not in farm.proxies)  # by then the others would have ended, too
    assert str(proxy.plan.behavior) == "20:noop"
    assert [one.name for one in proxy.plan.toxics] == ["t"]
    assert proxy.enabled


def test_a_while_that_cannot_end_is_logged_and_not_raised(
    farm: Farm, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = farm.create(plan(backend))
    farm.disable("a", ttl=0.05)
    with socket.create_server(("127.0.0.1", proxy.address.port)):
        wait_for(lambda: "cannot come back" in caplog.text)
    assert farm.enable("a") is proxy
    assert serves(proxy)


def test_each_change_is_told_once_and_after_it_is_done(backend: Backend) -> None:
    told: list[tuple[str, str, str]] = []

    def observe(event: Told) -> None:
        if isinstance(event, Changed):
            at_work = event.proxy in made.proxies and made.proxies[event.proxy].enabled
            told.append((event.proxy, event.change, "on" if at_work else "off"))

    made = Farm(resolved(http="yes"))
    made.observe(observe)
    made.create(plan(backend))
    made.disable("a")
    made.enable("a")
    set_behavior(made, "a", "10:noop")
    with pytest.raises(UsageError):
        set_behavior(made, "a", "10:nop")
    made.delete("a")
    made.unobserve(observe)
    made.create(plan(backend))
    made.delete("a")
    assert told == [
        ("a", "created", "on"),
        ("a", "disabled", "off"),
        ("a", "enabled", "on"),
        ("a", "behavior", "on"),
        ("a", "deleted", "off"),
    ]


def test_who_observes_later_is_told_of_exchanges_too(farm: Farm, backend: Backend) -> None:
    events: list[Told] = []
    proxy = farm.create(plan(backend, behavior="100:noop"))
    with dial(proxy) as client:
        exchange(client)
        observer = events.append
        farm.observe(observer)
        exchange(client)
        farm.unobserve(observer)
        exchange(client)
    kinds = [type(event).__name__ for event in events]
    assert kinds in (["Ended", "Began"], ["Began"])


# All at the end


def test_stop_drains_all_at_the_same_time(backend: Backend) -> None:
    farm = Farm(resolved(http="yes"))
    for name in "abcde":
        farm.create(plan(backend, name, behavior="100:hang"))
    clients = [dial(farm.get(name)) for name in "abcde"]
    for client in clients:
        client.sendall(b"hello")
    wait_for(lambda: all(proxy.connections and proxy.look()[0].received[0] for proxy in farm))
    start = time.monotonic()
    assert farm.stop(0.5) == dict.fromkeys("abcde", 1)
    assert 0.4 < time.monotonic() - start < 2.5  # with a second in which they may close
    for client in clients:
        assert client.recv(1) == b""
        client.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_has_stopped_never_listens_again(kind: str, backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    local = f"unix:{path}" if kind == "unix" else "127.0.0.1:0"
    proxy = Proxy(plan(backend, local=local, behavior="10:noop"))
    proxy.start()
    other = parse_local(f"127.0.0.1:{free_port()}")

    def assert_closed() -> None:
        assert not path.exists()
        assert kind == "unix" or is_closed(str(proxy.address))
        assert is_closed(str(other))

    proxy.stop()
    for changed in ({"backlog": 5}, {"behavior": parse("20:noop", "b")}, {"enabled": True}):
        proxy.change(replace(proxy.plan, **changed))
        assert_closed()
    proxy.pause()
    proxy.resume()
    assert_closed()
    with pytest.raises(Stopping):
        proxy.change(replace(proxy.plan, local=other))
    proxy.disable()
    with pytest.raises(Stopping):
        proxy.change(replace(proxy.plan, enabled=True))
    assert_closed()


def test_a_client_that_resets_while_the_farm_changes(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend))
    for number in range(50):
        client = dial(proxy)
        exchange(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client.close()
        set_behavior(farm, "a", f"{number}:noop")
        farm.add_toxic("a", toxic(farm, latency=1))
        farm.remove_toxic("a", "t")
    wait_for(lambda: proxy.connections == 0)
    assert proxy.counters.crashes == 0
    assert proxy.counters.connections == 50
    assert serves(proxy)
