"""Proxies that lead to each other: refused where it can be seen, else ended at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.attacks.test_callbacks import MOST
from tests.control.farms import Farm, write
from tests.control.served import Api, Served
from tests.laws.helpers import Names, assert_fin, has_ipv6, unused_port
from tests.rivals.differences import differs
from tests.support import Backend, dial, echo, exchange, run, wait_for
from vaurien.address import Address
from vaurien.behavior import Behavior
from vaurien.circles import refuse_circles
from vaurien.control.roster import PROXIES
from vaurien.errors import UsageError
from vaurien.plan import Plan
from vaurien.settings.proxies import refuse_one_address


def sections(proxies: Mapping[str, tuple[str, str]]) -> str:
    """An INI file with these, as (local, distant)."""
    return "".join(
        f"[proxy:{name}]\nlocal = {local}\ndistant = {distant}\n"
        for name, (local, distant) in proxies.items()
    )


@pytest.mark.parametrize("length", [2, 3])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "unix"])
def test_a_circle_that_is_written_is_refused(tmp_path: Path, length: int, host: str) -> None:
    places = [f"{host}:{tmp_path / str(n) if host == 'unix' else 7000 + n}" for n in range(length)]
    names = "abc"[:length]
    circle = {name: (places[n], places[(n + 1) % length]) for n, name in enumerate(names)}
    ended = run("--check", "--config", write(tmp_path / "farm.ini", sections(circle)))
    assert ended.returncode == 2
    way = " -> ".join(map(repr, [*names, "a"]))
    assert f"proxies lead in a circle: {way}; give one of them another backend" in ended.stderr


def test_many_proxies_take_a_moment_however_alike_their_addresses_are() -> None:
    """As many as there can be, all at one port, as in Kubernetes; they were compared in pairs."""
    last = ("last", Address("127.200.0.1", 6379), Address("127.0.0.1", 6379))
    places = [
        (
            f"p{n}",
            Address(f"127.{n >> 16}.{n >> 8 & 255}.{n & 255}", 6379),
            Address("10.0.0.1", 6379),
        )
        for n in range(1, PROXIES)
    ]
    start = time.thread_time()
    refuse_circles([*places, last])
    assert time.thread_time() - start < 1
    start = time.thread_time()
    refuse_circles([*places, last], last)
    assert time.thread_time() - start < MOST
    line = [(f"p{n}", Address("::1", n), Address("::1", n + 1)) for n in range(1, PROXIES)]
    with pytest.raises(UsageError, match=r"'p1' -> .* -> 'p10' -> \.\.\. -> 'p1'; give"):
        refuse_circles([*line, ("back", Address("::1", PROXIES), Address("::1", 1))])


def test_whether_two_listen_at_one_address_is_seen_in_a_moment() -> None:
    places = [Address(f"127.{n >> 16}.{n >> 8 & 255}.{n & 255}", 6379) for n in range(1, PROXIES)]
    plans = [plan(f"p{n}", local) for n, local in enumerate(places)]
    start = time.thread_time()
    refuse_one_address(plans)
    assert time.thread_time() - start < 1
    for local in (places[5], Address("0.0.0.0", 6379), Address("::", 6379)):
        for both in ([*plans, plan("late", local)], [plan("late", local), *plans]):
            with pytest.raises(UsageError, match="both listen at"):
                refuse_one_address(both)


def plan(name: str, local: Address) -> Plan:
    return Plan(local, Address("10.0.0.1", 6379), Behavior(()), {}, 1, name=name)


def test_a_line_that_is_written_is_none(tmp_path: Path) -> None:
    line = {"a": ("localhost:7001", "localhost:7002"), "b": ("localhost:7002", "localhost:7003")}
    ended = run("--check", "--config", write(tmp_path / "farm.ini", sections(line)))
    assert ended.returncode == 0


@differs("circles")
def test_a_circle_that_requests_would_make_is_refused() -> None:
    with Backend(echo) as backend, Served("--distant", backend.address) as served:
        api, port = served.api, unused_port()
        first = {"name": "a", "listen": "127.0.0.1:0", "upstream": f"localhost:{port}"}
        at = api.call("POST", "/proxies", first).json["listen"]
        second = {"name": "b", "listen": f"127.0.0.1:{port}", "upstream": at}
        answer = api.call("POST", "/proxies", second)
        assert answer.status == 400
        assert "proxies lead in a circle: " in answer.error
        other = api.call("POST", "/proxies", {**second, "upstream": backend.address})
        assert other.status == 201
        answer = api.call("POST", "/proxies/b", {"upstream": at})
        assert answer.status == 400
        assert "proxies lead in a circle: " in answer.error
        off = api.call("POST", "/proxies", {**second, "name": "c", "enabled": False})
        assert off.status == 201
        assert api.call("DELETE", "/proxies/b").status == 204
        answer = api.call("POST", "/proxies/c", {"enabled": True})
        assert answer.status == 400
        assert "proxies lead in a circle: " in answer.error


def test_a_circle_by_names_ends_at_once(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("here.test", "127.0.0.1")
    a, b = unused_port(), unused_port()
    circle = {
        "a": (f"127.0.0.1:{a}", f"here.test:{b}"),
        "b": (f"[::]:{b}" if has_ipv6() else f"0.0.0.0:{b}", f"here.test:{a}"),
    }
    config = write(tmp_path / "farm.ini", sections(circle))
    with Farm("--config", config, env=names.env, ready=2) as farm:
        before = farm.descriptors()
        for _ in range(5):
            with dial(f"127.0.0.1:{a}") as client:
                assert_fin(client)
        wait_for(lambda: farm.descriptors() <= before, "all descriptors are given back")
        farm.wait_log(r"a: connection 2: backend .*: proxies lead in a circle: a -> b -> a")
        wait_for(lambda: farm.text.count("in a circle") == 5)
        assert "Traceback" not in farm.text


def test_a_proxy_that_leads_to_itself_by_a_name_ends_at_once(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("here.test", "127.0.0.1")
    port = unused_port()
    config = write(tmp_path / "f.ini", sections({"a": (f"127.0.0.1:{port}", f"here.test:{port}")}))
    with Farm("--config", config, env=names.env, ready=1) as farm:
        with dial(f"127.0.0.1:{port}") as client:
            assert_fin(client)
        farm.wait_log("proxies lead in a circle: a -> a")


def test_proxies_in_a_line_pass_on(tmp_path: Path) -> None:
    a, b, c = unused_port(), unused_port(), unused_port()
    with Backend(echo) as backend:
        line = {
            "a": (f"127.0.0.1:{a}", f"127.0.0.1:{b}"),
            "b": (f"127.0.0.1:{b}", f"localhost:{c}"),
            "c": (f"127.0.0.1:{c}", backend.address),
        }
        config = write(tmp_path / "farm.ini", sections(line))
        with Farm("--config", config, ready=3) as farm:
            before = farm.descriptors()
            for _ in range(3):
                for port in (a, b, c):
                    with dial(f"127.0.0.1:{port}") as client:
                        assert exchange(client, b"hello") == b"hello"
            wait_for(lambda: farm.descriptors() <= before, "all descriptors are given back")
            assert "circle" not in farm.text


def test_the_api_is_a_backend_only_if_the_configuration_says_so() -> None:
    with Backend(echo) as backend, Served("--distant", backend.address) as served:
        port = served.api.address.rpartition(":")[2]
        for host in ("localhost", "127.0.0.1", ""):
            body = {"name": "p", "listen": "localhost:0", "upstream": f"{host}:{port}"}
            answer = served.api.call("POST", "/proxies", body)
            assert answer.status == 400
            assert "is where the control API is served" in answer.error
        answer = served.api.call("POST", "/proxies/default", {"upstream": f"localhost:{port}"})
        assert answer.status == 400


def test_the_configuration_may_make_the_api_a_backend() -> None:
    port = unused_port()
    arguments = ("--distant", f"localhost:{port}", "--http-port", port)
    with Served(*arguments) as served:
        api = Api(served.api.get("/proxies/default")["listen"])
        assert api.call("GET", "/health").status == 200
        api.close()
        served.api.ok("POST", "/proxies/default/disable")
        served.api.ok("POST", "/proxies/default/enable")
