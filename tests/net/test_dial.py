"""Reaching the backend: every kind of address, every way in which a dial goes wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.farms import Farm, write
from tests.laws.helpers import (
    Acceptor,
    Names,
    assert_fin,
    full_listener,
    has_ipv6,
    own,
    unused_port,
    wait_said,
    write_module,
)
from tests.support import (
    Backend,
    dial,
    echo,
    exchange,
    proxy,
    receive,
    receive_all,
    run,
    wait_for,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@contextlib.contextmanager
def listening(host: str, port: int = 0) -> Iterator[int]:
    """An echoing backend at `host`, accepting one client after the other; gives its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        echo(sock)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("local", ["127.0.0.1:0", "localhost:0", "unix:local", "[::1]:0"])
@pytest.mark.parametrize("distant", ["127.0.0.1", "localhost", "unix", "[::1]"])
def test_every_kind_of_address_works_on_both_sides(
    tmp_path: Path, local: str, distant: str
) -> None:
    if "[::1]" in (local[:5], distant) and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with contextlib.ExitStack() as stack:
        if distant == "unix":
            address = stack.enter_context(Backend(echo, str(tmp_path / "backend"))).address
        else:
            host = distant.strip("[]").replace("localhost", "127.0.0.1")
            address = f"{distant}:{stack.enter_context(listening(host))}"
        vaurien = stack.enter_context(proxy(address, "--local", local, cwd=tmp_path))
        target = str(tmp_path / "local") if local == "unix:local" else vaurien.address
        client = stack.enter_context(dial(target))
        assert exchange(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_unix_backend_is_lent_to_handlers_too(tmp_path: Path) -> None:
    with (
        Backend(echo, str(tmp_path / "backend")) as backend,
        proxy(
            backend,
            "--local",
            f"unix:{tmp_path}/local",
            "--behavior",
            "100:delay",
            "--handlers.delay.sleep",
            0,
        ) as vaurien,
        vaurien.dial() as client,
    ):
        for _ in range(10):
            assert exchange(client, b"hello") == b"hello"


def test_each_address_of_a_name_is_tried_in_turn(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.2", "127.0.0.3", "127.0.0.1")
    with (
        Backend(echo) as backend,
        proxy(f"backend.test:{backend.port}", env=names.env) as vaurien,
    ):
        for _ in range(3):
            with vaurien.dial() as client:
                assert exchange(client, b"hello") == b"hello"


def test_an_address_that_does_not_answer_is_given_up_for_the_next(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.2", "127.0.0.1")
    with (
        Backend(echo) as backend,
        full_listener("127.0.0.2", backend.port),
        proxy(f"backend.test:{backend.port}", "--connect-timeout", 0.5, env=names.env) as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"hello") == b"hello"


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("order", [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_a_name_of_both_families_is_reached_on_the_one_that_listens(
    tmp_path: Path, host: str, order: tuple[str, str]
) -> None:
    names = Names(tmp_path)
    names.set("backend.test", *order)
    with (
        listening(host) as port,
        proxy(f"backend.test:{port}", env=names.env) as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"hello") == b"hello"


def test_localhost_is_reached_on_the_family_that_listens() -> None:
    with (
        listening("127.0.0.1") as port,
        proxy(f"localhost:{port}") as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"hello") == b"hello"


def test_a_backend_that_moves_is_found_again(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.1")
    with Acceptor() as first, proxy(f"backend.test:{first.port}", env=names.env) as vaurien:
        with vaurien.dial() as client, first.accept() as server:
            client.sendall(b"1")
            assert receive(server, 1) == b"1"
        first.stop_listening()
        names.set("backend.test", "127.0.0.2")
        with listening("127.0.0.2", first.port), vaurien.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_a_name_that_did_not_resolve_is_tried_again(tmp_path: Path) -> None:
    names = Names(tmp_path)
    with (
        Backend(echo) as backend,
        proxy(f"backend.test:{backend.port}", env=names.env) as vaurien,
    ):
        with vaurien.dial() as client:
            assert_fin(client)
        vaurien.wait_log(r"connection 1: backend backend\.test:\d+: .*not known")
        names.set("backend.test", "127.0.0.1")
        with vaurien.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_names_that_hang_hold_up_those_only_who_wait_for_them(tmp_path: Path) -> None:
    # more of them than gevent's pool has threads
    names = Names(tmp_path)
    slow = [f"slow{n}.test" for n in range(12)]
    with Backend(echo) as backend, names.hanging(slow[0], others=slow[1:]) as all_hang:
        proxies = {f"p{n}": f"{name}:80" for n, name in enumerate(slow)}
        proxies["good"] = f"localhost:{backend.port}"
        text = "".join(
            f"[proxy:{name}]\nlocal = localhost:0\ndistant = {distant}\n"
            for name, distant in proxies.items()
        )
        config = write(tmp_path / "farm.ini", text)
        with Farm("--config", config, env=names.env, ready=len(proxies)) as farm:
            all_hang()
            new = {"name": "new", "listen": "localhost:0", "upstream": f"localhost:{backend.port}"}
            farm.api.ask("POST", "/proxies", new, 201)
            for name in ("good", "new"):
                with dial(farm.api.get(f"/proxies/{name}")["listen"]) as client:
                    assert exchange(client, b"hello") == b"hello"
            assert farm.stop() == 0  # though they still hang


@pytest.mark.parametrize(
    ("local", "told"),
    [
        ("nowhere.test:1", "'nowhere.test:1' does not resolve (Name or service not known)"),
        ("203.0.113.1:1", "cannot listen on 203.0.113.1:1: this machine has no such address"),
    ],
)
def test_a_local_address_that_cannot_be_had_is_told_by_its_setting(
    tmp_path: Path, local: str, told: str
) -> None:
    names = Names(tmp_path)
    text = f"[proxy:p]\nlocal = {local}\ndistant = 127.0.0.1:1\n"
    for arguments, setting in (
        (("--local", local, "--distant", "127.0.0.1:1"), "--local"),
        (("--config", write(tmp_path / "farm.ini", text)), "proxy 'p': local"),
    ):
        result = run(*arguments, env=names.env)
        assert result.returncode == 1
        assert f"vaurien: {setting}: {told}" in result.stderr


COUNTING = """
class Counting(BaseHandler):
    name = "counting"
    options = {}

    def __init__(self, settings, proxy):
        self.proxy = proxy

    def __call__(self, client_sock, backend_sock, to_backend):
        if to_backend and self._get_data(client_sock, backend_sock, to_backend):
            client_sock.sendall(b"%2d" % self.proxy.counters.failed_dials)
"""


def test_a_backend_that_is_down_is_told_at_once_logged_and_counted(tmp_path: Path) -> None:
    write_module(tmp_path, COUNTING)
    port = unused_port()
    with own(f"127.0.0.1:{port}", tmp_path, "Counting") as vaurien:
        for _ in range(5):
            with vaurien.dial() as client:
                assert_fin(client)
        vaurien.wait_log(rf"connection 5: backend 127\.0\.0\.1:{port}: .*refused")
        assert vaurien.text.count("refused") == 5
        with listening("127.0.0.1", port), vaurien.dial() as client:
            client.sendall(b"?")
            assert receive(client, 2) == b" 5"


def test_a_unix_backend_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with proxy(f"unix:{tmp_path}/nowhere") as vaurien:
        with vaurien.dial() as client:
            assert_fin(client)
        vaurien.wait_log(r"connection 1: backend unix:.*/nowhere: No such file")
        with Backend(echo, f"{tmp_path}/nowhere"), vaurien.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_a_backend_that_closes_at_once_ends_the_connection() -> None:
    with Backend(lambda _: None) as backend, proxy(backend) as vaurien:
        before = vaurien.descriptors()
        for _ in range(20):
            with vaurien.dial() as client:
                assert_fin(client)
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")


def test_a_backend_that_closes_at_once_costs_a_client_that_sends_no_hang() -> None:
    with Backend(lambda _: None) as backend, proxy(backend) as vaurien:
        before = vaurien.descriptors()
        for _ in range(20):
            with vaurien.dial() as client, contextlib.suppress(ConnectionError):
                client.sendall(b"x" * 100_000)
                assert receive_all(client) == b""
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")
        assert "Traceback" not in vaurien.text


def test_a_backend_that_never_accepts_is_given_up_after_the_connect_timeout() -> None:
    with (
        full_listener() as (host, port),
        proxy(f"{host}:{port}", "--connect-timeout", 0.5) as vaurien,
    ):
        before = vaurien.descriptors()
        with vaurien.dial() as client:
            assert_fin(client)
        vaurien.wait_log(r"connection 1: backend .*no connection within 0\.5 s")
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")


def test_a_unix_backend_whose_backlog_is_full_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "backend")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        filler = stack.enter_context(dial(path))
        vaurien = stack.enter_context(proxy(f"unix:{path}"))
        client = stack.enter_context(vaurien.dial())
        client.sendall(b"hello")
        other = stack.enter_context(vaurien.dial())  # nobody waits for the first
        other.sendall(b"hello")
        stack.enter_context(listener.accept()[0])  # the filler
        for _ in range(2):
            server = stack.enter_context(listener.accept()[0])
            assert receive(server, 5) == b"hello"
            server.sendall(b"world")
        assert receive(client, 5) == receive(other, 5) == b"world"
        filler.close()


def test_a_client_that_has_gone_before_the_dial_is_over_leaves_nothing() -> None:
    with (
        full_listener() as (host, port),
        proxy(f"{host}:{port}", "--connect-timeout", 0.5) as vaurien,
    ):
        before = vaurien.descriptors()
        for _ in range(5):
            vaurien.dial().close()
        wait_for(lambda: vaurien.text.count("no connection within") == 5)
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")


def test_what_a_client_sent_before_the_dial_was_over_arrives(tmp_path: Path) -> None:
    # The dial hangs on the first address until it is given up.
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.2", "127.0.0.1")
    with (
        Acceptor() as backend,
        full_listener("127.0.0.2", backend.port),
        proxy(f"backend.test:{backend.port}", "--connect-timeout", 0.5, env=names.env) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"early " * 1000)
        client.shutdown(socket.SHUT_WR)
        with backend.accept() as server:
            assert receive_all(server) == b"early " * 1000
            server.sendall(b"late")
            assert receive(client, 4) == b"late"


def test_small_writes_are_not_held_back_on_either_side(tmp_path: Path) -> None:
    write_module(
        tmp_path,
        """
class Telling(BaseHandler):
    name = "telling"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        for sock in (client_sock, backend_sock):
            say("nodelay", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
        return False
        """,
    )
    with (
        Backend(echo) as backend,
        own(backend, tmp_path, "Telling") as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        assert wait_said(vaurien, "nodelay", 2) == ["True", "True"]
