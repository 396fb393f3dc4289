"""The socket of a listener: whose its address is, and what is said when it cannot be had."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import dial
from vaurien.address import Address, parse
from vaurien.errors import ListenError
from vaurien.net import listener
from vaurien.net.listener import Bound, locate


def bound(text: str) -> Bound:
    local = parse(text, "--local")
    return Bound(local, locate(local, "--local"), "--local")


def taken(one: Bound, host: str = "127.0.0.1") -> bool:
    """Whether the system refuses its port to others, who share it if they may."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((host, one.address.port))
        except OSError:
            return True
    return False


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


@pytest.mark.parametrize("left", ["nothing", "an open connection", "a closed connection"])
def test_a_port_that_is_bound_is_ours_though_nobody_listens(left: str) -> None:
    one = bound("127.0.0.1:0")
    with contextlib.ExitStack() as open_ones:
        if left != "nothing":
            one.listen(1)
            client = open_ones.enter_context(dial(str(one.address)))
            accepted = open_ones.enter_context(one.sock.accept()[0])
            if left == "a closed connection":
                accepted.close()  # first, so that TIME_WAIT is at our port
                assert client.recv(1) == b""
                client.close()
            one = one.again()
        assert taken(one) and taken(one, "0.0.0.0")
        with pytest.raises(ListenError) as caught:
            bound(str(one.address))
        assert caught.value.reason == "bind: address already in use"
        with pytest.raises(ConnectionRefusedError):
            dial(str(one.address))
        one.listen(1)
        dial(str(one.address)).close()
        one.close()


def test_a_unix_socket_that_is_bound_is_ours_though_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    one = bound(f"unix:{path}")
    number = path.stat().st_ino
    with pytest.raises(ListenError) as caught:
        bound(f"unix:{path}")
    assert caught.value.reason == "bind: address already in use"
    assert path.stat().st_ino == number and one.held
    one.listen(1)
    dial(f"unix:{path}").close()
    one.close()
    assert not path.exists()


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


# All addresses of the machine


def without_ipv6(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As on a machine whose kernel was started without IPv6, which no test can have."""

    def fails(_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(listener, "_serve_both", fails)


def everywhere(both: bool) -> Address:
    return Address("0.0.0.0" if both else "", both=both)


@pytest.mark.parametrize("both", [True, False])
def test_all_addresses_are_those_of_ipv4_where_there_is_no_ipv6(
    monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    without_ipv6(monkeypatch, errno.EAFNOSUPPORT)
    local = everywhere(both)
    one = Bound(local, locate(local, "listen"), "listen")
    one.listen(1)
    assert str(one.address).startswith("0.0.0.0:")
    dial(f"127.0.0.1:{one.address.port}").close()
    one.close()


@pytest.mark.parametrize("both", [True, False])
def test_a_machine_that_lacks_descriptors_does_not_pass_for_one_without_ipv6(
    monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    without_ipv6(monkeypatch, errno.EMFILE)
    assert locate(everywhere(both), "listen")[0] == socket.AF_INET6


_SERVED = """\
from vaurien.address import Address
from vaurien.net.listener import Bound, locate
import socket, sys
for host in "", "::":
    local = Address(host)
    one = Bound(local, locate(local, "listen"), "listen")
    one.listen(1)
    with socket.create_connection(("127.0.0.1", one.address.port)):
        print("served")
"""


def test_both_kinds_are_served_though_the_system_would_part_them() -> None:
    script = "ip link set lo up && echo 1 >/proc/sys/net/ipv6/bindv6only"
    command = ["unshare", "--net", "--map-root-user", "sh", "-c"]
    try:
        subprocess.run([*command, script], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network of its own can be made (unshare, ip, /proc/sys)")
    done = subprocess.run(
        [*command, f'{script} && exec "$0" -c "$1"', sys.executable, _SERVED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "served\nserved\n", done.stderr
