"""The Python client against a running Vaurien: each operation, each way to fail, its manners."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import (
    PATIENCE,
    Backend,
    clients,
    dial,
    echo,
    exchange,
    receive_all,
    wait_for,
)
from vaurien import Client, ClientError, Unreachable, UsageError, start_proxy
from vaurien.client import Event, api_address
from vaurien.kit.process import Running

ROOT = Path(__file__).parent.parent
NOBODY = "127.0.0.1:1"  # a port at which nobody listens


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VAURIEN_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Running, Backend]]:
    """One Vaurien for all, with its backend."""
    with Backend(echo) as backend, start_proxy(distant=backend.address, seed=1) as running:
        yield running, backend


@pytest.fixture
def running(shared: tuple[Running, Backend]) -> Iterator[Running]:
    """It, with the proxy ``default`` only, which does no harm."""
    yield shared[0]
    client = shared[0].client
    for state in client.proxies():
        if state["name"] != "default":
            client.delete(state["name"])
    client.reset()


@pytest.fixture
def client(running: Running) -> Client:
    return running.client


@pytest.fixture
def backend(shared: tuple[Running, Backend]) -> Backend:
    return shared[1]


def failing(call: object, status: int) -> str:
    """The sentence with which a call is refused."""
    assert callable(call)
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.status == status, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Handlers and behaviors


def test_it_lists_handlers_with_their_options_and_presets(client: Client) -> None:
    handlers = {handler["name"]: handler for handler in client.list_handlers()}
    assert handlers["latency"]["kind"] == "flow"
    assert handlers["refuse"]["kind"] == "connect"
    assert handlers["delay"]["summary"]
    (sleep,) = (o for o in handlers["delay"]["options"] if o["name"] == "sleep")
    assert sleep["default"] == 1
    assert sleep["description"]
    assert "3g" in {preset["name"] for preset in client.list_presets()}


def test_a_handler_is_set_with_its_options(running: Running) -> None:
    answer = running.client.set_handler("error", inject=False)
    assert answer == running.client.get_handler()
    assert (answer["proxy"], answer["name"]) == ("default", "error")
    assert answer["options"]["inject"] is False
    assert answer["behavior"] == "100:error"
    with dial(running.address) as sock:
        assert exchange(sock, b"hello") != b"hello"


def test_a_mixture_has_no_single_handler(client: Client) -> None:
    client.set_behavior("20:delay,5:error")
    answer = client.get_handler()
    assert answer["name"] is None
    assert answer["options"] is None
    assert answer["behavior"] == "20:delay,5:error"


def test_a_behavior_is_set_with_options_and_what_is_not_given_stays(client: Client) -> None:
    client.set_behavior("20:delay", on_connect="10:refuse", handlers={"delay": {"sleep": 2}})
    answer = client.get_behavior()
    assert answer["behavior"] == "20:delay"
    assert answer["on_connect"] == "10:refuse"
    assert answer["handlers"]["delay"]["sleep"] == 2

    assert client.set_behavior("5:error")["on_connect"] == "10:refuse"
    answer = client.set_behavior(on_connect=None)
    assert (answer["behavior"], answer["on_connect"]) == ("5:error", None)


def test_a_ttl_brings_back_what_was_there(client: Client) -> None:
    client.set_behavior("20:delay")
    client.set_handler("error", ttl=0.3)
    assert client.get_behavior()["behavior"] == "100:error"
    wait_for(lambda: client.get_behavior()["behavior"] == "20:delay", "the former behavior")


def test_what_is_wrong_is_refused_with_the_sentence_of_the_api(client: Client) -> None:
    assert "'delay'" in failing(lambda: client.set_handler("dleay"), 400)
    assert "sleep" in failing(lambda: client.set_handler("delay", slep=1), 400)
    assert "'soon'" in failing(lambda: client.set_handler("delay", sleep="soon"), 400)
    assert "120" in failing(lambda: client.set_behavior("120:delay"), 400)
    failing(client.set_behavior, 400)
    assert client.get_behavior()["behavior"] == "100:dummy"


def test_with_handler_brings_back_a_mixture_with_its_options(running: Running) -> None:
    client = running.client
    client.set_behavior("20:delay,5:latency", "10:refuse", handlers={"delay": {"sleep": 2}})
    before = client.get_behavior()
    with client.with_handler("error", inject=True) as answer:
        assert answer["name"] == "error"
        assert client.get_behavior()["behavior"] == "100:error"
    assert client.get_behavior() == before


def test_with_handler_brings_back_a_preset(client: Client) -> None:
    client.set_behavior("100:3g")
    before = client.get_behavior()
    with client.with_handler("delay", sleep=0):
        pass
    assert client.get_behavior() == before


def test_with_handler_brings_back_what_only_the_configuration_may_name(
    tmp_path: Path, echo_backend: Backend
) -> None:
    delays = tmp_path / "delays"
    delays.write_text("1\n2\n3\n")
    config = tmp_path / "vaurien.ini"
    config.write_text(
        f"[vaurien]\nlocal = 127.0.0.1:0\ndistant = {echo_backend.address}\n"
        f"behavior = 20:latency\n[handler:latency]\ndistribution = {delays}\n"
    )
    with start_proxy(config=config) as running:
        client = running.client
        before = client.get_behavior()
        with client.with_handler("error"):
            pass
        assert client.get_behavior() == before
        failing(lambda: client.set_handler("latency", distribution=str(config)), 400)


def test_with_handler_restores_after_an_exception(client: Client) -> None:
    before = client.get_behavior()
    with pytest.raises(ZeroDivisionError), client.with_handler("error"):
        1 / 0  # noqa: B018
    assert client.get_behavior() == before


def test_with_handler_that_is_refused_changes_nothing(client: Client) -> None:
    before = client.get_behavior()
    with pytest.raises(ClientError), client.with_handler("dleay"):
        raise AssertionError("it was not refused")
    assert client.get_behavior() == before


def test_with_handlers_nest(client: Client) -> None:
    with client.with_handler("delay", sleep=0):
        with client.with_handler("error"):
            assert client.get_handler()["name"] == "error"
        assert client.get_handler()["name"] == "delay"
    assert client.get_handler()["name"] == "dummy"


def test_with_behavior_restores_too(client: Client) -> None:
    before = client.get_behavior()
    with client.with_behavior(on_connect="100:refuse"):
        assert client.get_behavior()["on_connect"] == "100:refuse"
    assert client.get_behavior() == before


def test_with_handler_of_a_named_proxy_leaves_the_others_alone(
    client: Client, backend: Backend
) -> None:
    client.create("other", "127.0.0.1:0", backend.address)
    with client.with_handler("error", proxy="other"):
        assert client.get_handler("other")["name"] == "error"
        assert client.get_handler()["name"] == "dummy"
    assert client.get_handler("other")["name"] == "dummy"


# Proxies


def test_a_proxy_that_was_made_listens_at_its_real_port(client: Client, backend: Backend) -> None:
    state = client.create("redis", "127.0.0.1:0", backend.address, behavior="20:delay", seed=7)
    assert state["name"] == "redis"
    assert (state["behavior"], state["seed"]) == ("20:delay", 7)
    assert state["distant"] == backend.address
    with dial(state["local"]) as sock:
        client.set_handler("dummy", proxy="redis")
        assert exchange(sock, b"hello") == b"hello"
    assert [one["name"] for one in client.proxies()] == ["default", "redis"]
    failing(lambda: client.create("redis", "127.0.0.1:0", backend.address), 409)

    client.delete("redis")
    with pytest.raises(OSError, match="refused"):
        dial(state["local"])
    failing(lambda: client.proxy("redis"), 404)
    failing(lambda: client.delete("redis"), 404)


def test_a_proxy_with_a_ttl_goes_away(client: Client, backend: Backend) -> None:
    client.create("brief", "127.0.0.1:0", backend.address, ttl=0.3)
    wait_for(lambda: len(client.proxies()) == 1, "the end of the proxy")


def test_a_proxy_is_disabled_and_enabled_at_the_same_address(
    client: Client, backend: Backend
) -> None:
    state = client.create("redis", "127.0.0.1:0", backend.address, enabled=False)
    assert not state["enabled"]
    state = client.enable("redis")
    assert state["enabled"]
    with dial(state["local"]) as sock:
        assert exchange(sock, b"hello") == b"hello"
        assert not client.disable("redis")["enabled"]
        assert receive_all(sock) == b""
    assert client.enable("redis", ttl=0.3)["local"] == state["local"]
    wait_for(lambda: not client.proxy("redis")["enabled"], "the end of the time")


def test_a_proxy_is_changed(client: Client, backend: Backend) -> None:
    with Backend(lambda sock: sock.sendall(b"the other")) as other:
        before = client.create("redis", "127.0.0.1:0", backend.address)
        after = client.change("redis", distant=other.address)
        assert (after["distant"], after["local"]) == (other.address, before["local"])
        with dial(after["local"]) as sock:
            assert receive_all(sock) == b"the other"


def test_many_proxies_are_made_at_once(client: Client, backend: Backend) -> None:
    wanted = [
        {"name": name, "listen": "127.0.0.1:0", "upstream": backend.address} for name in "abc"
    ]
    assert [proxy["name"] for proxy in client.populate(wanted)] == ["a", "b", "c"]


def test_reset_takes_all_harm_away(client: Client, backend: Backend) -> None:
    client.create("redis", "127.0.0.1:0", backend.address, enabled=False)
    client.set_handler("error", proxy="redis")
    client.set_handler("error")
    client.reset("redis")
    assert client.proxy("redis")["enabled"]
    assert client.get_behavior("redis")["behavior"] == "100:dummy"
    assert client.get_behavior()["behavior"] == "100:error"
    client.reset()
    assert client.get_behavior()["behavior"] == "100:dummy"


def test_names_are_quoted_in_paths(client: Client, backend: Backend) -> None:
    name = "größe 50% a?b#c"
    client.create(name, "127.0.0.1:0", backend.address)
    assert client.proxy(name)["name"] == name
    client.add_toxic(name, "noop", name="50% ?")
    client.remove_toxic(name, "50% ?")
    client.delete(name)


# Toxics


def test_a_toxic_is_added_changed_and_removed(client: Client) -> None:
    toxic = client.add_toxic("default", "latency", latency=50, jitter=5)
    assert toxic["name"] == "latency_downstream"
    assert toxic["attributes"] == {"latency": 50, "jitter": 5}
    assert (toxic["stream"], toxic["toxicity"]) == ("downstream", 1)
    slow = client.add_toxic(
        "default", "bandwidth", name="slow", stream="upstream", toxicity=0.5, rate=10
    )
    assert (slow["stream"], slow["toxicity"]) == ("upstream", 0.5)
    assert {toxic["name"] for toxic in client.toxics("default")} == {"latency_downstream", "slow"}

    toxic = client.update_toxic("default", "latency_downstream", toxicity=0.25, latency=70)
    assert toxic["attributes"] == {"latency": 70, "jitter": 5}
    assert toxic["toxicity"] == 0.25

    client.remove_toxic("default", "slow")
    assert [toxic["name"] for toxic in client.toxics("default")] == ["latency_downstream"]
    failing(lambda: client.remove_toxic("default", "slow"), 404)
    failing(lambda: client.add_toxic("default", "latency"), 409)
    failing(lambda: client.add_toxic("default", "lateny"), 400)
    failing(lambda: client.toxics("nobody"), 404)


def test_a_toxic_has_defaults(tmp_path: Path, client: Client, echo_backend: Backend) -> None:
    assert client.add_toxic("default", "latency", jitter=5)["attributes"] == {
        "latency": 100,
        "jitter": 5,
    }
    assert client.add_toxic("default", "bandwidth")["attributes"]["rate"] > 0
    config = tmp_path / "vaurien.ini"
    config.write_text(
        f"[vaurien]\nlocal = 127.0.0.1:0\ndistant = {echo_backend.address}\n"
        "[handler:latency]\nlatency = 70\n"
    )
    with start_proxy(config=config) as running:
        assert running.client.add_toxic("default", "latency")["attributes"]["latency"] == 70


def test_a_toxic_hits_open_connections(running: Running) -> None:
    with dial(running.address) as sock:
        assert exchange(sock, b"hello") == b"hello"
        running.client.add_toxic("default", "latency", latency=200)
        start = time.monotonic()
        assert exchange(sock, b"hello") == b"hello"
        assert time.monotonic() - start >= 0.2


def test_a_toxic_with_a_ttl_goes_away(client: Client) -> None:
    client.add_toxic("default", "noop", ttl=0.3)
    wait_for(lambda: client.toxics("default") == [], "the end of the toxic")


# Connections, events, journal


def test_connections_are_listed_and_dropped(running: Running) -> None:
    client = running.client
    with clients(running.address, 3) as socks:
        for sock in socks:
            assert exchange(sock, b"hello") == b"hello"
        found = client.connections("default")
        assert len(found) == 3
        numbers = {one["client"]: one["number"] for one in found}
        first, second, _ = (numbers["{}:{}".format(*sock.getsockname())] for sock in socks)
        assert found[0]["received"] == {"upstream": 5, "downstream": 5}

        assert client.drop("default", first) == 1
        assert socks[0].recv(1) == b""
        assert client.drop("default", second, how="reset") == 1
        with pytest.raises(ConnectionResetError):
            socks[1].recv(1)
        failing(lambda: client.drop("default", 10_000), 404)
        failing(lambda: client.drop("default", how="gently"), 400)
        wait_for(lambda: len(client.connections()) == 1, "two of them to go")
        assert client.drop("default") == 1
        assert socks[2].recv(1) == b""


def test_events_come_as_they_happen(running: Running) -> None:
    client = running.client
    with client.events() as events:
        client.set_handler("error", inject=False)
        with dial(running.address) as sock:
            exchange(sock, b"hello", 1)
        seen: list[Event] = []
        for event in events:
            seen.append(event)
            if event.kind == "ended":
                break
    kinds = [event.kind for event in seen]
    assert kinds[0] == "change"
    assert "began" in kinds
    assert seen[0].data["proxy"] == "default"
    assert next(events, None) is None
    assert "closed" in repr(events)


def test_the_events_of_one_proxy_are_only_its_own(client: Client, backend: Backend) -> None:
    client.create("redis", "127.0.0.1:0", backend.address)
    with client.events("redis") as events:
        client.set_handler("delay")
        client.set_handler("error", proxy="redis")
        assert next(events).data["proxy"] == "redis"


def test_another_thread_may_close_the_events(client: Client) -> None:
    events = client.events()
    ended = threading.Event()

    def read() -> None:
        for _ in events:
            pass
        ended.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert not ended.wait(0.1)
    events.close()
    assert ended.wait(PATIENCE)
    thread.join(PATIENCE)


def test_the_events_end_with_vaurien(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        events = running.client.events()
        running.stop()
        assert list(events) == []


def test_events_that_break_off_are_told(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        events = running.client.events()
        running.client.set_handler("delay")
        assert next(events).kind == "change"
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(Unreachable, match=f"Vaurien at {running.http} broke off"):
            next(events)
        assert next(events, None) is None


def test_the_journal_tells_what_was_touched(running: Running) -> None:
    client = running.client
    client.set_handler("delay", sleep=0)
    with dial(running.address) as sock:
        assert exchange(sock, b"hello") == b"hello"
    line = wait_for(lambda: [e for e in client.journal() if e["handler"] == "delay"])[-1]
    assert line["proxy"] == "default"
    assert len(client.journal("default", limit=1)) == 1


# The program


def test_health_and_metrics(client: Client) -> None:
    health = client.health()
    assert (health["status"], health["proxies"]) == ("ok", 1)
    assert "vaurien_" in client.metrics()
    assert client.wait(1) == health


def test_wait_waits_until_it_is_ready(tmp_path: Path, echo_backend: Backend) -> None:
    path = f"unix:{tmp_path}/api"
    ready: list[object] = []
    thread = threading.Thread(target=lambda: ready.append(Client(path).wait(PATIENCE)))
    thread.start()
    with start_proxy(distant=echo_backend.address, http_host=path):
        thread.join(PATIENCE)
        assert ready


def test_wait_says_what_it_waited_for() -> None:
    with pytest.raises(Unreachable, match=r"not ready after 0.2 s: cannot reach .*refused"):
        Client(NOBODY).wait(0.2)


def test_files_are_read_again(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "farm.ini"
    section = "[proxy:{}]\nlocal = 127.0.0.1:0\ndistant = {}\n"
    file.write_text(section.format("one", echo_backend.address))
    with start_proxy(config=file) as running:
        file.write_text(
            section.format("one", echo_backend.address)
            + section.format("two", echo_backend.address)
        )
        assert running.client.reload()["created"] == ["two"]
        file.write_text("[proxy:one]\nlocl = 127.0.0.1:0\n")
        assert "locl" in failing(running.client.reload, 400)
        assert len(running.client.proxies()) == 2


# Where it is, and who may


def test_the_token_is_asked_for(
    echo_backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with start_proxy(distant=echo_backend.address, http_token="secret") as running:
        assert running.http is not None
        assert running.client.get_handler()["name"] == "dummy"
        assert "token" in failing(Client(running.http).get_handler, 401)
        failing(Client(running.http, token="other").get_handler, 401)
        assert Client(running.http).health()["status"] == "ok"
        monkeypatch.setenv("VAURIEN_HTTP_TOKEN", "secret")
        assert Client(running.http).get_handler()["name"] == "dummy"
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    monkeypatch.delenv("VAURIEN_HTTP_TOKEN")
    with start_proxy(distant=echo_backend.address, http_token_file=file) as running:
        assert running.client.get_handler()["name"] == "dummy"
        monkeypatch.setenv("VAURIEN_HTTP_TOKEN_FILE", str(file))
        assert Client(running.http).get_handler()["name"] == "dummy"
    monkeypatch.setenv("VAURIEN_HTTP_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"VAURIEN_HTTP_TOKEN_FILE: cannot read '.*none'"):
        Client("localhost")


def test_the_environment_tells_where_it_is(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running.http is not None
    monkeypatch.setenv("VAURIEN_HOST", running.http)
    assert Client().health()["status"] == "ok"
    host, _, port = running.http.rpartition(":")
    monkeypatch.setenv("VAURIEN_HOST", NOBODY)
    assert Client(host, int(port)).health()["status"] == "ok"
    assert repr(Client()) == f"<Client {NOBODY}>"


def test_it_speaks_through_a_unix_socket(tmp_path: Path, echo_backend: Backend) -> None:
    path = f"unix:{tmp_path}/api"
    with start_proxy(distant=echo_backend.address, http_host=path) as running:
        assert running.http == path
        assert Client(path).get_handler()["name"] == "dummy"
        with running.client.events() as events:
            running.client.set_handler("delay")
            assert next(events).kind == "change"
    with pytest.raises(Unreachable, match="no such file"):
        Client(path).health()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost", "localhost:8080"),
        ("localhost:99", "localhost:99"),
        ("[::1]", "[::1]:8080"),
        ("[::1]:99", "[::1]:99"),
        ("unix:/a b", "unix:/a b"),
    ],
)
def test_the_port_may_be_missing(text: str, found: str) -> None:
    assert str(api_address(text, "host")) == found


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"host": "http://localhost:1"}, "is a URL"),
        ({"host": "::1"}, "ambiguous"),
        ({"host": "localhost:0"}, "port 0"),
        ({"host": "localhost:99", "port": 98}, "leave out port=98"),
        ({"port": 123456}, "is no port"),
        ({"timeout": 0}, "is not a time"),
        ({"token": "a\nb"}, "token"),
        ({"timeout": "x"}, "timeout: 'x' is not a time"),
        ({"host": 5}, "host: 5 is not a text"),
        ({"port": "8080"}, "port: '8080' is not a whole number"),
        ({"token": b"x"}, "token: b'x' is not a text"),
    ],
)
def test_what_is_no_address_token_or_time_is_refused(
    arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        Client(**arguments)  # type: ignore[arg-type]


# What else may answer, or not


def answering(data: bytes) -> Backend:
    """A server that answers each request with `data`."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)

    return Backend(script)


