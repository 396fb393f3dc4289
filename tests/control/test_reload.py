"""Reload, by SIGHUP and by request: all of the file or nothing, and only what differs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.farms import Farm, Http, connected, free_port, is_open, write
from tests.control.test_native import Stream
from tests.laws.helpers import Names
from tests.support import Backend, Program, dial, echo, exchange, receive_all, wait_for

CALM = "100:dummy"


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as backend:
        yield backend


class Reloaded:
    """A farm whose file is written anew for each test, and reloaded."""

    def __init__(self, farm: Farm, path: Path, backend: Backend) -> None:
        self.farm, self.api, self.path, self.backend = farm, farm.api, path, backend
        self.extra = ""
        self._reloads = 0  # by request, each of which makes a line in the log

    def section(self, name: str, **options: object) -> str:
        given = {"local": "127.0.0.1:0", "distant": self.backend.address, **options}
        lines = [f"{option} = {value}" for option, value in given.items() if value is not None]
        return "\n".join([f"[proxy:{name}]", *lines, ""])

    def write(self, *sections: str) -> None:
        write(self.path, self.extra + "".join(sections))

    def reload(self, *sections: str) -> dict[str, Any]:
        """Write the file and reload it by a request; the answer."""
        self.write(*sections)
        found: dict[str, Any] = self.api.post("/reload")
        self._reloads += 1
        return found

    def sections(self, *names: str, **options: object) -> list[str]:
        return [self.section(name, **options) for name in names]

    def refused(self, *sections: str, status: int = 400) -> str:
        """Write the file and reload it, which has to fail; the sentence."""
        self.write(*sections)
        return self.api.refused("POST", "/reload", status=status)

    def hangup(self, *sections: str) -> None:
        """Write the file and reload it by a signal; returns when it was."""
        self.write(*sections)
        # The log comes a moment later than what it says: else this would wait for a former line.
        wait_for(lambda: self._lines() >= self._reloads, "the log of the former reloads")
        before = self._lines()
        self.farm.send_signal(signal.SIGHUP)
        wait_for(lambda: self._lines() > before, "the log tells of the reload")

    def _lines(self) -> int:
        return self.farm.text.count("reload: ")

    def address(self, name: str) -> str:
        return str(self.state(name)["local"])

    def state(self, name: str) -> Any:
        return self.api.get(f"/proxies/{name}/state")

    def names(self) -> list[str]:
        return list(self.api.get("/proxies"))


@pytest.fixture(scope="module")
def shared(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloaded]:
    path = tmp_path_factory.mktemp("farm") / "farm.ini"
    path.write_text("")
    with Farm("--config", path) as farm:
        yield Reloaded(farm, path, backend)


@pytest.fixture
def farm(shared: Reloaded) -> Iterator[Reloaded]:
    """Nothing is there at first."""
    yield shared
    shared.extra = ""
    shared.reload()
    for name in shared.names():
        shared.api.delete(f"/proxies/{name}")


def told(
    created: list[str] | None = None,
    changed: list[str] | None = None,
    deleted: list[str] | None = None,
    unchanged: list[str] | None = None,
) -> dict[str, list[str]]:
    found = (created, changed, deleted, unchanged)
    words = ("created", "changed", "deleted", "unchanged")
    return {word: names or [] for word, names in zip(words, found, strict=True)}


def outcome(answer: dict[str, Any]) -> dict[str, Any]:
    """The four lists that a reload answers with."""
    return {word: answer[word] for word in ("created", "changed", "deleted", "unchanged")}


# What differs


def test_proxies_come_change_and_go(farm: Reloaded) -> None:
    first = farm.reload(*farm.sections("a", "b", "c"))
    assert outcome(first) == told(created=["a", "b", "c"])
    with connected(farm.address("a")), connected(farm.address("b")), connected(farm.address("c")):
        pass
    gone = farm.address("a")
    second = farm.reload(
        farm.section("b"), farm.section("c", behavior="20:error"), farm.section("d")
    )
    assert outcome(second) == told(created=["d"], changed=["c"], deleted=["a"], unchanged=["b"])
    assert farm.names() == ["b", "c", "d"]
    assert farm.state("c")["behavior"] == "20:error"
    assert not is_open(gone)
    with connected(farm.address("d")):
        pass
    assert outcome(farm.reload(*farm.sections("b", "d"))) == told(
        deleted=["c"], unchanged=["b", "d"]
    )


def test_a_reload_of_the_same_changes_nothing(farm: Reloaded) -> None:
    text = farm.section(
        "a", behavior="20:delay", on_connect="1:refuse", toxics="noop", protocol="tcp", seed=5
    )
    farm.extra = "[handler:delay]\nsleep = 0\n[preset:bad]\nlatency = 1\n"
    bad = farm.section("b", behavior="20:bad")
    off = farm.section("off", enabled="no")
    farm.reload(text, bad, off)
    before = farm.api.get("/state")
    for _ in range(3):
        answer = farm.reload(text, bad, off)
        assert outcome(answer) == told(unchanged=["a", "b", "off"])
    assert farm.api.get("/state") == before


def test_an_option_of_a_type_without_a_comparison_is_the_same_as_before(farm: Reloaded) -> None:
    farm.extra = "[handler:relay]\ncallable = tests.control.broken.Relay\nthing = y\n"
    text = farm.section("a", behavior="100:relay", toxics="noop")
    farm.reload(text)
    with connected(farm.address("a")) as client:  # whose call runs on
        assert outcome(farm.reload(text)) == told(unchanged=["a"])
        assert exchange(client, b"hello") == b"hello"
        farm.extra = farm.extra.replace("thing = y", "thing = z")
        assert outcome(farm.reload(text)) == told(changed=["a"])
    assert farm.state("a")["handlers"]["relay"]["thing"] == "z"


@pytest.mark.parametrize("way", ["request", "signal"])
def test_an_untouched_proxy_keeps_its_connections_and_transfers(way: str, farm: Reloaded) -> None:
    size, half = 4 << 20, 1 << 20
    received: list[bytes] = []

    def script(sock: socket.socket) -> None:
        received.append(receive_all(sock))
        sock.sendall(b"done")

    with Backend(script) as sink:
        kept = farm.section("kept", distant=sink.address, toxics="latency latency=20")
        farm.reload(kept, farm.section("other"))
        with dial(farm.address("kept")) as client:
            data = bytes(range(256)) * (size // 256)
            client.sendall(data[:half])
            reload = farm.reload if way == "request" else farm.hangup
            reload(kept, farm.section("other", behavior="50:error"), farm.section("new"))
            reload(kept)
            assert farm.state("kept")["connections"] == 1
            client.sendall(data[half:])
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"done"
        assert received == [data]


def test_other_behaviors_toxics_and_clients_keep_connections(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    with connected(farm.address("a")) as client:
        for options in (
            {"behavior": "100:latency"},
            {"on_connect": "10:refuse"},
            {"toxics": "x: latency latency=1"},
            {"toxics": "x: latency latency=2"},
            {"toxics": "y: slicer average_size=3 stream=upstream"},
            {},
        ):
            assert farm.reload(farm.section("a", **options))["changed"] == ["a"]
            assert exchange(client, b"hello") == b"hello"
        assert farm.state("a")["connections"] == 1


def test_a_behavior_is_in_force_on_open_connections(farm: Reloaded) -> None:
    farm.extra = "[handler:corrupt]\nchance = 100\nstream = downstream\n"
    farm.reload(farm.section("a"))
    with connected(farm.address("a")) as client:
        farm.reload(farm.section("a", behavior="100:corrupt"))
        assert exchange(client, b"hello") != b"hello"
        farm.reload(farm.section("a"))
        assert exchange(client, b"hello") == b"hello"


def test_options_of_a_handler_are_in_force(farm: Reloaded) -> None:
    farm.extra = "[handler:delay]\nsleep = 0\n"
    sections = [farm.section("a", behavior="100:delay"), farm.section("b")]
    farm.reload(*sections)
    farm.extra = "[handler:delay]\nsleep = 0.01\n"
    with connected(farm.address("a")) as client:
        assert outcome(farm.reload(*sections)) == told(changed=["a"], unchanged=["b"])
        assert exchange(client, b"hello") == b"hello"
    assert farm.state("a")["handlers"]["delay"]["sleep"] == 0.01
    assert farm.api.post("/proxies/b/handler", {"name": "delay"})["options"]["sleep"] == 0.01


def test_a_new_handlers_section_is_known_to_requests(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    farm.api.refused("POST", "/proxies/a/handler", {"name": "crawl"})
    farm.extra = "[handler:crawl]\ncallable = vaurien.handlers.latency.Latency\nlatency = 1\n"
    farm.reload(farm.section("a"))
    assert farm.api.post("/proxies/a/handler", {"name": "crawl"})["options"]["latency"] == 1


def test_another_backend_or_seed_ends_connections(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    address = farm.address("a")
    with Backend(lambda sock: sock.sendall(b"other")) as other:
        with connected(address) as client:
            farm.reload(farm.section("a", distant=other.address))
            assert client.recv(1) == b""
        assert farm.address("a") == address
        with dial(address) as client:
            assert receive_all(client) == b"other"
    farm.reload(farm.section("a"))
    with connected(address) as client:
        farm.reload(farm.section("a", seed=99))
        assert client.recv(1) == b""
    assert farm.state("a")["seed"] == 99


def test_enabled_and_disabled(farm: Reloaded) -> None:
    farm.reload(farm.section("a"), farm.section("b", enabled="no"))
    a = farm.address("a")
    with connected(a) as client:
        farm.reload(farm.section("a", enabled="no"), farm.section("b"))
        assert client.recv(1) == b""
    assert not is_open(a)
    assert farm.state("a")["enabled"] is False and farm.state("b")["enabled"] is True
    with connected(farm.address("b")):
        pass
    farm.reload(farm.section("a"), farm.section("b", enabled="no"))
    with connected(farm.address("a")):
        pass
    assert farm.state("b")["enabled"] is False


def test_the_other_address_is_served_at_once(farm: Reloaded) -> None:
    one, other = free_port(), free_port()
    farm.reload(farm.section("a", local=f"127.0.0.1:{one}"))
    with connected(f"127.0.0.1:{one}") as client:
        farm.reload(farm.section("a", local=f"127.0.0.1:{other}"))
        assert client.recv(1) == b""
    assert not is_open(f"127.0.0.1:{one}")
    with connected(f"127.0.0.1:{other}"):
        pass


def test_two_proxies_swap_their_ports(farm: Reloaded) -> None:
    def name(sock: socket.socket) -> None:
        sock.sendall(b"other")

    one, two = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with Backend(name) as other:
        farm.reload(
            farm.section("a", local=one), farm.section("b", local=two, distant=other.address)
        )
        answer = farm.reload(
            farm.section("a", local=two), farm.section("b", local=one, distant=other.address)
        )
        assert answer["changed"] == ["a", "b"]
        with dial(one) as client:
            assert receive_all(client) == b"other"
        with connected(two):
            pass
        assert (farm.address("a"), farm.address("b")) == (two, one)


def test_three_proxies_swap_their_ports_in_a_ring(farm: Reloaded) -> None:
    places = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    for shift in (0, 1, 2):
        sections = [
            farm.section(name, local=places[(i + shift) % 3]) for i, name in enumerate("abc")
        ]
        farm.reload(*sections)
        for i, name in enumerate("abc"):
            assert farm.address(name) == places[(i + shift) % 3]
            with connected(places[i]):
                pass


def test_a_new_proxy_takes_the_port_of_one_that_goes(farm: Reloaded) -> None:
    place = f"127.0.0.1:{free_port()}"
    farm.reload(farm.section("old", local=place))
    assert outcome(farm.reload(farm.section("new", local=place))) == told(
        created=["new"], deleted=["old"]
    )
    assert farm.address("new") == place
    with connected(place):
        pass


def test_a_new_proxy_takes_the_port_of_one_that_is_disabled(farm: Reloaded) -> None:
    place = f"127.0.0.1:{free_port()}"
    farm.reload(farm.section("old", local=place))
    farm.reload(farm.section("old", local=place, enabled="no"), farm.section("new", local=place))
    with connected(place):
        assert farm.state("new")["connections"] == 1


def test_a_unix_socket_moves(farm: Reloaded, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    farm.reload(farm.section("a", local=f"unix:{one}"))
    with connected(f"unix:{one}"):
        pass
    farm.reload(farm.section("a", local=f"unix:{other}"))
    assert not one.exists()
    with connected(f"unix:{other}"):
        pass
    for name in "bcbcbcbc":  # a new file may get the number of the one that was removed
        farm.reload(farm.section(name, local=f"unix:{other}"))
        with connected(f"unix:{other}"):
            pass
    farm.reload()
    assert not other.exists()


def test_port_0_keeps_its_port(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    address = farm.address("a")
    farm.reload(farm.section("a", behavior="20:error"))
    assert farm.address("a") == address
    farm.reload(farm.section("a", enabled="no"))
    farm.reload(farm.section("a"))
    assert farm.address("a") == address


def test_settings_of_the_whole_run_that_can_change_do(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    farm.extra = "[vaurien]\nmax-connections = 1\n"
    assert farm.reload(farm.section("a"))["changed"] == ["a"]
    with connected(farm.address("a")), dial(farm.address("a")) as waits:
        waits.sendall(b"x")
        assert farm.state("a")["connections"] == 1
        farm.extra = ""
        farm.reload(farm.section("a"))
        assert waits.recv(1) == b"x"


def test_the_order_is_that_of_the_file(farm: Reloaded) -> None:
    farm.reload(*farm.sections("a", "b"))
    assert farm.api.get("/handler")["proxy"] == "a"
    farm.reload(*farm.sections("c", "b", "a"))
    assert farm.names() == ["c", "b", "a"]
    assert farm.api.get("/handler")["proxy"] == "c"


def test_a_reload_is_told_to_who_watches(farm: Reloaded) -> None:
    farm.reload(*farm.sections("a", "b", "c"))
    with Stream(farm.farm) as stream:
        farm.reload(farm.section("a"), farm.section("b", behavior="20:error"), farm.section("d"))
        found = sorted(
            (data["proxy"], data["change"]) for _, data in (stream.next() for _ in "123")
        )
        assert found == [("b", "changed"), ("c", "deleted"), ("d", "created")]


# What requests have made and changed


def test_proxies_made_by_requests_stay(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    address = farm.api.create("mine", farm.backend, behavior="100:noop", seed=3)
    with connected(address) as client:
        farm.reload(farm.section("a", behavior="20:error"), farm.section("b"))
        farm.reload()
        assert exchange(client, b"hello") == b"hello"
        assert farm.state("mine")["connections"] == 1
    state = farm.state("mine")
    assert (state["behavior"], state["seed"], state["local"]) == ("100:noop", 3, address)
    assert farm.names() == ["mine"]


def test_a_file_that_names_a_proxy_made_by_a_request_takes_it_over(farm: Reloaded) -> None:
    farm.api.create("mine", farm.backend)
    answer = farm.reload(farm.section("mine", behavior="20:error"))
    assert outcome(answer) == told(changed=["mine"])
    assert farm.state("mine")["behavior"] == "20:error"
    assert farm.reload()["deleted"] == ["mine"]


def test_what_requests_changed_goes_back_to_what_the_file_says(farm: Reloaded) -> None:
    text = farm.section("a", behavior="10:error", toxics="t: latency latency=1")
    farm.reload(text, farm.section("b"))
    farm.api.post("/proxies/a/behavior", {"behavior": "20:error", "on_connect": "5:refuse"})
    farm.api.delete("/proxies/a/toxics/t")
    farm.api.post("/proxies/a/toxics", {"type": "noop", "name": "n"})
    farm.api.post("/proxies/b/disable")
    answer = farm.reload(text, farm.section("b"))
    assert outcome(answer) == told(changed=["a", "b"])
    state = farm.state("a")
    assert (state["behavior"], state["on_connect"]) == ("10:error", None)
    assert [toxic["name"] for toxic in state["toxics"]] == ["t"]
    with connected(farm.address("b")):
        pass


def test_what_is_for_a_while_does_not_come_back_after_a_reload(farm: Reloaded) -> None:
    farm.reload(farm.section("a", behavior="10:error"))
    farm.api.post("/proxies/a/behavior", {"behavior": "20:error", "ttl": 0.2})
    farm.reload(farm.section("a", behavior="30:error"))
    assert farm.state("a")["ttl"] == {}
    farm.api.post("/proxies/a/toxics", {"type": "noop", "name": "n", "ttl": 0.4})
    wait_for(lambda: farm.state("a")["toxics"] == [])
    assert farm.state("a")["behavior"] == "30:error"


def test_times_of_proxies_made_by_requests_go_on(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    farm.api.create("brief", farm.backend, ttl=1)
    farm.api.create("mine", farm.backend)
    farm.api.post("/proxies/mine/behavior", {"behavior": "20:error", "ttl": 1})
    farm.extra = "[vaurien]\nmax-connections = 7\n"  # which is for all proxies
    farm.reload(farm.section("a"))
    assert set(farm.state("brief")["ttl"]) == {"proxy"}
    assert set(farm.state("mine")["ttl"]) == {"behavior"}
    wait_for(lambda: "brief" not in farm.names(), "its time is over")
    wait_for(lambda: farm.state("mine")["behavior"] == CALM, "its time is over")


def test_times_of_untouched_proxies_go_on(farm: Reloaded) -> None:
    farm.reload(farm.section("a"), farm.section("b"))
    farm.api.create("brief", farm.backend, ttl=0.5)
    farm.reload(farm.section("a"))
    assert set(farm.state("brief")["ttl"]) == {"proxy"}
    wait_for(lambda: "brief" not in farm.names(), "its time is over")


def test_a_proxy_that_a_request_deleted_comes_back(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    farm.api.delete("/proxies/a")
    assert farm.reload(farm.section("a"))["created"] == ["a"]
    with connected(farm.address("a")):
        pass


# A wrong file changes nothing


@pytest.mark.parametrize("way", ["request", "signal"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[proxy:x\n", ["[proxy"]),
        ("nonsense\n", ["nonsense"]),
        ("[proxy:x]\nlocal = 127.0.0.1:0\n", ["[proxy:x]", "distant"]),
        ("[proxy:x]\nlocal = 127.0.0.1:0\ndistant = a:1\nbehaviour = 1:delay\n", ["'behavior'"]),
        ("[proxy:x]\nlocal = 127.0.0.1:0\ndistant = a:1\nbehavior = 1:dleay\n", ["'delay'"]),
        ("[proxy:x]\nlocal = 127.0.0.1:0\ndistant = a:1\ntoxics = latncy\n", ["'latency'"]),
        ("[proxy:x]\nlocal = nonsense\ndistant = a:1\n", ["'nonsense'"]),
        ("[proxy:x]\nlocal = unix:/no/such/dir/x\ndistant = a:1\n", ["/no/such/dir/x"]),
        ("[proxy:x]\nlocal = 203.0.113.1:1\ndistant = a:1\n", ["203.0.113.1"]),
        ("[handler:delay]\nslep = 1\n", ["'sleep'"]),
        ("[handler:x]\ncallable = no.such.Module\n", ["no.such"]),
        ("[vaurien]\ntimeout = soon\n", ["'soon'"]),
        ("[vaurien]\ntimeuot = 5\n", ["'timeout'"]),
        ("[proxies:x]\n", ["[proxies:x]"]),
        ("[proxy:a]\nlocal = 127.0.0.1:0\ndistant = a:1\n", ["a"]),
    ],
)
def test_a_wrong_file_changes_nothing_and_says_why(
    text: str, words: list[str], way: str, farm: Reloaded
) -> None:
    good = farm.section("a", behavior="10:error")
    farm.reload(good, farm.section("gone"))
    farm.api.post("/proxies/a/behavior", {"behavior": "20:error"})
    before = farm.api.get("/state")
    with connected(farm.address("gone")) as client:
        changes = [farm.section("a", behavior="30:error"), farm.section("new"), text]
        if way == "request":
            farm.write(*changes)
            answer = farm.api.call("POST", "/reload")
            assert answer.status in (400, 500)
            sentence = answer.json["error"]
        else:
            start = len(farm.farm.text)
            farm.hangup(*changes)
            wait_for(lambda: "nothing is changed" in farm.farm.text[start:], "a word of it")
            sentence = farm.farm.text[start:]
            assert "ERROR" in sentence or "error" in sentence.lower()
        for word in words:
            assert word in sentence, sentence
        assert exchange(client, b"hello") == b"hello"
    after = farm.api.get("/state")
    for one, other in zip(before["proxies"], after["proxies"], strict=True):
        assert {k: v for k, v in one.items() if k not in ("connections", "counters")} == {
            k: v for k, v in other.items() if k not in ("connections", "counters")
        }


def test_a_file_that_is_gone_changes_nothing(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    farm.path.unlink()
    assert str(farm.path) in farm.api.refused("POST", "/reload")
    with connected(farm.address("a")):
        pass
    farm.write()


@pytest.mark.parametrize("cls", ["Broken", "Exits"])
def test_a_handler_that_cannot_be_built_changes_nothing(farm: Reloaded, cls: str) -> None:
    farm.reload(farm.section("a"))
    farm.extra = f"[handler:{cls.lower()}]\ncallable = tests.control.broken.{cls}\n"
    before = farm.names()
    sentence = farm.refused(farm.section("b"), farm.section("a", behavior=f"20:{cls.lower()}"))
    assert "no luck" in sentence and cls.lower() in sentence
    assert farm.names() == before
    with connected(farm.address("a")):
        pass


def test_a_port_in_use_rolls_all_back(farm: Reloaded) -> None:
    places = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    kept = [farm.section(name, local=place) for name, place in zip("abc", places, strict=True)]
    farm.reload(*kept)
    new = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        with connected(places[0]) as client, connected(places[2]) as other:
            sentence = farm.refused(
                farm.section("b", local=places[0]),  # a goes, and b takes its place
                farm.section("c", local=f"127.0.0.1:{new}", behavior="20:error"),
                farm.section("new"),
                farm.section("last", local=used),
                status=500,
            )
            assert used in sentence
            assert exchange(client, b"hello") == b"hello"
            assert exchange(other, b"hello") == b"hello"
        assert farm.names() == ["a", "b", "c"]
        assert [farm.address(name) for name in "abc"] == places
        assert farm.state("c")["behavior"] == CALM
        for place in places:
            with connected(place):
                pass
        assert not is_open(f"127.0.0.1:{new}")
    wait_for(lambda: all(farm.state(name)["connections"] == 0 for name in "abc"))
    # And it is no worse for it:
    assert outcome(farm.reload(*kept)) == told(unchanged=["a", "b", "c"])


def test_a_port_in_use_for_a_change_rolls_all_back(farm: Reloaded) -> None:
    one, two = (f"127.0.0.1:{free_port()}" for _ in range(2))
    farm.reload(farm.section("a", local=one), farm.section("b", local=two))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        start = len(farm.farm.text)
        farm.hangup(farm.section("a", local=two), farm.section("b", local=used))
        assert used in farm.farm.text[start:]
    assert (farm.address("a"), farm.address("b")) == (one, two)
    for place in (one, two):
        with connected(place):
            pass


def test_a_unix_socket_is_there_again_after_a_failed_reload(farm: Reloaded, tmp_path: Path) -> None:
    place = f"unix:{tmp_path}/x"
    farm.reload(farm.section("a", local=place), farm.section("b"))
    with socket.create_server(("127.0.0.1", 0)) as taken, connected(place) as client:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        farm.refused(farm.section("b", local=used), status=500)  # and a goes
        farm.refused(farm.section("a", local=used), farm.section("b"), status=500)
        farm.refused(
            farm.section("a"), farm.section("b"), farm.section("c", local=used), status=500
        )
        assert exchange(client, b"hello") == b"hello"
    with connected(place):
        pass
    assert farm.address("a") == place


def test_who_is_down_stays_down_and_keeps_his_address(farm: Reloaded) -> None:
    place = f"127.0.0.1:{free_port()}"
    down = farm.section("a", local=place, on_connect="100:down")
    farm.reload(down)
    assert not is_open(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        farm.refused(farm.section("b", local=used), status=500)
        farm.refused(farm.section("a", local=used), status=500)
    assert not is_open(place)
    assert farm.state("a")["enabled"] is True
    farm.reload(down, farm.section("b"))
    assert not is_open(place)
    farm.reload(farm.section("a", local=place))
    with connected(place) as client:
        farm.reload(down)
        assert not is_open(place)
        assert exchange(client, b"hello") == b"hello", "who is connected stays so"


def test_a_refused_reload_leaves_the_file_of_who_is_down(farm: Reloaded, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    farm.reload(farm.section("a", local=f"unix:{path}", on_connect="100:down"))
    up = farm.section("a", local=f"unix:{path}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        number = path.stat().st_ino
        farm.refused(up, farm.section("b", local=used), status=500)
        assert path.stat().st_ino == number
    assert not is_open(f"unix:{path}")
    farm.reload(up)
    with connected(f"unix:{path}"):
        pass


def test_who_cannot_come_up_tries_again_and_can_be_changed_meanwhile(
    farm: Reloaded, tmp_path: Path
) -> None:
    path, behavior = tmp_path / "x.sock", "/proxies/a/behavior"
    farm.extra = "[handler:down]\nuntil = 1.5\n"
    farm.reload(farm.section("a", local=f"unix:{path}", on_connect="100:down"))
    path.unlink()
    path.write_text("precious")
    wait_for(lambda: "a: tries again each 1 s" in farm.farm.text, "it is told")
    for on_connect in ("100:down", "100:slow_accept", None):
        farm.api.post(behavior, {"on_connect": on_connect, "behavior": "20:noop"})
    farm.api.post("/proxies/a/toxics", {"type": "noop"})
    farm.reload(*farm.sections("b"), farm.section("a", local=f"unix:{path}"))
    assert path.read_text() == "precious"
    path.unlink()
    wait_for(lambda: f"a: up, at unix:{path}" in farm.farm.text, "it listens again")
    with connected(f"unix:{path}"):
        pass


def test_the_same_address_in_another_word_keeps_connections(farm: Reloaded) -> None:
    port = free_port()
    farm.reload(farm.section("a", local=f"localhost:{port}"))
    with connected(f"127.0.0.1:{port}") as client:
        assert farm.reload(farm.section("a", local=f"127.0.0.1:{port}"))["changed"] == ["a"]
        assert exchange(client, b"hello") == b"hello"
    farm.reload(farm.section("a", local=f"localhost:{port}"), farm.section("b"))
    with connected(f"127.0.0.1:{port}"):
        pass


def test_from_one_address_to_all_of_the_same_port(farm: Reloaded) -> None:
    port = free_port()
    for host in ("127.0.0.1", "0.0.0.0", "127.0.0.1"):
        farm.reload(farm.section("a", local=f"{host}:{port}"))
        assert farm.address("a") == f"{host}:{port}"
        with connected(f"127.0.0.1:{port}"):
            pass


def test_a_failed_reload_leaves_no_descriptors(farm: Reloaded) -> None:
    kept = farm.sections("a", "b", "c")
    farm.reload(*kept)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        wrong = [*farm.sections("d", "e", "b"), farm.section("c", local=used)]
        farm.refused(*wrong, status=500)
        before = farm.farm.descriptors()
        for _ in range(20):
            farm.refused(*wrong, status=500)
        assert farm.farm.descriptors() <= before
    before = farm.farm.descriptors()
    for _ in range(10):
        farm.reload(*farm.sections("a", "d", "e", "f"))
        farm.reload(*kept)
    wait_for(lambda: farm.farm.descriptors() <= before, "no descriptor is left")


def test_the_address_of_a_proxy_made_by_a_request_is_in_use(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    address = farm.api.create("mine", farm.backend)
    with connected(address) as client:
        farm.write(farm.section("a"), farm.section("b", local=address))
        answer = farm.api.call("POST", "/reload")
        assert answer.status in (400, 500)
        assert address in answer.json["error"]
        assert exchange(client, b"hello") == b"hello"
    assert farm.names() == ["a", "mine"]


# Signals


def test_a_hangup_reloads_and_says_so(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    start = len(farm.farm.text)
    farm.hangup(farm.section("a", behavior="20:error"), farm.section("b"))
    assert farm.names() == ["a", "b"]
    assert farm.state("a")["behavior"] == "20:error"
    wait_for(lambda: "1 created" in farm.farm.text[start:], "the log says what came of it")
    wait_for(lambda: "1 changed" in farm.farm.text[start:], "all of the line")


def test_a_hangup_without_an_api(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "farm.ini"
    text = f"[proxy:a]\nlocal = 127.0.0.1:0\ndistant = {backend.address}\n"
    file.write_text(text)
    port = free_port()
    with Farm("--config", file, ready=1, has_api=False) as farm:
        with connected(farm.proxies["a"]) as client:
            write(file, text + text.replace("proxy:a", "proxy:b").replace(":0\n", f":{port}\n"))
            farm.send_signal(signal.SIGHUP)
            farm.wait_log("reload: 1 created")
            with connected(f"127.0.0.1:{port}"):
                pass
            assert exchange(client, b"hello") == b"hello"
        assert farm.stop() == 0


def test_a_hangup_without_a_file_changes_nothing(backend: Backend) -> None:
    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0")
    with Farm(*arguments, "--behavior", "10:noop", ready=1) as farm:
        farm.api.create("mine", backend)
        with connected(farm.proxies["default"]) as client:
            farm.send_signal(signal.SIGHUP)
            farm.wait_log("reload: ")
            answer = farm.api.post("/reload")
            assert outcome(answer) == told(unchanged=["default", "mine"])
            client.sendall(b"hello")
            assert client.recv(1)


def ini(backend: Backend, name: str, local: str = "127.0.0.1:0", behavior: str = CALM) -> str:
    return f"[proxy:{name}]\nlocal = {local}\ndistant = {backend.address}\nbehavior = {behavior}\n"


def test_a_hangup_while_it_starts_is_put_off(backend: Backend, tmp_path: Path) -> None:
    names, port = Names(tmp_path), free_port()
    with names.hanging("slow.test", "127.0.0.1") as wait_reached:
        first = ini(backend, "slow", "slow.test:0") + ini(backend, "gone", f"127.0.0.1:{port}")
        file = write(tmp_path / "farm.ini", first)
        program = Program("--config", file, env=names.env).spawn()
        try:
            wait_reached()
            write(tmp_path / "farm.ini", ini(backend, "new"))
            program.send_signal(signal.SIGHUP)
            program.wait_log("reload: put off")
            assert not program.output
            with os.fdopen(os.open(tmp_path / "pipe", os.O_WRONLY)):
                program.wait_log("reload: 1 created; 0 changed; 2 deleted")
            assert not is_open(f"127.0.0.1:{port}")
            assert program.stop() == 0
        finally:
            program.__exit__()


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt"])
def test_a_hangup_ends_nothing_whatever_goes_wrong(
    error: str, backend: Backend, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from vaurien.handlers.dummy import Dummy\n"
        "class Mine(Dummy):\n"
        f"    def __init__(self, settings, proxy): raise {error}\n"
    )
    file = write(tmp_path / "farm.ini", ini(backend, "a"))
    with Program("--config", file, cwd=tmp_path) as program, connected(program.address) as client:
        write(tmp_path / "farm.ini", ini(backend, "a", behavior="100:mine.Mine"))
        program.send_signal(signal.SIGHUP)
        program.wait_log("reload: nothing is changed: ")
        assert exchange(client, b"hello") == b"hello"
        write(tmp_path / "farm.ini", ini(backend, "a", behavior="10:error"))
        program.send_signal(signal.SIGHUP)
        program.wait_log("reload: 0 created; 1 changed")
        assert program.stop() == 0


@pytest.mark.parametrize("ips", [("127.0.0.1",), ()])
def test_what_was_read_last_is_in_force(
    ips: tuple[str, ...], backend: Backend, tmp_path: Path
) -> None:
    names, path = Names(tmp_path), tmp_path / "farm.ini"
    write(path, ini(backend, "a"))
    answers: list[Any] = []
    with Farm("--config", path, ready=1, env=names.env) as farm:

        def reload() -> None:
            connection = Http(farm.apis["http"])
            connection.request("POST", "/reload")
            answers.append(json.load(connection.getresponse()))
            connection.close()

        with names.hanging("slow.test", *ips) as wait_reached:
            slow = ini(backend, "slow", "slow.test:0")
            write(path, ini(backend, "a", behavior="100:error") + slow)
            first = threading.Thread(target=reload)
            first.start()
            wait_reached()
            write(path, ini(backend, "a", behavior="10:error"))
            assert outcome(farm.api.post("/reload")) == told(changed=["a"])
        first.join()
        assert outcome(answers[0]) == told(unchanged=["a"])
        assert list(farm.api.get("/proxies")) == ["a"]
        assert farm.api.get("/proxies/a/state")["behavior"] == "10:error"


def test_reloads_in_a_row_while_clients_come_and_go(farm: Reloaded) -> None:
    kept = farm.section("kept", toxics="latency latency=1")
    farm.reload(kept)
    address, errors, over = farm.address("kept"), [], threading.Event()

    def talk() -> None:
        try:
            while not over.is_set():
                with dial(address) as client:
                    for _ in range(5):
                        assert exchange(client, b"hello") == b"hello"
        except Exception as error:
            errors.append(error)

    clients = [threading.Thread(target=talk) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for number in range(30):
            others = [farm.section(f"p{i}", behavior=f"{number}:error") for i in range(number % 5)]
            farm.reload(kept, *others)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert errors == []


def test_an_option_changed_by_reload_changes_no_other_dice(farm: Reloaded) -> None:
    # Law 8: nothing about another handler, no redrawn dice
    def story(change: bool) -> list[bytes]:
        found = []
        for number in range(40):
            if number % 10 == 0:
                farm.extra = "[handler:corrupt]\nchance = 30\nstream = downstream\n"
                farm.extra += f"[handler:latency]\nlatency = {1 + change * number / 10}\n"
                farm.reload(farm.section("dice", behavior="40:corrupt,20:latency", seed=42))
            if number == 0:
                client = dial(farm.address("dice"))
            found.append(exchange(client, b"%04d" % number * 5))
        client.close()
        farm.extra = ""
        farm.reload()
        return found

    without = story(False)
    assert any(got != b"%04d" % number * 5 for number, got in enumerate(without))
    assert story(True) == without


def test_no_reload_while_it_ends(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "farm.ini"
    text = f"[proxy:a]\nlocal = 127.0.0.1:0\ndistant = {backend.address}\nbehavior = 100:pause\n"
    file.write_text(text)
    port = free_port()
    with Farm("--config", file, "--drain", 5, ready=1) as farm:
        with dial(farm.proxies["a"]) as client:
            client.sendall(b"hello")
            wait_for(lambda: farm.api.get("/connections")["connections"][0]["received"]["upstream"])
            farm.send_signal(signal.SIGTERM)
            wait_for(lambda: farm.api.call("GET", "/health").status == 503)
            write(file, text + text.replace("proxy:a", "proxy:b").replace(":0\n", f":{port}\n"))
            farm.send_signal(signal.SIGHUP)
            farm.api.call("POST", "/reload")
            assert not is_open(f"127.0.0.1:{port}"), "it takes new clients while it ends"
            assert not is_open(farm.proxies["a"])
        assert farm.wait() == 0


def test_nothing_listens_again_while_it_ends(backend: Backend, tmp_path: Path) -> None:
    path, file = tmp_path / "x.sock", tmp_path / "farm.ini"
    file.write_text(
        "".join(
            f"[proxy:{name}]\nlocal = {local}\ndistant = {backend.address}\nbehavior = 100:pause\n"
            for name, local in (("a", "127.0.0.1:0"), ("b", f"unix:{path}"))
        )
    )
    with Farm("--config", file, "--drain", 5, ready=2) as farm:
        with dial(farm.proxies["a"]) as one, dial(farm.proxies["b"]) as other:
            for client in (one, other):
                client.sendall(b"hello")
            wait_for(
                lambda: all(
                    found["received"]["upstream"]
                    for found in farm.api.get("/connections")["connections"]
                )
            )
            farm.send_signal(signal.SIGTERM)
            wait_for(lambda: farm.api.call("GET", "/health").status == 503)
            wait_for(lambda: not path.exists())
            for name in "ab":
                farm.api.call("POST", f"/proxies/{name}/behavior", {"behavior": "50:pause"})
                farm.api.call("POST", f"/proxies/{name}/handler", {"name": "dummy"})
            assert not is_open(farm.proxies["a"])
            assert not path.exists()
        assert farm.wait() == 0
    assert not path.exists()


# Seeds and what needs a restart


def test_a_drawn_seed_stays_the_same(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    seed = farm.state("a")["seed"]
    with connected(farm.address("a")) as client:
        for _ in range(3):
            farm.reload(farm.section("a", behavior="20:error"), farm.section("b"))
            farm.reload(farm.section("a"))
        assert exchange(client, b"hello") == b"hello"
    assert farm.state("a")["seed"] == seed
    farm.reload(*farm.sections("a", "b"))
    assert farm.state("b")["seed"] == seed
    farm.api.create("mine", farm.backend)
    assert farm.state("mine")["seed"] == seed


def test_a_new_seed_of_the_file_is_in_force(farm: Reloaded) -> None:
    farm.reload(farm.section("a"))
    farm.extra = "[vaurien]\nseed = 1234\n"
    farm.reload(farm.section("a"))
    assert farm.state("a")["seed"] == 1234
    farm.extra = ""
    farm.reload(farm.section("a"))
    farm.reload(farm.section("a"))
    assert isinstance(farm.state("a")["seed"], int)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("journal = {tmp}/journal", "journal"),
        ("log-output = {tmp}/log", "log-output"),
        ("http-allowed-host = other.example", "http-allowed-host"),
        ("toxiproxy = yes\ntoxiproxy-port = 0", "toxiproxy"),
    ],
)
def test_what_needs_a_restart_is_told(line: str, name: str, farm: Reloaded, tmp_path: Path) -> None:
    farm.extra = f"[vaurien]\n{line.format(tmp=tmp_path)}\n"
    start = len(farm.farm.text)
    answer = farm.reload(farm.section("a"))
    assert answer["after_restart"] == [name, *answer["after_restart"][1:]]
    wait_for(lambda: f"{name}" in farm.farm.text[start:], "the log tells it")
    assert "restart" in farm.farm.text[start:]
    with connected(farm.address("a")):
        pass


def recorded(path: Path, proxy: str, seed: int) -> Path:
    """A journal in which each of the first exchanges of `proxy` was corrupted."""
    lines = [
        {
            "v": 1, "seed": seed, "proxy": proxy, "connection": connection, "exchange": 1,
            "handler": "corrupt", "options": {"corrupt": {"chance": 100}},
        }
        for connection in range(1, 99)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_is_replayed_changes_after_a_restart_only(farm: Reloaded, tmp_path: Path) -> None:
    journals = [recorded(tmp_path / f"{seed}.jsonl", "a", seed) for seed in (7, 8)]
    file = tmp_path / "farm.ini"
    for first, then in ((None, journals[0]), (journals[0], journals[1]), (journals[0], None)):
        lines = [f"[vaurien]\nreplay = {path}\n" if path else "" for path in (first, then)]
        write(file, lines[0] + farm.section("a", seed=5))
        with Farm("--config", file, ready=1) as other, dial(other.proxies["a"]) as client:
            before = other.api.get("/proxies/a/state")
            assert before["seed"] == (7 if first else 5)
            write(file, lines[1] + farm.section("a", seed=5))
            for _ in range(2):  # it stays to be told
                answer = other.api.post("/reload")
                assert answer["after_restart"] == ["replay"]
                assert outcome(answer) == told(unchanged=["a"])
            assert other.api.get("/proxies/a/state")["seed"] == before["seed"]
            assert (exchange(client, b"UUUU") == b"UUUU") == (first is None)


def test_the_log_level_changes_at_once(farm: Reloaded) -> None:
    farm.extra = "[vaurien]\nlog-level = error\n"
    farm.reload(farm.section("a"))
    start = len(farm.farm.text)
    farm.api.post("/proxies/a/behavior", {"behavior": "20:error"})
    farm.extra = ""
    farm.reload(farm.section("a"))
    farm.api.post("/proxies/a/behavior", {"behavior": "21:error"})
    wait_for(lambda: "21:error" in farm.farm.text[start:])
    assert "20:error" not in farm.farm.text[start:]


# JSON


def test_a_json_file_is_reloaded_too(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "farm.json"
    body: dict[str, Any] = {"name": "a", "listen": "127.0.0.1:0", "upstream": backend.address}
    file.write_text(json.dumps([body]))
    with Farm("--config", file, ready=1) as farm:
        with connected(farm.proxies["a"]) as client:
            toxic = {"type": "latency", "attributes": {"latency": 1}}
            write(file, json.dumps([{**body, "toxics": [toxic]}, {**body, "name": "b"}]))
            assert outcome(farm.api.post("/reload")) == told(created=["b"], changed=["a"])
            assert exchange(client, b"hello") == b"hello"
        assert len(farm.api.get("/proxies/a")["toxics"]) == 1
        write(file, json.dumps([{**body, "toxics": [{"type": "latncy"}]}]))
        assert "toxic" in farm.api.refused("POST", "/reload")
        write(file, "[{")
        farm.api.refused("POST", "/reload")
        assert list(farm.api.get("/proxies")) == ["a", "b"]


def test_a_stalled_client_does_not_hold_up_a_reload(farm: Reloaded) -> None:
    stop = threading.Event()

    def flood(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                sock.sendall(bytes(65536))

    with Backend(flood) as source:
        farm.reload(farm.section("a", distant=source.address))
        with dial(farm.address("a")):
            wait_for(lambda: farm.state("a")["counters"]["received"]["downstream"] > 100_000)
            farm.reload(farm.section("a", distant=source.address, toxics="latency latency=9"))
            farm.reload(farm.section("a", distant=source.address, behavior="100:hang"))
            farm.reload()  # each is answered within `PROMPT`
        stop.set()


def test_two_reloads_at_once_leave_one_of_the_two(farm: Reloaded) -> None:
    farm.write(*farm.sections("a", "b", "c"))
    connections = [Http(farm.farm.apis["http"]) for _ in range(8)]
    for connection in connections:
        connection.request("POST", "/reload")
    for connection in connections:
        response = connection.getresponse()
        assert response.status == 200, response.read()
        connection.close()
    assert farm.names() == ["a", "b", "c"]
