"""The socket of a listener: whose its address is, and what is said when it cannot be had."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaurien.address import parse
from vaurien.errors import ListenError
from vaurien.net.listener import Bound, locate


def bound(text: str) -> Bound:
    local = parse(text, "--local")
    return Bound(local, locate(local))


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """This process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_is_taken_away_is_not_ours_any_more(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    one = bound(f"unix:{path}")
    path.unlink()
    assert not one.held
    one = one.again()
    assert one.held
    one.close()
    assert not one.held


@pytest.mark.parametrize("place", ["stale", "new"])
def test_no_descriptor_for_a_unix_socket_is_one_sentence(place: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    if place == "stale":
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    with without_descriptors(), pytest.raises(ListenError, match="limit of open files") as caught:
        bound(f"unix:{path}")
    assert str(path) in str(caught.value)
    assert caught.value.reason == "socket: too many open files"
    bound(f"unix:{path}").close()
