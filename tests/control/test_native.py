"""Vaurien's own HTTP API: each path, each answer, each refusal; and that a change is in force."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vaurien
from tests.control.farms import Answer, Api, Farm, Http, connected
from tests.support import (
    PATIENCE,
    Backend,
    dial,
    echo,
    exchange,
    parse_address,
    receive,
    receive_all,
    wait_for,
)
from vaurien import registry

NUMBERS = itertools.count(1)
CALM = "100:dummy"


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as backend:
        yield backend


@pytest.fixture(scope="module")
def farm(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One with a proxy called default and one called other, for all tests."""
    file = tmp_path_factory.mktemp("farm") / "farm.ini"
    file.write_text(
        f"[vaurien]\ndistant = {backend.address}\nlocal = 127.0.0.1:0\nseed = 7\n"
        f"[proxy:other]\ndistant = {backend.address}\nlocal = 127.0.0.1:0\n"
        "[handler:crawl]\ncallable = vaurien.handlers.latency.Latency\nlatency = 1\n"
        "[preset:bad]\nlatency = 1\n"
    )
    with Farm("--config", file, ready=2) as farm:
        yield farm


@pytest.fixture
def api(farm: Farm) -> Iterator[Api]:
    yield farm.api
    farm.api.post("/handler", {"name": "dummy"})


class Remote:
    """A proxy of its own for one test."""

    def __init__(self, api: Api, backend: Backend, **more: Any) -> None:
        self.api, self.name = api, f"p{next(NUMBERS)}"
        self.path = f"/proxies/{self.name}"
        self.address = api.create(self.name, backend, **more)

    def state(self) -> Any:
        return self.api.get(f"{self.path}/state")

    def set(self, behavior: str, **more: Any) -> Any:
        return self.api.post(f"{self.path}/behavior", {"behavior": behavior, **more})

    def add(self, kind: str, **more: Any) -> Any:
        return self.api.post(f"{self.path}/toxics", {"type": kind, **more})

    def dial(self) -> socket.socket:
        return dial(self.address)


@pytest.fixture
def proxy(farm: Farm, backend: Backend) -> Iterator[Remote]:
    remote = Remote(farm.api, backend, seed=42)
    yield remote
    farm.api.call("DELETE", remote.path)


# Handlers


def test_all_handlers_are_listed_with_their_options(api: Api) -> None:
    found = api.get("/handlers")
    assert set(found) == {"handlers", "presets"}
    handlers = {one["name"]: one for one in found["handlers"]}
    assert set(handlers) >= {*registry.builtins(), "crawl"}
    for one in handlers.values():
        assert set(one) == {"name", "kind", "summary", "options"}
        assert one["kind"] in ("flow", "socket", "connect")
        assert one["summary"]
        for option in one["options"]:
            assert set(option) == {"name", "type", "default", "choices", "description"}
            assert option["description"]
    assert handlers["delay"]["kind"] == "flow"
    assert handlers["error"]["kind"] == "socket"
    assert handlers["latency"]["kind"] == handlers["crawl"]["kind"] == "flow"
    assert handlers["refuse"]["kind"] == "connect"
    (sleep,) = (one for one in handlers["delay"]["options"] if one["name"] == "sleep")
    assert sleep["default"] == 1
    presets = {one["name"]: one for one in found["presets"]}
    assert set(presets) >= {"3g", "bad"}
    assert all(set(one) == {"name", "summary"} for one in presets.values())


# The one handler


@pytest.mark.parametrize("path", ["/handler", "/proxies/default/handler"])
def test_the_handler_of_the_first_proxy(path: str, api: Api) -> None:
    calm = {"proxy": "default", "name": "dummy", "options": {}, "behavior": CALM}
    assert api.get(path) == calm
    made = api.post(path, {"name": "delay", "sleep": 2})
    assert made["proxy"] == "default"
    assert made["name"] == "delay"
    assert made["options"]["sleep"] == 2 and made["options"]["before"] is True
    assert made["behavior"] == "100:delay"
    assert set(made) == set(calm)
    assert api.get("/handler") == api.get("/proxies/default/handler") == made
    assert api.get("/proxies/other/handler") == {**calm, "proxy": "other"}
    assert api.post(path, {"name": "dummy"}) == calm


def test_a_mixture_has_no_one_handler(proxy: Remote) -> None:
    proxy.set("20:delay,5:error")
    found = proxy.api.get(f"{proxy.path}/handler")
    assert (found["name"], found["options"]) == (None, None)
    assert found["behavior"] == "20:delay,5:error"
    proxy.set("100:latency+slicer")
    assert proxy.api.get(f"{proxy.path}/handler")["name"] is None
    proxy.set("50:latency")
    assert proxy.api.get(f"{proxy.path}/handler")["name"] is None


def test_options_left_away_are_as_configured(proxy: Remote) -> None:
    made = proxy.api.post(f"{proxy.path}/handler", {"name": "crawl", "jitter": 1})
    assert (made["options"]["latency"], made["options"]["jitter"]) == (1, 1)
    made = proxy.api.post(f"{proxy.path}/handler", {"name": "crawl"})
    assert (made["options"]["latency"], made["options"]["jitter"]) == (1, 0)


def test_a_preset_is_set_like_a_handler(proxy: Remote) -> None:
    made = proxy.api.post(f"{proxy.path}/handler", {"name": "bad"})
    assert made["name"] == "bad"
    assert made["behavior"] == "100:bad"
    assert made["options"][0]["handler"] == "latency"


def test_dash_and_underscore_are_the_same(proxy: Remote) -> None:
    for word in ("average-size", "average_size"):
        made = proxy.api.post(f"{proxy.path}/handler", {"name": "slicer", word: 77})
        assert made["options"]["average_size"] == 77


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["name"]),
        ([], ["object"]),
        ("delay", ["object"]),
        (b"", []),
        (b"{", []),
        (b'{"name": NaN}', ["NaN"]),
        (b"\xff", ["UTF-8"]),
        ({"name": None}, ["name"]),
        ({"name": 5}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"name": "dleay"}, ["'dleay'", "'delay'"]),
        ({"name": "20:delay"}, ["20:delay"]),
        ({"name": "delay,error"}, ["name"]),
        ({"name": "latency+slicer"}, ["latency+slicer"]),
        ({"name": "refuse"}, ["'refuse'"]),
        ({"name": "delay", "slep": 1}, ["'slep'", "'sleep'"]),
        ({"name": "delay", "sleep": "soon"}, ["sleep", "'soon'"]),
        ({"name": "delay", "sleep": [1]}, ["sleep"]),
        ({"name": "delay", "sleep": {"a": 1}}, ["sleep"]),
        ({"name": "delay", "before": "perhaps"}, ["before", "'perhaps'"]),
        ({"name": "latency", "latency": -1}, ["latency", "-1"]),
        ({"name": "latency", "stream": "upsteam"}, ["'upsteam'", "'upstream'"]),
        ({"name": "dummy", "sleep": 1}, ["sleep"]),
        ({"name": "bad", "latency": 1}, ["bad"]),
        ({"name": "slicer", "average-size": 1, "average_size": 2}, ["average", "twice"]),
        ({"name": "delay", "ttl": 0}, ["ttl", "0"]),
        ({"name": "delay", "ttl": -1}, ["ttl", "-1"]),
        ({"name": "delay", "ttl": "5"}, ["ttl", "'5'"]),
        ({"name": "delay", "ttl": True}, ["ttl"]),
        ({"name": "delay", "ttl": 1e300}, ["ttl"]),
        ({"name": "os.system"}, ["'os.system'"]),
        ({"name": "vaurien.handlers.delay.Delay"}, ["vaurien.handlers.delay.Delay"]),
        ({"name": "delay", "callable": "os.system"}, ["callable"]),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_handler_is_told_and_changes_nothing(
    body: object, words: list[str], api: Api
) -> None:
    before = api.get("/state")
    sentence = api.refused("POST", "/handler", body)
    for word in words:
        assert word in sentence, sentence
    assert api.get("/state") == before


