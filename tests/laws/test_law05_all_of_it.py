"""Law 5: what dummy and every lossless handler passes is what came in: all of it, in order, once.

Hypothesis makes up who sends how much when, and who ends first; it goes over real sockets through
one running Vaurien for each way of passing.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.laws.helpers import Acceptor, threads, write_module
from tests.support import CONTRACT, PATIENCE, Backend, Program, proxy, receive, reset, wait_for

HANDLERS = (
    CONTRACT
    + '''
class TakeOver(BaseHandler):
    """Does the rest of the connection in the client's first call, with two greenlets."""

    name = "takeover"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        if not to_backend:  # bytes came before the other call could claim them
            client_sock.sendall(self._get_data(client_sock, backend_sock, to_backend))
            return
        both = [
            gevent.spawn(self.relay, client_sock, backend_sock),
            gevent.spawn(self.relay, backend_sock, client_sock),
        ]
        gevent.joinall(both, raise_error=True)

    def relay(self, source, sink):
        while data := source.recv(10_000):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class Asks(BaseHandler):
    """Sends the request on and passes on, in the same call, what is answered within a moment."""

    name = "asks"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        (backend_sock if to_backend else client_sock).sendall(data)
        if to_backend and data:
            backend_sock.settimeout(0.001)
            try:
                while answer := backend_sock.recv(1000):
                    client_sock.sendall(answer)
            except socket.timeout:
                pass
            finally:
                backend_sock.settimeout(None)


class Nibbles(BaseHandler):
    """Reads less than there is, and every third time nothing."""

    name = "nibbles"
    options = {}

    def __init__(self, settings, proxy):
        self.calls = 0

    def __call__(self, client_sock, backend_sock, to_backend):
        self.calls += 1
        if self.calls % 3:
            source, sink = client_sock, backend_sock
            if not to_backend:
                source, sink = sink, source
            sink.sendall(source.recv(9999))


class Files(BaseHandler):
    """Reads and writes files made of the sockets."""

    name = "files"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        with source.makefile("rb", 0) as read, sink.makefile("wb", 0) as write:
            left = memoryview(read.read(5000) or b"")
            while left:
                left = left[write.write(left) :]
