"""The limits of the API that are minutes or thousands: how long, how many, and for whom.

What is minutes long is made short, in this process's loop; all else is the real program.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control.farms import Farm as Program
from tests.control.farms import free_port
from tests.control.test_farm import dial, plan
from tests.support import PATIENCE, Backend, echo, exchange, receive, wait_for
from tests.support import dial as dial_blocking
from tests.test_settings import resolved
from vaurien import access
from vaurien.control import events, http
from vaurien.control.farm import Farm
from vaurien.control.service import Service
from vaurien.errors import UsageError
from vaurien.net import listener


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as made:
        yield made


def service_of(farm: Farm, **arguments: str) -> Service:
    """An API of `farm` in this loop."""
    access = resolved(http="yes", http_port="0", flags=arguments).access
    assert access is not None
    return Service(farm, access, lambda: (b"", ""), dict)


@contextlib.contextmanager
def served(backend: Backend, name: str = "a") -> Iterator[str]:
    """Where the API of a farm with one proxy listens, in this loop."""
    farm = Farm(resolved(http="yes"))
    farm.create(plan(backend, name))
    service = service_of(farm)
    service.start()
    yield str(service.addresses["http"])
    service.stop()
    farm.delete(name)


@pytest.fixture(scope="module")
def shared(backend: Backend) -> Iterator[Program]:
    """The real program, with the proxy ``default``."""
    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0", "--seed", "1")
    with Program(*arguments, ready=1) as made:
        yield made


def ask(client: Any, path: str = "/health") -> bytes:
    """Send a request; the first that comes back."""
    client.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    return bytes(client.recv(65536))


# In this loop


def test_a_connection_that_asks_nothing_ends_after_its_time_and_no_sooner(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http.IDLE == 75
    monkeypatch.setattr(http, "IDLE", 0.3)
    with served(backend) as place, dial(place) as silent, dial(place) as asking:
        start = time.monotonic()
        while time.monotonic() - start < 0.6:  # what is busy stays, though longer than that
            assert ask(asking).startswith(b"HTTP/1.1 200")
        for client in (silent, asking):
            client.settimeout(PATIENCE)
            while client.recv(65536):
                pass
        took = time.monotonic() - start
    assert took > 0.8, "it ended before it was idle for so long"


@pytest.mark.parametrize("start", [b"G", b"GET /health HTTP/1.1\r\nHost: "])
def test_a_head_that_takes_too_long_is_answered(
    start: bytes, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http.SLOW == 10
    monkeypatch.setattr(http, "SLOW", 0.1)
    with served(backend) as place, dial(place) as client:
        client.settimeout(PATIENCE)
        client.sendall(start)
        back = bytearray()
        while data := client.recv(65536):
            back += data
    assert back.startswith(b"HTTP/1.1 408 ")
    assert back.endswith(b'"the request came in too slowly", "status": 408}')


@pytest.mark.parametrize("name", ["à", "Å", "é", "漢"])
def test_a_path_may_be_utf_8_as_it_is(name: str, backend: Backend) -> None:
    with served(backend, name) as place:
        for start in ("", "http://localhost"):
            with dial(place) as client:
                back = ask(client, f"{start}/proxies/{name}")
            assert back.startswith(b"HTTP/1.1 200 "), back
            assert json.loads(back.partition(b"\r\n\r\n")[2])["name"] == name


def test_a_quiet_stream_of_events_has_a_sign_of_life(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events.BEAT == 15
    monkeypatch.setattr(events, "BEAT", 0.05)
    with served(backend) as place, dial(place) as client:
        said = ask(client, "/events")
        start = time.monotonic()
        while said.count(b": alive\n\n") < 3:
            piece = client.recv(65536)
            assert piece, said
            said += piece
        assert time.monotonic() - start > 0.1
        assert said.count(b": from here on\n\n") == 1
        assert b"event:" not in said


def test_localhost_that_is_reached_from_elsewhere_is_refused_without_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere(*_: object, **__: object) -> list[tuple[int, tuple[str, int]]]:
        return [(socket.AF_INET, ("0.0.0.0", free_port()))]

    farm = Farm(resolved(http="yes"))
    with monkeypatch.context() as patch:
        patch.setattr(listener, "resolve", elsewhere)
        with pytest.raises(UsageError, match=r"'localhost' is 0\.0\.0\.0 here"):
            service_of(farm, http_host="localhost")
    service_of(farm, http_host="localhost").stop()


# The real program


def test_who_asks_without_waiting_for_answers_starves_nobody(shared: Program) -> None:
    n = 1500
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        dial_blocking(shared.proxies["default"]) as client,
        dial_blocking(shared.apis["http"]) as greedy,
    ):
        assert exchange(client, b"hello") == b"hello"
        answer = ask(greedy)
        while not answer.endswith(b"}"):
            answer += greedy.recv(65536)
        greedy.sendall(request * n)
        received = receive(greedy, len(answer))  # it has begun
        assert exchange(client, b"hello") == b"hello"
        greedy.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while piece := greedy.recv(1 << 20):
                received += piece
        assert len(received) < n * len(answer) * 0.9, "the exchange came after all answers"
        greedy.settimeout(PATIENCE)
        received += receive(greedy, n * len(answer) - len(received))
    assert received.count(b"HTTP/1.1 200") == n


def journal(api: Any, path: str = "/journal") -> list[tuple[str, int, int]]:
    """The proxy, connection and exchange of each line."""
    lines = map(json.loads, api.call("GET", path).body.splitlines())
    return [(line["proxy"], line["connection"], line["exchange"]) for line in lines]


def test_the_journal_keeps_the_last_thousand_of_all_and_shows_those_of_one(
    shared: Program, backend: Backend
) -> None:
    api = shared.api
    places = [api.create(name, backend, behavior="100:noop") for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(dial_blocking(place)) for place in places]
        for _ in range(3):
            for sock in socks:
                exchange(sock, b"hello")
    wait_for(lambda: len(journal(api)) == 6)
    for name in ("one", "two"):
        assert journal(api, f"/proxies/{name}/journal") == [(name, 1, n) for n in (1, 2, 3)]
    with dial_blocking(places[0]) as sock:
        for _ in range(999):
            exchange(sock, b"hello")
    wait_for(lambda: ("one", 2, 999) in journal(api, "/journal?limit=1"))
    kept = journal(api)
    assert len(kept) == 1000
    assert kept[1:] == [("one", 2, n) for n in range(1, 1000)]
    assert journal(api, "/proxies/two/journal") in ([("two", 1, 3)], [])
    for name in ("one", "two"):
        api.delete(f"/proxies/{name}")


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("behavior", "20:delay", "20:delay"),
        ("on_connect", "10:refuse", "10:refuse"),
        ("seed", 5, 5),
    ],
)
def test_populate_gives_a_proxy_that_is_there_what_it_says_and_nothing_else(
    shared: Program, backend: Backend, field: str, value: object, shown: object
) -> None:
    api = shared.api
    first = {"behavior": "30:noop", "on_connect": "40:slow_accept", "seed": 7}
    place = api.create("p", backend, **first)
    before = api.get("/proxies/p/state")
    body = {"name": "p", "listen": place, "upstream": backend.address, field: value}
    api.ask("POST", "/populate", [body], 201)
    after = api.get("/proxies/p/state")
    assert after[field] == shown
    same = {"name", "local", "distant", "enabled", *first} - {field}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    api.delete("/proxies/p")


# The source


def test_tokens_are_compared_in_a_time_that_tells_nothing() -> None:
    tree = ast.parse(inspect.getsource(access))
    calls = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    (compared,) = [call for call in calls if call.startswith("hmac.compare_digest(")]
    assert "self.token" in compared and "shown" in compared
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            secret = any("token" in side.lower() for side in sides)
            public = any(side in ("None", "NO_TOKEN") for side in sides)
            strings = all(isinstance(op, ast.In | ast.NotIn) for op in node.ops)
            assert not secret or public or strings, ast.unparse(node)
            assert "shown" not in sides, ast.unparse(node)
