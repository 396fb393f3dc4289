"""Where it listens, how it says so, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.helpers import refused, sentence
from tests.needs import need_program
from tests.support import PATIENCE, Backend, Program, dial, echo, exchange, parse_address, proxy

# The line that says that it is ready


@pytest.mark.parametrize("level", ["debug", "critical"])
def test_the_line_is_the_only_output_whatever_the_log_level(
    level: str, echo_backend: Backend
) -> None:
    with proxy(echo_backend, "--seed", 42, "--log-level", level) as program:
        assert program.stop() == 0
        (line,) = program.output
    assert re.fullmatch(
        rf"default listening on 127\.0\.0\.1:\d+, backend {echo_backend.address}, seed 42\n", line
    )


def test_the_line_comes_through_a_pipe_at_once(echo_backend: Backend) -> None:
    # Without PYTHONUNBUFFERED: it has to be flushed.
    with proxy(echo_backend, env={"PYTHONUNBUFFERED": ""}) as program, program.dial() as client:
        assert exchange(client, b"hello") == b"hello"


def test_the_line_tells_the_seed_that_was_drawn(echo_backend: Backend) -> None:
    with proxy(echo_backend) as one, proxy(echo_backend) as other:
        assert one.seed != other.seed


def test_the_seed_may_be_negative(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--seed", -5) as program:
        assert program.seed == -5


def test_port_0_is_told_as_the_real_port(echo_backend: Backend) -> None:
    with proxy(echo_backend) as one, proxy(echo_backend) as other:
        ports = {parse_address(program.address)[1] for program in (one, other)}
        assert len(ports) == 2
        assert 0 not in ports
        for program in (one, other):
            with program.dial() as client:
                assert exchange(client, b"hello") == b"hello"


def test_a_name_is_told_as_the_address_it_is_bound_to(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--local", "localhost:0") as program:
        assert re.fullmatch(r"127\.0\.0\.1:\d+", program.address)
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"


# IPv6


def test_it_listens_on_ipv6(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--local", "[::1]:0") as program:
        assert re.fullmatch(r"\[::1\]:[1-9]\d*", program.address)
        with program.dial() as client:
            assert client.family == socket.AF_INET6
            assert exchange(client, b"hello") == b"hello"


def test_the_backend_may_be_on_ipv6(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--local", "[::1]:0") as inner,
        proxy(inner.address) as outer,
        outer.dial() as client,
    ):
        assert outer.backend == inner.address
        assert exchange(client, b"hello") == b"hello"


# Unix sockets


def test_unix_sockets_work_on_both_sides(tmp_path: Path) -> None:
    local = tmp_path / "local.sock"
    with (
        Backend(echo, str(tmp_path / "backend.sock")) as backend,
        proxy(backend, "--local", f"unix:{local}") as program,
    ):
        assert program.address == f"unix:{local}"
        assert program.backend == f"unix:{tmp_path}/backend.sock"
        with program.dial() as client:
            assert exchange(client, b"hello" * 100_000) == b"hello" * 100_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_socket_file_is_removed_at_the_end(
    number: int, tmp_path: Path, echo_backend: Backend
) -> None:
    path = tmp_path / "x.sock"
    with proxy(echo_backend, "--local", f"unix:{path}") as program:
        assert path.is_socket()
        assert program.stop(number) == 0
        assert not path.exists()


def test_a_stale_socket_file_is_replaced(tmp_path: Path, echo_backend: Backend) -> None:
    path = tmp_path / "x.sock"
    with proxy(echo_backend, "--local", f"unix:{path}") as program:
        program.process.kill()
        program.wait()
    assert path.is_socket()
    with proxy(echo_backend, "--local", f"unix:{path}") as program, program.dial() as client:
        assert exchange(client, b"hello") == b"hello"


def test_a_live_socket_is_refused_and_left_alone(tmp_path: Path, echo_backend: Backend) -> None:
    path = tmp_path / "x.sock"
    with proxy(echo_backend, "--local", f"unix:{path}") as program:
        text = refused("--local", f"unix:{path}", code=1)
        assert f"unix:{path}" in text
        assert "another program listens there" in text
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_a_file_that_is_no_socket_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    assert str(path) in refused("--local", f"unix:{path}", code=1)
    assert path.read_text() == "precious"


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    text = refused("--local", f"unix:{tmp_path}/none/x.sock", code=1)
    assert f"unix:{tmp_path}/none/x.sock" in text
    assert "directory" in text


def test_a_file_that_took_its_place_is_left_alone(tmp_path: Path, echo_backend: Backend) -> None:
    path = tmp_path / "x.sock"
    with proxy(echo_backend, "--local", f"unix:{path}") as program:
        path.unlink()
        path.write_text("precious")
        assert program.stop() == 0
    assert path.read_text() == "precious"


def test_a_path_that_is_no_utf8_works(tmp_path: Path, echo_backend: Backend) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.sock"
    with subprocess.Popen(
        [
            *(os.fsencode(sys.executable), b"-m", b"vaurien", b"--local", b"unix:" + path),
            *(b"--distant", echo_backend.address.encode(), b"--drain", b"0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=Program().env,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"default listening on unix:")
            with dial(os.fsdecode(path)) as client:
                assert exchange(client, b"hello") == b"hello"
        finally:
            process.terminate()
            _, log = process.communicate(timeout=20)
    assert b"Traceback" not in log
    assert process.returncode == 0


# What it cannot have


def test_a_port_in_use_is_one_sentence_and_exit_1(echo_backend: Backend) -> None:
    text = refused("--local", echo_backend.address, "--distant", "127.0.0.1:1", code=1)
    assert echo_backend.address in text
    assert "another program listens there" in text


def test_a_port_in_use_on_ipv6_is_one_sentence_and_exit_1(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--local", "[::1]:0") as program:
        assert program.address in refused("--local", program.address, code=1)


def without_privileges() -> Sequence[str]:
    """The beginning of a command that runs the rest without root's privileges.

    Not as another user, who may not read the clone: it may lie in root's home.
    """
    if os.geteuid():
        return []
    need_program("setpriv")
    return ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--securebits", "+noroot"]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory that even its owner may not write, without root's privileges."""
    made = tmp_path / "closed"
    made.mkdir(0o555)
    return made


