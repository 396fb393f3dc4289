"""SIGINT and SIGTERM: what still comes to its end, and when the program ends.

Where a test has to know that the 250 ms of quiet are over it looks at another connection, that of
an idle client, which ends by then.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.cli.helpers import module
from tests.support import (
    Backend,
    Program,
    dial,
    exchange,
    proxy,
    receive,
    receive_all,
    wait_for,
)

REPLY = bytes(range(256)) * 4096  # 1 MiB


class Slow:
    """A backend that answers each request with `REPLY`, as soon as `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.requests = 0

    def script(self, sock: socket.socket) -> None:
        while sock.recv(65536):
            self.requests += 1
            self.go.wait(30)
            sock.sendall(REPLY)


@pytest.fixture
def slow() -> Iterator[tuple[Backend, Slow]]:
    what = Slow()
    with Backend(what.script) as backend:
        yield backend, what
        what.go.set()


def refuses(program: Program) -> bool:
    """Whether it accepts nobody any more."""
    try:
        program.dial().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


def stopping(program: Program, number: int = signal.SIGTERM) -> None:
    """Send the signal and wait until it accepts nobody any more."""
    program.send_signal(number)
    wait_for(lambda: refuses(program), "no connection is accepted")


def ended(sock: socket.socket) -> None:
    """Wait until the connection ends politely."""
    assert sock.recv(1) == b""


def asked(program: Program, what: Slow) -> socket.socket:
    """A client whose request has reached the backend."""
    client = program.dial()
    before = what.requests
    client.sendall(b"?")
    wait_for(lambda: what.requests > before, "the request at the backend")
    return client


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_and_without_a_word_of_complaint(number: int, echo_backend: Backend) -> None:
    with proxy(echo_backend, "--drain", 30) as program:
        assert program.stop(number) == 0
        for word in ("Traceback", "WARNING", "ERROR"):
            assert word not in program.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flag", ["--strict", "--check"])
def test_before_it_listens_it_ends_with_0_too_but_not_a_check(
    flag: str, number: int, tmp_path: Path
) -> None:
    module(
        tmp_path,
        "mine",
        """
        import pathlib
        import threading

        pathlib.Path("importing").touch()
        threading.Event().wait(20)
        """,
    )
    program = Program("--behavior", "20:mine.Mine", flag, cwd=tmp_path).spawn()
    try:
        wait_for((tmp_path / "importing").exists, "the import of a handler")
        assert program.stop(number) == (128 + number if flag == "--check" else 0)
        assert program.text == ""
        assert program.output == []
    finally:
        program.__exit__()


@pytest.fixture
def loading(echo_backend: Backend, tmp_path: Path) -> Program:
    """One that, when it is spawned, touches ``importing`` and loads as soon as ``go`` is written.

    gevent is the first of the slow imports.
    """
    module(
        tmp_path,
        "sitecustomize",
        """
        import os
        import pathlib
        import sys

        class Finder:
            def find_spec(self, name, *_):
                if name == "gevent":
                    pathlib.Path("importing").touch()
                    with open("go"):
                        pass

        if "vaurien" in sys.orig_argv:
            sys.meta_path.insert(0, Finder())
        """,
    )
    os.mkfifo(tmp_path / "go")
    return proxy(echo_backend, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.needs(f"signal.{n}")) for n in ("SIGHUP", "SIGUSR1")]
)
def test_what_ends_nothing_ends_nothing_before_it_listens_either(
    name: str, loading: Program, tmp_path: Path
) -> None:
    program = loading.spawn()
    try:
        wait_for((tmp_path / "importing").exists, "the import of gevent")
        program.send_signal(signal.Signals[name])
        with open(tmp_path / "go", "w"):
            wait_for(lambda: program.output, "it listens")
        if name == "SIGHUP":
            program.wait_log("reload: 0 created; 0 changed")
        assert program.stop() == 0
    finally:
        program.__exit__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_loads_it_ends_with_the_shell_s_code(
    number: int, loading: Program, tmp_path: Path
) -> None:
    # by a handler, without which the first process of a container does not get them
    program = loading.spawn()
    try:
        wait_for((tmp_path / "importing").exists, "the import of gevent")
        assert program.stop(number) == 128 + number
        assert program.text == ""
    finally:
        program.__exit__()


@pytest.mark.needs("signal.SIGHUP", "signal.SIGUSR1")
def test_what_its_starter_ignores_stays_ignored(loading: Program, tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        program = loading.spawn()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    try:
        wait_for((tmp_path / "importing").exists, "the import of gevent")
        for number in numbers:
            program.send_signal(number)
        with open(tmp_path / "go", "w"):
            address = wait_for(lambda: program.output, "it listens")[0].split()[3].rstrip(",")
        for number in (*numbers, signal.SIGUSR1):
            program.send_signal(number)
        program.wait_log("no handler is configured")
        with dial(address) as client:
            assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0
        assert "reload" not in program.text
    finally:
        program.__exit__()


def test_importing_the_command_line_takes_no_signal() -> None:
    source = """
        import signal
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        import vaurien.cli.main
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    """
    subprocess.run([sys.executable, "-c", dedent(source)], check=True)


def test_accepting_stops_while_others_are_served(slow: tuple[Backend, Slow]) -> None:
    backend, what = slow
    with proxy(backend, "--drain", 30) as program, asked(program, what) as client:
        stopping(program)
        with pytest.raises(ConnectionRefusedError):
            program.dial()
        what.go.set()
        assert receive(client, len(REPLY)) == REPLY
        assert program.wait() == 0


def test_the_place_is_free_for_the_next_while_others_are_served(
    slow: tuple[Backend, Slow], echo_backend: Backend
) -> None:
    backend, what = slow
    with proxy(backend, "--drain", 30) as program, asked(program, what) as client:
        stopping(program)
        with (
            proxy(echo_backend, "--local", program.address) as successor,
            successor.dial() as newcomer,
        ):
            assert exchange(newcomer, b"hello") == b"hello"
        what.go.set()
        assert receive(client, len(REPLY)) == REPLY


# What ends after 250 ms of quiet


@pytest.mark.parametrize("words", [[], [b"hello"], [b"hello", b"again"]])
def test_an_idle_connection_ends_soon(words: list[bytes], echo_backend: Backend) -> None:
    with proxy(echo_backend, "--drain", 30) as program, program.dial() as client:
        for word in words:
            assert exchange(client, word) == word
        wait_for(lambda: echo_backend.accepted, "the backend's connection")
        start = time.monotonic()
        program.send_signal(signal.SIGTERM)
        ended(client)
        assert program.wait() == 0
        assert time.monotonic() - start < 10


def test_an_idle_connection_of_a_handler_ends_soon(echo_backend: Backend) -> None:
    arguments = ("--drain", 30, "--behavior", "100:delay", "--handlers.delay.sleep", "0")
    with proxy(echo_backend, *arguments) as program, program.dial() as client:
        assert exchange(client, b"hello") == b"hello"
        start = time.monotonic()
        program.send_signal(signal.SIGTERM)
        ended(client)
        assert program.wait() == 0
        assert time.monotonic() - start < 10


def test_a_connection_that_goes_on_talking_is_answered(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--drain", 30) as program,
        program.dial() as client,
        program.dial() as idle,
    ):
        assert exchange(client, b"hello") == b"hello"
        program.send_signal(signal.SIGTERM)
        while not select.select([idle], [], [], 0)[0]:
            assert exchange(client, b"again") == b"again"
        ended(idle)
        assert exchange(client, b"and again") == b"and again"
        ended(client)
        assert program.wait() == 0


# What is under way


def test_a_request_in_flight_gets_its_whole_reply(slow: tuple[Backend, Slow]) -> None:
    backend, what = slow
    with (
        proxy(backend, "--drain", 30) as program,
        asked(program, what) as client,
        program.dial() as idle,
    ):
        program.send_signal(signal.SIGTERM)
        ended(idle)
        what.go.set()
        assert receive(client, len(REPLY)) == REPLY
        ended(client)
        assert program.wait() == 0


def test_a_half_closed_request_in_flight_gets_its_whole_reply(slow: tuple[Backend, Slow]) -> None:
    backend, what = slow
    with (
        proxy(backend, "--drain", 30) as program,
        asked(program, what) as client,
        program.dial() as idle,
    ):
        client.shutdown(socket.SHUT_WR)
        program.send_signal(signal.SIGTERM)
        ended(idle)
        what.go.set()
        assert receive_all(client) == REPLY
        assert program.wait() == 0


@pytest.mark.parametrize("before", ["yes", "no"])
def test_a_handler_that_runs_comes_to_its_end(before: str, echo_backend: Backend) -> None:
    arguments = (
        *("--drain", 30, "--behavior", "100:delay", "--handlers.delay.sleep", 1),
        *("--handlers.delay.before", before),
    )
    with (
        proxy(echo_backend, *arguments) as program,
        program.dial() as client,
        program.dial() as idle,
    ):
        client.sendall(b"hello")
        program.wait_log("connection 1, exchange 1: delay")
        program.send_signal(signal.SIGTERM)
        ended(idle)
        assert receive(client, 5) == b"hello"
        ended(client)
        assert program.wait() == 0


def flood(sock: socket.socket) -> None:
    """A backend's script: the reply is far more than the buffers of the system hold."""
    while sock.recv(65536):
        with contextlib.suppress(ConnectionError):
            sock.sendall(REPLY * 32)


def test_what_a_slow_reader_has_not_read_yet_still_comes() -> None:
    with (
        Backend(flood) as backend,
        proxy(backend, "--drain", 30) as program,
        program.dial() as client,
        program.dial() as idle,
    ):
        assert exchange(client, b"?", 1) == REPLY[:1]
        program.send_signal(signal.SIGTERM)
        ended(idle)
        assert receive(client, len(REPLY) * 32 - 1) == (REPLY * 32)[1:]
        ended(client)
        assert program.wait() == 0


# What does not come to an end


def test_an_unanswered_request_ends_after_the_drain(slow: tuple[Backend, Slow]) -> None:
    backend, what = slow
    with (
        proxy(backend, "--drain", 1.5) as program,
        asked(program, what) as client,
        program.dial() as idle,
    ):
        start = time.monotonic()
        program.send_signal(signal.SIGTERM)
        ended(idle)
        assert time.monotonic() - start < 1.4, "the idle one has waited for the drain"
        ended(client)
        took = time.monotonic() - start
        assert 1.4 <= took < 10
        assert program.wait() == 0
        assert "Traceback" not in program.text


def test_without_a_drain_all_end_at_once(slow: tuple[Backend, Slow]) -> None:
    backend, what = slow
    with proxy(backend, "--drain", 0) as program, asked(program, what) as client:
        start = time.monotonic()
        program.send_signal(signal.SIGTERM)
        ended(client)
        assert program.wait() == 0
        assert time.monotonic() - start < 4


def test_a_client_that_never_reads_does_not_hold_it_up() -> None:
    with (
        Backend(flood) as backend,
        proxy(backend, "--drain", 0.5) as program,
        program.dial() as client,
    ):
        assert exchange(client, b"?", 1) == REPLY[:1]
        start = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - start < 8


def test_a_handler_that_never_returns_does_not_hold_it_up(echo_backend: Backend) -> None:
    arguments = ("--drain", 0.5, "--behavior", "100:hang")
    with proxy(echo_backend, *arguments) as program, program.dial() as client:
        client.sendall(b"hello")
        program.wait_log("hang")
        start = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - start < 8
        assert "Traceback" not in program.text


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)],
)
def test_a_second_signal_ends_it_at_once(
    first: int, second: int, slow: tuple[Backend, Slow], tmp_path: Path
) -> None:
    backend, what = slow
    path = tmp_path / "x.sock"
    arguments = ("--drain", 50, "--local", f"unix:{path}")
    with proxy(backend, *arguments) as program, asked(program, what):
        program.send_signal(first)
        wait_for(lambda: not path.exists(), "no connection is accepted")
        assert program.process.poll() is None
        start = time.monotonic()
        program.send_signal(second)
        assert program.wait() == 0
        assert time.monotonic() - start < 4
        assert not path.exists()


# Under load


def blob(number: int) -> bytes:
    """The reply to request `number`: 40,000 bytes that no other reply has."""
    return number.to_bytes(8, "big") * 5000


def answer(sock: socket.socket) -> None:
    """A backend's script: each request is 8 bytes, the reply its `blob`."""
    while len(request := receive(sock, 8)) == 8:
        sock.sendall(blob(int.from_bytes(request, "big")))


class Client(threading.Thread):
    """Asks and checks each reply, over one connection, until told to stop; then waits for EOF."""

    def __init__(self, address: str, number: int) -> None:
        super().__init__(daemon=True)
        self.address, self.number = address, number
        self.enough = threading.Event()
        self.replies = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.converse()
        except BaseException as error:
            self.error = error

    def ask(self, sock: socket.socket) -> None:
        number = self.number * 1_000_000 + self.replies
        reply = exchange(sock, number.to_bytes(8, "big"), 40_000)
        assert reply == blob(number), f"{len(reply)} bytes of reply {number}"
        self.replies += 1

    def converse(self) -> None:
        with dial(self.address) as sock:
            while not self.enough.is_set():
                self.ask(sock)
            ended(sock)


class Newcomer(Client):
    """Asks each time over a connection of its own, until none is accepted."""

    def converse(self) -> None:
        while not self.enough.is_set():
            try:
                sock = dial(self.address)
            except (ConnectionRefusedError, ConnectionResetError):
                return
            start = time.monotonic()
            number = self.number * 1_000_000 + self.replies
            with sock:
                try:
                    head = exchange(sock, number.to_bytes(8, "big"), 1)
                except ConnectionError:
                    return  # nobody had accepted it when the listener went
                if not head:
                    assert time.monotonic() - start > 0.2, "ended before 250 ms of quiet"
                    return
                reply = head + receive(sock, 39_999)
                assert reply == blob(number), f"{len(reply)} bytes of reply {number}"
                self.replies += 1


@pytest.mark.parametrize("behavior", ["100:dummy", "40:delay"])
@pytest.mark.parametrize("kind", [Client, Newcomer])
def test_under_load_no_reply_is_cut(behavior: str, kind: type[Client]) -> None:
    arguments = (
        *("--drain", 40, "--behavior", behavior, "--handlers.delay.sleep", 0.01),
        *("--log-level", "error"),
    )
    with Backend(answer) as backend, proxy(backend, *arguments) as program:
        load = [kind(program.address, number) for number in range(30)]
        for client in load:
            client.start()
        wait_for(lambda: min(client.replies for client in load) > 2 or failed(load), "replies")
        stopping(program)
        if kind is Client:
            so_far = {client: client.replies for client in load}
            wait_for(
                lambda: all(client.replies > so_far[client] + 2 for client in load) or failed(load),
                "replies while draining",
            )
        for client in load:
            client.enough.set()
        for client in load:
            client.join(30)
            assert not client.is_alive()
        assert failed(load) == []
        assert program.wait() == 0
        # Nothing was logged; with a handler, there is the table of what happened.
        assert not [line for line in program.log if re.match(r"\d{4}-", line)], program.text
        assert backend.errors == []


def failed(load: list[Client]) -> list[BaseException]:
    return [client.error for client in load if client.error is not None]