# Behaviors


def test_a_behavior_is_set_with_options_and_shown(proxy: Remote) -> None:
    path = f"{proxy.path}/behavior"
    calm: dict[str, Any] = {
        "proxy": proxy.name,
        "behavior": CALM,
        "on_connect": None,
        "handlers": {},
    }
    assert proxy.api.get(path) == calm
    body = {"behavior": "20:delay,5:error", "handlers": {"delay": {"sleep": 2}}}
    made = proxy.api.post(path, body)
    assert made["proxy"] == proxy.name
    assert made["behavior"] == "20:delay,5:error" and made["on_connect"] is None
    assert set(made["handlers"]) == {"delay", "error"}
    assert made["handlers"]["delay"]["sleep"] == 2
    assert proxy.api.get(path) == made

    made = proxy.api.post(path, {"on_connect": "10:refuse"})
    assert (made["behavior"], made["on_connect"]) == ("20:delay,5:error", "10:refuse")
    assert made["handlers"]["delay"]["sleep"] == 2, "the behavior's options went"

    made = proxy.api.post(path, {"behavior": CALM})
    assert (made["behavior"], made["on_connect"]) == (CALM, "10:refuse")
    assert proxy.api.post(path, {"on_connect": None}) == calm


def test_the_first_proxys_behavior(api: Api) -> None:
    made = api.post("/behavior", {"behavior": "30:error"})
    assert made["proxy"] == "default"
    assert api.get("/proxies/default/behavior") == api.get("/behavior") == made
    assert api.get("/proxies/other/behavior")["behavior"] == CALM


def test_a_preset_is_shown_with_what_is_behind_it(proxy: Remote) -> None:
    made = proxy.set("20:bad")
    for one in made["handlers"]["bad"]:
        assert set(one) == {"handler", "options"}
    assert made["handlers"]["bad"][0]["handler"] == "latency"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["behavior"]),
        ({"behavior": None}, ["behavior"]),
        ({"handlers": {"delay": {}}}, ["behavior"]),
        ([], ["object"]),
        ({"behaviour": "20:delay"}, ["'behaviour'", "'behavior'"]),
        ({"behavior": 20}, ["behavior", "20"]),
        ({"behavior": "delay"}, ["behavior", "'delay'"]),
        ({"behavior": ""}, ["behavior"]),
        ({"behavior": "120:delay"}, ["behavior", "120"]),
        ({"behavior": "60:delay,60:error"}, ["120"]),
        ({"behavior": "20:dleay"}, ["'dleay'", "'delay'"]),
        ({"behavior": "20:refuse"}, ["'refuse'"]),
        ({"behavior": "20:error+latency"}, ["error"]),
        ({"behavior": "20:os.system"}, ["os.system"]),
        ({"behavior": "20:delay", "on_connect": "20:delay"}, ["on_connect", "'delay'"]),
        ({"behavior": "20:delay", "on_connect": "20:refsue"}, ["'refsue'", "'refuse'"]),
        ({"on_connect": "20:refsue"}, ["on_connect: ", "'refsue'", "'refuse'"]),
        ({"on_connect": "20:jitter"}, ["on_connect: ", "handlers: dial_fail, down, refuse"]),
        ({"behavior": "20:slow_acept"}, ["behavior: ", "'slow_acept'", "'slow_close'"]),
        ({"behavior": "20:os.refsue"}, ["behavior: ", "a request names what is configured"]),
        ({"on_connect": "50:down"}, ["on_connect", "100:down"]),
        ({"on_connect": 5}, ["on_connect", "5"]),
        ({"behavior": "20:delay", "handlers": {"error": {}}}, ["error"]),
        ({"behavior": "20:delay", "handlers": {"dleay": {"sleep": 1}}}, ["dleay"]),
        ({"on_connect": "20:refuse", "handlers": {"delay": {}}}, ["on_connect does not pick it"]),
        ({"behavior": "20:delay", "handlers": {"delay": {"slep": 1}}},
         ["handlers.delay.slep", "'sleep'"]),
        ({"behavior": "20:delay", "handlers": {"delay": {"sleep": "soon"}}},
         ["handlers.delay.sleep", "'soon'"]),
        ({"behavior": "20:delay", "handlers": {"delay": 2}}, ["handlers.delay"]),
        ({"behavior": "20:delay", "handlers": []}, ["handlers"]),
        ({"behavior": "20:delay", "handlers": {"delay": {"callable": "os.system"}}}, ["callable"]),
        ({"behavior": "20:delay", "ttl": 0}, ["ttl"]),
        ({"behavior": "20:delay", "ttl": "1"}, ["ttl"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_a_behavior_is_told_and_changes_nothing(
    body: object, words: list[str], api: Api
) -> None:
    before = api.get("/state")
    sentence = api.refused("POST", "/proxies/other/behavior", body)
    for word in words:
        assert word in sentence, sentence
    assert api.get("/state") == before


# Paths


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/handler/", 404),
        ("GET", "/handlers/delay", 404),
        ("GET", "/proxies/default/nothing", 404),
        ("DELETE", "/proxies/default/connections/x", 404),
        ("DELETE", "/proxies/default/connections/99999999", 404),
        ("GET", "/proxies/nobody/state", 404),
        ("GET", "/proxies/nobody/handler", 404),
        ("POST", "/proxies/nobody/handler", 404),
        ("GET", "/proxies/nobody/behavior", 404),
        ("POST", "/proxies/nobody/behavior", 404),
        ("POST", "/proxies/nobody/enable", 404),
        ("POST", "/proxies/nobody/disable", 404),
        ("POST", "/proxies/nobody/reset", 404),
        ("GET", "/proxies/nobody/connections", 404),
        ("DELETE", "/proxies/nobody/connections", 404),
        ("DELETE", "/proxies/nobody/connections/1", 404),
        ("GET", "/proxies/nobody/events", 404),
        ("GET", "/proxies/nobody/journal", 404),
        ("POST", "/handlers", 405),
        ("PUT", "/handler", 405),
        ("DELETE", "/behavior", 405),
        ("POST", "/state", 405),
        ("POST", "/proxies/default/state", 405),
        ("GET", "/proxies/default/enable", 405),
        ("GET", "/proxies/default/reset", 405),
        ("GET", "/reload", 405),
        ("POST", "/events", 405),
        ("DELETE", "/journal", 405),
        ("POST", "/health", 405),
    ],
)
def test_paths_and_methods_that_are_none(method: str, path: str, status: int, api: Api) -> None:
    sentence = api.refused(method, path, {"name": "dummy"} if method == "POST" else None, status)
    if "nobody" in path:
        assert sentence == "there is no proxy 'nobody'; proxies: default, other"


