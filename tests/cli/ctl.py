"""What the tests of ``vaurienctl`` share."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "vaurien.cli.ctl"]


def environment(host: str | None = None, **variables: str) -> dict[str, str]:
    """A clean environment, with the API at `host`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VAURIEN_")}
    clean["PYTHONPATH"] = str(ROOT)
    if host is not None:
        clean["VAURIEN_HOST"] = host
    return {**clean, **variables}


def run(
    host: str | None, *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``vaurienctl`` to its end, in a pipe; `host` by the environment."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(host, **(env or {})),
        timeout=PATIENCE,
        check=False,
    )


def told(host: str | None, *arguments: object) -> list[list[str]]:
    """Run ``vaurienctl``; the cells of its lines, when it has nothing to complain of."""
    result = run(host, *arguments)
    assert (result.returncode, result.stderr) == (0, ""), result
    return [line.split("\t") for line in result.stdout.splitlines()]


def refused(host: str | None, *arguments: object, code: int) -> str:
    """Run ``vaurienctl``; the one sentence with which it ends, without its name."""
    result = run(host, *arguments)
    assert result.returncode == code, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vaurienctl: ")
    return line.removeprefix("vaurienctl: ")


def on_terminal(host: str | None, *arguments: object, **variables: str) -> tuple[int, str]:
    """Run ``vaurienctl`` on a terminal to its end; the exit code, and what is on the screen."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(host, **{"TERM": "xterm", **variables}),
        start_new_session=True,
    ) as process:
        os.close(slave)
        text = read_terminal(master)
        code = process.wait(PATIENCE)
    os.close(master)
    return code, text


@contextlib.contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process that would go on, whatever happens."""
    try:
        yield
    finally:
        process.kill()


def read_terminal(master: int) -> str:
    """All that a terminal shows until its program ends."""
    data = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # EIO: the other side is closed
            piece = b""
        if not piece:
            return data.decode().replace("\r\n", "\n")
        data += piece
