"""What a handler or the one who starts it could do to the process: each is to harm nobody else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.laws.helpers import own, wait_said, write_module
from tests.support import Backend, wait_for

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