def test_the_root_says_what_this_is(api: Api) -> None:
    found = api.get("/")
    assert found == {"name": "vaurien", "version": vaurien.__version__, "api": "/openapi.json"}
    assert api.get(found["api"])["openapi"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/handlrs", "did you mean '/handlers'?"),
        ("/handler/", "did you mean '/handler'?"),
        ("/HEALTH", "did you mean '/health'?"),
        ("/proxy", "did you mean '/proxies'?"),
        ("/proxies/default/behaviour", "did you mean '/proxies/default/behavior'?"),
        ("/proxys/a%20b/toxic", "did you mean '/proxies/a b/toxics'?"),
        ("/nothing/of/the/kind/at/all", "/openapi.json has all"),
        ("/xyz", "/openapi.json has all"),
        ("/proxies/default/connections/x", "/openapi.json has all"),
        (f"/{'x' * 5000}", "/openapi.json has all"),
    ],
)
def test_an_unknown_path_gets_the_nearest_one(path: str, hint: str, api: Api) -> None:
    assert api.refused("GET", path, status=404) == f"not found: there is no such path; {hint}"


@pytest.mark.parametrize("method", ["FOO", "PUT", "TRACE", "OPTIONS", "get"])
def test_a_wrong_method_is_told_the_right_ones(method: str, api: Api) -> None:
    for path, takes in (("/proxies", "GET and POST"), ("/journal", "GET"), ("/version", "GET")):
        answer = api.call(method, path)
        assert answer.status == 405
        assert answer.headers["Allow"] == takes.replace(" and ", ", ")
        assert answer.json["error"] == f"method not allowed: {path} takes {takes}"
    api.refused(method, "/nothing", status=404)


def test_who_is_not_there_is_told_with_the_nearest(proxy: Remote) -> None:
    api, near = proxy.api, "/proxies/defualt"
    for method, path in (("GET", "state"), ("POST", "enable"), ("DELETE", "connections/1")):
        said = api.refused(method, f"{near}/{path}", status=404)
        assert said == "there is no proxy 'defualt'; did you mean 'default'?"
    said = api.refused("DELETE", f"{proxy.path}/connections/7", status=404)
    assert said == f"{proxy.name} has no open connection 7; it has none"
    with connected(proxy.address):
        said = api.refused("DELETE", f"{proxy.path}/connections/7", status=404)
        assert said == f"{proxy.name} has no open connection 7; connections: 1"
    # what Toxiproxy's clients know stays as they know it
    for path in (near, f"{near}/toxics"):
        assert api.refused("GET", path, status=404) == "proxy not found"
    said = api.refused("POST", f"{proxy.path}/toxics", {"type": "latncy"})
    assert said == "invalid toxic type: 'latncy'; did you mean 'latency'?"


def test_what_takes_no_body_refuses_one_that_says_something(proxy: Remote) -> None:
    api = proxy.api
    before = api.get("/state")
    for method, path in (
        ("POST", f"{proxy.path}/reset"),
        ("POST", "/reload"),
        ("DELETE", f"{proxy.path}/connections"),
        ("DELETE", f"{proxy.path}/connections/1"),
    ):
        assert "no field 'x'" in api.refused(method, path, {"x": 1})
        assert "it is a list" in api.refused(method, path, [])
        assert "it is null" in api.refused(method, path, b"null")
    assert api.get("/state") == before
    assert api.call("POST", f"{proxy.path}/reset", {}).status == 204
    assert api.call("POST", "/reset", {"x": 1}).status == 204  # Toxiproxy's


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("handler", b"", "bad request body: there is none; send JSON"),
        ("handler", b"name=delay",
         "bad request body: it is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("handler", b'{"x": ' + b"1" * 5000 + b"}",
         "bad request body: it has a number with too many digits"),
        ("handler", {"name": True}, "bad request body: name is true, not text"),
        ("handler", {"name": "delay", "sleep": True}, "sleep: true is not a finite number"),
        ("handler", {"name": "delay", "sleep": {"a": None}}, 'sleep: {"a": null} is not a plain'),
        ("handler", {"name": "delay", "ttl": False}, "ttl: false is not a time"),
        ("behavior", {"behavior": [None]}, "bad request body: behavior is [null], not text"),
        ("enable", {"ttl": False}, "bad request body: ttl is false, not a number"),
        ("toxics", {"type": "latency", "attributes": {"latency": False}},
         "bad request body: attributes.latency: false is not a finite number"),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_told_as_json_has_them(path: str, body: Any, said: str, proxy: Remote) -> None:
    assert proxy.api.refused("POST", f"{proxy.path}/{path}", body).startswith(said)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", ""])
def test_who_has_the_address_is_told(host: str, proxy: Remote) -> None:
    place = f"{host}:{proxy.address.rpartition(':')[2]}"
    body = {"name": "late", "listen": place, "upstream": "127.0.0.1:9"}
    found = place.replace("localhost", "127.0.0.1")  # the message has the resolved address
    words = f"listen tcp {found}: bind: address already in use"
    said = proxy.api.refused("POST", "/proxies", body, 500)
    assert said == f"{words} (by proxy {proxy.name!r})"
    said = proxy.api.refused("POST", "/proxies/other", {"listen": place}, 500)
    assert said == f"{words} (by proxy {proxy.name!r})"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        place = f"127.0.0.1:{stranger.getsockname()[1]}"
        said = proxy.api.refused("POST", "/proxies", {**body, "listen": place}, 500)
        assert said == f"listen tcp {place}: bind: address already in use"


