"""The farm's operations, called as the API calls them: done when they return, whole or not at all.

They run in this process's loop; only who resolves a name slowly is a stand-in.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket
from gevent.event import Event

from tests.control.farms import free_port
from tests.support import ABORT, PATIENCE, Backend, echo
from tests.test_settings import resolved
from vaurien.behavior import parse
from vaurien.control.farm import Farm
from vaurien.errors import AlreadyThere, ListenError, NotFound, Stopping, UsageError, VaurienError
from vaurien.net import dial as dial_
from vaurien.net import listener
from vaurien.observe.events import Changed
from vaurien.observe.events import Event as Told
from vaurien.options import Raw
from vaurien.plan import Plan, Toxic
from vaurien.proxy import Proxy


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
    farm.set_behavior(name, behavior, None, handlers, ttl)


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


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        gevent.sleep(0.005)


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
    proxy = farm.populate(plan(backend), ())
    place = proxy.address
    with dial(proxy) as client:
        exchange(client)
        assert farm.populate(plan(backend), ()) is proxy  # port 0 is the port that it got
        assert farm.populate(plan(backend, local=str(place)), ()) is proxy
        farm.populate(plan(backend, toxics=(toxic(farm, latency=1),)), ("toxics",))
        assert exchange(client) == b"hello"
        assert [one.name for one in proxy.plan.toxics] == ["t"]
        farm.populate(plan(backend), ())
        assert [one.name for one in proxy.plan.toxics] == ["t"], "nobody spoke of toxics"
        with Backend(echo) as other:
            farm.populate(plan(other), ())
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


def test_a_call_that_is_ended_leaves_no_greenlet(farm: Farm, backend: Backend) -> None:
    proxy = farm.create(plan(backend))
    with dial(proxy) as client:
        set_behavior(farm, "a", "100:delay", delay={"sleep": 3600})
        client.sendall(b"hello")
        wait_for(lambda: proxy.look() and proxy.look()[0].received[0])
        set_behavior(farm, "a", "100:dummy")
        client.settimeout(5)
        got = client.recv(5)  # what it had not read is passed on, or the connection ends
        assert got in (b"hello", b"")
    wait_for(lambda: proxy.connections == 0)


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


# For a while, and who is told


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
        proxy.enable()
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
