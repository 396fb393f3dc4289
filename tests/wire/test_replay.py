"""Vaurien says what a real Toxiproxy said: the recordings beside this file, played to it.

`tests.wire.record` makes them anew; `tests.wire.differences` says what may differ, and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.helpers import Api
from tests.laws.helpers import has_ipv6
from tests.wire.differences import expected, same
from tests.wire.player import Player, step_of
from tests.wire.record import document
from tests.wire.scripts import SCRIPTS

HERE = Path(__file__).parent


def recording(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Api() as api:
        yield api
        assert "Traceback" not in api.text, api.text


def played() -> Iterator[Any]:
    """The recordings; one is of clients that come by IPv6, too."""
    without = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
    for name in SCRIPTS:
        yield pytest.param(name, marks=without if name == "listen_everywhere" else ())


@pytest.mark.parametrize("name", list(played()))
def test_vaurien_answers_what_toxiproxy_answered(api: Api, name: str) -> None:
    wrong = []
    try:
        with Player(api.http) as player:
            for number, entry in enumerate(recording(name)["talk"], 1):
                request = entry["request"]
                wanted = entry.get("vaurien") or expected(entry["answer"])[0]
                got = player.play(step_of(request))
                if not same(wanted, got):
                    asked = json.dumps(request, ensure_ascii=False)
                    wrong.append(f"{number}. {asked}\n   wanted {wanted}\n   got    {got}")
    finally:
        api.clear()
    assert not wrong, f"{len(wrong)} answers differ:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recording_is_of_its_script_as_it_is_now(name: str) -> None:
    kept = recording(name)
    answers = [entry["answer"] for entry in kept["talk"]]
    asked = [entry["request"] for entry in kept["talk"]]
    assert asked == [step.asked() for step in SCRIPTS[name]], f"record {name} again"
    assert kept == document(name, SCRIPTS[name], kept["server"], answers), f"record {name} again"


def test_there_is_no_recording_without_a_script() -> None:
    assert {path.stem for path in HERE.glob("*.json")} == set(SCRIPTS)


#: Toxiproxy's endpoints, with the status of success.
ENDPOINTS = [
    ("GET", "/proxies", 200),
    ("POST", "/proxies", 201),
    ("POST", "/populate", 201),
    ("GET", "/proxies/[^/]+", 200),
    ("POST", "/proxies/[^/]+", 200),
    ("PATCH", "/proxies/[^/]+", 200),
    ("DELETE", "/proxies/[^/]+", 204),
    ("GET", "/proxies/[^/]+/toxics", 200),
    ("POST", "/proxies/[^/]+/toxics", 200),
    ("GET", "/proxies/[^/]+/toxics/[^/]+", 200),
    ("POST", "/proxies/[^/]+/toxics/[^/]+", 200),
    ("PATCH", "/proxies/[^/]+/toxics/[^/]+", 200),
    ("DELETE", "/proxies/[^/]+/toxics/[^/]+", 204),
    ("POST", "/reset", 204),
    ("GET", "/version", 200),
    ("GET", "/metrics", 200),
]

#: The errors of the text, as patterns.
ERRORS = [
    (400, "bad request body: .+"),
    (400, "missing required field: name"),
    (400, "missing required field: upstream"),
    (400, "missing required field: name at proxy 2"),
    (400, "stream was invalid, can be either upstream or downstream"),
    (400, "invalid toxic type"),
    (404, "proxy not found"),
    (404, "toxic not found"),
    (409, "proxy already exists"),
    (409, "toxic already exists"),
    (500, "listen tcp .+: bind: address already in use"),
]


def test_the_recordings_have_each_endpoint_and_each_error() -> None:
    talk = [entry for name in SCRIPTS for entry in recording(name)["talk"]]
    said = {
        (entry["request"]["method"], entry["request"]["path"], entry["answer"]["status"])
        for entry in talk
        if "method" in entry["request"]
    }
    for method, path, status in ENDPOINTS:
        assert any(
            (method, status) == (one[0], one[2]) and re.fullmatch(path, one[1]) for one in said
        ), f"nobody recorded {method} {path} with {status}"
    bodies = [entry["answer"].get("json") for entry in talk]
    errors = {(one["status"], one["error"]) for one in bodies if one and "error" in one}
    for status, message in ERRORS:
        assert any(status == one[0] and re.fullmatch(message, one[1]) for one in errors), message
    statuses = {status for _, _, status in said}
    assert {403, 404, 405} < statuses
