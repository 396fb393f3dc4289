"""Exact points: after, times, every, since, until, scope and clients, which any handler takes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.laws.helpers import has_ipv6, seed_for, write_module
from tests.rivals.driver import Driven, Rig
from tests.support import PATIENCE, Backend, dial, echo, exchange, wait_for

#: A handler of each kind, with options that make its harm plain in an echo of "UUUU".
HANDLERS: dict[str, dict[str, Any]] = {
    "corrupt": {"corrupt__chance": 100},
    "error": {},
    "own": {},
}

OWN = """
class Lower:
    name = "lower"
    options = {"times": ("Its own: how often it says the word", int, 1)}

    def __init__(self, settings, proxy):
        self.settings = settings

    def __call__(self, client_sock, backend_sock, to_backend):
        data = (client_sock if to_backend else backend_sock).recv(65536)
        if not to_backend:
            data = data.lower() * int(self.settings["times"])
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)


class Inherits(BaseHandler):
    name = "inherits"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not to_backend:
            data = data.lower()
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig
        assert "Traceback" not in rig.text, rig.text


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("own")
    write_module(directory, OWN, "pointed")
    return directory


@contextlib.contextmanager
def pointed(
    rig: Rig, own: Path, kind: str, local: str = "127.0.0.1:0", seed: int = 1, **points: Any
) -> Iterator[Driven]:
    """A proxy whose every exchange goes to a handler with exact points."""
    with Backend(echo) as backend:
        name = "inherits" if kind == "own" else kind
        behavior = "100:pointed.Inherits" if kind == "own" else f"100:{kind}"
        words = {**HANDLERS[kind], **{f"{name}__{point}": value for point, value in points.items()}}
        with rig.proxy(backend, behavior, path=own, local=local, seed=seed, **words) as driven:
            yield driven


def harmed(sock: socket.socket, n: int = 1) -> list[int]:
    """Which of the next `n` exchanges did not give back what was sent, from 1."""
    return [i for i in range(1, n + 1) if exchange(sock, b"UUUU") != b"UUUU"]


POINTS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({"after": 5}, [6, 7, 8]),
    ({"times": 2}, [1, 2]),
    ({"times": 0}, []),
    ({"every": 3}, [3, 6]),
    ({"every": 1}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({"after": 1, "every": 3}, [4, 7]),
    ({"after": 2, "times": 3}, [3, 4, 5]),
    ({"every": 2, "times": 2}, [2, 4]),
    ({"after": 1, "every": 2, "times": 2}, [3, 5]),
    ({"after": 8}, []),
    ({"since": 1000}, []),
    ({"until": 1000}, [1, 2, 3, 4, 5, 6, 7, 8]),
]


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_harms_the_exchanges_of_each_connection_that_its_points_tell(
    rig: Rig, own: Path, kind: str
) -> None:
    for points, expected in POINTS:
        with (
            pointed(rig, own, kind, **points) as driven,
            driven.dial() as one,
            driven.dial() as two,
        ):
            assert harmed(one, 8) == expected, points
            assert harmed(two, 8) == expected, points


@pytest.mark.parametrize("kind", HANDLERS)
def test_with_scope_proxy_they_count_in_the_whole_proxy(rig: Rig, own: Path, kind: str) -> None:
    for points, expected in POINTS:
        with (
            pointed(rig, own, kind, scope="proxy", **points) as driven,
            driven.dial() as one,
            driven.dial() as two,
        ):
            both = [i for i in range(1, 9) if harmed(one if i % 2 else two)]
            assert both == expected, points


def test_a_pick_that_is_not_eligible_becomes_dummy_and_nothing_is_drawn_again(rig: Rig) -> None:
    # What is picked for the others stays what it was without points.
    behavior = "30:corrupt,30:error"
    found = []
    with Backend(echo) as backend:
        for words in ({}, {"corrupt__after": 1000}):
            given: dict[str, Any] = {"corrupt__chance": 100, "seed": 3, **words}
            with rig.proxy(backend, behavior, **given) as driven, driven.dial() as client:
                answers = [exchange(client, b"UUUU") for _ in range(40)]
                found.append((answers, driven.stats))
    (free, stats), (held, held_stats) = found
    assert stats["corrupt"]["picked"] == held_stats["corrupt"]["picked"] > 3
    assert (stats["corrupt"]["fired"] > 0, held_stats["corrupt"]["fired"]) == (True, 0)
    assert stats["error"] == held_stats["error"]
    changed = [(a, b) for a, b in zip(free, held, strict=True) if a != b]
    assert len(changed) == stats["corrupt"]["picked"]
    assert {b for _, b in changed} == {b"UUUU"}


def test_times_counts_harms_and_after_and_every_count_exchanges(rig: Rig) -> None:
    # Half of the exchanges are picked: `times` counts those, the others count whoever is picked.
    seed = seed_for("50:corrupt", {(1, n): n % 2 for n in range(1, 7)})  # 2, 4 and 6 are picked
    for points, expected in [
        ({"times": 2}, [2, 4]),
        ({"after": 3}, [4, 6]),
        ({"every": 4}, [4]),
        ({"after": 1, "every": 2}, []),
    ]:
        given: dict[str, Any] = {f"corrupt__{name}": value for name, value in points.items()}
        with (
            Backend(echo) as backend,
            rig.proxy(backend, "50:corrupt", seed=seed, corrupt__chance=100, **given) as driven,
            driven.dial() as client,
        ):
            assert harmed(client, 6) == expected, points


