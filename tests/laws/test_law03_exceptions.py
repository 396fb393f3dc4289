"""Law 3: an exception ends its connection, is logged once with its traceback and counted, and
touches nothing else.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.laws.helpers import Acceptor, assert_fin, own, wait_said, write_module
from tests.support import (
    PATIENCE,
    Backend,
    Program,
    dial,
    exchange,
    proxy,
    receive,
    receive_all,
    reset,
    wait_for,
)

FRAGILE = """
def fail(word):
    raise {
        b"value": ValueError,
        b"key": KeyError,
        b"os": OSError,
        b"exit": SystemExit,
        b"interrupt": KeyboardInterrupt,
        b"greenlet": gevent.GreenletExit,
    }[word]("fragile handler")


class Fragile(BaseHandler):
    name = "fragile"
    options = {}

    def __init__(self, settings, proxy):
        self.proxy = proxy

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        where, _, word = data.partition(b":")
        if to_backend and where == b"count":
            client_sock.sendall(b"%d" % self.proxy.counters.handler_errors)
            return
        if where == (b"up" if to_backend else b"down"):
            fail(word)
        if to_backend and where == b"spawned":
            gevent.spawn(fail, word).get()
        if to_backend and where == b"lost":
            gevent.spawn(fail, word)
        (backend_sock if to_backend else client_sock).sendall(data)
"""

KINDS = ["value", "key", "os", "exit", "interrupt", "greenlet"]


def tracebacks(vaurien: Program) -> int:
    """How many tracebacks the log has, a chain of them counted as one."""
    whole = re.sub(r"\n(During handling|The above exception)[^\n]*\n\nTraceback", "", vaurien.text)
    return whole.count("Traceback (most recent call last)")


@pytest.mark.parametrize("where", ["up", "down"])
def test_a_handler_that_raises_ends_its_connection_only(
    tmp_path: Path, echo_backend: Backend, where: str
) -> None:
    write_module(tmp_path, FRAGILE)
    with own(echo_backend, tmp_path, "Fragile") as vaurien, vaurien.dial() as other:
        for n, kind in enumerate(KINDS, 1):
            assert exchange(other, b"before") == b"before"
            with vaurien.dial() as client:
                client.sendall(f"{where}:{kind}".encode())
                assert_fin(client)
            assert exchange(other, b"after") == b"after"
            with vaurien.dial() as new:
                assert exchange(new, b"new") == b"new"
                assert exchange(new, b"count", 1) == b"%d" % n
            vaurien.wait_log(rf"connection {2 * n}\b(?s:.*)fragile handler")
            wait_for(lambda n=n: tracebacks(vaurien) == n)  # type: ignore[misc]
        other.close()
        assert vaurien.stop() == 0
        assert tracebacks(vaurien) == len(KINDS)


@pytest.mark.parametrize("kind", ["value", "exit"])
def test_what_a_greenlet_of_a_handler_raised_counts_once_when_the_handler_gets_it(
    tmp_path: Path, echo_backend: Backend, kind: str
) -> None:
    write_module(tmp_path, FRAGILE)
    with own(echo_backend, tmp_path, "Fragile") as vaurien:
        with vaurien.dial() as client:
            client.sendall(f"spawned:{kind}".encode())
            assert_fin(client)
        with vaurien.dial() as new:
            assert exchange(new, b"count", 1) == b"1"
        assert vaurien.stop() == 0
        assert tracebacks(vaurien) == 1


def test_what_a_greenlet_of_a_handler_raised_is_logged_though_nobody_gets_it(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, FRAGILE)
    with own(echo_backend, tmp_path, "Fragile") as vaurien, vaurien.dial() as client:
        assert exchange(client, b"lost:value") == b"lost:value"
        vaurien.wait_log(r"Traceback(?s:.*)ValueError: fragile handler")
        assert exchange(client, b"lost:exit") == b"lost:exit"
        vaurien.wait_log(r"Traceback(?s:.*)SystemExit: fragile handler")
        assert exchange(client, b"after") == b"after"


def test_both_sides_see_the_end_of_a_connection_whose_handler_raised(tmp_path: Path) -> None:
    write_module(tmp_path, FRAGILE)
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Fragile") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert server.recv(100) == b"request"
        server.sendall(b"down:value")
        assert_fin(client)
        assert_fin(server)


def test_a_client_that_resets_is_no_error_of_the_handler(tmp_path: Path) -> None:
    # The handler's sendall to a client that has gone raises; that is nobody's fault.
    write_module(
        tmp_path,
        """