def test_nobody_there_is_told() -> None:
    with pytest.raises(Unreachable, match=rf"{NOBODY}: connection refused; is `vaurien --http`"):
        Client(NOBODY).proxies()
    with pytest.raises(Unreachable):
        Client("no-such-host.invalid").proxies()


def test_no_answer_is_told_in_time() -> None:
    with Backend(lambda sock: sock.recv(65536) and sock.recv(1)) as backend:
        start = time.monotonic()
        with pytest.raises(Unreachable, match=r"has not answered within 0.2 s"):
            Client(backend.address, timeout=0.2).proxies()
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\noops\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\noops\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"UP"}',
        b'HTTP/1.1 400 Bad Request\r\nContent-Length: 13\r\n\r\n{"error":"x"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_stranger_is_told_as_such(data: bytes) -> None:
    with answering(data) as backend:
        client = Client(backend.address)
        for call in (client.proxies, client.health, client.metrics, client.events):
            with pytest.raises(Unreachable) as caught:
                call()
            assert backend.address in str(caught.value)
        with pytest.raises(Unreachable):
            client.delete("x")
        with pytest.raises(Unreachable, match=r"not ready after 0.1 s"):
            client.wait(0.1)


def test_while_it_ends_it_is_not_ready() -> None:
    body = b'{"status": "stopping"}'
    head = b"HTTP/1.1 503 Service Unavailable\r\nVaurien: 2\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    with answering(head + body) as backend:
        client = Client(backend.address)
        assert "is stopping" in failing(client.health, 503)
        with pytest.raises(Unreachable, match="is stopping"):
            client.wait(0.2)


