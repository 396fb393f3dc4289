"""What a handler or the one who starts it could do to the process: each is to harm nobody else."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.laws.helpers import own, unused_port, wait_said, write_module
from tests.support import PATIENCE, Backend, dial, exchange, wait_for

HOLDERS = {
    "computes": "while True: pass",
    "sleeps in the system": "monkey.get_original('time', 'sleep')(1000)",
    "swallows all": """while True:
                try:
                    while True: pass
                except BaseException:
                    pass""",
}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_second_signal_ends_a_process_whose_loop_is_held(
    tmp_path: Path, echo_backend: Backend, holder: str, second: int
) -> None:
    source = f"""
    from gevent import monkey

    class Holding(BaseHandler):
        name = "holding"
        options = {{}}

        def __call__(self, client_sock, backend_sock, to_backend):
            say("held")
            {HOLDERS[holder]}
    """
    write_module(tmp_path, source)
    with own(echo_backend, tmp_path, "Holding") as vaurien, vaurien.dial() as client:
        client.sendall(b"x")
        wait_said(vaurien, "held")
        vaurien.send_signal(signal.SIGTERM)
        vaurien.wait_log("the loop is held")
        assert vaurien.process.poll() is None
        vaurien.send_signal(second)
        assert vaurien.wait(5) == 0


FORKING = """
import os
import signal

class Forking(BaseHandler):
    name = "forking"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        pid = os.fork()
        if not pid:
            say("child", os.getpid())
            while True:
                signal.pause()
        say("status", os.WTERMSIG(os.waitpid(pid, 0)[1]))
        return False
"""


def test_a_signal_to_a_process_that_a_handler_has_forked_is_not_ours(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, FORKING)
    with own(echo_backend, tmp_path, "Forking") as vaurien, vaurien.dial() as client:
        client.sendall(b"x")
        os.kill(int(wait_said(vaurien, "child")[0]), signal.SIGTERM)
        assert wait_said(vaurien, "status") == [str(int(signal.SIGTERM))]
        wait_for(lambda: client.recv(1) == b"", "the handler has returned")
        with vaurien.dial() as other:
            other.sendall(b"x")
            os.kill(int(wait_said(vaurien, "child", 2)[1]), signal.SIGKILL)
            assert other.recv(1) == b""
        assert vaurien.process.poll() is None


INTERRUPTING = """
from vaurien.flow import Data
from vaurien.handlers import FlowHandler


class Interrupting(FlowHandler):
    name = "interrupting"
    options = {}

    def on(self, event, now):
        if isinstance(event, Data) and event.data == b"interrupt":
            raise KeyboardInterrupt("by a handler")
        return [(0, event)]
"""


def test_a_flow_handler_that_raises_an_interrupt_ends_its_connection_only(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, INTERRUPTING)
    with own(echo_backend, tmp_path, "Interrupting") as vaurien, vaurien.dial() as other:
        ended = []
        for _ in range(2):
            with vaurien.dial() as client:
                client.sendall(b"interrupt")
                ended.append(client.recv(1))
            assert exchange(other, b"hello") == b"hello"
            wait_for(lambda: vaurien.text.count("raised KeyboardInterrupt") == len(ended))
        assert ended == [b"", b""]


EMBEDDING = """
import os
import signal
import sys

import gevent

from vaurien import Plan, Proxy, Specification
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.flow import Data
from vaurien.handlers import FlowHandler


class Meeting(FlowHandler):
    name = "meeting"
    options = {}

    def on(self, event, now):
        if isinstance(event, Data):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
        return [(0, event)]


proxy = Proxy(Plan(
    local=address("127.0.0.1:0", "local"),
    distant=address(sys.argv[1], "distant"),
    behavior=behavior("100:meeting", "behavior"),
    handlers={"meeting": Specification("meeting", Meeting)},
    seed=1,
))
proxy.start()
print(proxy.address, flush=True)
gevent.sleep(1000)
"""


def test_a_ctrl_c_that_meets_a_flow_handler_ends_a_program_that_has_a_proxy(
    tmp_path: Path, echo_backend: Backend
) -> None:
    script = tmp_path / "embedding.py"
    script.write_text(EMBEDDING)
    program = subprocess.Popen(
        [sys.executable, script, echo_backend.address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        with dial(program.stdout.readline().strip()) as client:
            client.sendall(b"x")
            _, err = program.communicate(timeout=PATIENCE)
        assert program.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in err


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_a_handler_has_forked_listens_at_nothing_of_ours(
    tmp_path: Path, echo_backend: Backend, kind: str
) -> None:
    write_module(tmp_path, FORKING)
    local = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/local"
    api = ("--http", "--http-port", 0)
    with own(echo_backend, tmp_path, "Forking", "--local", local, *api) as vaurien:
        with vaurien.dial() as client:
            client.sendall(b"x")
            child = int(wait_said(vaurien, "child")[0])
        try:
            http = wait_for(lambda: re.search(r"http listening on (\S+)", "".join(vaurien.output)))
            if kind == "unix":
                assert Path(f"{tmp_path}/local").exists()
            with vaurien.dial() as client:  # the parent's is as it was
                client.sendall(b"x")
                other = int(wait_said(vaurien, "child", 2)[1])
                os.kill(other, signal.SIGKILL)
                assert client.recv(1) == b""
            vaurien.process.kill()
            vaurien.process.wait()
            for address in (vaurien.address, http[1]):
                with pytest.raises(ConnectionRefusedError):
                    dial(address)
        finally:
            os.kill(child, signal.SIGKILL)


def test_standard_descriptors_that_are_closed_go_to_no_client(
    tmp_path: Path, echo_backend: Backend
) -> None:
    port = unused_port()
    command = f"exec {sys.executable} -m vaurien --local 127.0.0.1:{port} --distant"
    for closed in (">&-", "<&- >&- 2>&-", "2>&-", "<&-"):
        process = subprocess.Popen(
            ["sh", "-c", f"{command} {echo_backend.address} --drain 0 {closed}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        try:
            client = wait_for(lambda: connected(f"127.0.0.1:{port}"))
            with client:
                assert exchange(client, b"hello") == b"hello"
                for number in range(3):
                    found = os.readlink(f"/proc/{process.pid}/fd/{number}")
                    assert found == "/dev/null", (closed, number, found)
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()


def connected(address: str) -> socket.socket | None:
    """A client, if something listens there."""
    try:
        return dial(address)
    except ConnectionRefusedError:
        return None
