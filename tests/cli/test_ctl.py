"""``vaurienctl``: what each command does to a running Vaurien, and tells in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.ctl import COMMAND, environment, refused, run, told
from tests.support import (
    PATIENCE,
    Backend,
    clients,
    dial,
    echo,
    exchange,
    receive_all,
    wait_for,
)
from vaurien import Client, start_proxy
from vaurien.kit.process import Running


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One Vaurien for all."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VAURIEN_")]:
            patch.delenv(name)
        with start_proxy() as running:
            yield running


@pytest.fixture
def client(shared: Running, backend: Backend) -> Iterator[Client]:
    """Its client; it has one proxy, ``redis``, that does no harm."""
    shared.client.create("redis", "127.0.0.1:0", backend.address, seed=1)
    yield shared.client
    for state in shared.client.proxies():
        shared.client.delete(state["name"])


@pytest.fixture
def host(client: Client) -> str:
    """Where it is."""
    return str(client.address)


def answer(host: str, *arguments: object) -> object:
    """Run ``vaurienctl --json``; the document."""
    result = run(host, *arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


# Proxies


def test_list_has_a_line_for_each_proxy(host: str, client: Client, backend: Backend) -> None:
    state = client.proxy("redis")
    assert told(host, "list") == [
        ["redis", state["local"], backend.address, "yes", "100:dummy", "-", "-", "0"]
    ]
    assert answer(host, "list") == client.proxies()
    client.delete("redis")
    assert told(host, "list") == []


def test_show_tells_all_of_a_proxy(host: str, client: Client) -> None:
    client.set_behavior("20:delay", "10:refuse", {"delay": {"sleep": 2}}, "redis", ttl=60)
    client.add_toxic("redis", "latency", name="slow", latency=100, toxicity=0.5)
    rows = dict(told(host, "show", "redis"))
    assert rows["name"] == "redis"
    assert rows["behavior"] == "20:delay"
    assert rows["on connect"] == "10:refuse"
    assert "sleep=2" in rows["handler delay"]
    assert rows["toxic slow"].startswith("latency downstream 0.5 latency=100")
    assert rows["ttl behavior"].endswith(" s")
    assert rows["connections"] == "0"
    assert "received upstream" in rows
    assert answer(host, "show", "redis").keys() == client.proxy("redis").keys()  # type: ignore[attr-defined]


def test_a_proxy_is_made_with_all_that_it_takes(host: str, client: Client) -> None:
    with Backend(echo) as backend:
        ((name, local, distant, enabled, *_),) = told(
            host,
            *("create", "two", "--distant", backend.address, "--behavior", "20:delay"),
            *("--on-connect", "10:refuse", "--seed", "-5", "--ttl", "60", "--disabled"),
        )
        assert (name, distant, enabled) == ("two", backend.address, "no")
        state = client.proxy("two")
        assert (state["behavior"], state["on_connect"]) == ("20:delay", "10:refuse")
        assert state["seed"] == -5
        assert 50 < state["ttl"]["proxy"] <= 60
        ((_, local, *_),) = told(host, "enable", "two")
        assert local == client.proxy("two")["local"]


def test_a_proxy_changes_its_backend(host: str) -> None:
    with Backend(lambda sock: sock.sendall(b"the other")) as other:
        ((_, local, distant, *_),) = told(host, "change", "redis", "--distant", other.address)
        assert distant == other.address
        with dial(local) as sock:
            assert receive_all(sock) == b"the other"


def test_proxies_are_disabled_enabled_and_deleted_by_name(
    host: str, client: Client, backend: Backend
) -> None:
    client.create("two", "127.0.0.1:0", backend.address)
    assert [row[3] for row in told(host, "disable", "redis", "two")] == ["no", "no"]
    assert [state["enabled"] for state in client.proxies()] == [False, False]
    assert [row[3] for row in told(host, "enable", "two")] == ["yes"]
    assert [row[3] for row in told(host, "enable", "redis", "--ttl", "60")] == ["yes"]
    assert client.proxy("redis")["ttl"]["enabled"] > 50
    assert told(host, "delete", "redis", "two") == []
    assert client.proxies() == []


def test_reset_takes_the_harm_away(host: str, client: Client, backend: Backend) -> None:
    client.create("two", "127.0.0.1:0", backend.address)
    for name in ("redis", "two"):
        client.set_handler("error", proxy=name)
    assert told(host, "reset", "two") == []
    behaviors = [state["behavior"] for state in client.proxies()]
    assert behaviors == ["100:error", "100:dummy"]
    assert told(host, "reset") == []
    assert client.get_behavior()["behavior"] == "100:dummy"


# Handlers and behaviors


def test_a_handler_is_set_and_told(host: str, client: Client) -> None:
    ((proxy, name, options, behavior),) = told(
        host, "set-handler", "delay", "sleep=2", "--proxy", "redis", "--ttl", "30", "before=no"
    )
    assert (proxy, name, behavior) == ("redis", "delay", "100:delay")
    assert {"sleep=2", "before=no"} <= set(options.split())
    assert told(host, "get-handler") == [[proxy, name, options, behavior]]
    assert client.get_handler("redis")["options"]["sleep"] == 2
    assert 20 < client.proxy("redis")["ttl"]["behavior"] <= 30
    assert answer(host, "get-handler", "--proxy", "redis") == client.get_handler()


def test_a_behavior_is_set_and_told(host: str, client: Client) -> None:
    rows = told(
        host,
        *("behavior", "20:delay,5:error", "delay.sleep=2", "--on-connect", "10:refuse"),
        *("--proxy=redis",),
    )
    ((proxy, behavior, on_connect, options),) = rows
    assert (proxy, behavior, on_connect) == ("redis", "20:delay,5:error", "10:refuse")
    assert "delay.sleep=2" in options.split()
    assert told(host, "behavior") == rows
    assert client.get_behavior()["handlers"]["delay"]["sleep"] == 2
    ((_, behavior, on_connect, _),) = told(host, "behavior", "--on-connect", "none")
    assert (behavior, on_connect) == ("20:delay,5:error", "-")


def test_handlers_are_listed_with_their_options(host: str) -> None:
    rows = {name: (kind, summary) for name, kind, summary in told(host, "list-handlers")}
    assert rows["latency"][0] == "flow"
    assert rows["refuse"][0] == "connect"
    options = {row[0]: row[1:] for row in told(host, "list-handlers", "cut")}
    assert options["how"][2].split() == ["fin", "reset"]
    names = {one["name"] for one in answer(host, "list-handlers")}  # type: ignore[attr-defined]
    assert names == {name for name, (kind, _) in rows.items() if kind != "preset"}
    assert rows["3g"][0] == "preset"


# Toxics


def test_a_toxic_is_added_updated_listed_and_removed(host: str, client: Client) -> None:
    ((name, kind, stream, toxicity, attributes),) = told(
        host,
        *("toxic", "add", "redis", "latency", "latency=100", "jitter=10"),
        *("--stream", "upstream", "--toxicity", "0.5", "--name", "slow", "--ttl", "60"),
    )
    assert (name, kind, stream, toxicity) == ("slow", "latency", "upstream", "0.5")
    assert set(attributes.split()) == {"latency=100", "jitter=10"}
    ((*_, toxicity, attributes),) = told(
        host, "toxic", "update", "redis", "slow", "latency=200", "--toxicity", "1"
    )
    assert toxicity == "1"
    assert set(attributes.split()) == {"latency=200", "jitter=10"}
    assert [row[0] for row in told(host, "toxic", "list", "redis")] == ["slow"]
    assert answer(host, "toxic", "list", "redis") == client.toxics("redis")
    assert [row[6] for row in told(host, "list")] == ["slow"]
    assert told(host, "toxic", "remove", "redis", "slow") == []
    assert client.toxics("redis") == []


# Connections


def test_connections_are_listed_and_dropped(host: str, client: Client) -> None:
    with clients(client.proxy("redis")["local"], 3) as socks:
        for sock in socks:
            assert exchange(sock, b"hello") == b"hello"
        rows = told(host, "connections")
        assert len(rows) == 3
        assert {row[0] for row in rows} == {"redis"}
        assert rows[0][5:9] == ["5"] * 4
        assert told(host, "connections", "redis") == rows
        numbers = {row[2]: row[1] for row in rows}
        first = numbers["{}:{}".format(*socks[0].getsockname())]
        rows = told(host, "connections", "redis", "--drop", first, "--how", "reset")
        assert rows == [["1 dropped"]]
        with pytest.raises(ConnectionResetError):
            socks[0].recv(1)
        wait_for(lambda: len(client.connections()) == 2, "it to go")
        assert answer(host, "connections", "--drop", "all") == {"dropped": 2}
        assert socks[1].recv(1) == socks[2].recv(1) == b""


# What happens


def spawn(host: str, *arguments: str) -> subprocess.Popen[str]:
    """``vaurienctl`` that goes on, in a pipe."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(host),
    )