@pytest.mark.parametrize(
    ("method", "arguments", "options", "sentence"),
    [
        ("set_handler", ["delay", {"sleep": 1}], {}, r"^proxy: .* options of a handler are keywo"),
        ("set_handler", ["delay"], {"sleep": object()}, r"^sleep: <object .* cannot be sent"),
        ("set_handler", ["delay"], {"sleep": float("nan")}, r"^sleep: nan cannot be sent"),
        ("add_toxic", ["default", "latency"], {"latency": b"1"}, r"^latency: b'1' cannot be sent"),
        ("proxy", [5], {}, r"^proxy: 5 is not a name"),
        ("remove_toxic", ["default", None], {}, r"^name: None is not a text"),
        ("drop", ["default", "all"], {}, r"^number: 'all' is not the number of a connection"),
        ("populate", [5], {}, r"^proxies: 5 is not a list"),
        ("wait", ["soon"], {}, r"^timeout: 'soon' is not a time"),
    ],
)
def test_arguments_of_other_types_are_refused_by_name(
    method: str, arguments: list[object], options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        getattr(Client(NOBODY), method)(*arguments, **options)


# Its manners


def test_threads_may_share_it(running: Running) -> None:
    def change(n: int) -> str:
        name = f"latency_{n}"
        running.client.add_toxic("default", "latency", name=name, latency=n)
        return str(running.client.update_toxic("default", name, jitter=1)["name"])

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(change, range(40)))
    assert {toxic["name"] for toxic in running.client.toxics("default")} == set(names)


