"""The example that ``toxiproxy-node-client`` is published with runs unchanged, in each version.

It is the one program that a client of Toxiproxy brings in a registry and that talks to a server. It
names ``localhost:8474``, and its comment says what it prints.
"""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import from_npm
from tests.e2e.suites.conftest import Home

#: What has it; there is none in 4.1.0.
VERSIONS = ["2.0.6", "3.0.0", "4.0.0"]

pytestmark = [
    pytest.mark.suite,
    pytest.mark.timeout(300),
    pytest.mark.program("node"),
    pytest.mark.program("npm"),
    pytest.mark.program("unshare"),
    pytest.mark.program("nsenter"),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_prints_what_its_comment_says(
    home: Home, pytestconfig: pytest.Config, version: str
) -> None:
    modules = from_npm(pytestconfig, f"toxiproxy-node-client@{version}")
    example = modules / "toxiproxy-node-client" / "example-code" / "es6-example.js"
    done = home.run("node", example)
    comment = "".join(re.findall(r"^// (.+)", example.read_text(), re.MULTILINE))
    assert done.stdout.split() == comment.split(), done.stderr
    assert home.ask("GET", "/proxies/ihsw_test_redis_master/toxics") == [
        {
            "attributes": {"rate": 1000},
            "name": "bandwidth_downstream",
            "type": "bandwidth",
            "stream": "downstream",
            "toxicity": 1,
        }
    ]
