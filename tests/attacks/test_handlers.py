"""Socket handlers that have always something to do: others get their turn all the same."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from tests.attacks.helpers import Bystander, pour
from tests.laws.helpers import write_module
from tests.support import PATIENCE, Backend, Program, dial, echo, wait_for

#: Handlers as people write them, or nearly; none of them computes.
OWN = """
class Relay(BaseHandler):
    name = "relay"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        source = client_sock if to_backend else backend_sock
        dest = backend_sock if to_backend else client_sock
        say("busy")
        while data := source.recv(65536):
            dest.sendall(data)
        return True


class ByteByByte(BaseHandler):
    name = "bytes"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("busy")
        while data := client_sock.recv(1):
            pass


class Lines(BaseHandler):
    name = "lines"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("busy")
        with client_sock.makefile("rb", 0) as lines:
            while lines.readline():
                pass


class Flood(BaseHandler):
    name = "flood"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("busy")
        while True:
            client_sock.sendall(b"x" * 1000)


class Peek(BaseHandler):
    name = "peek"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("busy")
        while client_sock.recv(1, socket.MSG_PEEK):
            pass


class Poll(BaseHandler):
    name = "poll"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("busy")
        client_sock.recv(65536)
        client_sock.settimeout(0)
        while True:
            try:
                if client_sock.recv(65536) == b"":
                    return False
            except BlockingIOError:
                pass


class Timed(BaseHandler):
    name = "timed"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("busy")
        with gevent.Timeout(0.5, False):
            while True:
                client_sock.recv(1, socket.MSG_PEEK)
        say("out of time")
        return False
"""


def drain(sock: socket.socket) -> None:
    """A backend, or a client, that takes all as fast as it can."""
    with contextlib.suppress(OSError):
        while sock.recv(1 << 20):
            pass


def two(directory: Path, sink: Backend, others: Backend, cls: str) -> Program:
    """A Vaurien with a proxy for the handler, and another one that has none."""
    write_module(directory, OWN)
    (directory / "v.ini").write_text(
        "[proxy:busy]\n"
        f"local = 127.0.0.1:0\ndistant = {sink.address}\nbehavior = 100:own.{cls}\n"
        f"[proxy:others]\nlocal = 127.0.0.1:0\ndistant = {others.address}\n"
    )
    return Program("--config", directory / "v.ini", "--drain", 0, cwd=directory)


def addresses(vaurien: Program) -> dict[str, str]:
    """Where its proxies listen, by name."""
    found = {vaurien.name: vaurien.address}
    while len(found) < 2:
        line = vaurien.lines.get(timeout=PATIENCE)
        assert line is not None
        if " listening on " in line:
            found[line.split()[0]] = line.split()[3].rstrip(",")
    return found


@pytest.mark.parametrize("cls", ["Relay", "ByteByByte", "Lines", "Flood", "Peek", "Poll", "Timed"])
def test_a_handler_that_never_waits_holds_up_nobody(
    tmp_path: Path, echo_backend: Backend, cls: str
) -> None:
    # No sleep, no lock, no computing: just sockets that have always something, or room for it.
    script = echo if cls == "Relay" else drain
    over = threading.Event()
    with (
        Backend(script) as sink,
        two(tmp_path, sink, echo_backend, cls) as vaurien,
        dial((where := addresses(vaurien))["busy"]) as client,
        Bystander(where["others"], vaurien.pid) as others,
    ):
        threads = [
            threading.Thread(target=drain, args=(client,), daemon=True),
            threading.Thread(target=pour, args=(client, b"y\n" * 2000, over), daemon=True),
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: "busy\n" in vaurien.output, "the handler runs")
        others.unharmed(40)
        if cls == "Timed":
            wait_for(lambda: "out of time\n" in vaurien.output, "gevent's Timeout ends it")
        over.set()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
        others.unharmed()
        assert vaurien.stop() == 0