def test_it_leaves_no_descriptor_open(running: Running) -> None:
    client = running.client
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        client.proxies()
        client.events().close()
        client.reset()
        with contextlib.suppress(ClientError):
            client.proxy("nobody")
        with contextlib.suppress(Unreachable):
            Client(NOBODY).health()
    assert len(os.listdir("/proc/self/fd")) == before


PLAIN = """
import sys, vaurien
client = vaurien.Client(sys.argv[1])
assert client.health()["status"] == "ok"
assert not [name for name in sys.modules if name.startswith("gevent")]
"""

PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys, gevent, vaurien
client = vaurien.Client(sys.argv[1])
seen = []
events = client.events()
reader = gevent.spawn(lambda: seen.extend(events))
jobs = [gevent.spawn(client.add_toxic, "default", "noop", name=str(n)) for n in range(10)]
gevent.joinall(jobs, raise_error=True)
assert len(client.toxics("default")) == 10
with client.with_handler("error"):
    assert client.get_handler()["name"] == "error"
with gevent.Timeout(10):
    while len(seen) < 10:
        gevent.sleep(0.01)
    events.close()
    reader.join()
with gevent.Timeout(20), vaurien.start_proxy() as running:
    assert running.client.proxies() == []
assert running.stop() == 0
"""


@pytest.mark.parametrize("program", [PLAIN, PATCHED])
def test_it_works_in_plain_programs_and_in_patched_ones(running: Running, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(running.http)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
