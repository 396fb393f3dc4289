"""What goes wrong on a bad day: clients that misbehave, handlers that do, far too many at once."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

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
    reset,
    wait_for,
)

REPLY = bytes(range(256)) * 40_000  # 10 MB, more than the buffers of the system hold
BEHAVIORS = ["100:dummy", "100:delay"]


def lossless(backend: Backend, behavior: str) -> Program:
    return proxy(backend, "--behavior", behavior, "--handlers.delay.sleep", 0)


def settled(program: Program, before: int) -> None:
    """Wait until nothing is left open of what was opened since `before`; it works and is calm."""
    wait_for(lambda: program.descriptors() == before, "all descriptors closed")
    for word in ("Traceback", "ERROR"):
        assert word not in program.text, program.text


# Clients


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_client_that_sends_nothing_leaves_nothing(behavior: str, echo_backend: Backend) -> None:
    with lossless(echo_backend, behavior) as program:
        before = program.descriptors()
        for _ in range(20):
            program.dial().close()
        with program.dial() as client:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        settled(program, before)
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_a_client_that_says_nothing_for_a_while_is_served_then(echo_backend: Backend) -> None:
    with proxy(echo_backend) as program, program.dial() as silent:
        for _ in range(5):
            with program.dial() as client:
                assert exchange(client, b"hello") == b"hello"
        assert exchange(silent, b"at last") == b"at last"


def test_a_backend_that_speaks_first_is_heard() -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 welcome\r\n")
        while data := sock.recv(1000):
            sock.sendall(data)

    with (
        Backend(greet) as backend,
        lossless(backend, "100:delay") as program,
        program.dial() as client,
    ):
        assert receive(client, 13) == b"220 welcome\r\n"
        assert exchange(client, b"HELO") == b"HELO"


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_client_that_resets_at_once_harms_nobody(behavior: str, echo_backend: Backend) -> None:
    with lossless(echo_backend, behavior) as program, program.dial() as other:
        assert exchange(other, b"hello") == b"hello"
        before = program.descriptors()
        for _ in range(20):
            reset(program.dial())
        settled(program, before)
        assert exchange(other, b"again") == b"again"


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_client_that_resets_amid_its_request_harms_nobody(behavior: str) -> None:
    ends: list[object] = []

    def read(sock: socket.socket) -> None:
        try:
            receive_all(sock)
            ends.append("EOF")
        except ConnectionResetError:
            ends.append("RST")

    with Backend(read) as backend, lossless(backend, behavior) as program:
        before = program.descriptors()
        for _ in range(5):
            client = program.dial()
            client.sendall(REPLY)
            reset(client)
        wait_for(lambda: len(ends) == 5, "the backend sees each end")
        settled(program, before)
        assert backend.errors == []


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_client_that_resets_amid_the_reply_harms_nobody(behavior: str) -> None:
    ends = []

    def answer(sock: socket.socket) -> None:
        while sock.recv(65536):
            try:
                sock.sendall(REPLY)
            except ConnectionError:
                ends.append(1)
                return

    with (
        Backend(answer) as backend,
        lossless(backend, behavior) as program,
        program.dial() as other,
    ):
        assert exchange(other, b"?", len(REPLY)) == REPLY
        before = program.descriptors()
        for _ in range(5):
            client = program.dial()
            assert exchange(client, b"?", 1000) == REPLY[:1000]
            reset(client)
        wait_for(lambda: len(ends) == 5, "the backend sees each end")
        settled(program, before)
        assert exchange(other, b"?", len(REPLY)) == REPLY


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_client_that_resets_before_the_reply_harms_nobody(behavior: str) -> None:
    go = threading.Event()
    requests = []

    def answer(sock: socket.socket) -> None:
        requests.append(sock.recv(1000))
        go.wait(20)
        with contextlib.suppress(ConnectionError):
            sock.sendall(REPLY)
            sock.sendall(REPLY)

    with Backend(answer) as backend, lossless(backend, behavior) as program:
        before = program.descriptors()
        client = program.dial()
        client.sendall(b"?")
        wait_for(lambda: requests, "the request")
        reset(client)
        go.set()
        settled(program, before)


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_backend_that_closes_at_once_closes_the_client(behavior: str) -> None:
    with Backend(lambda _: None) as backend, lossless(backend, behavior) as program:
        before = program.descriptors()
        for _ in range(5):
            with program.dial() as client:
                assert client.recv(1) == b""
        settled(program, before)


# Handlers

ODD = """
class Odd:
    name = "odd"
    options = {}
    answers = [
        None, True, 1, 0.0, "", "False", b"", (), [False], {}, object(), NotImplemented, Ellipsis,
        ValueError("returned, not raised"), type, lambda: False, float("nan"),
    ]

    def __init__(self, settings, proxy):
        self.calls = 0

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        data = source.recv(65536)
        if data == b"end":
            return False
        if data:
            sink.sendall(data)
        self.calls += 1
        return self.answers[self.calls % len(self.answers)]