def test_without_a_proxy_there_is_no_first_one(backend: Backend) -> None:
    with Farm() as farm:
        api = farm.api
        assert api.get("/state") == {"version": vaurien.__version__, "proxies": []}
        assert api.get("/proxies") == {}
        assert api.get("/health")["proxies"] == 0
        for method, path, body in (
            ("GET", "/handler", None),
            ("POST", "/handler", {"name": "delay"}),
            ("GET", "/behavior", None),
            ("POST", "/behavior", {"behavior": "20:delay"}),
        ):
            assert "POST /proxies" in api.refused(method, path, body, 404)
        assert api.get("/handlers")["handlers"]
        assert api.call("GET", "/journal").status == 200
        api.ask("POST", "/reset", status=204)
        address = api.create("a", backend)
        assert api.get("/handler")["proxy"] == "a"
        with connected(address):
            pass
        api.delete("/proxies/a")
        api.refused("GET", "/handler", status=404)


def test_the_first_is_the_one_that_was_made_first(farm: Farm, backend: Backend) -> None:
    with Farm() as farm:
        for name in ("b", "a", "c"):
            farm.api.create(name, backend)
        assert farm.api.get("/handler")["proxy"] == "b"
        farm.api.post("/proxies/b/disable")
        assert farm.api.get("/handler")["proxy"] == "b"
        farm.api.delete("/proxies/b")
        assert farm.api.get("/handler")["proxy"] == "a"


def test_health(api: Api) -> None:
    found = api.get("/health")
    assert found == {
        "status": "ok",
        "version": vaurien.__version__,
        "proxies": len(api.get("/proxies")),
    }


def test_metrics_are_there(api: Api) -> None:
    answer = api.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b'proxy="default"' in answer.body


def test_the_document_has_each_path(api: Api) -> None:
    document = api.get("/openapi.json")
    assert document["openapi"].startswith("3.")
    paths = document["paths"]
    for path in ("handler", "behavior", "connections", "events", "journal", "state"):
        assert f"/{path}" in paths
        assert any(one.startswith("/proxies/{") and one.endswith(f"}}/{path}") for one in paths)
    for path in ("/handlers", "/health", "/metrics", "/reload", "/proxies", "/populate", "/reset"):
        assert path in paths


# In force when the call returns


def test_a_handler_is_in_force_when_the_call_returns(proxy: Remote) -> None:
    path = f"{proxy.path}/handler"
    with proxy.dial() as client:
        for _ in range(10):
            assert exchange(client, b"hello") == b"hello"
            proxy.api.post(path, {"name": "corrupt", "chance": 100, "stream": "downstream"})
            assert exchange(client, b"hello") != b"hello"
            proxy.api.post(path, {"name": "dummy"})


def test_a_socket_handler_is_in_force_when_the_call_returns(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"hello") == b"hello"
        proxy.api.post(f"{proxy.path}/handler", {"name": "error", "inject": True})
        client.sendall(b"hello")
        assert client.recv(100)[:5] != b"hello"


def test_another_option_is_in_force_when_the_call_returns(proxy: Remote) -> None:
    path = f"{proxy.path}/handler"
    with proxy.dial() as client:
        for times in (0.15, 0.0, 0.15):
            proxy.api.post(path, {"name": "delay", "sleep": times})
            start = time.monotonic()
            assert exchange(client, b"hello") == b"hello"
            took = time.monotonic() - start
            assert took >= 0.15 if times else took < 0.15


def test_a_preset_is_in_force_on_an_open_connection(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"hello") == b"hello"
        proxy.set("100:3g")
        start = time.monotonic()
        assert exchange(client, b"hello") == b"hello"
        assert time.monotonic() - start >= 0.29


def test_who_meets_clients_is_in_force_for_the_next_one(proxy: Remote) -> None:
    with connected(proxy.address) as client:
        proxy.api.post(f"{proxy.path}/behavior", {"on_connect": "100:refuse"})
        with pytest.raises(ConnectionResetError), proxy.dial() as other:
            other.recv(1)
        assert exchange(client, b"hello") == b"hello"
        proxy.api.post(f"{proxy.path}/behavior", {"on_connect": None})
        with connected(proxy.address):
            pass


def test_down_and_up_by_a_request(proxy: Remote) -> None:
    proxy.api.post(f"{proxy.path}/behavior", {"on_connect": "100:down"})
    with pytest.raises(ConnectionRefusedError):
        proxy.dial()
    proxy.api.post(f"{proxy.path}/behavior", {"on_connect": None})
    with connected(proxy.address):
        pass


def test_who_is_down_keeps_his_address_from_other_proxies(proxy: Remote) -> None:
    thief = {"name": "thief", "listen": proxy.address, "upstream": "127.0.0.1:1"}
    for on_connect in ("100:down", None):
        proxy.api.post(f"{proxy.path}/behavior", {"on_connect": on_connect})
        said = proxy.api.refused("POST", "/proxies", thief, 500)
        words = f"listen tcp {proxy.address}: bind: address already in use"
        assert said == f"{words} (by proxy {proxy.name!r})"
    with connected(proxy.address):
        pass


def test_disabled_is_closed_and_enabled_is_open_at_once(proxy: Remote) -> None:
    with connected(proxy.address) as client:
        found = proxy.api.post(f"{proxy.path}/disable")
        assert found["enabled"] is False and found["name"] == proxy.name
        assert found["local"] == proxy.address
        assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        proxy.dial()
    assert proxy.api.post(f"{proxy.path}/disable", {})["enabled"] is False
    assert proxy.api.post(f"{proxy.path}/enable")["local"] == proxy.address
    with connected(proxy.address):
        assert proxy.api.post(f"{proxy.path}/enable")["enabled"] is True
        assert proxy.state()["connections"] == 1, "enabling what is enabled ended connections"


def test_a_switch_takes_ttl_only(proxy: Remote) -> None:
    sentence = proxy.api.refused("POST", f"{proxy.path}/disable", {"tll": 5})
    assert "'tll'" in sentence and "'ttl'" in sentence
    assert "ttl" in proxy.api.refused("POST", f"{proxy.path}/disable", {"ttl": 0})
    assert proxy.state()["enabled"] is True


def test_reset_of_one(proxy: Remote) -> None:
    other = proxy.api.get("/proxies/other/state")
    proxy.add("latency", attributes={"latency": 1})
    proxy.set("20:error", on_connect="10:refuse")
    proxy.api.post(f"{proxy.path}/disable")
    assert proxy.api.ask("POST", f"{proxy.path}/reset", status=204) is None
    state = proxy.state()
    assert state["enabled"] is True and state["local"] == proxy.address
    assert (state["behavior"], state["on_connect"], state["toxics"]) == (CALM, None, [])
    assert proxy.api.get("/proxies/other/state") == other


# Laws 8 and 9: a change of one changes nothing about another

EXCHANGES = 60


def story(proxy: Remote, change: Callable[[int], object]) -> list[bytes]:
    """What each of some exchanges got on one connection; `change` is called before each."""
    found = []
    with proxy.dial() as client:
        for number in range(EXCHANGES):
            change(number)
            found.append(exchange(client, b"%04d" % number * 5))
    return found


