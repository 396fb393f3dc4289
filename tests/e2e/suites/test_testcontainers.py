"""The Toxiproxy module of Testcontainers for Node, as published, drives Vaurien.

In place of a container it gets this machine, which needs no Docker: in a network of its own all the
ports that the module lends out are free.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import from_npm
from tests.e2e.suites.conftest import Home

MODULE = "@testcontainers/toxiproxy@12.1.0"
#: What it starts containers with, which nobody does here: one that Node 18 can load.
BASE = {"testcontainers": "10.28.0"}
HERE = Path(__file__).parent


@pytest.mark.suite
@pytest.mark.timeout(300)
@pytest.mark.program("node")
@pytest.mark.program("npm")
@pytest.mark.program("unshare")
@pytest.mark.program("nsenter")
def test_testcontainers_for_node(home: Home, pytestconfig: pytest.Config) -> None:
    modules = from_npm(pytestconfig, MODULE, BASE)
    done = home.run("node", HERE / "testcontainers.js", env={"NODE_PATH": str(modules)})
    assert done.stdout == "all is well\n"
    proxies = home.ask("GET", "/proxies")
    assert len(proxies) == 32
    # IPv4 alone where there is no IPv6
    assert proxies["app"]["listen"] in ("[::]:8666", "0.0.0.0:8666")