def run_unprivileged(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*without_privileges(), sys.executable, "-m", "vaurien", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=Program().env,
        cwd="/",
    )


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 2,
    reason="no port needs privileges here",
)
def test_a_privileged_port_is_one_sentence_and_exit_1() -> None:
    text = sentence(run_unprivileged("--local", "127.0.0.1:1"), 1)
    assert "127.0.0.1:1:" in text
    assert "privileges" in text
    assert "1024" in text


def test_a_directory_that_may_not_be_written_is_one_sentence_and_exit_1(closed: Path) -> None:
    text = sentence(run_unprivileged("--local", f"unix:{closed}/x"), 1)
    assert f"unix:{closed}/x" in text
    assert "permission denied" in text


def test_an_ini_file_that_may_not_be_read_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ini"
    secret.write_text("[vaurien]\n")
    secret.chmod(0)
    text = sentence(run_unprivileged("--check", "--config", str(secret)))
    assert str(secret) in text
    assert "Permission denied" in text


def test_a_log_that_may_not_be_written_is_one_sentence_and_exit_2(closed: Path) -> None:
    text = sentence(run_unprivileged("--local", "127.0.0.1:0", "--log-output", f"{closed}/log"))
    assert "--log-output" in text
    assert f"'{closed}/log'" in text


def test_an_address_of_another_machine_is_one_sentence_and_exit_1() -> None:
    text = refused("--local", "203.0.113.1:0", code=1)  # TEST-NET-3, RFC 5737
    assert "203.0.113.1:0" in text
    assert "no such address" in text


def test_a_local_name_that_does_not_resolve_is_one_sentence_and_exit_1() -> None:
    assert "no-such-host.invalid:0" in refused("--local", "no-such-host.invalid:0", code=1)


# A backend that is not there


def test_a_backend_name_that_does_not_resolve_warns_at_start() -> None:
    with proxy("no-such-host.invalid:80") as program:
        assert program.backend == "no-such-host.invalid:80"
        program.wait_log(r"WARNING.*no-such-host\.invalid")
        with program.dial() as client:
            assert client.recv(1) == b""
        program.wait_log(r"connection 1: .*no-such-host\.invalid:80")


def test_a_backend_that_is_down_closes_the_client_at_once_and_is_logged() -> None:
    with Backend(echo) as backend:
        address = backend.address
    with proxy(address) as program:
        for number in (1, 2):
            with program.dial() as client:
                assert client.recv(1) == b""
            program.wait_log(rf"WARNING.*connection {number}: .*{address}.*refused")
        assert "Traceback" not in program.text


def test_an_output_that_takes_no_line_is_told(echo_backend: Backend) -> None:
    program = proxy(echo_backend)
    with (
        open("/dev/full", "wb") as full,
        subprocess.Popen(
            [sys.executable, "-m", "vaurien", *program.arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env=program.env,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        assert "cannot be written to the output: No space left" in process.stderr.readline()
        process.terminate()
        assert process.wait(PATIENCE) == 0