@pytest.fixture
def twins(farm: Farm, backend: Backend) -> Iterator[Callable[..., Remote]]:
    """Makes proxies of one name and seed, one after the other."""
    name = f"twin{next(NUMBERS)}"

    def make(**more: Any) -> Remote:
        farm.api.call("DELETE", f"/proxies/{name}")
        remote = Remote.__new__(Remote)
        remote.api, remote.name, remote.path = farm.api, name, f"/proxies/{name}"
        remote.address = farm.api.create(name, backend, seed=42, **more)
        return remote

    yield make
    farm.api.call("DELETE", f"/proxies/{name}")


CORRUPT = {"corrupt": {"chance": 30, "stream": "downstream"}}
MIXED = {**CORRUPT, "latency": {"latency": 1, "stream": "upstream"}}


def mixed(proxy: Remote, **latency: Any) -> None:
    handlers = {**MIXED, "latency": {**MIXED["latency"], **latency}}
    proxy.set("40:corrupt,20:latency", handlers=handlers)


def test_an_option_of_one_handler_changes_nothing_about_another(
    twins: Callable[..., Remote],
) -> None:
    proxy = twins()
    mixed(proxy)
    without = story(proxy, lambda _: None)
    assert any(got != b"%04d" % n * 5 for n, got in enumerate(without))

    proxy = twins()
    mixed(proxy)

    def change(number: int) -> None:
        if number % 5 == 0:
            mixed(proxy, latency=number % 3)

    assert story(proxy, change) == without


def test_a_toxic_added_changed_and_removed_changes_no_dice(twins: Callable[..., Remote]) -> None:
    proxy = twins()
    mixed(proxy)
    proxy.add("corrupt", name="c", toxicity=0.9, attributes={"chance": 5})
    without = story(proxy, lambda _: None)

    proxy = twins()
    mixed(proxy)
    proxy.add("corrupt", name="c", toxicity=0.9, attributes={"chance": 5})

    def change(number: int) -> None:
        toxic = f"{proxy.path}/toxics/other"
        if number % 6 == 1:
            proxy.add("latency", name="other", toxicity=0.5, attributes={"latency": 1})
        if number % 6 == 3:
            proxy.api.post(toxic, {"attributes": {"latency": 2}, "toxicity": 1})
        if number % 6 == 5:
            proxy.api.delete(toxic)

    assert story(proxy, change) == without


def test_who_meets_clients_changes_nothing_about_exchanges(twins: Callable[..., Remote]) -> None:
    proxy = twins()
    mixed(proxy)
    without = story(proxy, lambda _: None)
    proxy = twins()
    mixed(proxy)

    def change(number: int) -> None:
        on_connect = "50:refuse" if number % 2 else None
        proxy.api.post(f"{proxy.path}/behavior", {"on_connect": on_connect})

    assert story(proxy, change) == without


def test_a_behavior_set_again_as_it_is_changes_nothing(twins: Callable[..., Remote]) -> None:
    proxy = twins()
    mixed(proxy)
    without = story(proxy, lambda _: None)
    proxy = twins()
    mixed(proxy)

    def change(number: int) -> None:
        if number in (20, 40):
            mixed(proxy)

    assert story(proxy, change) == without


def test_dice_differ_by_name_and_seed(farm: Farm, backend: Backend) -> None:
    found = []
    for name, seed in (("dice-a", 1), ("dice-a", 2), ("dice-b", 1), ("dice-a", 1)):
        remote = Remote.__new__(Remote)
        remote.api, remote.path = farm.api, f"/proxies/{name}"
        remote.address = farm.api.create(name, backend, seed=seed, behavior="40:corrupt")
        found.append(story(remote, lambda _: None))
        farm.api.delete(remote.path)
    assert found[0] == found[3]
    assert len({tuple(one) for one in found}) == 3


# State


def test_the_state_has_all_there_is_to_say(proxy: Remote, backend: Backend) -> None:
    proxy.set("100:delay", handlers={"delay": {"sleep": 0.001}})
    proxy.add("noop", stream="upstream", name="n")
    with proxy.dial() as client:
        for _ in range(3):
            assert exchange(client, b"hello") == b"hello"
        found = wait_for(
            lambda: (state := proxy.state())["counters"]["exchanges"] == 3 and state,
            "three exchanges while the connection is open",
        )
        assert found["connections"] == 1
        assert found["counters"] == {
            "connections": 1,
            "failed_dials": 0,
            "handler_errors": 0,
            "internal_errors": 0,
            "accept_errors": 0,
            "refused": 0,
            "exchanges": 3,
            "received": {"upstream": 15, "downstream": 15},
            "sent": {"upstream": 15, "downstream": 15},
        }
    assert set(found) == {
        "name", "local", "distant", "enabled", "protocol", "seed", "behavior", "on_connect",
        "handlers", "toxics", "connections", "counters", "stats", "ttl",
    }  # fmt: skip
    assert (found["name"], found["local"]) == (proxy.name, proxy.address)
    assert found["distant"] == backend.address
    assert (found["enabled"], found["protocol"], found["seed"]) == (True, "tcp", 42)
    assert (found["behavior"], found["on_connect"]) == ("100:delay", None)
    assert found["handlers"]["delay"]["sleep"] == 0.001
    assert found["toxics"] == [
        {"name": "n", "type": "noop", "stream": "upstream", "toxicity": 1, "attributes": {}}
    ]
    assert found["ttl"] == {}
    assert found["stats"]["delay"]["picked"] == 3
    assert set(found["stats"]["delay"]) == {"picked", "fired", "bytes", "added_p50", "added_p99"}
    wait_for(lambda: proxy.state()["stats"]["delay"]["fired"] == 3)
    assert wait_for(lambda: proxy.state()["connections"] == 0)
    assert proxy.state()["counters"]["received"]["upstream"] == 15


def test_the_delay_added_is_told(proxy: Remote) -> None:
    proxy.set("100:latency", handlers={"latency": {"latency": 20, "stream": "upstream"}})
    with proxy.dial() as client:
        for _ in range(5):
            exchange(client, b"hello")
    found = wait_for(lambda: (s := proxy.state()["stats"]["latency"])["fired"] == 5 and s)
    assert found["picked"] == 5
    assert 0.015 < found["added_p50"] <= found["added_p99"] < 0.1


def test_the_state_of_all(api: Api) -> None:
    found = api.get("/state")
    assert found["version"] == vaurien.__version__
    assert [one["name"] for one in found["proxies"]][:2] == ["default", "other"]
    assert found["proxies"][1] == api.get("/proxies/other/state")


def test_a_failed_dial_is_counted(farm: Farm) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        upstream = f"127.0.0.1:{closed.getsockname()[1]}"
        address = farm.api.create("failing", upstream)
        with contextlib.suppress(ConnectionError), dial(address) as client:
            receive_all(client)
        wait_for(
            lambda: farm.api.get("/proxies/failing/state")["counters"]["failed_dials"] == 1,
            "the failed dial is counted",
        )
        farm.api.delete("/proxies/failing")