class Talker(BaseHandler):
    name = "talker"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        if to_backend and self._get_data(client_sock, backend_sock, to_backend):
            say("talks")
            try:
                while True:
                    client_sock.sendall(b"x" * 100_000)
            finally:
                say("over")
""",
    )
    with Acceptor() as backend, own(backend, tmp_path, "Talker") as vaurien:
        client = vaurien.dial()
        client.sendall(b"go")
        wait_said(vaurien, "talks")
        reset(client)
        wait_said(vaurien, "over")
        with vaurien.dial() as new:
            new.sendall(b"go")
            assert new.recv(1) == b"x"
        vaurien.stop()
        assert tracebacks(vaurien) == 0


CALLBACK = """
import builtins
import logging
import sys

from gevent.event import Event

from vaurien import Plan, Proxy
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior

logging.basicConfig()


def observer(event):
    if event.connection == 2 and type(event).__name__ == sys.argv[2]:
        raise getattr(builtins, sys.argv[3])("observer fell over")


plan = Plan(
    local=address("127.0.0.1:0", "local"),
    distant=address(sys.argv[1], "distant"),
    behavior=behavior("100:dummy", "behavior"),
    handlers={},
    seed=1,
)
proxy = Proxy(plan, (observer,), everything=True)
proxy.start()
print(proxy.address, flush=True)
Event().wait()
"""


EXITS = """
from vaurien.flow import Data, OPEN
from vaurien.handlers import FlowHandler


class Exits(FlowHandler):
    name = "exits"
    options = {"when": ("When it exits", str, "data")}

    def __init__(self, *args):
        if self.options("when") == "made":
            raise SystemExit("fragile handler")

    def on(self, event, now):
        if isinstance(event, Data) and event.data == b"exit":
            raise SystemExit("fragile handler")
        yield 0, event
"""


@pytest.mark.parametrize("when", ["made", "data"])
def test_a_flow_handler_that_exits_ends_its_connection_only(
    tmp_path: Path, echo_backend: Backend, when: str
) -> None:
    write_module(tmp_path, EXITS)
    option = f"--handlers.own.Exits.when={when}"
    with (
        proxy(
            echo_backend, "--behavior", "100:own.Exits", "--handlers.own.Exits.after", 1,
            option, cwd=tmp_path,
        ) as vaurien,
        vaurien.dial() as client,
        vaurien.dial() as other,
    ):  # fmt: skip
        assert exchange(client, b"first") == b"first"
        client.sendall(b"exit")
        assert_fin(client)
        vaurien.wait_log(r"connection 1, exchange 2: handler 'exits' raised SystemExit")
        assert exchange(other, b"other") == b"other"
        assert vaurien.stop() == 0
        assert tracebacks(vaurien) == 1


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit"])
@pytest.mark.parametrize("when", ["Began", "Ended"])
def test_a_callback_that_raises_ends_its_connection_only(
    tmp_path: Path, echo_backend: Backend, when: str, error: str
) -> None:
    # An observer is called within the loop's callback, as an exchange begins and as it ends.
    script = tmp_path / "embedding.py"
    script.write_text(CALLBACK)
    with subprocess.Popen(
        [sys.executable, str(script), echo_backend.address, when, error],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with dial(address) as first, dial(address) as second, dial(address) as third:
                assert exchange(first, b"before") == b"before"
                second.sendall(b"boom")
                if when == "Ended":
                    assert receive(second, 4) == b"boom"
                    second.shutdown(socket.SHUT_WR)
                assert receive_all(second) == b""
                assert exchange(first, b"after") == b"after"
                assert exchange(third, b"third") == b"third"
        finally:
            process.kill()
            _, log = process.communicate(timeout=PATIENCE)
    chained = error == "SystemExit"
    assert log.count("Traceback (most recent call last)") == 1 + chained
    assert log.count(f"{error}: observer fell over") == 1