'''
)

WAYS = {
    "pump": "100:dummy",
    "delay before": "100:delay",
    "delay after": "100:delay --handlers.delay.before no",
    "some delayed": "50:delay",
    "contract before": "100:own.Delay",
    "contract after": "100:own.Delay --handlers.delay.before no",
    "take over": "100:own.TakeOver",
    "asks": "100:own.Asks",
    "nibbles": "100:own.Nibbles",
    "files": "100:own.Files",
    "all mixed": "15:delay,15:own.Asks,15:own.Nibbles,15:own.Files",
}


class Passage(NamedTuple):
    """One Vaurien, its backend, and threads to read in."""

    vaurien: Program
    backend: Acceptor
    pool: ThreadPoolExecutor


@pytest.fixture(scope="module", params=WAYS)
def passage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Passage]:
    """A Vaurien that passes all in one of the ways."""
    directory = tmp_path_factory.mktemp("law5")
    write_module(directory, HANDLERS)
    behavior, *arguments = WAYS[request.param].split()
    if "elay" in behavior:
        arguments += ["--handlers.delay.sleep", "0"]
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", behavior, "--seed", 5, *arguments, cwd=directory) as vaurien,
        threads() as pool,
    ):
        before = vaurien.descriptors()
        yield Passage(vaurien, backend, pool)
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text, vaurien.text


class Send(NamedTuple):
    """One side sends so many bytes."""

    by_client: bool
    n: int


class Sync(NamedTuple):
    """All that was sent arrives before anything else is done."""


class End(NamedTuple):
    """One side says that it sends no more."""

    by_client: bool


sizes = st.one_of(
    st.integers(1, 20),
    st.integers(1, 3000),
    st.sampled_from([65_535, 65_536, 65_537, 131_072, 300_000]),
)
steps = st.lists(
    st.one_of(
        st.builds(Send, st.booleans(), sizes),
        st.builds(Send, st.booleans(), sizes),
        st.builds(Sync),
        st.builds(End, st.booleans()),
    ),
    max_size=15,
)


class Side:
    """A socket that is read in a thread until EOF, with what it has sent."""

    def __init__(
        self, sock: socket.socket, piece: int, salt: int, pool: ThreadPoolExecutor
    ) -> None:
        self.sock, self.piece, self.salt = sock, piece, salt
        self.sent, self.got, self.ended = bytearray(), bytearray(), False
        self.reading: Future[None] = pool.submit(self._read)

    def _read(self) -> None:
        while data := self.sock.recv(self.piece):
            self.got += data

    def send(self, n: int) -> None:
        if not self.ended:
            start = len(self.sent) + self.salt
            data = bytes((start + i) * 7 // 3 & 255 for i in range(min(n, 4096)))
            data = (data * (n // len(data) + 1))[:n]
            self.sent += data
            self.sock.sendall(data)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.sock.shutdown(socket.SHUT_WR)


@pytest.mark.timeout(120)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    todo=steps,
    client_piece=st.sampled_from([997, 65_536, 1 << 20]),
    server_piece=st.sampled_from([997, 65_536, 1 << 20]),
    client_ends_first=st.booleans(),
)
@example([Send(True, 300_000), End(True), Send(False, 300_000)], 997, 997, True)
@example([Send(True, 1), Sync(), Send(False, 300_000), End(False)], 997, 997, True)
@example([End(False), Send(True, 300_000)], 1 << 20, 1 << 20, False)
def test_all_that_came_in_comes_out_in_order_and_once(
    passage: Passage,
    todo: list[Any],
    client_piece: int,
    server_piece: int,
    client_ends_first: bool,
) -> None:
    vaurien, backend, pool = passage
    with vaurien.dial() as client_sock, backend.accept() as server_sock:
        for sock in (client_sock, server_sock):
            sock.settimeout(5)
        client = Side(client_sock, client_piece, 1, pool)
        server = Side(server_sock, server_piece, 2, pool)
        for step in todo:
            if isinstance(step, Sync):
                for side, other in ((client, server), (server, client)):
                    wait_for(lambda a=side, b=other: len(a.sent) <= len(b.got))  # type: ignore[misc]
                continue
            side = client if step.by_client else server
            side.send(step.n) if isinstance(step, Send) else side.end()
        for side in (client, server) if client_ends_first else (server, client):
            side.end()
        for side in (client, server):
            side.reading.result(PATIENCE)
        assert server.got == client.sent
        assert client.got == server.sent


@pytest.mark.parametrize("before", ["yes", "no"])
def test_a_response_outlives_a_backend_that_has_gone(before: str) -> None:
    # The backend answers and closes; the client goes on sending, which nobody takes any more. The
    # answer is the client's all the same: it had come before the client sent on.
    with (
        Acceptor() as backend,
        proxy(
            backend,
            "--behavior",
            "100:delay",
            "--handlers.delay.sleep",
            1.5 if before == "no" else 0,
            "--handlers.delay.before",
            before,
        ) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"request")
        with backend.accept() as server:
            assert receive(server, 7) == b"request"
            server.sendall(b"answer")
        if before == "yes":
            assert receive(client, 6) == b"answer"
            return

        def push() -> bool:
            client.sendall(b"more")
            return next(pushes) == 50

        pushes = iter(range(51))
        with contextlib.suppress(ConnectionError):
            wait_for(push)
        assert receive(client, 6) == b"answer"


def test_a_crowd_that_comes_and_goes_leaves_every_echo_right(
    tmp_path: Path, echo_backend: Backend
) -> None:
    # Some clients reset, some leave in the middle, most stay; all kinds of handlers at once. An
    # answer that comes is the right one, and after it all nothing is left, and nothing was logged.
    write_module(tmp_path, HANDLERS)
    behavior = (
        "12:delay,8:own.TakeOver,12:own.Asks,12:own.Nibbles,12:own.Files,6:reset,6:blackout,6:abort"
    )

    def visit(salt: int) -> int:
        dice = random.Random(salt)
        whole = 0
        sock = vaurien.dial()
        with sock, contextlib.suppress(ConnectionError):
            for number in range(20):
                word = b"%d %d " % (salt, number) * dice.choice([1, 50, 20_000])
                half = len(word) // 2
                sock.sendall(word[:half])
                whim = dice.random()
                if whim < 0.02:
                    reset(sock)
                    return whole
                if whim < 0.04:
                    return whole
                sock.sendall(word[half:])
                got = receive(sock, len(word))
                assert word.startswith(got)
                if got != word:
                    return whole
                whole += 1
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        return whole

    with (
        proxy(
            echo_backend,
            "--behavior",
            behavior,
            "--seed",
            1,
            "--handlers.delay.sleep",
            0.001,
            cwd=tmp_path,
        ) as vaurien,
        threads() as pool,
    ):
        before = vaurien.descriptors()
        visits = [pool.submit(visit, salt) for salt in range(300)]
        assert sum(future.result(2 * PATIENCE) for future in visits) > 300
        wait_for(lambda: vaurien.descriptors() <= before, "all descriptors are given back")
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text, vaurien.text
        assert echo_backend.errors == [] or all(
            isinstance(error, ConnectionError) for error in echo_backend.errors
        )