# Connections


@pytest.fixture
def held(farm: Farm) -> Iterator[tuple[Remote, list[socket.socket]]]:
    """A proxy before a backend that keeps its sockets."""
    kept: list[socket.socket] = []

    def script(sock: socket.socket) -> None:
        kept.append(sock)
        echo(sock)
        until_read.append(b"")

    until_read: list[bytes] = []
    with Backend(script) as backend:
        remote = Remote(farm.api, backend)
        yield remote, kept
        farm.api.call("DELETE", remote.path)


def name_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()
    return f"{host}:{port}"


def test_connections_are_listed(proxy: Remote) -> None:
    path = f"{proxy.path}/connections"
    assert proxy.api.get(path) == {"connections": []}
    proxy.set("100:latency", handlers={"latency": {"latency": 1, "stream": "upstream"}})
    with proxy.dial() as one, proxy.dial() as other:
        exchange(one, b"hello")
        exchange(one, b"you")
        found = wait_for(
            lambda: len(both := proxy.api.get(path)["connections"]) == 2 and both, "both are there"
        )
        assert found[0] == {
            "number": 1,
            "client": name_of(one),
            "exchange": 2,
            "handlers": ["latency"],
            "received": {"upstream": 8, "downstream": 8},
            "sent": {"upstream": 8, "downstream": 8},
            "held": 0,
        }
        assert (found[1]["number"], found[1]["client"]) == (2, name_of(other))
        assert (found[1]["exchange"], found[1]["handlers"]) == (0, [])
    wait_for(lambda: proxy.api.get(path) == {"connections": []}, "they are gone")


def test_held_bytes_are_told(proxy: Remote) -> None:
    proxy.add("pause", stream="upstream", name="hold")
    with proxy.dial() as client:
        client.sendall(b"hello")
        (found,) = wait_for(
            lambda: (
                (all_ := proxy.api.get(f"{proxy.path}/connections")["connections"])
                and all_[0]["held"]
                and all_
            ),
            "something is held",
        )
        assert found["held"] == 5
        assert found["received"]["upstream"] == 5 and found["sent"]["upstream"] == 0
        proxy.api.delete(f"{proxy.path}/toxics/hold")
        assert receive(client, 5) == b"hello"


@pytest.mark.parametrize("query", ["", "?how=fin"])
def test_a_connection_is_ended_politely(query: str, farm: Farm) -> None:
    ended: list[object] = []

    def script(sock: socket.socket) -> None:
        try:
            while data := sock.recv(100):
                sock.sendall(data)
            ended.append(b"")
        except OSError as error:
            ended.append(error)

    with Backend(script) as backend:
        proxy = Remote(farm.api, backend)
        with connected(proxy.address) as one, connected(proxy.address) as other:
            proxy.api.delete(f"{proxy.path}/connections/1{query}")
            assert one.recv(1) == b""
            wait_for(lambda: ended == [b""], "the backend sees the end")
            assert exchange(other, b"hello") == b"hello"
            proxy.api.refused("DELETE", f"{proxy.path}/connections/1", status=404)
            assert [
                c["number"] for c in proxy.api.get(f"{proxy.path}/connections")["connections"]
            ] == [2]
        proxy.api.delete(proxy.path)


def test_a_connection_is_reset(farm: Farm) -> None:
    ended: list[object] = []

    def script(sock: socket.socket) -> None:
        try:
            while data := sock.recv(100):
                sock.sendall(data)
            ended.append(b"")
        except OSError as error:
            ended.append(error)

    with Backend(script) as backend:
        proxy = Remote(farm.api, backend)
        with connected(proxy.address) as one, connected(proxy.address) as other:
            proxy.api.delete(f"{proxy.path}/connections/1?how=reset")
            with pytest.raises(ConnectionResetError):
                one.recv(1)
            wait_for(lambda: len(ended) == 1, "the backend sees the end")
            assert isinstance(ended[0], ConnectionResetError)
            assert exchange(other, b"hello") == b"hello"
        proxy.api.delete(proxy.path)


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_all_connections_are_dropped(how: str, proxy: Remote) -> None:
    path = f"{proxy.path}/connections"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(proxy.address)) for _ in range(5)]
        assert proxy.api.ask("DELETE", f"{path}?how={how}") == {"dropped": 5}
        for client in clients:
            if how == "fin":
                assert client.recv(1) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert proxy.api.get(path) == {"connections": []}
        assert proxy.api.ask("DELETE", path) == {"dropped": 0}
    with connected(proxy.address):
        pass


@pytest.mark.parametrize("path", ["/connections", "/connections/1"])
def test_another_way_to_end_is_refused(path: str, proxy: Remote) -> None:
    with connected(proxy.address) as client:
        sentence = proxy.api.refused("DELETE", f"{proxy.path}{path}?how=explode")
        assert "'explode'" in sentence and "fin" in sentence and "reset" in sentence
        assert exchange(client, b"hello") == b"hello"
    assert "?how" in proxy.api.refused("GET", f"{proxy.path}/connections?how=fin")


def test_all_connections_of_the_first_proxy(farm: Farm) -> None:
    with connected(farm.proxies["default"]), connected(farm.proxies["other"]) as other:
        assert len(farm.api.get("/connections")["connections"]) == 1
        assert exchange(other, b"hello") == b"hello"


# For a while


def gone(proxy: Remote, key: str) -> bool:
    return key not in proxy.state()["ttl"]


def test_a_handler_for_a_while(proxy: Remote) -> None:
    proxy.set("20:error")
    proxy.api.post(f"{proxy.path}/handler", {"name": "delay", "sleep": 0, "ttl": 0.3})
    state = proxy.state()
    assert state["behavior"] == "100:delay"
    assert 0 < state["ttl"]["behavior"] <= 0.3
    wait_for(lambda: proxy.state()["behavior"] == "20:error", "the former one comes back")
    assert proxy.state()["ttl"] == {}


def test_a_behavior_for_a_while_brings_its_options_back(proxy: Remote) -> None:
    proxy.set("100:delay", handlers={"delay": {"sleep": 0.07}})
    proxy.set("100:delay", handlers={"delay": {"sleep": 0.01}}, ttl=0.2)
    assert proxy.state()["handlers"]["delay"]["sleep"] == 0.01
    wait_for(lambda: proxy.state()["handlers"]["delay"]["sleep"] == 0.07)


def test_what_was_changed_meanwhile_stays(proxy: Remote) -> None:
    proxy.set("20:error", ttl=0.2)
    proxy.set("30:error")
    assert proxy.state()["ttl"] == {}
    proxy.set(CALM, on_connect="1:refuse", ttl=0.2)
    proxy.set("40:error")
    wait_for(lambda: proxy.state()["on_connect"] is None, "the time of on_connect is over")
    assert proxy.state()["behavior"] == "40:error"