@pytest.mark.parametrize("kind", HANDLERS)
def test_since_and_until_count_from_the_proxys_start(rig: Rig, own: Path, kind: str) -> None:
    start = time.monotonic()
    with pointed(rig, own, kind, since=0.4, until=0.9) as driven, driven.dial() as client:
        begun = time.monotonic()
        times: dict[bool, list[float]] = {True: [], False: []}
        seen: list[bool] = []
        while not seen or seen[-1] or True not in seen:
            seen.append(bool(harmed(client)))
            times[seen[-1]].append(time.monotonic())
            assert time.monotonic() - start < 5
        assert not seen[0]
        assert min(times[True]) - start >= 0.4
        assert max(times[True]) - begun < 0.9 + 0.3
        assert not any(harmed(client, 3))


NETWORKS = [
    # clients, where from, whether it is harmed
    ("127.0.0.0/8", "127.0.0.1", True),
    ("127.0.0.0/8,!127.0.0.2", "127.0.0.2", False),
    ("127.0.0.0/8,!127.0.0.2", "127.0.0.3", True),
    ("!127.0.0.0/8", "127.0.0.1", False),
    ("!127.0.0.9", "127.0.0.1", True),
    ("10.0.0.0/8", "127.0.0.1", False),
    ("10.0.0.0/8, 127.0.0.4/32", "127.0.0.4", True),
    ("::1", "127.0.0.1", False),
]


@pytest.mark.parametrize("kind", HANDLERS)
def test_clients_are_networks_and_an_exclamation_mark_excludes(
    rig: Rig, own: Path, kind: str
) -> None:
    for networks, source, expected in NETWORKS:
        with pointed(rig, own, kind, clients=networks) as driven:
            host, port = driven.address.rsplit(":", 1)
            with socket.create_connection((host, int(port)), PATIENCE, (source, 0)) as client:
                assert bool(harmed(client)) == expected, (networks, source)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_clients_may_be_ipv6(rig: Rig, own: Path) -> None:
    for networks, expected in [("::1", True), ("!::/0", False), ("127.0.0.0/8", False)]:
        with (
            pointed(rig, own, "corrupt", "[::1]:0", clients=networks) as driven,
            driven.dial() as client,
        ):
            assert bool(harmed(client)) == expected, networks


def test_a_client_of_a_unix_socket_is_in_no_network(rig: Rig, own: Path, tmp_path: Path) -> None:
    for number, (networks, expected) in enumerate(
        [("0.0.0.0/0,::/0", False), ("!10.0.0.0/8", True)]
    ):
        local = f"unix:{tmp_path}/{number}"
        with (
            pointed(rig, own, "corrupt", local, clients=networks) as driven,
            dial(driven.address) as client,
        ):
            assert bool(harmed(client)) == expected, networks


@pytest.mark.parametrize(
    ("handler", "word", "expected"),
    [("error", "warmup", [3, 4, 5]), ("transient", "agitate", [1, 2])],
)
def test_warmup_and_agitate_are_words_for_them(
    rig: Rig, handler: str, word: str, expected: list[int]
) -> None:
    for scope in ("connection", "proxy"):
        words: dict[str, Any] = {f"{handler}__{word}": 2, f"{handler}__scope": scope}
        with (
            Backend(echo) as backend,
            rig.proxy(backend, f"100:{handler}", **words) as driven,
            driven.dial() as one,
            driven.dial() as two,
        ):
            assert harmed(one, 5) == expected
            again = [] if handler == "transient" else [1, 2, 3, 4, 5]
            assert harmed(two, 5) == (expected if scope == "connection" else again)


def test_a_classs_own_option_of_the_same_name_wins(rig: Rig, own: Path) -> None:
    # `Lower` declares times itself, and is given it; it harms each exchange.
    with (
        Backend(echo) as backend,
        rig.proxy(backend, "100:pointed.Lower", path=own, lower__times=2, lower__after=1) as driven,
        driven.dial() as client,
    ):
        assert exchange(client, b"UU") == b"UU"  # after is still the framework's
        for _ in range(3):
            assert exchange(client, b"UU", 4) == b"uuuu"


def test_each_handler_of_a_combination_has_its_own_points(rig: Rig) -> None:
    words: dict[str, Any] = {
        "corrupt__offset": 0,
        "corrupt__times": 1,
        "limit_data__after": 2,
        "limit_data__bytes": 2,
    }
    with (
        Backend(echo) as backend,
        rig.proxy(backend, "100:corrupt+limit_data", **words) as driven,
        driven.dial() as client,
    ):
        first = exchange(client, b"UUUU")
        assert first != b"UUUU" and first[1:] == b"UUU"
        assert exchange(client, b"UUUU") == b"UUUU"
        assert exchange(client, b"UUUU") == b"UU"


def test_what_did_not_fire_is_counted_as_picked_only(rig: Rig, own: Path) -> None:
    with pointed(rig, own, "corrupt", every=2) as driven, driven.dial() as client:
        assert harmed(client, 4) == [2, 4]
        client.close()
        wait_for(lambda: driven.stats["corrupt"]["fired"] == 2)
        assert driven.stats["corrupt"]["picked"] == 4
