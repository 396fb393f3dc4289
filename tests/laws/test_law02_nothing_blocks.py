"""Law 2: nothing holds up the loop: no log that nobody reads, no dial, no name."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import struct
import termios
import time
from pathlib import Path

import pytest

from tests.laws.helpers import Acceptor, Names, full_listener, threads, write_module
from tests.support import PATIENCE, Backend, Pipe, Program, exchange, proxy, receive_all, wait_for
from vaurien.observe.log import QueueWriter

RAISING = """
class Fragile(BaseHandler):
    name = "fragile"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data.startswith(b"raise"):
            raise ValueError("fragile")
        (backend_sock if to_backend else client_sock).sendall(data)
"""


def waiting_in(pipe: Pipe) -> int:
    """How many bytes a pipe holds."""
    (n,) = struct.unpack("i", fcntl.ioctl(pipe.reader, termios.FIONREAD, b"\0" * 4))
    return int(n)


def raise_in(vaurien: Program, n: int) -> None:
    """Have the handler raise `n` times, on a connection each."""
    for _ in range(n):
        with vaurien.dial() as client:
            client.sendall(b"raise")
            assert receive_all(client) == b""


def test_proxying_goes_on_while_nobody_reads_the_log(tmp_path: Path, echo_backend: Backend) -> None:
    write_module(tmp_path, RAISING)
    with (
        Pipe() as pipe,
        proxy(
            echo_backend, "--behavior", "100:own.Fragile", cwd=tmp_path, stderr=pipe.writer
        ) as vaurien,
        vaurien.dial() as client,
    ):
        pipe.writer.close()
        assert exchange(client, b"before") == b"before"
        raise_in(vaurien, 100)  # some 500 bytes of traceback each
        wait_for(lambda: waiting_in(pipe), "the log was to be stuck")  # it takes 4096 at most
        assert exchange(client, b"while it is stuck") == b"while it is stuck"
        with vaurien.dial() as other:
            assert exchange(other, b"another") == b"another"
        assert vaurien.stop() == 0


def test_what_was_logged_meanwhile_comes_when_somebody_reads(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, RAISING)
    with (
        Pipe() as pipe,
        proxy(
            echo_backend, "--behavior", "100:own.Fragile", cwd=tmp_path, stderr=pipe.writer
        ) as vaurien,
        threads() as pool,
    ):
        pipe.writer.close()
        raise_in(vaurien, 100)
        with os.fdopen(os.dup(pipe.reader.fileno()), "rb") as log:
            text = pool.submit(log.read)
            assert vaurien.stop() == 0
            assert text.result(PATIENCE).count(b"ValueError: fragile") == 100


def test_lines_that_the_queue_cannot_take_are_counted() -> None:
    with Pipe() as pipe:
        writer = QueueWriter(pipe.writer.fileno(), limit=50)
        for number in range(1000):
            writer.emit(logging.makeLogRecord({"msg": f"{'x' * 200} {number}"}))
        dropped = writer.dropped
        assert 1000 - 50 - 4096 // 200 - 1 <= dropped <= 1000 - 50
        text, told = b"", [0]
        lines: list[bytes] = []
        while sum(told) < dropped or len(lines) < 1000 - dropped:  # it may be told in several
            text += pipe.reader.read(4096)
            told = [int(number) for number in re.findall(rb"(\d+) lines? of the log.*\n", text)]
            lines = re.findall(rb"x{200} \d+\n", text)
        assert (sum(told), len(lines)) == (dropped, 1000 - dropped)
        writer.stop()


def talk(client: socket.socket, server: socket.socket) -> None:
    """A hundred exchanges."""
    for number in range(100):
        word = b"%d" % number
        client.sendall(word)
        assert server.recv(100) == word
        server.sendall(word)
        assert client.recv(100) == word


@pytest.mark.parametrize("close_reader", [True, False])
def test_a_log_whose_reader_has_gone_holds_up_nobody(
    tmp_path: Path, echo_backend: Backend, close_reader: bool
) -> None:
    # Closed by the reader, or never open for us: both end in an error of write.
    write_module(tmp_path, RAISING)
    with Pipe() as pipe:
        stderr = pipe.writer if close_reader else open(os.devnull, "rb")
        with proxy(
            echo_backend, "--behavior", "100:own.Fragile", cwd=tmp_path, stderr=stderr
        ) as vaurien:
            stderr.close()
            pipe.reader.close()
            raise_in(vaurien, 10)
            with vaurien.dial() as client:
                assert exchange(client, b"hello") == b"hello"


def test_hanging_dials_hang_side_by_side() -> None:
    # One after the other they would take n times the connect timeout.
    n, limit = 10, 1.5
    with (
        full_listener() as (host, port),
        proxy(f"{host}:{port}", "--connect-timeout", limit) as vaurien,
        contextlib.ExitStack() as stack,
    ):
        begun = time.monotonic()
        for client in [stack.enter_context(vaurien.dial()) for _ in range(n)]:
            assert receive_all(client) == b""
        assert time.monotonic() - begun < n * limit * 0.6


def test_a_hanging_dial_holds_up_no_open_connection(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.1")
    with (
        Acceptor() as backend,
        full_listener("127.0.0.2", backend.port),
        proxy(f"backend.test:{backend.port}", env=names.env) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"open")
        assert server.recv(100) == b"open"
        backend.stop_listening()
        names.set("backend.test", "127.0.0.2")
        with vaurien.dial() as hanging:
            hanging.sendall(b"lost")
            talk(client, server)


def test_a_name_that_hangs_holds_up_no_open_connection(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.set("backend.test", "127.0.0.1")
    with (
        Acceptor() as backend,
        proxy(f"backend.test:{backend.port}", env=names.env) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"open")
        assert server.recv(100) == b"open"
        backend.stop_listening()
        with contextlib.ExitStack() as stack:
            with names.hanging("backend.test") as wait_reached:
                waiting = stack.enter_context(vaurien.dial())
                wait_reached()
                talk(client, server)
                another = stack.enter_context(vaurien.dial())  # accepted, and waits as well
                another.sendall(b"?")
                talk(client, server)
            assert receive_all(waiting) == b""
        vaurien.wait_log("Temporary failure in name resolution")


def test_a_name_that_hangs_holds_up_no_start(tmp_path: Path) -> None:
    names = Names(tmp_path)
    with (
        names.hanging("backend.test") as wait_reached,
        proxy("backend.test:80", "--connect-timeout", 1, env=names.env) as vaurien,
        vaurien.dial() as client,
    ):
        wait_reached()
        assert receive_all(client) == b""  # after the connect timeout
        vaurien.wait_log(r"connection 1: .*backend\.test:80")


def test_many_who_wait_for_one_name_are_all_told(tmp_path: Path) -> None:
    names = Names(tmp_path)
    with (
        proxy("backend.test:80", env=names.env) as vaurien,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(vaurien.dial()) for _ in range(100)]
        for client in clients:
            assert receive_all(client) == b""
        wait_for(lambda: vaurien.text.count("Name or service not known") >= 100)