def test_one_while_within_another(proxy: Remote) -> None:
    proxy.set("10:error")
    proxy.set("20:error", ttl=0.6)
    proxy.set("30:error", ttl=0.2)
    wait_for(lambda: proxy.state()["behavior"] == "20:error")
    assert not gone(proxy, "behavior")
    wait_for(lambda: proxy.state()["behavior"] == "10:error")
    proxy.set("20:error", ttl=0.2)
    proxy.set("30:error", ttl=0.6)
    wait_for(lambda: proxy.state()["behavior"] == "10:error")
    assert proxy.state()["ttl"] == {}


def test_a_toxic_for_a_while(proxy: Remote) -> None:
    proxy.add("latency", name="t", attributes={"latency": 1}, ttl=0.3)
    assert 0 < proxy.state()["ttl"]["toxic t"] <= 0.3
    wait_for(lambda: proxy.state()["toxics"] == [], "it goes")
    proxy.add("latency", name="t", attributes={"latency": 1})
    proxy.api.post(f"{proxy.path}/toxics/t", {"attributes": {"latency": 5}, "ttl": 0.2})
    assert proxy.state()["toxics"][0]["attributes"]["latency"] == 5
    wait_for(lambda: proxy.state()["toxics"][0]["attributes"]["latency"] == 1, "its value is back")
    proxy.api.delete(f"{proxy.path}/toxics/t")
    assert proxy.state()["ttl"] == {}


def test_disabled_for_a_while(proxy: Remote) -> None:
    assert proxy.api.post(f"{proxy.path}/disable", {"ttl": 0.2})["ttl"]["enabled"] <= 0.2
    wait_for(lambda: proxy.state()["enabled"], "it listens again")
    with connected(proxy.address):
        pass
    proxy.api.post(f"{proxy.path}/disable", {"ttl": 0.2})
    proxy.api.post(f"{proxy.path}/disable")
    other = proxy.api.post(f"{proxy.path}/toxics", {"type": "noop", "name": "x", "ttl": 0.4})
    assert other["name"] == "x"
    wait_for(lambda: proxy.state()["toxics"] == [])
    assert proxy.state()["enabled"] is False, "disabled for good, it stays so"


def test_a_proxy_for_a_while(farm: Farm, backend: Backend) -> None:
    address = farm.api.create("brief", backend, ttl=0.3)
    with connected(address) as client:
        assert farm.api.get("/proxies/brief/state")["ttl"]["proxy"] <= 0.3
        assert client.recv(1) == b"", "its connections end with it"
    assert "brief" not in farm.api.get("/proxies")
    with pytest.raises(ConnectionRefusedError):
        dial(address)
    # One of its name that is made later is another.
    farm.api.create("brief", backend, ttl=0.2)
    farm.api.delete("/proxies/brief")
    farm.api.create("brief", backend)
    farm.api.create("watch", backend, ttl=0.4)
    wait_for(lambda: "watch" not in farm.api.get("/proxies"))
    assert "brief" in farm.api.get("/proxies")
    farm.api.delete("/proxies/brief")


def test_a_reset_ends_all_times(proxy: Remote) -> None:
    proxy.set("20:error")
    proxy.set("30:error", ttl=0.2)
    proxy.api.ask("POST", f"{proxy.path}/reset", status=204)
    assert proxy.state()["ttl"] == {}
    proxy.add("noop", name="x", ttl=0.4)
    wait_for(lambda: proxy.state()["toxics"] == [])
    assert proxy.state()["behavior"] == CALM


# Events


class Stream:
    """Someone who watches: a connection of its own, events as they come."""

    def __init__(self, farm: Farm, path: str = "/events") -> None:
        self.connection = Http(farm.apis["http"])
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        assert self.response.headers["Content-Type"].startswith("text/event-stream")
        assert self.response.readline().startswith(b":"), "it says nothing when it begins"
        assert self.response.readline() == b"\n"

    def next(self) -> tuple[str, Any]:
        """The next event: its kind and its data."""
        kind, data = "message", ""
        while (line := self.response.readline().decode().rstrip("\n")) or not data:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data += value
            else:
                assert not line or line.startswith(":"), line
        return kind, json.loads(data)

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_exchanges_are_told_as_they_begin_and_end(farm: Farm, proxy: Remote) -> None:
    proxy.set("100:noop")
    with Stream(farm, f"{proxy.path}/events") as stream:
        with proxy.dial() as client:
            exchange(client, b"hello")
            kind, data = stream.next()
            assert kind == "began"
            assert data == {
                "proxy": proxy.name,
                "connection": 1,
                "exchange": 1,
                "handlers": ["noop"],
            }
            exchange(client, b"hello")
            kind, data = stream.next()
            assert (kind, data["end"]) == ("ended", "next")
            assert (data["proxy"], data["connection"], data["exchange"]) == (proxy.name, 1, 1)
            assert (data["handler"], data["seed"], data["v"]) == ("noop", 42, 1)
            assert (data["from_client"], data["from_backend"]) == (5, 5)
            assert data["client"] == name_of(client)
            assert stream.next()[0] == "began"
        kind, data = stream.next()
        assert (kind, data["exchange"], data["end"]) == ("ended", 2, "client")


def test_exchanges_that_nobody_touches_are_not_told(farm: Farm, proxy: Remote) -> None:
    with Stream(farm, f"{proxy.path}/events") as stream:
        with connected(proxy.address):
            pass
        proxy.set("100:noop")
        assert stream.next()[0] == "change"


def test_every_change_is_told(farm: Farm, proxy: Remote) -> None:
    with Stream(farm, f"{proxy.path}/events") as stream:

        def told(*words: str) -> None:
            kind, data = stream.next()
            assert kind == "change"
            assert set(data) == {"time", "proxy", "change", "detail"}
            assert abs(data["time"] - time.time()) < 60
            assert data["proxy"] == proxy.name
            for word in words:
                assert word in f"{data['change']}: {data['detail']}", data

        proxy.set("20:error")
        told("behavior", "20:error")
        proxy.api.post(f"{proxy.path}/behavior", {"on_connect": "10:refuse"})
        told("on_connect", "10:refuse")
        proxy.api.post(f"{proxy.path}/handler", {"name": "delay", "sleep": 0})
        told("behavior", "100:delay")
        proxy.add("latency", name="slow", attributes={"latency": 1})
        told("toxic added", "slow")
        proxy.api.post(f"{proxy.path}/toxics/slow", {"attributes": {"latency": 2}})
        told("toxic changed", "slow")
        proxy.api.delete(f"{proxy.path}/toxics/slow")
        told("toxic removed", "slow")
        proxy.api.post(f"{proxy.path}/disable")
        told("disabled")
        proxy.api.post(f"{proxy.path}/enable")
        told("enabled")
        proxy.api.post(proxy.path, {"upstream": "127.0.0.1:1"})
        told("changed", "127.0.0.1:1")
        proxy.api.ask("POST", f"{proxy.path}/reset", status=204)
        told("reset")
        proxy.set("20:error", ttl=0.1)
        told("behavior", "20:error")
        told("behavior", CALM)
        proxy.api.delete(proxy.path)
        told("deleted")


