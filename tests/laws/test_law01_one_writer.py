"""Law 1: at most one reader and one writer per socket; two writers' bytes never interleave.

The writers send blocks larger than any socket buffer, each of one letter and ended by a newline.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.laws.helpers import (
    MB,
    Acceptor,
    Flood,
    own,
    said,
    seed_for,
    threads,
    wait_said,
    write_module,
)
from tests.support import PATIENCE, proxy, receive, receive_all

BLOCK, BLOCKS = 3 * MB, 3

WRITERS = f"""
def blocks(sock, letter):
    for _ in range({BLOCKS}):
        sock.sendall(letter * {BLOCK} + b"\\n")


class BothWays(BaseHandler):
    name = "bothways"
    options = {{}}

    def __init__(self, settings, proxy):
        self.begun = Event()

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data and to_backend:
            backend_sock.sendall(data)
            self.begun.wait()
            say("up")
            blocks(client_sock, b"u")
        elif data:
            self.begun.set()
            say("down")
            blocks(client_sock, b"d")


class Greenlets(BaseHandler):
    name = "greenlets"
    options = {{}}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data:
            both = [gevent.spawn(blocks, client_sock, letter) for letter in (b"u", b"d")]
            say("up")
            say("down")
            gevent.joinall(both, raise_error=True)


class Downwards(BaseHandler):
    name = "downwards"
    options = {{}}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data and to_backend:
            backend_sock.sendall(data)
        elif data:
            say("down")
            client_sock.sendall(data)
            blocks(backend_sock, b"h")


class Shouts(BaseHandler):
    name = "shouts"
    options = {{}}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not data:
            return
        if not to_backend:
            client_sock.sendall(data)
        elif data.endswith(b"!"):
            say("up")
            blocks(client_sock, b"h")
        else:
            backend_sock.sendall(data)
"""


def assert_whole_blocks(data: bytes, letters: bytes) -> None:
    """`data` is whole blocks, as many of each letter as were sent."""
    lines = data.split(b"\n")
    assert lines.pop() == b""
    for line in lines:
        assert len(line) == BLOCK
        assert line == line[:1] * BLOCK, "two writers' bytes in one block"
    assert sorted(line[:1] for line in lines) == sorted(
        bytes([letter]) for letter in letters for _ in range(BLOCKS)
    )


@pytest.mark.parametrize("cls", ["BothWays", "Greenlets"])
def test_two_writers_of_a_handler_do_not_interleave(tmp_path: Path, cls: str) -> None:
    write_module(tmp_path, WRITERS)
    with (
        Acceptor() as backend,
        own(backend, tmp_path, cls) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"go")
        if cls == "BothWays":
            assert receive(server, 2) == b"go"
            server.sendall(b"tick")
        wait_said(vaurien, "up")
        wait_said(vaurien, "down")  # both write now, and nobody reads
        assert_whole_blocks(receive(client, 2 * BLOCKS * (BLOCK + 1)), b"ud")
        assert said(vaurien, "up") == said(vaurien, "down") == [""]


def test_a_handler_and_the_pump_do_not_interleave(tmp_path: Path) -> None:
    # Exchange 1 goes to the handler, whose call on the response writes to the backend while the
    # pump passes exchange 2 there.
    behavior = "50:own.Downwards"
    seed = seed_for(behavior, {(1, 1): 0, (1, 2): 1})
    write_module(tmp_path, WRITERS)
    flood = Flood(10 * MB)
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", behavior, "--seed", seed, cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"1")
        assert receive(server, 1) == b"1"
        server.sendall(b"2")
        assert receive(client, 1) == b"2"
        wait_said(vaurien, "down")

        def send() -> None:
            flood.send(client)
            client.shutdown(socket.SHUT_WR)

        sent = pool.submit(send)
        data = receive_all(server)
        sent.result(PATIENCE)
    block = b"h" * BLOCK + b"\n"
    pieces = data.split(block)
    assert len(pieces) == BLOCKS + 1, "a block of the handler was torn"
    assert b"".join(pieces) == b"".join(flood.blocks())


def test_a_handlers_blocks_stand_whole_in_a_stream_from_the_other_side(tmp_path: Path) -> None:
    # The call on the request writes to the client, to whom the calls on the response write as well.
    write_module(tmp_path, WRITERS)
    flood = Flood(10 * MB)
    go = threading.Event()
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Shouts") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"?")
        assert receive(server, 1) == b"?"

        def send() -> None:
            go.wait(PATIENCE)
            flood.send(server)

        sent = pool.submit(send)
        client.sendall(b"!")
        wait_said(vaurien, "up")
        go.set()
        data = receive(client, flood.size + BLOCKS * (BLOCK + 1))
        sent.result(PATIENCE)
    pieces = data.split(b"h" * BLOCK + b"\n")
    assert len(pieces) == BLOCKS + 1, "a block of the handler was torn"
    assert b"".join(pieces) == b"".join(flood.blocks())


def test_a_handler_that_reads_the_other_side_is_its_only_reader(tmp_path: Path) -> None:
    # Each call on the response takes one line of the client, which floods lines meanwhile: whoever
    # reads them, each line comes once and in order.
    write_module(
        tmp_path,
        """
class Taker(BaseHandler):
    name = "taker"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if to_backend:
            if data:
                backend_sock.sendall(data)
            return
        for _ in data:
            taken = client_sock.recv(1000)
            if taken:
                backend_sock.sendall(taken)
        """,
    )
    lines = b"".join(b"%07d\n" % i for i in range(100_000))
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Taker") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):

        def send() -> None:
            for start in range(0, len(lines), 10_000):
                client.sendall(lines[start : start + 10_000])
            client.shutdown(socket.SHUT_WR)

        sent = pool.submit(send)
        got = bytearray()
        while data := server.recv(8192):
            got += data
            server.sendall(b"t")
        sent.result(PATIENCE)
        assert bytes(got) == lines
