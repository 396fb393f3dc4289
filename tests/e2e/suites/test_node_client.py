"""``toxiproxy-node-client`` as it is published, in each version before the newest.

Three versions bring an example. It names ``localhost:8474``, and its comment says what it prints.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.control.helpers import Api
from tests.e2e.conftest import from_npm
from tests.e2e.suites.conftest import Home
from tests.e2e.test_toxiproxy_clients import drive_node
from tests.support import Backend

HERE = Path(__file__).parent

#: Each version, with what drives it; `tests.e2e.test_toxiproxy_clients` has the newest, 4.1.0.
DRIVERS = {
    "2.0.6": HERE / "node_client.js",
    "3.0.0": HERE / "node_client.js",
    "4.0.0": HERE.parent / "toxiproxy_client.js",
}

pytestmark = [
    pytest.mark.suite,
    pytest.mark.timeout(300),
    pytest.mark.program("node"),
    pytest.mark.program("npm"),
]


@pytest.mark.program("unshare")
@pytest.mark.program("nsenter")
@pytest.mark.parametrize("version", DRIVERS)
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


@pytest.mark.parametrize("version", DRIVERS)
def test_each_of_its_functions(
    echo_backend: Backend, pytestconfig: pytest.Config, version: str
) -> None:
    modules = from_npm(pytestconfig, f"toxiproxy-node-client@{version}")
    with Api() as api:
        drive_node(api, echo_backend, modules, DRIVERS[version])
        assert "Traceback" not in api.text, api.text