"""


def test_whatever_a_handler_returns_the_connection_goes_on_but_for_false(
    tmp_path: Path, echo_backend: Backend
) -> None:
    module(tmp_path, "mine", ODD)
    with proxy(echo_backend, "--behavior", "100:mine.Odd", cwd=tmp_path) as program:
        with program.dial() as client:
            for number in range(40):
                request = b"word %d" % number
                assert exchange(client, request) == request
            client.sendall(b"end")
            assert client.recv(1) == b""
        for word in ("Traceback", "ERROR", "WARNING"):
            assert word not in program.text


PRINTS = """
import sys

class Loud:
    name = "loud"
    options = {}

    def __init__(self, settings, proxy):
        pass

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        data = source.recv(65536)
        if data == b"exit":
            sys.exit("a handler asks for the end")
        if data == b"interrupt":
            raise KeyboardInterrupt
        if data:
            sink.sendall(data)
"""


@pytest.mark.parametrize("word", [b"exit", b"interrupt"])
def test_a_handler_that_exits_ends_its_connection_only(
    word: bytes, tmp_path: Path, echo_backend: Backend
) -> None:
    module(tmp_path, "mine", PRINTS)
    with (
        proxy(echo_backend, "--behavior", "100:mine.Loud", cwd=tmp_path) as program,
        program.dial() as other,
        program.dial() as client,
    ):
        assert exchange(other, b"hello") == b"hello"
        client.sendall(word)
        assert client.recv(1) == b""
        assert exchange(other, b"again") == b"again"
        program.wait_log(r"connection 2, exchange 1: .*'loud'")
        assert program.text.count("Traceback") == 1
        assert program.stop() == 0


# Far too many at once

MANY = 5000


class ManyEchoes:
    """A backend for thousands of connections: sends back what it gets, in one thread."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.socks: dict[int, socket.socket] = {}
        self.most = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with select.epoll() as poll, self.listener:
            poll.register(self.listener, select.EPOLLIN)
            while not self._stopped.is_set():
                for descriptor, _ in poll.poll(0.1):
                    if descriptor == self.listener.fileno():
                        with contextlib.suppress(BlockingIOError):
                            while True:
                                sock, _ = self.listener.accept()
                                self.socks[sock.fileno()] = sock
                                poll.register(sock, select.EPOLLIN)
                        self.most = max(self.most, len(self.socks))
                    elif data := self.socks[descriptor].recv(1000):
                        self.socks[descriptor].sendall(data)
                    else:
                        self.socks.pop(descriptor).close()
            for sock in self.socks.values():
                sock.close()

    def __enter__(self) -> ManyEchoes:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join(20)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the clients and the backend need; the limit is put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MANY + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the system allows {hard} open files; {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_five_thousand_connections_at_once_are_all_served() -> None:
    arguments = ("--behavior", "10:delay", "--handlers.delay.sleep", 0.01, "--seed", 1)
    with (
        ManyEchoes() as backend,
        proxy(backend.address, *arguments, "--log-level", "warning") as program,
        contextlib.ExitStack() as stack,
    ):
        before = program.descriptors()
        socks = [stack.enter_context(dial(program.address, 40)) for _ in range(MANY)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%08d" % number)
        answers = [receive(sock, 8) for sock in socks]
        assert answers == [b"%08d" % number for number in range(MANY)]
        assert backend.most == MANY
        stack.close()
        wait_for(lambda: program.descriptors() == before, "all descriptors closed")
        assert program.text == ""
