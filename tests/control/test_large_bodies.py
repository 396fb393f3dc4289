"""A body within the bound of size holds up nobody, whatever is in it.

Each call of `Api` fails if it takes a second; what is quadratic takes many.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control.helpers import Api
from tests.rivals.differences import differs
from vaurien import behavior, bodies

UPSTREAM = "127.0.0.1:9"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Api() as api:
        api.proxy(UPSTREAM)
        yield api
        assert "Traceback" not in api.text, api.text


def twice(n: int) -> bytes:
    """An object with `n` names, the last of which is there twice."""
    names = [f"{number:x}" for number in range(n)]
    return json.dumps(dict.fromkeys(names, 0)).encode()[:-1] + b', "zz": 0, "zz": 0}'


BEHAVIORS = {
    "parts": ",".join(["0:delay"] * 100_000),
    "joined": "0:" + "+".join(f"a{number}" for number in range(100_000)),
    "no colon": "." * 1_000_000,
    "no colon, short": "." * behavior.LONGEST,
    "as many as fit": ",".join(["0:cut"] * (behavior.LONGEST // 6)) + ",0:nobody",
    "joined, as many as fit": "0:" + "+".join(f"a{n}" for n in range(behavior.LONGEST // 6)),
}


@pytest.mark.parametrize("text", BEHAVIORS.values(), ids=BEHAVIORS)
@pytest.mark.parametrize("field", ["behavior", "on_connect"])
def test_a_long_behavior_is_refused_at_once(api: Api, field: str, text: str) -> None:
    assert api.refused("POST", "/behavior", {field: text}).startswith(f"{field}: ")


def test_how_long_a_behavior_may_be_is_told(api: Api) -> None:
    said = api.refused("POST", "/behavior", {"behavior": BEHAVIORS["parts"]})
    assert "799,999 characters" in said and "10,000 at most" in said
    assert len(said) < 200
    longest = ",".join(["0:cut"] * (behavior.LONGEST // 6))
    assert api.ask("POST", "/behavior", {"behavior": longest})["behavior"] == longest


def test_a_name_that_is_given_twice_is_found_at_once(api: Api) -> None:
    assert "'zz' is given twice" in api.refused("POST", "/behavior", twice(80_000))


def test_a_name_of_toxiproxys_paths_that_is_given_twice_is_read_at_once(api: Api) -> None:
    assert "there is no field '0'" in api.refused("POST", "/proxies", twice(80_000))


LARGE: dict[str, Any] = {
    "a word": "x" * 1_000_000,
    "networks": "1.1.1.1," * 120_000,
    "a list": [0] * 300_000,
    "an object": {f"{number:x}": 0 for number in range(70_000)},
    "handlers": {f"{number:x}": {"sleep": 1} for number in range(40_000)},
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
def test_what_is_large_in_any_field_is_refused_at_once(api: Api, value: Any) -> None:
    for path, body, field in (
        ("/proxies", {"name": "q", "upstream": UPSTREAM}, "listen"),
        ("/proxies", {"name": "q", "upstream": UPSTREAM}, "toxics"),
        ("/proxies/p/toxics", {}, "type"),
        ("/proxies/p/toxics", {"type": "latency"}, "stream"),
        ("/proxies/p/toxics", {"type": "latency"}, "attributes"),
        ("/handler", {}, "name"),
        ("/handler", {"name": "delay"}, "clients"),
        ("/handler", {"name": "latency"}, "distribution"),
        ("/behavior", {"behavior": "100:delay"}, "handlers"),
    ):
        api.refused("POST", path, {**body, field: value})


def test_more_toxics_than_a_proxy_can_have_are_refused(api: Api) -> None:
    toxics = [{"type": "noop", "name": f"{number:x}"} for number in range(30_000)]
    body = {"name": "q", "upstream": UPSTREAM, "toxics": toxics}
    said = api.refused("POST", "/proxies", body)
    assert "30,000 toxics" in said and f"{bodies.TOXICS} at most" in said
    most = toxics[: bodies.TOXICS]
    with api.proxy(UPSTREAM, "q", toxics=most) as full:
        said = api.refused("POST", f"{full.path}/toxics", {"type": "noop"})
        assert f"{bodies.TOXICS} at most" in said
        assert len(full.toxics()) == bodies.TOXICS
        api.refused("POST", f"{full.path}/toxics", toxics[0], 409)
    api.refused("POST", "/proxies", {**body, "toxics": [*most[1:], {"type": "x"}]})


@differs("limits")
def test_a_list_of_too_many_proxies_is_refused(api: Api) -> None:
    many = [{"name": f"{number:x}", "upstream": "a:1"} for number in range(20_000)]
    said = api.refused("POST", "/populate", many)
    assert "20,000 proxies" in said and f"{bodies.PROXIES:,} at a time at most" in said


def answers_while(api: Api, body: list[dict[str, Any]], status: int) -> None:
    """Populate answers with `status`, and all the time until then others are answered too."""
    found: list[int] = []

    def populate() -> None:
        found.append(api.call("POST", "/populate", body, prompt=60).status)

    thread = threading.Thread(target=populate)
    thread.start()
    asked = 0
    while thread.is_alive():
        api.ask("GET", "/health")
        asked += 1
    assert found == [status] and asked > 1, (found, asked)


@pytest.mark.long
def test_others_are_answered_while_a_long_list_is_read_and_made(api: Api) -> None:
    many = [{"name": f"{number:x}", "upstream": "a:1"} for number in range(bodies.PROXIES - 1)]
    answers_while(api, [*many, {"name": "wrong"}], 400)
    assert set(api.ask("GET", "/proxies")) == {"p"}
    some = [{"name": f"{number:x}", "upstream": UPSTREAM} for number in range(300)]
    try:
        answers_while(api, some, 201)
        assert len(api.ask("GET", "/proxies")) == 301
    finally:
        api.clear()
        api.proxy(UPSTREAM)
