"""The OpenAPI document is true: of its paths, and of what really comes back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support import PATIENCE, Backend, Program, proxy
from vaurien.control import native, toxiproxy
from vaurien.control.events import Recent, Streams
from vaurien.control.farm import Farm
from vaurien.control.openapi import document
from vaurien.settings import resolve


def served() -> set[tuple[str, str]]:
    """The methods and paths that the application has."""
    farm = Farm(resolve({}, [], {"VAURIEN_HTTP": "1"}))
    context = native.Context(farm, Recent(), Streams(farm), lambda: (b"", ""), dict)
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


@pytest.mark.timeout(240)
def test_random_requests_get_what_the_document_says(echo_backend: Backend, tmp_path: Path) -> None:
    """Schemathesis makes right and wrong requests of the document, and compares what comes back.

    What it cannot know is left out: event streams have no end, and not every text is a handler.
    """
    with proxy(echo_backend, "--http", "--http-port", 0, "--log-level", "error") as vaurien:
        where = f"http://{address(vaurien)}"
        with urllib.request.urlopen(f"{where}/openapi.json", timeout=PATIENCE) as answer:
            assert json.load(answer) == document()
        result = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{where}/openapi.json"),
                *("--exclude-path-regex", "/events$"),
                *("--exclude-checks", "positive_data_acceptance"),
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
