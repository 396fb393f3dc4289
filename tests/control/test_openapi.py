"""The OpenAPI document is true: of its paths, and of what really comes back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.control.helpers import Api
from tests.support import PATIENCE, Backend, Program, proxy
from vaurien.control import native, toxiproxy
from vaurien.control.context import Context
from vaurien.control.events import Recent, Streams
from vaurien.control.farm import Farm
from vaurien.control.openapi import document
from vaurien.settings import resolve


def served() -> set[tuple[str, str]]:
    """The methods and paths that the application has."""
    farm = Farm(resolve({}, [], {"VAURIEN_HTTP": "1"}))
    context = Context(farm, Recent(), Streams(farm), lambda: (b"", ""), dict)
    return {
        (name[len("on_") :], re.sub(r":int}", "}", template))
        for template, resource in (*toxiproxy.routes(context), *native.routes(context))
        for name in dir(resource)
        if name.startswith("on_")
    }


def test_every_path_and_method_that_is_served_is_documented_and_no_other() -> None:
    documented = {
        (method, path) for path, methods in document()["paths"].items() for method in methods
    }
    assert documented == served()


def test_operations_have_names_of_their_own() -> None:
    names = [one["operationId"] for path in document()["paths"].values() for one in path.values()]
    assert len(names) == len(set(names)) == len(served())


def address(program: Program) -> str:
    """Where its API is, once it listens."""
    while True:
        line = program.lines.get(timeout=PATIENCE)
        assert line is not None, program.text
        if line.startswith("http listening on "):
            return line.split()[-1]


#: Of these operations Schemathesis cannot tell what is right.
ANY_TEXT_IS_NOT_RIGHT = """
[[operations]]
include-method = "POST"
include-path-regex = "(/behavior|/handler|/populate|/proxies|/proxies/[^/]+|/toxics)$"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-method = "PATCH"
include-path-regex = "/proxies/[^/]+$"
checks.positive_data_acceptance.enabled = false
"""
#: A right body of each kind, with every field that there is.
WHOLE: dict[str, dict[str, Any]] = {
    "NewProxy": {
        "name": "whole",
        "listen": "127.0.0.1:0",
        "upstream": "127.0.0.1:6379",
        "enabled": True,
        "behavior": "20:delay",
        "on_connect": "10:refuse",
        "protocol": "tcp",
        "seed": -1,
        "ttl": 60,
        "toxics": [{"type": "latency"}],
    },
    "ChangedProxy": {
        "name": "redis",
        "listen": "127.0.0.1:0",
        "upstream": "127.0.0.1:6380",
        "enabled": True,
        "toxics": [],
    },
    "NewToxic": {
        "type": "latency",
        "name": "whole",
        "stream": "upstream",
        "toxicity": 0.5,
        "ttl": 60,
        "attributes": {"latency": 100},
        "defaults": True,
    },
    "ChangedToxic": {
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 0.4,
        "attributes": {"latency": 200},
        "ttl": 60.5,
    },
    "NewHandler": {"name": "delay", "ttl": 60},
    "NewBehavior": {
        "behavior": "20:delay",
        "on_connect": "10:refuse",
        "ttl": 60,
        "handlers": {"delay": {"sleep": 1}},
    },
    "Time": {"ttl": 60},
}


def test_right_bodies_are_taken_with_every_field_or_as_the_examples_have_them(
    echo_backend: Backend,
) -> None:
    whole = document()["components"]["schemas"]
    with Api("--distant", echo_backend.address, "--local", "127.0.0.1:0", "--drain", 0) as api:
        for path, methods in document()["paths"].items():
            place = path.format(name="redis", toxic="latency_downstream", number=1)
            for method, operation in methods.items():
                content = operation.get("requestBody", {}).get("content", {})
                for kind in content.values():
                    bodies = [kind["example"]]
                    name = kind["schema"].get("$ref", "").rpartition("/")[2]
                    if name:
                        said = whole[name]["properties"].keys()
                        assert WHOLE[name].keys() == said, name
                        bodies.append(WHOLE[name])
                    for body in bodies:
                        answer = api.call(method.upper(), place, body)
                        assert str(answer.status) in operation["responses"]
                        assert answer.status in (200, 201), (method, place, body, answer)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_random_requests_get_what_the_document_says(echo_backend: Backend, tmp_path: Path) -> None:
    """Schemathesis makes right and wrong requests of the document, and compares what comes back.

    What it cannot know is left out: event streams have no end, and where a body has names or
    addresses, not every text is one.
    """
    (tmp_path / "schemathesis.toml").write_text(ANY_TEXT_IS_NOT_RIGHT)
    with proxy(echo_backend, "--http", "--http-port", 0, "--log-level", "error") as vaurien:
        where = f"http://{address(vaurien)}"
        with urllib.request.urlopen(f"{where}/openapi.json", timeout=PATIENCE) as answer:
            assert json.load(answer) == document()
        result = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{where}/openapi.json"),
                *("--exclude-path-regex", "/events$"),
                *("--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--seed", "1"),
                *("--request-timeout", "10", "--suppress-health-check", "all", "--no-color"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=220,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.search(r"^  [1-9]\d{2,} generated", result.stdout, re.MULTILINE), result.stdout
        assert vaurien.process.poll() is None
        assert "Traceback" not in vaurien.text
