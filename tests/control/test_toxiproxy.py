"""Toxiproxy's API beyond what a recording can say: what is refused, and what toxics do to bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import refused
from tests.control.helpers import Api, Remote
from tests.laws.helpers import MB, Acceptor, Flood, assert_fin, digest_of, threads
from tests.rivals.differences import differs
from tests.rivals.test_rivals import spoilt
from tests.support import (
    PATIENCE,
    Backend,
    dial,
    exchange,
    parse_address,
    receive,
    receive_all,
    wait_for,
)
from tests.wire.scripts import TOXICS

EARLY = 0.002  # seconds
LATE = 1.0  # how late a timer may be on a machine that is busy with other tests


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Api() as api:
        yield api
        assert "Traceback" not in api.text, api.text


@pytest.fixture
def proxy(api: Api, echo_backend: Backend) -> Iterator[Remote]:
    """A proxy before an echo."""
    with api.proxy(echo_backend) as proxy:
        yield proxy


def took(start: float, least: float) -> None:
    """What began at `start` has taken at least so many seconds, and not much more."""
    seconds = time.monotonic() - start
    assert least - EARLY <= seconds < least + LATE, f"{seconds:.3f} s, not {least}"


# What is refused


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("latency", "latnecy", "latency"),
        ("latency", "jiter", "jitter"),
        ("bandwidth", "rates", "rate"),
        ("slow_close", "dealy", "delay"),
        ("timeout", "time_out", "timeout"),
        ("reset_peer", "timeuot", "timeout"),
        ("slicer", "avarage_size", "average_size"),
        ("slicer", "size-variaton", "size_variation"),
        ("limit_data", "byte", "bytes"),
    ],
)
@differs("unknown-fields")
def test_an_unknown_attribute_is_refused_and_the_nearest_named(
    proxy: Remote, kind: str, wrong: str, right: str
) -> None:
    toxics = f"{proxy.path}/toxics"
    said = proxy.api.refused("POST", toxics, {"type": kind, "attributes": {wrong: 1}})
    assert wrong in said and re.search(rf"\b{right}\b", said.replace(wrong, "", 1))
    assert proxy.toxics() == []
    name = proxy.add(kind, **TOXICS[kind])
    body = {"attributes": {**TOXICS[kind], wrong: 1}}
    said = proxy.api.refused("PATCH", f"{toxics}/{name}", body)
    assert wrong in said and re.search(rf"\b{right}\b", said.replace(wrong, "", 1))
    assert proxy.toxics()[0]["attributes"] == TOXICS[kind]


@pytest.mark.parametrize("stream", ["upstream", "nonsense", {"nonsense": [1]}])
@differs("stream-attribute")
def test_a_stream_among_the_attributes_is_refused(proxy: Remote, stream: Any) -> None:
    toxics, attributes = f"{proxy.path}/toxics", {"latency": 5, "stream": stream}
    said = proxy.api.refused("POST", toxics, {"type": "latency", "attributes": attributes})
    assert "attributes.stream" in said and "the field stream beside attributes" in said
    assert proxy.toxics() == []
    name = proxy.add("latency", latency=1)
    for method in ("POST", "PATCH"):
        said = proxy.api.refused(method, f"{toxics}/{name}", {"attributes": attributes})
        assert "attributes.stream" in said
    assert proxy.toxics()[0]["attributes"] == {"latency": 1, "jitter": 0}
    assert proxy.update(name, stream=None, latency=2)["attributes"]["latency"] == 2


def test_an_attribute_of_another_toxic_is_refused(proxy: Remote) -> None:
    for kind, wrong in (("noop", "latency"), ("bandwidth", "latency"), ("latency", "rate")):
        body = {"type": kind, "attributes": {wrong: 1}}
        assert wrong in proxy.api.refused("POST", f"{proxy.path}/toxics", body)
    assert proxy.toxics() == []


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [(kind, attribute) for kind, attributes in TOXICS.items() for attribute in attributes],
)
@differs("unknown-fields")
def test_negative_attributes_are_refused(proxy: Remote, kind: str, attribute: str) -> None:
    body = {"type": kind, "attributes": {attribute: -1}}
    said = proxy.api.refused("POST", f"{proxy.path}/toxics", body)
    assert attribute in said and "-1" in said
    assert proxy.toxics() == []
    name = proxy.add(kind, **TOXICS[kind])
    said = proxy.api.refused("PATCH", f"{proxy.path}/toxics/{name}", body)
    assert attribute in said and "-1" in said
    assert proxy.toxics()[0]["attributes"] == TOXICS[kind]


@pytest.mark.parametrize("toxicity", [-1, -0.1, 1.1, 100])
@differs("unknown-fields")
def test_a_toxicity_outside_0_to_1_is_refused(proxy: Remote, toxicity: float) -> None:
    toxics = f"{proxy.path}/toxics"
    said = proxy.api.refused("POST", toxics, {"type": "noop", "toxicity": toxicity})
    assert "toxicity" in said and str(toxicity) in said
    assert proxy.toxics() == []
    name = proxy.add("noop", toxicity=0.5)
    said = proxy.api.refused("POST", f"{toxics}/{name}", {"toxicity": toxicity})
    assert "toxicity" in said and str(toxicity) in said
    assert proxy.toxics()[0]["toxicity"] == 0.5


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_what_json_has_no_number_for_is_refused(proxy: Remote, word: bytes) -> None:
    for body in (
        b'{"type": "noop", "toxicity": %s}' % word,
        b'{"type": "latency", "attributes": {"latency": %s}}' % word,
    ):
        proxy.api.refused("POST", f"{proxy.path}/toxics", body)
    assert proxy.toxics() == []


@differs("unknown-fields")
def test_unknown_fields_are_refused_and_the_nearest_named(proxy: Remote) -> None:
    api, toxics = proxy.api, f"{proxy.path}/toxics"
    name = proxy.add("noop")
    before = api.ask("GET", "/proxies")
    new = {"name": "q", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}
    for method, path, body, wrong, right in (
        ("POST", "/proxies", {**new, "enable": True}, "enable", "enabled"),
        ("POST", "/populate", [{**new, "lisen": "x"}], "lisen", "listen"),
        ("POST", proxy.path, {"upsteam": "127.0.0.1:1"}, "upsteam", "upstream"),
        ("PATCH", proxy.path, {"enable": False}, "enable", "enabled"),
        ("POST", toxics, {"type": "slicer", "toxcity": 0.5}, "toxcity", "toxicity"),
        ("POST", toxics, {"type": "slicer", "attribute": {}}, "attribute", "attributes"),
        ("POST", f"{toxics}/{name}", {"toxcity": 0.5}, "toxcity", "toxicity"),
        ("PATCH", f"{toxics}/{name}", {"atributes": {}}, "atributes", "attributes"),
    ):
        said = api.refused(method, path, body)
        assert wrong in said and re.search(rf"\b{right}\b", said.replace(wrong, "", 1)), said
    assert api.ask("GET", "/proxies") == before


def test_objects_that_clients_send_beside_the_fields_say_nothing(
    api: Api, proxy: Remote, echo_backend: Backend
) -> None:
    # Node's client, versions 2 and 3, sends a toxic with all that it has, as its example does.
    shown = proxy.show()
    beside = {"toxiproxy": {"host": f"http://{api.http}"}}
    made = {"type": "noop", "attributes": {}, "proxy": {**beside, **shown}}
    assert api.ask("POST", f"{proxy.path}/toxics", made)["name"] == "noop_downstream"
    # Its version 4 does so when it is given one of its own toxics or proxies for a change.
    changed = {"toxicity": 0.5, "Proxy": {"name": "another"}, "api": {}, "proxyPath": "http://x"}
    assert api.ask("POST", f"{proxy.path}/toxics/noop_downstream", changed)["toxicity"] == 0.5
    # What Toxiproxy shows has a Logger, and comes back with it.
    assert api.ask("POST", proxy.path, {**shown, **beside, "Logger": {}}) == proxy.show()
    other = {"name": "q", "upstream": echo_backend.address, "listen": "127.0.0.1:0", "Logger": {}}
    assert api.ask("POST", "/proxies", {**other, **beside}, 201)["name"] == "q"
    nested = {**other, "name": "r", "toxics": [made]}
    assert api.ask("POST", "/populate", [nested], 201)["proxies"][0]["toxics"][0]["type"] == "noop"
    for field, value in (("toxiproxy", "text"), ("proxy", 1), ("proxyPath", {}), ("api", [])):
        for path, body in (("/proxies", other), (f"{proxy.path}/toxics", {"type": "noop"})):
            said = api.refused("POST", path, {**body, field: value})
            assert f"there is no field '{field}'" in said
    api.ask("DELETE", "/proxies/q", status=204)
    api.ask("DELETE", "/proxies/r", status=204)


def test_an_attribute_that_names_a_file_is_refused(proxy: Remote, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.write_text("1 2 3\n")
    body = {"type": "latency", "attributes": {"distribution": str(samples)}}
    said = proxy.api.refused("POST", f"{proxy.path}/toxics", body)
    assert "distribution" in said
    body["attributes"] = {"distribution": "/nowhere/at/all"}
    assert said.replace(str(samples), "/nowhere/at/all") == proxy.api.refused(
        "POST", f"{proxy.path}/toxics", body
    ), "it tells which files there are"


@pytest.mark.parametrize(
    "kind",
    ["transient", "error", "dummy", "refuse", "examples.handlers.Delay", "os.system", "callable"],
)
def test_what_is_no_flow_handler_is_no_type_of_toxic(proxy: Remote, kind: str) -> None:
    said = proxy.api.refused("POST", f"{proxy.path}/toxics", {"type": kind})
    assert said.startswith("invalid toxic type")


@differs("empty-address")
def test_an_empty_address_in_a_change_is_refused(proxy: Remote) -> None:
    before = proxy.show()
    for field in ("listen", "upstream"):
        for method in ("POST", "PATCH"):
            said = proxy.api.refused(method, proxy.path, {"enabled": False, field: ""})
            assert said.startswith(f"bad request body: {field} is empty")
    assert proxy.show() == before


@differs("in-use-by")
def test_a_port_in_use_on_a_change_leaves_the_old_listener_and_its_connections(
    proxy: Remote,
) -> None:
    proxy.add("noop")
    before = proxy.show()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        proxy.api.proxy("127.0.0.1:1", "other") as other,
        proxy.dial() as client,
    ):
        assert exchange(client, b"before") == b"before"
        for address, whose in (
            (f"127.0.0.1:{taken.getsockname()[1]}", ""),
            (other.address, " (by proxy 'other')"),
        ):
            for body in (
                {"listen": address},
                {"listen": address, "upstream": "127.0.0.1:1"},
                {"listen": address, "enabled": True},
            ):
                said = proxy.api.refused("POST", proxy.path, body, 500)
                assert said == f"listen tcp {address}: bind: address already in use{whose}"
                assert proxy.show() == before
        assert exchange(client, b"after") == b"after"
        with proxy.dial() as another:
            assert exchange(another, b"another") == b"another"


# Populate


@differs("toxics-applied")
def test_toxics_in_populate_are_applied(api: Api, echo_backend: Backend) -> None:
    toxics: list[Any] = [
        {"type": "latency", "attributes": {"latency": 200}},
        {"type": "noop", "stream": "upstream", "name": "mine", "toxicity": 0.5},
    ]
    (made,) = api.ask(
        "POST",
        "/populate",
        [
            {
                "name": "p",
                "listen": "127.0.0.1:0",
                "upstream": echo_backend.address,
                "toxics": toxics,
            }
        ],
        201,
    )["proxies"]
    with Remote(api, made) as proxy, proxy.dial() as client:
        assert [toxic["name"] for toxic in made["toxics"]] == ["mine", "latency_downstream"]
        assert made["toxics"] == proxy.toxics()
        start = time.monotonic()
        assert exchange(client, b"hello") == b"hello"
        took(start, 0.2)


@pytest.mark.parametrize(
    "toxic",
    [
        {"type": "chaos"},
        {"type": "latency", "stream": "sideways"},
        {"type": "latency", "toxicity": 2},
        {"type": "latency", "attributes": {"latnecy": 1}},
        {"type": "latency", "attributes": {"latency": -1}},
        {"type": "latency", "toxcity": 1},
        {"type": "noop", "name": "good"},
        "latency",
    ],
)
@differs("populate-all")
def test_a_wrong_toxic_in_populate_is_refused_before_anything_is_made(api: Api, toxic: Any) -> None:
    good = {"name": "one", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}
    bad = {**good, "name": "two", "toxics": [{"type": "noop", "name": "good"}, toxic]}
    answer = api.call("POST", "/populate", [good, bad])
    assert answer.status in (400, 409), answer
    assert answer.json["status"] == answer.status and answer.json["error"]
    assert api.ask("GET", "/proxies") == {}


def test_what_is_wrong_with_on_connect_is_told_of_it_and_of_its_proxy(api: Api) -> None:
    body = {"name": "q", "upstream": "127.0.0.1:9", "on_connect": "20:refsue"}
    for where, path in (("", "/proxies"), ("proxy 'q': ", "/populate")):
        said = api.refused("POST", path, [body] if where else body)
        assert said.startswith(f"{where}on_connect: there is no handler 'refsue'")
        assert "'refuse'" in said
        wrong = {**body, "on_connect": "20:delay"}
        said = api.refused("POST", path, [wrong] if where else wrong)
        assert said.startswith(f"{where}on_connect: 'delay'")


@differs("populate-all")
def test_a_proxy_that_populate_cannot_replace_stays(proxy: Remote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, proxy.dial() as client:
        body = {**proxy.show(), "listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        answer = proxy.api.call("POST", "/populate", [body])
        assert answer.status == 500
        assert answer.json["proxies"] == []
        assert exchange(client, b"hello") == b"hello"


@differs("toxics-applied")
def test_a_configuration_file_of_toxiproxy_is_taken_with_its_toxics(
    tmp_path: Path, echo_backend: Backend
) -> None:
    config = tmp_path / "toxiproxy.json"
    toxics: list[Any] = [
        {"type": "latency", "attributes": {"latency": 200}},
        {"type": "noop", "name": "mine"},
    ]
    one = {"name": "one", "listen": "localhost:0", "upstream": echo_backend.address}
    two = {**one, "name": "two", "enabled": False}
    config.write_text(json.dumps([{**one, "toxics": toxics}, two]))
    with Api("--config", config) as api:
        shown = api.ask("GET", "/proxies")
        assert list(shown) == ["one", "two"]
        assert shown["two"] == {**two, "toxics": []}
        assert [toxic["name"] for toxic in shown["one"]["toxics"]] == ["latency_downstream", "mine"]
        assert shown["one"]["toxics"][0]["attributes"] == {"latency": 200, "jitter": 0}
        with Remote(api, shown["one"]) as proxy, proxy.dial() as client:
            start = time.monotonic()
            assert exchange(client, b"hello") == b"hello"
            took(start, 0.2)
            # What is in force can be said again, and changes nothing.
            api.ask("POST", "/populate", list(shown.values()), 201)
            assert api.ask("GET", "/proxies") == shown
            assert exchange(client, b"hello") == b"hello"
    toxics[0]["attributes"] = {"latnecy": 200}
    config.write_text(json.dumps([{**one, "toxics": toxics}, two]))
    said = refused("--config", config, "--http", "--http-port", 0)
    assert "latnecy" in said and "latency" in said


# What toxics do


def test_latency(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"x") == b"x"
        for stream in ("downstream", "upstream"):
            proxy.add("latency", stream=stream, latency=150)
            start = time.monotonic()
            assert exchange(client, b"hello") == b"hello"
            took(start, 0.15 if stream == "downstream" else 0.3)
        proxy.update("latency_downstream", latency=0)
        start = time.monotonic()
        assert exchange(client, b"hello") == b"hello"
        took(start, 0.15)
    proxy.change(enabled=False)
    proxy.change(enabled=True)
    with proxy.dial() as client:
        start = time.monotonic()
        assert exchange(client, b"kept") == b"kept"
        took(start, 0.15)


def test_jitter_varies_a_latency(proxy: Remote) -> None:
    proxy.add("latency", latency=50, jitter=50)
    delays = []
    with proxy.dial() as client:
        for _ in range(20):
            start = time.monotonic()
            assert exchange(client, b"x") == b"x"
            delays.append(time.monotonic() - start)
    assert max(delays) - min(delays) > 0.03  # 1e-9 is the chance of less
    assert min(delays) < 0.1


def test_bandwidth(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("bandwidth", rate=100)
        start = time.monotonic()
        server.sendall(b"x" * 50_000)
        assert len(receive(client, 10_000)) == 10_000
        took(start, 0.1)
        assert len(receive(client, 40_000)) == 40_000
        took(start, 0.5)
        proxy.update("bandwidth_downstream", rate=1_000_000)
        server.sendall(b"x" * MB)
        start = time.monotonic()
        assert len(receive(client, MB)) == MB
        took(start, 0)


def test_slow_close(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("slow_close", delay=300)
        start = time.monotonic()
        server.sendall(b"data")
        assert receive(client, 4) == b"data"
        took(start, 0)
        start = time.monotonic()
        server.shutdown(socket.SHUT_WR)
        assert_fin(client)
        took(start, 0.3)
        client.sendall(b"still open")
        assert receive(server, 10) == b"still open"


def test_timeout(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"x") == b"x"
        start = time.monotonic()
        proxy.add("timeout", timeout=300)
        client.sendall(b"dropped")
        assert receive_all(client) == b""
        took(start, 0.3)
    with proxy.dial() as client:
        start = time.monotonic()
        client.sendall(b"dropped")
        assert receive_all(client) == b""
        took(start, 0.3)


def test_a_timeout_of_0_drops_everything_until_it_is_removed_and_that_closes(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"before")
        assert receive(server, 6) == b"before"
        proxy.add("timeout", timeout=0)
        with proxy.dial() as second, backend.accept() as second_server:
            for one, other in ((client, server), (second, second_server)):
                other.sendall(b"dropped")
                one.sendall(b"passes")
                assert receive(other, 6) == b"passes"
            assert not select.select([client, second], [], [], 0.3)[0]
            proxy.remove("timeout_downstream")
            for one in (client, second):
                assert receive_all(one) == b""
        with proxy.dial() as third, backend.accept() as third_server:
            third_server.sendall(b"after")
            assert receive(third, 5) == b"after"


@pytest.mark.parametrize("timeout", [0, 200])
@pytest.mark.parametrize("stream", ["downstream", "upstream"])
def test_reset_peer(api: Api, stream: str, timeout: int) -> None:
    with Acceptor() as backend, api.proxy(backend) as proxy:
        proxy.add("reset_peer", stream=stream, timeout=timeout)
        with proxy.dial() as client, backend.accept() as server:
            sender, other = (client, server) if stream == "upstream" else (server, client)
            other.sendall(b"the other way")
            assert receive(sender, 13) == b"the other way"
            assert not select.select([client, server], [], [], 0.4)[0]  # it may stay in a pool
            start = time.monotonic()
            sender.sendall(b"one")
            for sock in (other, sender):
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            took(start, timeout / 1000)


@pytest.mark.parametrize("stream", ["downstream", "upstream"])
def test_bandwidth_with_a_rate_of_0_lets_nothing_pass_until_it_is_removed(
    api: Api, stream: str
) -> None:
    # as Testcontainers' modules do it
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        sender, other = (client, server) if stream == "upstream" else (server, client)
        proxy.add("bandwidth", "CUT", stream=stream, rate=0)
        sender.sendall(b"one")
        other.sendall(b"the other way")
        assert receive(sender, 13) == b"the other way"
        assert not select.select([other], [], [], 0.4)[0]
        assert proxy.toxics()[0]["attributes"] == {"rate": 0}
        proxy.remove("CUT")
        assert receive(other, 3) == b"one"
        sender.sendall(b"two")
        assert receive(other, 3) == b"two"


def test_a_rate_that_is_given_later_counts(api: Api, echo_backend: Backend) -> None:
    with api.proxy(echo_backend) as proxy, proxy.dial() as client:
        proxy.add("bandwidth")
        assert exchange(client, b"hello") == b"hello"
        proxy.update("bandwidth_downstream", toxicity=1)
        assert exchange(client, b"hello") == b"hello"
        proxy.update("bandwidth_downstream", rate=0)
        client.sendall(b"hello")
        assert not select.select([client], [], [], 0.4)[0]


@differs("slicer-sizes")
def test_slicer(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("slicer", average_size=10, delay=30_000)
        data = bytes(range(100))
        start = time.monotonic()
        server.sendall(data)
        pieces = [client.recv(100)]
        while len(b"".join(pieces)) < 100:
            pieces.append(client.recv(100))
        assert b"".join(pieces) == data
        took(start, 0.27)
        assert len(pieces) > 5  # two can come together if the machine is busy
        assert len(pieces[0]) == 10


@differs("limit-data-end")
def test_limit_data(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("limit_data", bytes=100)
        server.sendall(b"x" * 60)
        assert receive(client, 60) == b"x" * 60
        server.sendall(b"y" * 60)
        assert receive_all(client) == b"y" * 40


def test_who_sends_more_than_limit_data_lets_through_is_not_reset(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("limit_data", bytes=100)
        for _ in range(3):
            server.sendall(b"x" * 100)
        assert receive_all(client) == b"x" * 100
        assert_fin(server)
        server.sendall(b"x" * MB)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_noop(proxy: Remote) -> None:
    for stream in ("upstream", "downstream"):
        proxy.add("noop", stream=stream)
    flood = Flood(3 * MB)
    with proxy.dial() as client, threads() as pool:
        sent = pool.submit(flood.send, client)
        assert digest_of(client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)


@pytest.mark.parametrize("kind", TOXICS)
@differs("left-out")
def test_a_toxic_whose_attributes_are_0_harms_nobody_but_its_proxy(
    api: Api, echo_backend: Backend, kind: str
) -> None:
    with api.proxy(echo_backend) as proxy, api.proxy(echo_backend, "other") as other:
        name = proxy.add(kind)
        with contextlib.ExitStack() as stack:
            # reset_peer resets whom it accepts, who may still be connecting
            resets = contextlib.suppress(ConnectionResetError, BrokenPipeError)
            with resets if kind == "reset_peer" else contextlib.nullcontext():
                stack.enter_context(proxy.dial()).sendall(b"hello")
            bystander = stack.enter_context(other.dial())
            assert exchange(bystander, b"hello") == b"hello"
            proxy.update(name, **TOXICS[kind])
            proxy.remove(name)
        with proxy.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_toxics_act_in_their_order_and_on_their_stream_only(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("limit_data", bytes=4)
        proxy.add("latency", latency=200)
        start = time.monotonic()
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        took(start, 0)
        start = time.monotonic()
        server.sendall(b"response")
        assert receive_all(client) == b"resp"
        took(start, 0.2)


def test_a_toxicity_of_one_half_hits_about_half_of_the_connections(
    api: Api, echo_backend: Backend
) -> None:
    with api.proxy(echo_backend, seed=1) as proxy:
        proxy.add("limit_data", toxicity=0.5, bytes=1)
        hit = 0
        for _ in range(60):
            with proxy.dial() as client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                hit += len(receive_all(client)) < 5
    assert 15 < hit < 45


def test_a_higher_toxicity_hits_the_same_connections_and_more(
    api: Api, echo_backend: Backend
) -> None:
    with (
        api.proxy(echo_backend, seed=2) as proxy,
        contextlib.ExitStack() as stack,
    ):
        socks = []
        for _ in range(30):
            socks.append(stack.enter_context(proxy.dial()))
            assert exchange(socks[-1], b"x") == b"x"
        name = proxy.add("corrupt", toxicity=0, chance=100)
        before: set[int] = set()
        for toxicity in (0, 0.3, 0.6, 1):
            proxy.update(name, toxicity=toxicity)
            hit = {n for n, is_hit in enumerate(spoilt(socks)) if is_hit}
            assert before <= hit
            before = hit
        assert len(before) == 30
        proxy.update(name, toxicity=0)
        assert not any(spoilt(socks))


# Vaurien's own


def flow_handlers(api: Api) -> dict[str, Any]:
    """The flow handlers by name, with their options."""
    told = api.ask("GET", "/handlers")["handlers"]
    return {one["name"]: one["options"] for one in told if one["kind"] == "flow"}


def test_each_flow_handler_is_a_type_of_toxic(proxy: Remote) -> None:
    handlers = flow_handlers(proxy.api)
    assert set(TOXICS) < set(handlers)
    assert {"stall", "pause", "blackhole", "corrupt", "truncate", "trickle"} < set(handlers)
    for kind, options in handlers.items():
        known = {option["name"] for option in options}
        for stream in ("upstream", "downstream", "both"):
            name = proxy.add(kind, stream=stream)
            assert name == f"{kind}_{stream}"
            toxic = proxy.api.ask("GET", f"{proxy.path}/toxics/{name}")
            assert (toxic["type"], toxic["stream"], toxic["toxicity"]) == (kind, stream, 1)
            assert set(toxic["attributes"]) <= known
            # What is told can be said again.
            body = {"type": kind, "name": "again", "attributes": toxic["attributes"]}
            again = proxy.api.ask("POST", f"{proxy.path}/toxics", body)
            assert again["attributes"] == toxic["attributes"]
            proxy.remove("again")
        assert len(proxy.toxics()) == 3
        for stream in ("upstream", "downstream", "both"):
            proxy.remove(f"{kind}_{stream}")
    assert proxy.toxics() == []


def test_pause_holds_all_bytes_until_it_is_removed(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"x") == b"x"
        name = proxy.add("pause")
        client.sendall(b"kept")
        assert not select.select([client], [], [], 0.3)[0]
        proxy.remove(name)
        assert receive(client, 4) == b"kept"
        start = time.monotonic()
        proxy.add("pause", time=200)
        assert exchange(client, b"kept") == b"kept"
        took(start, 0.2)


def test_blackhole_swallows_bytes_and_keeps_the_connection(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"x") == b"x"
        name = proxy.add("blackhole")
        client.sendall(b"swallowed")
        assert not select.select([client], [], [], 0.3)[0]
        proxy.remove(name)
        assert exchange(client, b"after") == b"after"


def test_stall_holds_up_the_packets_that_are_lost(api: Api, echo_backend: Backend) -> None:
    with api.proxy(echo_backend, seed=1) as proxy, proxy.dial() as client:
        proxy.add("stall", loss=50, rto=100, max_rto=100)
        delays = []
        for _ in range(10):
            start = time.monotonic()
            assert exchange(client, b"x") == b"x"
            delays.append(time.monotonic() - start)
    assert min(delays) < 0.1 - EARLY < max(delays)


def test_corrupt_flips_bits(proxy: Remote) -> None:
    proxy.add("corrupt", chance=100)
    with proxy.dial() as client:
        got = exchange(client, bytes(32))
        assert len(got) == 32 and all(got)


def test_both_streams_at_once(proxy: Remote) -> None:
    proxy.add("latency", stream="both", latency=150)
    with proxy.dial() as client:
        start = time.monotonic()
        assert exchange(client, b"hello") == b"hello"
        took(start, 0.3)
    assert [toxic["stream"] for toxic in proxy.toxics()] == ["both"]


def test_a_toxic_with_a_ttl_goes_when_it_ends(proxy: Remote) -> None:
    with proxy.dial() as client:
        start = time.monotonic()
        proxy.add("latency", latency=100_000, ttl=0.5)
        kept = proxy.add("noop")
        client.sendall(b"hello")
        assert [toxic["type"] for toxic in proxy.toxics()] == ["latency", "noop"]
        assert receive(client, 5) == b"hello"
        took(start, 0.5)
        wait_for(lambda: [toxic["name"] for toxic in proxy.toxics()] == [kept])


def test_an_update_with_a_ttl_is_undone_when_it_ends(proxy: Remote) -> None:
    name = proxy.add("latency", latency=5)
    body = {"attributes": {"latency": 100_000}, "toxicity": 0.5, "ttl": 0.5}
    toxic = f"{proxy.path}/toxics/{name}"
    start = time.monotonic()
    assert proxy.api.ask("PATCH", toxic, body)["attributes"]["latency"] == 100_000
    wait_for(lambda: proxy.toxics()[0]["attributes"]["latency"] == 5)
    assert proxy.toxics()[0]["toxicity"] == 1
    took(start, 0.5)
    proxy.api.ask("PATCH", toxic, {**body, "ttl": 0.3})
    proxy.update(name, latency=6)  # which stands, whatever was to come back
    proxy.add("noop", ttl=0.5)
    wait_for(lambda: len(proxy.toxics()) == 1)
    assert proxy.toxics()[0]["attributes"]["latency"] == 6


def test_a_proxy_is_disabled_for_as_long_as_its_ttl_says(proxy: Remote) -> None:
    start = time.monotonic()
    assert not proxy.api.ask("POST", f"{proxy.path}/disable", {"ttl": 0.5})["enabled"]
    with pytest.raises(ConnectionRefusedError):
        proxy.dial()
    wait_for(lambda: proxy.show()["enabled"])
    took(start, 0.5)
    with proxy.dial() as client:
        assert exchange(client, b"hello") == b"hello"


def test_a_proxy_with_a_ttl_goes_when_it_ends(api: Api, echo_backend: Backend) -> None:
    start = time.monotonic()
    proxy = api.proxy(echo_backend, "short", ttl=0.5)
    with proxy.dial() as client:
        assert exchange(client, b"hello") == b"hello"
        assert receive_all(client) == b""
        took(start, 0.5)
    wait_for(lambda: "short" not in api.ask("GET", "/proxies"))
    with pytest.raises(ConnectionRefusedError):
        proxy.dial()


@pytest.mark.parametrize("ttl", [0, -1, "soon", True])
def test_a_wrong_ttl_is_refused(proxy: Remote, ttl: Any) -> None:
    body = {"type": "noop", "ttl": ttl}
    assert "ttl" in proxy.api.refused("POST", f"{proxy.path}/toxics", body)
    body = {"name": "q", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1", "ttl": ttl}
    assert "ttl" in proxy.api.refused("POST", "/proxies", body)
    assert proxy.toxics() == [] and list(proxy.api.ask("GET", "/proxies")) == ["p"]


def test_a_proxy_of_the_command_line_is_one_as_all(echo_backend: Backend) -> None:
    distant = echo_backend.address
    with Api("--local", "127.0.0.1:0", "--distant", distant, "--behavior", "100:delay") as api:
        (made,) = api.ask("GET", "/proxies").values()
        assert made.pop("listen").startswith("127.0.0.1:")
        assert made == {"name": "default", "upstream": distant, "enabled": True, "toxics": []}
        proxy = Remote(api, api.ask("GET", "/proxies/default"))
        with proxy.dial() as client:
            proxy.add("latency", latency=100)
            start = time.monotonic()
            assert exchange(client, b"hello") == b"hello"
            took(start, 1.1)
            proxy.change(enabled=False)
            assert receive_all(client) == b""
        api.ask("POST", "/reset", status=204)
        with proxy.dial() as client:
            start = time.monotonic()
            assert exchange(client, b"hello") == b"hello"  # 100:dummy and no toxics
            assert time.monotonic() - start < 1
        api.ask("DELETE", "/proxies/default", status=204)
        assert api.ask("GET", "/proxies") == {}


# Ports, connections, metrics


def test_two_ports_have_one_api(echo_backend: Backend) -> None:
    with Api("--http", "--toxiproxy") as api:
        assert api.http != api.toxiproxy
        body = {"name": "p", "listen": "127.0.0.1:0", "upstream": echo_backend.address}
        made = api.call("POST", "/proxies", body, address=api.toxiproxy)
        assert made.status == 201
        for address in (api.http, api.toxiproxy):
            assert api.call("GET", "/proxies/p", address=address).json == made.json
            assert api.call("GET", "/version", address=address).status == 200
            assert api.call("GET", "/proxies/p/state", address=address).status == 200
        with Remote(api, made.json) as proxy, proxy.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_toxiproxy_alone_is_enough(echo_backend: Backend) -> None:
    with Api("--toxiproxy") as api:
        assert not api.http
        with api.proxy(echo_backend) as proxy, proxy.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_each_answer_of_toxiproxys_paths_has_an_id_of_its_own(api: Api, proxy: Remote) -> None:
    calls = [
        ("GET", "/version", 200),
        ("GET", "/proxies", 200),
        ("GET", proxy.path, 200),
        ("GET", "/proxies/nobody", 404),
        ("POST", "/proxies", 400),
        ("POST", "/reset", 204),
        ("GET", f"{proxy.path}/toxics", 200),
    ]
    ids = set()
    for method, path, status in calls:
        answer = api.call(method, path)
        assert answer.status == status
        ids.add(answer.headers["X-Toxiproxy-Request-Id"])
    answer = api.call("GET", "/version", headers={"User-Agent": "Mozilla/5.0"})
    assert answer.status == 403
    ids.add(answer.headers["X-Toxiproxy-Request-Id"])
    assert len(ids) == len(calls) + 1
    assert all(re.fullmatch("[0-9a-z]{20}", one) for one in ids)
    assert "X-Toxiproxy-Request-Id" not in api.call("GET", "/state").headers


@differs("version")
def test_the_version_is_one_that_any_parser_of_versions_takes(api: Api) -> None:
    answer = api.call("GET", "/version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer.json["version"])
    assert answer.headers["Vaurien"].startswith(answer.json["version"])


@pytest.mark.usefixtures("proxy")
def test_the_labels_of_metrics_are_in_the_order_of_their_names(api: Api) -> None:
    found = re.findall(r"^\w+\{(.*)\} ", api.call("GET", "/metrics").body.decode(), re.MULTILINE)
    labels = [re.findall(r'(\w+)="', one) for one in found]
    assert ["direction", "listener", "proxy", "upstream"] in labels
    for one in labels:
        names = [name for name in one if name != "le"]
        assert names == sorted(names) and one == [*names, *one[len(names) :]]


def test_calls_on_one_connection_each_get_their_own_answer(api: Api, proxy: Remote) -> None:
    """Also after errors whose bodies nobody reads, and after answers without a body."""
    toxics = f"{proxy.path}/toxics"
    calls: list[tuple[str, str, bytes | None, int]] = [
        ("POST", "/proxies/nobody", b'{"enabled": true}', 404),
        ("POST", "/nothing", b"x" * 10_000, 404),
        ("GET", "/version", None, 200),
        ("PUT", "/proxies", b'{"name": "x"}', 405),
        ("POST", toxics, b'{"type": "noop"}', 200),
        ("POST", toxics, b'{"type": "noop"', 400),
        ("POST", toxics, b'{"type": "noop"}', 409),
        ("DELETE", f"{toxics}/noop_downstream", None, 204),
        ("GET", toxics, None, 200),
        ("GET", proxy.path, b'{"a": "body"}', 200),
        ("DELETE", f"{toxics}/noop_downstream", b"{}", 404),
        ("POST", "/reset", b"anything", 204),
        ("GET", "/proxies", None, 200),
    ]
    host, port = parse_address(api.http)
    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as connection:
        seconds = []
        for method, path, body, status in calls * 3:
            start = time.monotonic()
            connection.request(method, path, body)
            sock = connection.sock
            response = connection.getresponse()
            answer = response.read()
            seconds.append(time.monotonic() - start)
            assert response.status == status, (method, path, answer)
            assert bool(answer) == (status != 204)
            assert not answer or json.loads(answer) is not None
            assert connection.sock is sock, f"closed after {method} {path}"
    assert statistics.median(seconds) < 0.03, "Nagle and delayed ACKs: 40 ms each"


def test_a_client_that_asks_before_it_sends_its_body(api: Api) -> None:
    """What curl does with large bodies, and .NET with some: ``Expect: 100-continue``."""
    body = b'{"name": "p", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}'
    with dial(api.http) as client:
        client.sendall(
            b"POST /proxies HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert receive(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert receive_all(client).startswith(b"HTTP/1.1 201 ")
    api.clear()


METRIC = re.compile(r"^(toxiproxy_proxy_\w+_bytes_total)\{(.*)\} (\S+)$", re.MULTILINE)


def counters(proxy: Remote) -> dict[tuple[str, str], float]:
    """Toxiproxy's counters of a proxy: (received or sent, direction) to bytes."""
    answer = proxy.api.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found = {}
    for name, text, value in METRIC.findall(answer.body.decode()):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        if labels.pop("proxy") == proxy.name:
            what = name.removeprefix("toxiproxy_proxy_").removesuffix("_bytes_total")
            found[what, labels.pop("direction")] = float(value)
            assert labels == {"listener": proxy.address, "upstream": proxy.show()["upstream"]}
    return found


def test_r10_byte_counters_move_while_the_connection_is_open(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend, "counted") as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        up = down = 0
        for n in (1000, 234):
            client.sendall(b"x" * n)
            assert len(receive(server, n)) == n
            server.sendall(b"x" * 3 * n)
            assert len(receive(client, 3 * n)) == 3 * n
            up, down = up + n, down + 3 * n
            assert counters(proxy) == {
                ("received", "upstream"): up,
                ("sent", "upstream"): up,
                ("received", "downstream"): down,
                ("sent", "downstream"): down,
            }
        proxy.add("pause")
        server.sendall(b"held")
        wait_for(lambda: counters(proxy)["received", "downstream"] == down + 4)
        assert counters(proxy)["sent", "downstream"] == down


@differs("metrics")
def test_metrics_are_always_there(api: Api) -> None:
    assert api.ask("GET", "/proxies") == {}
    assert api.call("GET", "/metrics").status == 200