def test_watch_tells_rates_and_ends_quietly_at_ctrl_c(host: str, client: Client) -> None:
    client.set_handler("delay", sleep=0.001, proxy="redis")
    with spawn(host, "watch", "redis", "--interval", "0.2") as process:
        assert process.stdout is not None
        with dial(client.proxy("redis")["local"]) as sock:
            cells: list[str] = []
            while not cells or float(cells[3]) == 0 or cells[6] == "-":
                assert exchange(sock, b"x" * 1000) == b"x" * 1000
                cells = process.stdout.readline().rstrip("\n").split("\t")
                assert len(cells) == 7
        assert cells[1:3] == ["redis", "1"]
        assert float(cells[4]) >= 1000
        assert cells[6].startswith("delay=")
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE)
        assert (process.returncode, log) == (0, "")


def test_watch_ends_after_its_count(host: str) -> None:
    rows = told(host, "watch", "--interval", "0.05", "--count", "2")
    assert [row[1] for row in rows] == ["redis", "redis"]
    result = run(host, "watch", "--interval", "0.05", "--count", "2", "--json")
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["time"] < second["time"]
    assert first["proxies"][0]["name"] == "redis"


def test_events_are_told_as_they_happen(host: str, client: Client) -> None:
    with spawn(host, "events", "--json") as process:
        assert process.stdout is not None

        def first() -> str:
            client.set_handler("delay", proxy="redis")
            return "there"

        # Until it listens nothing comes; each change is one event.
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.append(process.stdout.readline()))  # type: ignore[union-attr]
        thread.start()
        wait_for(lambda: first() and not thread.is_alive(), "the first event")
        event = json.loads(lines[0])
        assert event["event"] == "change"
        assert event["proxy"] == "redis"
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE)
        assert (process.returncode, log) == (0, "")


