"""Start, watch and end the processes of a run.

Law: what `started` starts is ended when its block is left, whatever the reason, children included:
each process leads a session of its own, and the whole process group is signalled.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

START_TIMEOUT = 15.0
"""Seconds a process may take until it listens."""

END_TIMEOUT = 3.0
"""Seconds a process may take to end after SIGTERM; then it is killed, which is said on stderr."""

_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"


class RunError(Exception):
    """A process did not start or a load ended badly; the message names it and quotes its output."""


class Address(NamedTuple):
    """An IPv4 address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def free_address(host: str = "127.0.0.1") -> Address:
    """A free address with a random port.

    The port is below the range for outgoing connections, so that no client takes it before the
    server binds, and random, so that it is most likely fresh: no connection to it in TIME_WAIT.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        address = Address(host, random.randrange(min(10_000, low - 1_000), low))
        with socket.socket() as sock, suppress(OSError):
            sock.bind(address)
            return address
    raise RunError(f"no free port found on {host}")


@contextmanager
def started(
    argv: Sequence[str],
    listens_on: Sequence[Address],
    log: Path,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` until the block ends; the block begins once the addresses are listened on.

    Output goes to `log`; `environment` is what it has beside ours. Raises RunError with the end of
    that log if the process does not listen in time, is no longer there when the block ends, or has
    logged a traceback.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        for address in listens_on:
            _wait_until_listening(process, address, argv, log)
        yield process
        if process.poll() is not None or "Traceback" in log.read_text(errors="replace"):
            raise _broken(argv, f"failed (exit code {process.poll()})", log)
    finally:
        _end(process, argv)


def run(argv: Sequence[str], timeout: float) -> str:
    """Run a load and return its stdout; raises RunError if it fails or takes over `timeout` s."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{argv[0]} took over {timeout:.0f} s") from None
    if done.returncode:
        raise RunError(
            f"{argv[0]} ended with {done.returncode}: {_tail(done.stdout + done.stderr)}"
        )
    return done.stdout


def memory(pid: int) -> int:
    """Bytes of memory of a process and its descendants, shared pages in proportion (Pss)."""
    return sum(_pss(each) for each in _tree(pid))


def cpu_seconds(pid: int) -> float:
    """CPU seconds, user and system, of a process and its descendants, ended ones included.

    What runs is read from its clock, which counts nanoseconds: a tick of 10 ms is 3 % of the time
    that 5,000 connections take. Of descendants that have ended only the ticks are left.
    """
    seconds = 0.0
    for each in _tree(pid):
        with suppress(OSError):
            seconds += time.clock_gettime(_clock(each))
            seconds += sum(map(int, _stat(each)[13:15])) / _TICKS
    return seconds


def _clock(pid: int) -> int:
    """The clock of a process's CPU time, as clock_getcpuclockid(3) makes it."""
    return ~pid << 3 | 2


def is_listening(address: Address) -> bool:
    """Whether a socket listens there; does not connect, as a probe would count as a connection."""
    packed = int.from_bytes(socket.inet_aton(address.host), sys.byteorder)
    wanted = f"{packed:08X}:{address.port:04X}"
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            _, local, _, state = line.split(maxsplit=4)[:4]
            if (
                state != _LISTEN
            ):  # the listening ones come first; behind may be many thousands in TIME_WAIT
                return False
            if local == wanted:
                return True
    return False


def _wait_until_listening(
    process: subprocess.Popen[bytes], address: Address, argv: Sequence[str], log: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not is_listening(address):
        if process.poll() is not None:
            raise _broken(argv, f"ended with {process.returncode}", log)
        if time.monotonic() > deadline:
            raise _broken(argv, f"does not listen on {address}", log)
        time.sleep(0.005)


def _broken(argv: Sequence[str], how: str, log: Path) -> RunError:
    return RunError(f"`{' '.join(argv)}` {how}: {_tail(log.read_text(errors='replace'))}")


def _end(process: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"`{' '.join(argv)}` ignored SIGTERM and was killed", file=sys.stderr)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
    found = [pid]
    for each in found:
        found.extend(children.get(each, ()))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _pss(pid: int) -> int:
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-4:]) or "(no output)"
