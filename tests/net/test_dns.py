"""A backend's name that moves: it is looked up again, and no dial waits for that."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.laws.helpers import Names, assert_fin, full_listener
from tests.support import Program, proxy, receive_all, wait_for


@contextlib.contextmanager
def saying(word: bytes, host: str, port: int = 0) -> Iterator[int]:
    """A backend at `host` that says `word` to each who connects, and ends; gives its port."""
    with socket.create_server((host, port)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as sock:
                        sock.sendall(word)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def said(vaurien: Program) -> bytes:
    """What a new client gets."""
    with vaurien.dial() as client:
        return receive_all(client)


@contextlib.contextmanager
def moving(directory: Path, ttl: float) -> Iterator[tuple[Names, Program]]:
    """A proxy to ``backend.test``, which is at 127.0.0.1, where `old` is said; `new` at 127.0.0.2.

    `ttl` is ``--dns-ttl``, in seconds.
    """
    names = Names(directory)
    names.set("backend.test", "127.0.0.1")
    with (
        saying(b"old", "127.0.0.1") as port,
        saying(b"new", "127.0.0.2", port),
        proxy(f"backend.test:{port}", "--dns-ttl", ttl, env=names.env) as vaurien,
    ):
        yield names, vaurien


def test_a_name_that_moves_is_followed_while_its_old_address_answers(tmp_path: Path) -> None:
    with moving(tmp_path, 0.2) as (names, vaurien):
        assert said(vaurien) == b"old"
        names.set("backend.test", "127.0.0.2")
        wait_for(lambda: said(vaurien) == b"new", "the new address")


def test_with_no_age_each_connection_goes_where_the_name_points(tmp_path: Path) -> None:
    with moving(tmp_path, 0) as (names, vaurien):
        for number, word in ((1, b"old"), (2, b"new"), (2, b"new"), (1, b"old"), (2, b"new")):
            names.set("backend.test", f"127.0.0.{number}")
            assert said(vaurien) == word


def test_within_its_age_a_name_is_not_looked_up(tmp_path: Path) -> None:
    with moving(tmp_path, 1000) as (names, vaurien):
        assert said(vaurien) == b"old"
        names.set("backend.test", "127.0.0.2")
        assert {said(vaurien) for _ in range(20)} == {b"old"}


def test_a_lookup_that_hangs_delays_no_dial_that_knows_an_address(tmp_path: Path) -> None:
    with moving(tmp_path, 0.001) as (names, vaurien):
        assert said(vaurien) == b"old"
        with names.hanging("backend.test", "127.0.0.2") as wait_reached:
            assert said(vaurien) == b"old"
            wait_reached()
            for _ in range(20):
                assert said(vaurien) == b"old"
        names.set("backend.test", "127.0.0.2")
        wait_for(lambda: said(vaurien) == b"new", "the new address")


def test_an_old_address_that_swallows_connects_is_given_up_for_the_new(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.1")
    limits = ("--dns-ttl", 1000, "--connect-timeout", 0.5)
    with (
        full_listener("127.0.0.1") as (_, port),
        saying(b"new", "127.0.0.2", port),
        proxy(f"backend.test:{port}", *limits, env=names.env) as vaurien,
    ):
        with vaurien.dial() as client:
            assert_fin(client)  # it is where the name points
        names.set("backend.test", "127.0.0.2")
        assert said(vaurien) == b"new"


def test_a_name_that_is_lost_keeps_its_last_addresses(tmp_path: Path) -> None:
    names = Names(tmp_path)
    for ttl in (0, 0.001):
        names.set("backend.test", "127.0.0.1")
        with (
            saying(b"old", "127.0.0.1") as port,
            proxy(f"backend.test:{port}", "--dns-ttl", ttl, env=names.env) as vaurien,
        ):
            assert said(vaurien) == b"old"
            names.set("other.test", "127.0.0.1")
            for _ in range(20):
                assert said(vaurien) == b"old"
            if ttl:
                vaurien.wait_log(r"backend backend\.test:\d+ does not resolve any more \(Name or")
                assert vaurien.text.count("any more") == 1


def test_the_address_that_answered_stays_the_first_to_be_tried(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.2", "127.0.0.1")
    limits = ("--dns-ttl", 0.001, "--connect-timeout", 2)
    with (
        saying(b"good", "127.0.0.1") as port,
        full_listener("127.0.0.2", port),
        proxy(f"backend.test:{port}", *limits, env=names.env) as vaurien,
    ):
        assert said(vaurien) == b"good"
        begun = time.monotonic()
        for _ in range(20):
            assert said(vaurien) == b"good"
        assert time.monotonic() - begun < 2
