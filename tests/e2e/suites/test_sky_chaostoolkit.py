"""``sky-chaostoolkit-toxiproxy-2``, which drives several servers by way of ``toxiproxy-python``.

What it says of the Pythons that it is for is no valid specifier, so that it is not installed; it is
taken from PyPI as a wheel, and imported from there.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.helpers import Api
from tests.e2e.test_toxiproxy_clients import all_called, goes_through
from tests.support import Backend, parse_address

WHEEL = "sky-chaostoolkit-toxiproxy-2==0.1.8"

pytestmark = [pytest.mark.suite, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Api]]:
    with Api() as one, Api() as two:
        yield [one, two]
        assert "Traceback" not in one.text + two.text, one.text + two.text


@pytest.fixture
def wheel(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be imported."""
    cache: Any = pytestconfig.cache
    home = Path(cache.mkdir("pypi"))
    if not list(home.glob("sky_*.whl")):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
        done = subprocess.run(
            [*pip, "--dest", str(home), WHEEL], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(*map(str, home.glob("sky_*.whl")))


@pytest.mark.usefixtures("wheel")
def test_each_of_its_functions(servers: list[Api], echo_backend: Backend) -> None:
    actions: Any = importlib.import_module("chaostp.proxy.actions")
    probes: Any = importlib.import_module("chaostp.proxy.probes")
    package: Any = importlib.import_module("chaostp")
    one, two = (
        {"host": host, "port": port} for host, port in (parse_address(api.http) for api in servers)
    )
    both = {"configuration": {"toxiproxy": [one, two]}, "all_servers": True}
    upstream = echo_backend.address
    with all_called("chaostp", "chaostp.proxy.actions", "chaostp.proxy.probes"):
        assert probes.server_running(one)
        assert "version" in probes.api_version(one)
        assert actions.create_proxy("p", upstream, "127.0.0.1:0", **both)
        assert not actions.create_proxy("p", upstream, "127.0.0.1:0", server=one)
        assert actions.create_proxy("off", upstream, "127.0.0.1:0", enabled=False, server=two)
        assert probes.get_proxies(one) == ["p"]
        assert sorted(probes.get_proxies(two)) == ["off", "p"]
        assert probes.get_proxy("p", one) == "p"
        assert probes.get_proxy("nobody", one) is None
        listen = [api.ask("GET", "/proxies/p")["listen"] for api in servers]
        assert all(map(goes_through, listen))

        assert actions.disable_proxy(proxy_name="p", **both)
        assert not any(map(goes_through, listen))
        assert actions.enable_proxy(proxy_name="p", server=one)
        assert [*map(goes_through, listen)] == [True, False]
        assert not actions.enable_proxy(proxy_name="nobody", server=one)

        latency = {"type": "latency", "attributes": {"latency": 5}}
        assert actions.add_toxic(proxy_name="p", **latency, **both) == 1
        assert actions.add_toxic(server=one, stream="upstream", toxic_name="mine", **latency) == 1
        assert probes.get_num_toxics("p", one) == 2
        assert probes.get_num_toxics("p", two) == 1
        assert actions.add_toxic(proxy_name="nobody", server=one, **latency) == -1
        assert actions.delete_toxic(server=one, proxy_name="p", type="latency") == 1
        assert actions.delete_toxic(server=one, proxy_name="p", type="latency") == 1
        assert probes.get_num_toxics("p", one) == 1
        assert actions.delete_all_toxics(server=one, proxy_name="p") == 1
        assert probes.get_num_toxics("p", one) == 0

        assert actions.reset_server(two)
        assert goes_through(listen[1])
        assert servers[1].ask("GET", "/proxies/off")["enabled"]
        assert probes.get_num_toxics("p", two) == 0
        assert actions.add_toxic(proxy_name="p", **latency, **both) == 1
        assert actions.reset_all(both["configuration"]) == 1
        assert [probes.get_num_toxics("p", server) for server in (one, two)] == [0, 0]

        made = [{"name": "q", "upstream": upstream, "listen": "127.0.0.1:0"}]
        assert actions.populate(made, server=one) == 1
        assert actions.delete_proxy("q", server=one)
        assert not actions.delete_proxy("q", server=one)
        assert actions.delete_all_proxies(**both)
        assert [probes.get_proxies(server) for server in (one, two)] == [[], []]
        assert len(package.discover()["activities"]) > 10
