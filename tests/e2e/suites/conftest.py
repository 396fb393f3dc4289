"""A network of its own, in which a Vaurien is at home: ``vaurien --toxiproxy``, as it is typed.

What others publish names the addresses that Toxiproxy has by default: port 8474, and those that
its containers lend out. In a network namespace they are free, whatever else runs on the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.needs import not_here
from tests.support import PATIENCE, Program, wait_for

#: Brings loopback up, says so, and keeps the namespace until its input ends.
HOLD = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
print("up", flush=True)
sys.stdin.read()
"""

#: Sends what it is given on the command line to the API, and prints what that answers.
ASK = """
import http.client, sys
connection = http.client.HTTPConnection("localhost", 8474)
connection.request(*sys.argv[1:])
print(connection.getresponse().read().decode())
"""


class Home(Program):
    """``vaurien --toxiproxy`` and nothing else, in a network namespace."""

    def __init__(self, holder: subprocess.Popen[str]) -> None:
        self.enter = ["nsenter", "--target", str(holder.pid), "--user", "--net"]
        self.enter.append("--preserve-credentials")
        super().__init__("--toxiproxy", prefix=self.enter)

    def start(self) -> Home:
        """Start it, and wait until its API listens."""
        self.spawn()
        wait_for(lambda: self.output or self.process.poll() is not None, "its first line")
        assert self.output == ["toxiproxy listening on 127.0.0.1:8474\n"], self.text
        return self

    def __enter__(self) -> Home:
        super().__enter__()
        return self

    def run(
        self, *command: object, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end beside it; it has to succeed."""
        done = subprocess.run(
            [*self.enter, *map(str, command)],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, method: str, path: str) -> Any:
        """What the API answers."""
        answer = self.run(sys.executable, "-c", ASK, method, path).stdout.strip()
        return json.loads(answer) if answer else None


@pytest.fixture
def home() -> Iterator[Home]:
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", HOLD]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != "up\n":
                not_here(f"no network namespace can be made here: {holder.stderr.read().strip()}")
            with Home(holder) as program:
                yield program
                assert "Traceback" not in program.text, program.text
        finally:
            holder.stdin.close()
