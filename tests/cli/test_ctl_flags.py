"""``vaurienctl`` and `Client`: flags and arguments reach Vaurien, and do there what they say."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator

import pytest

from tests.cli.ctl import ending, refused, run, told
from tests.cli.test_ctl import spawn
from tests.control.farms import free_port
from tests.support import PATIENCE, Backend, dial, echo, exchange, wait_for
from vaurien import Client, ClientError, start_proxy


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """A client of one Vaurien for all."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VAURIEN_")]:
            patch.delenv(name)
        with start_proxy() as running:
            yield running.client


@pytest.fixture
def client(shared: Client, backend: Backend) -> Iterator[Client]:
    """It, with the proxies ``redis`` and ``other``."""
    for name in ("redis", "other"):
        shared.create(name, "127.0.0.1:0", backend.address)
    yield shared
    for state in shared.proxies():
        shared.delete(state["name"])


@pytest.fixture
def host(client: Client) -> str:
    """Where it is."""
    return str(client.address)


def left(client: Client, what: str, name: str = "redis") -> float:
    """The seconds after which a change of the proxy ends."""
    return float(client.proxy(name)["ttl"].get(what, 0))


def touch(client: Client, name: str, times: int) -> None:
    """Have so many exchanges of the proxy in the journal."""
    client.set_handler("noop", proxy=name)
    with dial(client.proxy(name)["local"]) as sock:
        for _ in range(times):
            exchange(sock, b"hello")
    wait_for(lambda: len(client.journal(name)) == times, "the exchanges in the journal")


# vaurienctl


def test_a_change_for_a_while_is_one(host: str, client: Client) -> None:
    told(host, "behavior", "20:delay", "--proxy", "redis", "--ttl", "60")
    assert 40 < left(client, "behavior") <= 60
    client.add_toxic("redis", "latency", name="slow", latency=1)
    told(host, "toxic", "update", "redis", "slow", "latency=2", "--ttl", "70")
    assert 50 < left(client, "toxic slow") <= 70
    told(host, "disable", "redis", "other", "--ttl", "80")
    for name in ("redis", "other"):
        assert 60 < left(client, "enabled", name) <= 80


def test_create_takes_where_to_listen_and_the_protocol(
    host: str, client: Client, backend: Backend
) -> None:
    place = f"127.0.0.1:{free_port()}"
    distant = ("--distant", backend.address)
    ((_, local, *_),) = told(host, "create", "new", *distant, "--local", place, "--protocol", "tcp")
    assert local == client.proxy("new")["local"] == place
    sentence = refused(host, "create", "mail", *distant, "--protocol", "smtp", code=1)
    assert "'smtp' is not a protocol" in sentence


def test_change_takes_where_to_listen(host: str) -> None:
    place = f"127.0.0.1:{free_port()}"
    ((_, local, *_),) = told(host, "change", "redis", "--local", place)
    assert local == place
    with dial(place) as sock:
        assert exchange(sock, b"hello") == b"hello"


def test_the_journal_of_one_proxy_has_as_many_lines_as_are_asked_for(
    host: str, client: Client
) -> None:
    touch(client, "redis", 3)
    touch(client, "other", 1)
    rows = told(host, "journal", "redis", "--limit", "2")
    assert [(row[1], row[3]) for row in rows] == [("redis", "2"), ("redis", "3")]
    assert [row[1] for row in told(host, "journal")] == ["redis"] * 3 + ["other"]
    lines = run(host, "journal", "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["proxy"] for line in lines] == ["redis", "other"]


def test_events_of_one_proxy_are_lines_and_end_after_their_count(host: str, client: Client) -> None:
    with spawn(host, "events", "redis", "--count", "3") as process, ending(process):
        assert process.stdout is not None
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(process.stdout))  # type: ignore[arg-type]
        reading.start()

        def changed() -> bool:  # until it listens nothing comes
            client.set_behavior("10:noop", proxy="other")
            client.set_behavior("20:noop", proxy="redis")
            return process.poll() is not None

        wait_for(changed, "its end")
        reading.join(PATIENCE)
        assert (process.returncode, process.stderr and process.stderr.read()) == (0, "")
    assert len(lines) == 3
    for line in lines:
        kind, _, rest = line.rstrip("\n").partition("\t")
        assert kind == "change"
        assert "proxy=redis" in rest and "change=behavior" in rest


# Client


def test_for_the_time_of_a_with_and_a_while_at_most(client: Client) -> None:
    with client.with_handler("delay", proxy="redis", ttl=60):
        assert 40 < left(client, "behavior") <= 60
    with client.with_behavior("20:delay", proxy="redis", ttl=70):
        assert 50 < left(client, "behavior") <= 70
    assert left(client, "behavior") == 0
    with client.with_behavior("20:delay", proxy="redis", ttl=0.05):
        wait_for(lambda: client.get_behavior("redis")["behavior"] == "100:dummy", "its end")


def test_changes_by_a_client_for_a_while_are_so(client: Client) -> None:
    client.add_toxic("redis", "latency", name="slow", latency=1)
    client.update_toxic("redis", "slow", ttl=60, latency=2)
    assert 40 < left(client, "toxic slow") <= 60
    assert 60 < client.disable("redis", ttl=80)["ttl"]["enabled"] <= 80
    assert 70 < client.enable("redis", ttl=90)["ttl"]["enabled"] <= 90


def test_a_client_gives_the_protocol(client: Client, backend: Backend) -> None:
    client.create("new", "127.0.0.1:0", backend.address, protocol="tcp")
    with pytest.raises(ClientError, match="'smtp' is not a protocol"):
        client.create("mail", "127.0.0.1:0", backend.address, protocol="smtp")


def test_a_client_changes_one_thing_of_a_proxy_at_a_time(client: Client) -> None:
    place = f"127.0.0.1:{free_port()}"
    before = client.proxy("redis")
    after = client.change("redis", enabled=False)
    assert after == {**before, "enabled": False}
    after = client.change("redis", local=place)
    assert (after["local"], after["enabled"]) == (place, False)
    assert client.change("redis", enabled=True)["enabled"] is True
    with dial(place) as sock:
        assert exchange(sock, b"hello") == b"hello"
