"""Real servers for the end-to-end tests, in a directory of their own, and packages of npm."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import dial, wait_for


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def served(command: list[object], address: str, log: Path) -> Iterator[None]:
    """Run a server until the end of the block; it is entered once `address` answers."""

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            dial(address).close()
        except ConnectionRefusedError:
            return False
        return True

    with (
        log.open("w") as output,
        subprocess.Popen(list(map(str, command)), stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(answers, f"{command[0]} answers")
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            finally:
                process.kill()


def from_npm(config: pytest.Config, package: str, overrides: Mapping[str, str] = {}) -> Path:
    """The ``node_modules`` with `package`, ``NAME@VERSION``; it is kept from run to run.

    It comes whole or not at all, though several ask for it at the same time. `overrides` are
    versions of what it needs, in place of those that it asks for.
    """
    cache: Any = config.cache
    prefix = Path(cache.mkdir("npm")) / package.replace("/", "+")
    if not prefix.exists():
        made = Path(tempfile.mkdtemp(dir=prefix.parent))
        (made / "package.json").write_text(json.dumps({"overrides": overrides}))
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            [*command, "--prefix", str(made), package], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        try:
            made.rename(prefix)
        except OSError:  # another worker was first
            shutil.rmtree(made)
    return prefix / "node_modules"


@dataclass(frozen=True)
class Redis:
    """A redis-server, at a port and at a unix socket."""

    address: str
    path: Path


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    home = tmp_path_factory.mktemp("redis")
    port = free_port()
    (home / "redis.conf").write_text(
        f"bind 127.0.0.1\nport {port}\nunixsocket {home}/redis.sock\ndir {home}\n"
        'save ""\nappendonly no\ndaemonize no\n'
    )
    address = f"127.0.0.1:{port}"
    with served(["redis-server", home / "redis.conf"], address, home / "log"):
        yield Redis(address, home / "redis.sock")


@dataclass(frozen=True)
class Nginx:
    """An nginx; what is under `root` can be read, and written under `root`/up."""

    address: str
    root: Path
    big: bytes  # the content of /big, 10 MB


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    home = tmp_path_factory.mktemp("nginx")
    root = home / "www"
    (root / "up").mkdir(parents=True)
    (root / "index.html").write_text("<p>All is well.</p>\n")
    big = random.Random(1).randbytes(10_000_000)
    (root / "big").write_bytes(big)
    port = free_port()
    user = "" if os.geteuid() else "user root root;"
    temporary = "".join(
        f"{name}_temp_path {home}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"""
        {user} daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off; sendfile on; {temporary}
            server {{
                listen 127.0.0.1:{port}; root {root}; client_max_body_size 100m;
                add_header X-Connection $connection always;
                location /up/ {{ dav_methods PUT; }}
            }}
        }}
        """
    )
    address = f"127.0.0.1:{port}"
    command: list[object] = [
        "nginx",
        "-c",
        home / "nginx.conf",
        "-e",
        home / "error.log",
        "-p",
        home,
    ]
    with served(command, address, home / "log"):
        yield Nginx(address, root, big)