def test_the_journal_can_be_replayed(host: str, client: Client, backend: Backend) -> None:
    state = client.create("told", "127.0.0.1:0", backend.address)
    client.set_handler("delay", sleep=0.001, proxy="told")
    with dial(state["local"]) as sock:
        assert exchange(sock, b"hello") == b"hello"
    wait_for(lambda: client.journal("told"), "the exchange in the journal")
    ((_, proxy, _, number, handler, fired, _, end),) = told(host, "journal", "told")
    assert (proxy, number, handler, fired, end) == ("told", "1", "delay", "delay", "client")
    lines = run(host, "journal", "told", "--json", "--limit", "1").stdout
    assert json.loads(lines)["handler"] == "delay"


def test_reload_tells_what_differs(tmp_path: Path, backend: Backend) -> None:
    file = tmp_path / "farm.ini"
    section = "[proxy:{}]\nlocal = 127.0.0.1:0\ndistant = {}\n"
    file.write_text(section.format("one", backend.address))
    with start_proxy(config=file) as running:
        host = str(running.http)
        file.write_text(section.format("two", backend.address))
        assert told(host, "reload") == [["created", "two"], ["deleted", "one"]]
        assert answer(host, "reload") == {
            "created": [],
            "changed": [],
            "deleted": [],
            "unchanged": ["two"],
            "after_restart": [],
        }
        file.write_text("[proxy:two]\nlocl = x\n")
        assert "locl" in refused(host, "reload", code=1)


def test_wait_tells_when_it_is_ready(host: str) -> None:
    assert told(host, "wait")[0][0] == "ok"


def test_the_host_is_a_flag_too_and_may_stand_anywhere(host: str) -> None:
    for arguments in (("--host", host, "list"), ("list", f"--host={host}")):
        result = run("127.0.0.1:1", *arguments)
        assert result.returncode == 0
        assert result.stdout.startswith("redis\t")


def test_the_token_comes_from_a_flag_or_the_environment(backend: Backend) -> None:
    with start_proxy(distant=backend.address, http_token="secret") as running:
        host = str(running.http)
        assert "token" in refused(host, "list", code=1)
        assert told(host, "list", "--token", "secret")[0][0] == "default"
        assert run(host, "list", env={"VAURIEN_HTTP_TOKEN": "secret"}).returncode == 0


def test_it_speaks_through_a_unix_socket(tmp_path: Path, backend: Backend) -> None:
    path = f"unix:{tmp_path}/api"
    with start_proxy(distant=backend.address, http_host=path):
        assert told(path, "list")[0][0] == "default"