def test_a_refused_change_is_not_told(farm: Farm, proxy: Remote) -> None:
    with Stream(farm, f"{proxy.path}/events") as stream:
        proxy.api.refused("POST", f"{proxy.path}/behavior", {"behavior": "20:dleay"})
        proxy.set("20:error")
        assert "20:error" in stream.next()[1]["detail"]


def test_events_of_one_proxy_or_of_all(farm: Farm, proxy: Remote) -> None:
    with Stream(farm) as all_, Stream(farm, f"{proxy.path}/events") as mine:
        farm.api.post("/proxies/other/behavior", {"behavior": CALM})
        proxy.set(CALM)
        assert [all_.next()[1]["proxy"] for _ in range(2)] == ["other", proxy.name]
        assert mine.next()[1]["proxy"] == proxy.name


def test_who_watches_slowly_holds_up_nobody_and_is_told(backend: Backend, tmp_path: Path) -> None:
    # A unix socket, because the system holds megabytes for one of TCP.
    asked = 1500
    with Farm("--http-host", f"unix:{tmp_path}/api") as farm:
        address = farm.api.create("p", backend, behavior="100:noop")
        with Stream(farm, "/proxies/p/events") as slow:
            with dial(address) as client:
                for _ in range(asked):
                    assert exchange(client, b"hello") == b"hello"
            wait_for(lambda: not farm.api.get("/connections")["connections"])
            told = dropped = 0
            while not dropped:
                kind, data = slow.next()
                told += kind != "dropped"
                dropped = data["events"] if kind == "dropped" else 0
            assert set(data) == {"events"}
            assert told < 2 * asked
            farm.api.post("/handler", {"name": "dummy"})
            while kind != "change":  # it goes on
                kind, data = slow.next()
                told += kind in ("began", "ended")
                dropped += data["events"] if kind == "dropped" else 0
            assert told + dropped == 2 * asked


def test_nothing_is_left_when_who_watched_has_gone(farm: Farm, proxy: Remote) -> None:
    proxy.set(CALM)
    streams = [Stream(farm, f"{proxy.path}/events") for _ in range(20)]
    before = farm.descriptors() - 20  # other tests' connections may still be on their way out
    for stream in streams:
        stream.close()

    def left() -> bool:
        proxy.set(CALM)  # it is seen when something is to be told, or after the next comment
        return farm.descriptors() <= before

    wait_for(left, "their descriptors are closed")


# The journal


def lines_of(answer: Answer) -> list[Any]:
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    text = answer.body.decode()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_the_journal_has_the_last_exchanges(proxy: Remote) -> None:
    path = f"{proxy.path}/journal"
    assert lines_of(proxy.api.call("GET", path)) == []
    with proxy.dial() as client:
        exchange(client, b"hello")
        proxy.set("100:noop")
        for _ in range(5):
            exchange(client, b"hello")
    wait_for(lambda: len(lines_of(proxy.api.call("GET", path))) == 5)
    found = lines_of(proxy.api.call("GET", path))
    assert [line["exchange"] for line in found] == [2, 3, 4, 5, 6]
    assert {line["proxy"] for line in found} == {proxy.name}
    assert lines_of(proxy.api.call("GET", f"{path}?limit=2")) == found[-2:]
    assert lines_of(proxy.api.call("GET", f"{path}?limit=0")) == []
    assert lines_of(proxy.api.call("GET", f"{path}?limit=99999999999999")) == found
    assert lines_of(proxy.api.call("GET", "/journal"))[-5:] == found


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "", "%C2%B2"])
def test_a_limit_that_is_none_is_refused(limit: str, api: Api) -> None:
    assert "limit" in api.refused("GET", f"/journal?limit={limit}")


def test_the_journal_can_be_replayed(backend: Backend, tmp_path: Path) -> None:
    def answers(farm: Farm) -> list[bytes]:
        found = []
        for _ in range(4):
            with contextlib.suppress(ConnectionError), dial(farm.proxies["default"]) as client:
                for _ in range(8):
                    found.append(b"-")
                    found[-1] = exchange(client, b"hello world") or b"-"
        return found

    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0")
    harm = ("--behavior", "30:corrupt,10:truncate", "--handlers.corrupt.chance", 50)
    with Farm(*arguments, *harm, ready=1) as farm:
        before = answers(farm)
        wait_for(lambda: farm.api.get("/state")["proxies"][0]["connections"] == 0)
        journal = tmp_path / "run.jsonl"
        journal.write_bytes(farm.api.call("GET", "/journal").body)
    assert any(answer != b"hello world" for answer in before)
    with Farm(*arguments, "--replay", journal, ready=1, has_api=False) as farm:
        assert answers(farm) == before


# The connection of the API itself


def test_requests_on_a_kept_connection_take_no_40_ms(farm: Farm, proxy: Remote) -> None:
    # Without TCP_NODELAY a POST on a kept connection takes 44 ms.
    host, port = parse_address(farm.apis["http"])
    body = json.dumps({"behavior": CALM}).encode()
    head = f"POST {proxy.path}/behavior HTTP/1.1\r\nHost: localhost\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    times = []
    with socket.create_connection((host, port), timeout=PATIENCE) as sock, sock.makefile("rb") as f:
        for _ in range(20):
            start = time.monotonic()
            sock.sendall(request)
            assert f.readline().startswith(b"HTTP/1.1 200 ")
            length = 0
            while (line := f.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            f.read(length)
            times.append(time.monotonic() - start)
    assert statistics.median(times) < 0.03, times


def test_events_do_not_wait_for_company(farm: Farm, proxy: Remote) -> None:
    with Stream(farm, f"{proxy.path}/events") as stream:
        times = []
        for _ in range(20):
            start = time.monotonic()
            proxy.set(CALM)
            stream.next()
            times.append(time.monotonic() - start)
    assert statistics.median(times) < 0.03, times


def test_while_it_ends_it_says_so(backend: Backend) -> None:
    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0", "--drain", 10)
    with Farm(*arguments, "--behavior", "100:pause", ready=1) as farm:
        with dial(farm.proxies["default"]) as client:
            client.sendall(b"hello")
            wait_for(lambda: farm.api.get("/connections")["connections"][0]["received"]["upstream"])
            farm.send_signal(15)

            def stopping() -> Any:
                answer = farm.api.call("GET", "/health")
                return answer.status == 503 and answer.json

            found = wait_for(stopping, "it says that it is stopping")
            assert found["status"] == "stopping"
            farm.api.post("/behavior", {"behavior": CALM})
            assert receive(client, 5) == b"hello", "what drains can still be changed"
        assert farm.wait() == 0
