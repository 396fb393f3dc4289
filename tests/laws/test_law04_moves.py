"""Law 4, at an end: what moves is let through, what stands is not."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import socket
import struct
import termios
import threading
from pathlib import Path

import pytest

from tests.cli.test_journal import read, wait_lines
from tests.laws.helpers import Acceptor, Names, own, said, wait_said, write_module
from tests.support import (
    PATIENCE,
    Backend,
    exchange,
    proxy,
    receive,
    receive_all,
    reset,
    wait_for,
)

EARLY = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nX: " + b"x" * 13 + b"\r\n"


def unsent(sock: socket.socket) -> int:
    """How many bytes its peer's system has not acknowledged yet."""
    size = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", size)[0])


def upload_until_broken(client: socket.socket) -> threading.Thread:
    """Send, in a thread, until the other end has gone."""

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                client.sendall(b"u" * 10_000)
                threading.Event().wait(0.02)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def refuse_early(server: socket.socket, answer: bytes) -> None:
    """Answer an upload before it is over, and be gone with some of it unread: a RST."""
    receive(server, 10)
    server.sendall(answer)
    wait_for(lambda: not unsent(server))
    reset(server)


# One side was reset


def test_an_early_answer_behind_seconds_of_latency_arrives_during_an_upload() -> None:
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", "100:latency", "--handlers.latency.latency", 2500) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        uploading = upload_until_broken(client)
        refuse_early(server, EARLY)
        assert receive(client, len(EARLY)) == EARLY
        client.close()
        uploading.join(PATIENCE)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_an_answer_through_a_thin_line_arrives_though_its_sender_was_reset(
    tmp_path: Path, unix: bool
) -> None:
    answer = bytes(range(250)) * 800
    with (
        Acceptor() as backend,
        proxy(
            backend,
            *("--behavior", "100:bandwidth", "--handlers.bandwidth.rate", 60),
            *(("--local", f"unix:{tmp_path}/socket") if unix else ()),
        ) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        uploading = upload_until_broken(client)
        refuse_early(server, answer)
        assert receive(client, len(answer)) == answer
        client.close()
        uploading.join(PATIENCE)


def test_what_nobody_takes_is_given_up_and_all_is_given_back() -> None:
    with Acceptor() as backend, proxy(backend) as vaurien:
        before = vaurien.descriptors()
        with vaurien.dial() as client, backend.accept() as server:
            client.sendall(b"u" * 20)
            receive(server, 10)
            server.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                server.sendall(b"x" * 100_000_000)
            reset(server)
            uploading = upload_until_broken(client)
            wait_for(lambda: vaurien.descriptors() == before)
            uploading.join(PATIENCE)


# A polite end


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("end", ["limit_data", "cut"])
def test_a_slow_reader_gets_all_that_a_polite_end_still_holds(
    tmp_path: Path, unix: bool, end: str
) -> None:
    size, steps = 12_000_000, 24
    with (
        Acceptor() as backend,
        proxy(
            backend,
            *("--behavior", f"100:{end}", f"--handlers.{end}.bytes", size),
            *("--max-held", 2 * size),
            *(("--local", f"unix:{tmp_path}/socket") if unix else ()),
        ) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"?")
        receive(server, 1)
        sending = threading.Thread(target=_send, args=(server, size), daemon=True)
        sending.start()
        assert server.recv(1) == b""  # the end has come
        got = 0
        for _ in range(steps):
            got += len(receive(client, size // steps))
            threading.Event().wait(0.15)
        assert got == size
        assert client.recv(1) == b""


def _send(sock: socket.socket, size: int) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(b"x" * size)


# A drain


def test_a_request_that_waits_for_a_dial_is_served_while_draining(
    tmp_path: Path, echo_backend: Backend
) -> None:
    names = Names(tmp_path)
    with contextlib.ExitStack() as stack:
        with names.hanging("backend.test", "127.0.0.1") as somebody:
            distant = f"backend.test:{echo_backend.port}"
            vaurien = stack.enter_context(proxy(distant, "--drain", 15, env=names.env))
            client = stack.enter_context(vaurien.dial())
            client.sendall(b"hello")
            somebody()
            vaurien.send_signal(signal.SIGTERM)
            vaurien.wait_log("(?i)drain|stopping|ending|SIGTERM")
            threading.Event().wait(1.0)  # longer than one with nothing under way may stay
        assert receive(client, 5) == b"hello"


def test_a_request_that_is_let_wait_before_its_dial_is_served_while_draining(
    echo_backend: Backend,
) -> None:
    late = ("--on-connect", "100:slow_accept", "--handlers.slow_accept.delay", 2000)
    with proxy(echo_backend, "--drain", 15, *late) as vaurien, vaurien.dial() as client:
        client.sendall(b"hello")
        vaurien.send_signal(signal.SIGTERM)
        assert receive(client, 5) == b"hello"


# Who waits in the backlog


@pytest.mark.parametrize("how", ["stop", "down"])
def test_all_who_wait_in_the_backlog_are_served(echo_backend: Backend, how: str) -> None:
    crowd = 900
    down = ("--on-connect", "100:down", "--handlers.down.since", 1.5)
    arguments = ("--drain", 15, "--backlog", 1000, *(down if how == "down" else ()))
    with proxy(echo_backend, *arguments) as vaurien, contextlib.ExitStack() as stack:
        vaurien.send_signal(signal.SIGSTOP)
        waiting = []
        for _ in range(crowd):
            client = stack.enter_context(vaurien.dial())
            client.sendall(b"x")
            waiting.append(client)
        if how == "stop":
            vaurien.send_signal(signal.SIGTERM)
        else:
            threading.Event().wait(2.0)
        vaurien.send_signal(signal.SIGCONT)
        answers = 0
        for client in waiting:
            with contextlib.suppress(ConnectionError):
                answers += client.recv(1) == b"x"
        assert answers == crowd


# What handlers do with small pieces and small buffers


def test_pieces_that_a_handler_makes_keep_a_connection_from_being_idle(tmp_path: Path) -> None:
    write_module(
        tmp_path,
        """
class Drips(BaseHandler):
    name = "drips"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        if to_backend and self._get_data(client_sock, backend_sock, to_backend):
            for _ in range(15):
                client_sock.sendall(b"x")
                gevent.sleep(0.2)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Drips", "--timeout", 1) as vaurien,
        vaurien.dial() as client,
        backend.accept(),
    ):
        client.sendall(b"?")
        assert receive(client, 15) == b"x" * 15


def test_a_buffer_that_is_too_small_for_what_is_asked_costs_nothing(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(
        tmp_path,
        """
class Asks(BaseHandler):
    name = "asks"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        try:
            source.recv_into(bytearray(4), 100)
            say("read")
        except ValueError as error:
            say("refused", error)
        sink.sendall(source.recv(100))
        """,
    )
    with own(echo_backend, tmp_path, "Asks") as vaurien, vaurien.dial() as client:
        assert exchange(client, b"whole request") == b"whole request"
        assert "buffer too small" in wait_said(vaurien, "refused")[0]
        assert said(vaurien, "read") == []


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_flow_handler_that_wants_nothing_at_a_time_is_told_of(
    tmp_path: Path, echo_backend: Backend, chunk: int
) -> None:
    (tmp_path / "wants.py").write_text(
        f"""
from vaurien.handlers import FlowHandler


class Nothing(FlowHandler):
    name = "nothing"
    options = {{}}
    chunk = {chunk}

    def on(self, event, now):
        yield 0, event
"""
    )
    arguments = ("--behavior", "100:wants.Nothing")
    with proxy(echo_backend, *arguments, cwd=tmp_path) as vaurien, vaurien.dial() as client:
        client.sendall(b"hello")
        with contextlib.suppress(ConnectionError):
            assert receive_all(client) == b""
        vaurien.wait_log("(?s)handler 'nothing' raised.*chunk")


# A handler that spans exchanges


def test_a_call_that_spans_exchanges_is_journalled_once_and_its_replay_misses_nothing(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(
        tmp_path,
        """
class Spans(BaseHandler):
    name = "spans"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        while True:
            data = client_sock.recv(100)
            if not data:
                return
            backend_sock.sendall(data)
            client_sock.sendall(backend_sock.recv(100))
        """,
    )
    journal = tmp_path / "journal.jsonl"
    with own(echo_backend, tmp_path, "Spans", "--journal", journal) as vaurien:
        with vaurien.dial() as client:
            for n in range(3):
                assert exchange(client, b"%d" % n) == b"%d" % n
        wait_lines(journal, 1)
        vaurien.stop()
    picked = [(line["connection"], line["exchange"]) for line in read(journal)]
    assert picked[0] == (1, 1)
    with own(echo_backend, tmp_path, "Spans", "--replay", journal) as vaurien:
        with vaurien.dial() as client:
            for n in range(3):
                assert exchange(client, b"%d" % n) == b"%d" % n
        vaurien.stop()
        assert "did not" not in vaurien.text
