"""Toxiproxy's clients drive Vaurien, unchanged: those for Python, Node and the Chaos Toolkit.

Each test uses every function that its client has, and fails if one was left out: a new version of a
client cannot bring one that nobody tried.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.control.helpers import Api
from tests.e2e.conftest import from_npm
from tests.support import PATIENCE, Backend, dial, exchange, parse_address

NODE_CLIENT = "toxiproxy-node-client@4.1.0"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def program() -> Iterator[Api]:
    with Api() as program:
        yield program
        assert "Traceback" not in program.text, program.text


@pytest.fixture
def api(program: Api) -> Iterator[Api]:
    yield program
    program.clear()


def goes_through(address: str) -> bool:
    """Whether a connection to `address` gets an answer."""
    try:
        with dial(address) as client:
            return exchange(client, b"hello") == b"hello"
    except OSError:
        return False


def functions(*modules: Any) -> dict[str, CodeType]:
    """The functions and methods that are written in `modules`."""
    found: dict[str, CodeType] = {}
    for module in modules:
        for value in vars(module).values():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            for one in vars(value).values() if inspect.isclass(value) else [value]:
                written = inspect.unwrap(getattr(one, "__func__", one))
                if inspect.isfunction(written):
                    found[f"{module.__name__}.{written.__qualname__}"] = written.__code__
    return found


@contextlib.contextmanager
def all_called(*names: str) -> Iterator[None]:
    """Everything that is written in the modules `names` is called within the block."""
    wanted = functions(*map(importlib.import_module, names))
    called = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
    left = sorted(name for name, code in wanted.items() if code not in called)
    assert not left, f"nobody called {', '.join(left)}"


def test_toxiproxy_python(api: Api, echo_backend: Backend) -> None:
    toxiproxy: Any = importlib.import_module("toxiproxy")
    exceptions: Any = importlib.import_module("toxiproxy.exceptions")
    consumer: Any = importlib.import_module("toxiproxy.api").APIConsumer
    upstream = echo_backend.address
    host, port = parse_address(api.http)
    server = toxiproxy.Toxiproxy()
    with all_called(
        *(f"toxiproxy.{name}" for name in ("api", "proxy", "server", "toxic", "utils"))
    ):
        server.update_api_consumer("127.0.0.1", 1)
        assert not server.running()
        assert server.version() is None
        server.update_api_consumer(host, port)
        assert server.running()
        assert json.loads(server.version())["version"]

        proxy = server.create(upstream=upstream, name="one")
        assert (proxy.name, proxy.upstream, proxy.enabled) == ("one", upstream, True)
        assert goes_through(proxy.listen)
        off = server.create(upstream, "off", listen="localhost:0", enabled=False)
        assert (off.listen, off.enabled) == ("localhost:0", False)
        with pytest.raises(exceptions.ProxyExists, match="already exists"):
            server.create(upstream=upstream, name="one")
        with pytest.raises(exceptions.ProxyExists, match="proxy already exists"):
            consumer.post("/proxies", json={"name": "one", "upstream": upstream})
        assert set(server.proxies()) == {"one", "off"}
        assert server.get_proxy("one").listen == proxy.listen
        assert server.get_proxy("nobody") is None
        with pytest.raises(exceptions.NotFound, match="proxy not found"):
            consumer.get("/proxies/nobody")

        with proxy.down() as down:
            assert not down.enabled
            assert not server.get_proxy("one").enabled
            assert not goes_through(proxy.listen)
        assert goes_through(proxy.listen)
        proxy.disable()
        assert not goes_through(proxy.listen)
        proxy.enable()
        assert goes_through(proxy.listen)

        proxy.add_toxic(type="latency", attributes={"latency": 5})
        proxy.add_toxic(type="limit_data", name="mine", stream="upstream", toxicity=0.5)
        toxics = proxy.toxics()
        assert list(toxics) == ["mine", "latency_downstream"]
        assert toxics["mine"].toxicity == 0.5
        assert toxics["mine"].stream == "upstream"
        assert proxy.get_toxic("latency_downstream").attributes == {"latency": 5, "jitter": 0}
        assert proxy.get_toxic("nothing") is None
        with pytest.raises(exceptions.InvalidToxic, match="invalid toxic type"):
            proxy.add_toxic(type="chaos")
        assert proxy.destroy_toxic("mine")
        with pytest.raises(exceptions.NotFound, match="toxic not found"):
            proxy.destroy_toxic("mine")
        assert list(proxy.toxics()) == ["latency_downstream"]

        off.add_toxic(type="noop")
        assert server.reset()
        assert not proxy.toxics() and not off.toxics()
        assert server.get_proxy("off").enabled

        one, two = (
            {"name": name, "listen": listen, "upstream": upstream}
            for name, listen in (("one", proxy.listen), ("two", "127.0.0.1:0"))
        )
        (made,) = server.populate([one, two])
        assert made.name == "two"
        with Backend(echo_backend.script) as other:
            (made,) = server.populate([{**one, "upstream": other.address}])
            assert (made.name, made.upstream) == ("one", other.address)
            assert goes_through(made.listen)
            assert other.accepted == 1

        assert server.destroy(made)
        assert not server.destroy("off")
        assert off.destroy()
        assert set(server.proxies()) == {"two"}
        server.destroy_all()
        assert server.proxies() == {}


def test_chaostoolkit_toxiproxy(
    api: Api, echo_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = parse_address(api.http)
    configuration: dict[str, Any] = {"toxiproxy_host": host, "toxiproxy_port": port}
    names = ("toxiproxyapi", "proxy.actions", "proxy.probes", "toxic.actions")
    modules: list[Any] = [importlib.import_module(f"chaostoxi.{name}") for name in names]
    raw, proxies, probes, toxics = modules
    upstream_host, upstream_port = parse_address(echo_backend.address)
    monkeypatch.setenv("UPSTREAM_HOST", upstream_host)
    for name in ("ONE_PORT", "TWO_PORT"):  # which it sets
        monkeypatch.setenv(name, "")

    def made(name: str) -> Any:
        return api.ask("GET", f"/proxies/ONE/toxics/{name}")

    with all_called(*(f"chaostoxi.{name}" for name in names)):
        assert proxies.create_proxy(
            "ONE",
            "env:UPSTREAM_HOST",
            upstream_port,
            listen_host="127.0.0.1",
            configuration=configuration,
        )
        address = f"127.0.0.1:{configuration['ONE_PORT']}"
        assert os.environ["ONE_PORT"] == configuration["ONE_PORT"]
        assert goes_through(address)
        with pytest.raises(AssertionError):
            proxies.create_proxy(
                "ONE", upstream_host, upstream_port, "127.0.0.1", configuration=configuration
            )
        by_url = {"toxiproxy_url": f"http://{api.http}"}
        assert proxies.create_proxy(
            "TWO", upstream_host, upstream_port, "127.0.0.1", enabled=False, configuration=by_url
        )

        assert probes.proxy_exist("ONE", configuration)
        assert not probes.proxy_exist("nobody", configuration)
        assert probes.get_proxy_attribute("ONE", "listen", configuration) == address
        assert probes.get_proxy_attribute("TWO", "enabled", configuration) is False
        assert probes.get_proxy_attribute("nobody", "enabled", configuration) is None

        assert proxies.disable_proxy("ONE", configuration)
        assert not goes_through(address)
        assert proxies.enable_proxy("ONE", configuration)
        assert goes_through(address)
        with Backend(echo_backend.script) as other:
            assert proxies.modify_proxy(
                "ONE", upstream_address=other.address, configuration=configuration
            )
            assert goes_through(address)
            assert other.accepted == 1
        assert proxies.modify_proxy("ONE", "127.0.0.1:0", echo_backend.address, True, configuration)
        assert goes_through(f"127.0.0.1:{configuration['ONE_PORT']}")
        with pytest.raises(AssertionError):
            proxies.modify_proxy("nobody", enabled=True, configuration=configuration)

        assert toxics.create_toxic("ONE", "no op", "noop", "upstream", 0.5, None, configuration)
        assert made("no%20op")["toxicity"] == 0.5
        for name, create, arguments, attributes in (
            ("latency", toxics.create_latency_toxic, (100, 10), {"latency": 100, "jitter": 10}),
            ("bandwidth", toxics.create_bandwith_degradation_toxic, (50,), {"rate": 50}),
            ("slow_close", toxics.create_slow_connection_close_toxic, (70,), {"delay": 70}),
            ("timeout", toxics.create_timeout_toxic, (0,), {"timeout": 0}),
            (
                "slicer",
                toxics.create_slicer_toxic,
                (64, 8, 10),
                {"average_size": 64, "size_variation": 8, "delay": 10},
            ),
            ("limit_data", toxics.create_limiter_toxic, (1000,), {"bytes": 1000}),
        ):
            assert create("ONE", f"my {name}", *arguments, configuration=configuration)
            assert made(f"my%20{name}") == {
                "name": f"my {name}",
                "type": name,
                "stream": "downstream",
                "toxicity": 1,
                "attributes": attributes,
            }
        assert toxics.delete_toxic("ONE", "my timeout", configuration)
        assert not toxics.delete_toxic("ONE", "my timeout", configuration)
        assert proxies.reset(configuration)
        assert api.ask("GET", "/proxies/ONE/toxics") == []
        assert probes.get_proxy_attribute("TWO", "enabled", configuration) is True
        for name in ("ONE", "TWO"):
            assert proxies.delete_proxy(name, configuration) is None
        assert api.ask("GET", "/proxies") == {}
        assert raw.read_proxy("ONE", configuration) is None


def test_an_experiment_of_the_chaos_toolkit(api: Api, echo_backend: Backend) -> None:
    experiment: Any = importlib.import_module("chaoslib.experiment")

    def call(kind: str, module: str, function: str, **arguments: Any) -> dict[str, Any]:
        provider = {
            "type": "python",
            "module": f"chaostoxi.{module}",
            "func": function,
            "arguments": arguments,
        }
        return {"type": kind, "name": f"{function} {arguments}", "provider": provider}

    with api.proxy(echo_backend, "redis") as proxy:
        probe = call("probe", "proxy.probes", "get_proxy_attribute")
        probe["provider"]["arguments"] = {"proxy_name": "redis", "attribute": "enabled"}
        journal = experiment.run_experiment(
            {
                "version": "1.0.0",
                "title": "Redis is slow",
                "description": "and then gone",
                "configuration": {"toxiproxy_url": f"http://{api.http}"},
                "steady-state-hypothesis": {
                    "title": "the proxy is there",
                    "probes": [
                        {
                            **call("probe", "proxy.probes", "proxy_exist", proxy_name=proxy.name),
                            "tolerance": True,
                        }
                    ],
                },
                "method": [
                    call(
                        "action",
                        "toxic.actions",
                        "create_latency_toxic",
                        for_proxy="redis",
                        toxic_name="slow",
                        latency=20,
                    ),
                    call("action", "proxy.actions", "disable_proxy", proxy_name="redis"),
                    probe,
                ],
                "rollbacks": [call("action", "proxy.actions", "reset")],
            }
        )
        assert journal["status"] == "completed", journal
        assert [step["status"] for step in journal["run"]] == ["succeeded"] * 3
        assert journal["run"][2]["output"] is False
        assert proxy.show()["enabled"] and proxy.toxics() == []
        assert goes_through(proxy.address)


def drive_node(api: Api, backend: Backend, modules: Path, driver: Path) -> None:
    """Let a `driver` go through Node's client; it calls each of its functions, and tidies up."""
    done = subprocess.run(
        ["node", driver, f"http://{api.http}", backend.address],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["functions"]) >= 20
    assert set(told["functions"]) == set(told["called"])
    assert api.ask("GET", "/proxies") == {}


@pytest.mark.program("node")
@pytest.mark.program("npm")
def test_toxiproxy_node_client(
    api: Api, echo_backend: Backend, pytestconfig: pytest.Config
) -> None:
    modules = from_npm(pytestconfig, NODE_CLIENT)
    drive_node(api, echo_backend, modules, HERE / "toxiproxy_client.js")
