"""Handlers that do much: a whole exchange in one call, and floods both ways, 100 MB each."""

from __future__ import annotations

import hashlib
import socket
import zlib
from pathlib import Path

import pytest

from tests.laws.helpers import Acceptor, Flood, digest_of, own, threads, write_module
from tests.support import PATIENCE, Backend, exchange, proxy, receive

SIZE = 100_000_000
FLIP = bytes(range(255, -1, -1))  # what the handler changes an answer by: each byte's complement

CHANGING = """
FLIP = bytes(range(255, -1, -1))


class Changing(BaseHandler):
    name = "changing"
    options = {"size": ("Bytes of a request, and of an answer", int, 0)}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not to_backend:
            if data:
                say("stray", len(data))
            return
        if not data:
            return
        size = self.options("size")
        left = size - len(data)
        backend_sock.sendall(data)
        while left:
            data = client_sock.recv(1 << 16)
            left -= len(data)
            backend_sock.sendall(data)
        left = size
        while left:
            data = backend_sock.recv(1 << 16)
            left -= len(data)
            client_sock.sendall(data.translate(FLIP))


class Whole(BaseHandler):
    \"\"\"The same with the request and the answer in one piece each.\"\"\"

    name = "whole"
    options = {"size": ("Bytes of a request, and of an answer", int, 0)}

    def read(self, sock):
        data, size = bytearray(), self.options("size")
        while len(data) < size:
            data += sock.recv(min(1 << 20, size - len(data)))
        return bytes(data)

    def __call__(self, client_sock, backend_sock, to_backend):
        if not to_backend:
            stray = self._get_data(client_sock, backend_sock, to_backend)
            if stray:
                say("stray", len(stray))
            return
        if client_sock.recv(1, socket.MSG_PEEK):
            backend_sock.sendall(self.read(client_sock))
            client_sock.sendall(self.read(backend_sock).translate(FLIP))


class Plain(BaseHandler):
    name = "plain"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)
"""


@pytest.mark.parametrize("cls", ["Changing", "Whole"])
def test_a_handler_does_a_whole_exchange_of_100_mb_each_way(tmp_path: Path, cls: str) -> None:
    write_module(tmp_path, CHANGING)
    request, answer = Flood(SIZE, 1), Flood(SIZE, 2)
    changed = hashlib.sha256()
    for block in answer.blocks():
        changed.update(block.translate(FLIP))
    with (
        Acceptor() as backend,
        own(backend, tmp_path, cls, f"--handlers.{cls.lower()}.size", SIZE) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        sent = pool.submit(request.send, client)
        assert digest_of(server, SIZE) == (SIZE, request.digest())
        sent.result(PATIENCE)
        sent = pool.submit(answer.send, server)
        assert digest_of(client, SIZE) == (SIZE, changed.hexdigest())
        sent.result(PATIENCE)
        assert not any(line.startswith("stray") for line in vaurien.output)


@pytest.mark.parametrize("cls", ["Changing", "Whole"])
def test_a_handler_does_whole_exchanges_one_after_the_other(
    tmp_path: Path, echo_backend: Backend, cls: str
) -> None:
    write_module(tmp_path, CHANGING)
    with (
        own(echo_backend, tmp_path, cls, f"--handlers.{cls.lower()}.size", 1000) as vaurien,
        vaurien.dial() as client,
    ):
        for number in range(200):
            request = b"%1000d" % number
            assert exchange(client, request) == request.translate(FLIP)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert not any(line.startswith("stray") for line in vaurien.output)


def test_pipelined_requests_wait_for_the_handler_of_the_first(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, CHANGING)
    requests = b"".join(b"%1000d" % number for number in range(200))
    with (
        own(echo_backend, tmp_path, "Whole", "--handlers.whole.size", 1000) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(requests[:500])
        client.sendall(requests[500:])
        assert receive(client, len(requests)) == requests.translate(FLIP)


@pytest.mark.parametrize(
    "behavior",
    [
        "100:dummy",
        "100:own.Plain",
        "100:delay --handlers.delay.sleep 0",
        "100:delay --handlers.delay.sleep 0 --handlers.delay.before no",
        "50:own.Plain",
    ],
)
def test_a_flood_of_100_mb_both_ways_at_once_does_not_deadlock(
    tmp_path: Path, behavior: str
) -> None:
    write_module(tmp_path, CHANGING)
    up, down = Flood(SIZE, 1), Flood(SIZE, 2)
    with (
        Acceptor() as backend,
        proxy(backend, "--behavior", *behavior.split(), cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        threads() as pool,
    ):
        client.sendall(b"?")
        assert receive(server, 1) == b"?"
        jobs = [pool.submit(up.send, client), pool.submit(down.send, server)]
        came_up = pool.submit(digest_of, server, SIZE)
        came_down = pool.submit(digest_of, client, SIZE)
        assert came_up.result(2 * PATIENCE) == (SIZE, up.digest())
        assert came_down.result(2 * PATIENCE) == (SIZE, down.digest())
        for job in jobs:
            job.result(PATIENCE)
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""


def test_many_floods_side_by_side_come_whole(tmp_path: Path) -> None:
    write_module(tmp_path, CHANGING)
    n, size = 20, 2_000_000

    def checksum(sock: socket.socket) -> int:
        value, left = 0, size
        while left and (data := sock.recv(1 << 16)):
            value, left = zlib.crc32(data, value), left - len(data)
        return value

    def answer(sock: socket.socket) -> None:
        came = checksum(sock)
        Flood(size, 5).send(sock)
        sock.sendall(came.to_bytes(4, "big"))

    def talk(salt: int) -> None:
        with vaurien.dial() as client:
            flood = Flood(size, salt)
            sent = pool.submit(flood.send, client)
            assert digest_of(client, size) == (size, Flood(size, 5).digest())
            value = 0
            for block in flood.blocks():
                value = zlib.crc32(block, value)
            assert receive(client, 4) == value.to_bytes(4, "big")
            sent.result(PATIENCE)

    with (
        Backend(answer) as backend,
        own(backend, tmp_path, "Plain") as vaurien,
        threads() as pool,
        threads() as talkers,
    ):
        for done in [talkers.submit(talk, salt) for salt in range(n)]:
            done.result(2 * PATIENCE)
        assert backend.errors == []
