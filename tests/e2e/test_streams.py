"""Streams that flow both ways at once, as ssh's do, and one of a gibibyte."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import zlib

import pytest

from tests.support import Backend, proxy, wait_for

MIB = 1 << 20


def send_noise(sock: socket.socket, seed: int, n: int) -> str:
    """Send `n` bytes in pieces of any size, then EOF; their checksum."""
    source = random.Random(seed)
    noise = source.randbytes(MIB)
    digest = hashlib.blake2b()
    while n:
        start = source.randrange(MIB)
        piece = noise[start : start + min(n, source.choice((1, 100, 5_000, 200_000)))]
        sock.sendall(piece)
        digest.update(piece)
        n -= len(piece)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def checksum(sock: socket.socket) -> tuple[str, int]:
    """Of all that comes until EOF, and how much it is."""
    digest = hashlib.blake2b()
    n = 0
    while data := sock.recv(MIB):
        digest.update(data)
        n += len(data)
    return digest.hexdigest(), n


class Side:
    """One end of a full-duplex stream: sends noise while it reads."""

    def __init__(self, seed: int, n: int) -> None:
        self.seed, self.n = seed, n
        self.sent = ""
        self.received: tuple[str, int] = ("", 0)

    def converse(self, sock: socket.socket) -> None:
        def send() -> None:
            self.sent = send_noise(sock, self.seed, self.n)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        self.received = checksum(sock)
        sender.join(50)


@pytest.mark.parametrize(
    ("behavior", "n"), [("100:dummy", 40 * MIB), ("100:delay", 12 * MIB), ("50:delay", 12 * MIB)]
)
def test_both_directions_at_once_come_whole(behavior: str, n: int) -> None:
    server, client = Side(1, n), Side(2, n)
    arguments = (
        *("--behavior", behavior, "--handlers.delay.sleep", 0, "--seed", 1),
        *("--log-level", "warning"),
    )
    with Backend(server.converse) as backend, proxy(backend, *arguments) as program:
        with program.dial(timeout=50) as sock:
            client.converse(sock)
        wait_for(lambda: server.received[1], "the end of the other side")
        assert client.received == (server.sent, n)
        assert server.received == (client.sent, n)
        assert backend.errors == []
        assert "Traceback" not in program.text


def test_several_streams_at_once_do_not_mix() -> None:
    n = 4 * MIB

    def answer(sock: socket.socket) -> None:
        side = Side(sock.recv(1)[0], n)
        side.converse(sock)
        answered[side.seed] = side

    answered: dict[int, Side] = {}
    asked = {seed: Side(seed + 100, n) for seed in range(8)}

    def ask(seed: int) -> None:
        with program.dial(timeout=50) as sock:
            sock.sendall(bytes([seed]))
            asked[seed].converse(sock)

    with Backend(answer) as backend, proxy(backend) as program:
        threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        wait_for(lambda: len(answered) == 8 or backend.errors, "the end of the other sides")
        assert backend.errors == []
    for seed, side in asked.items():
        assert side.received == (answered[seed].sent, n)
        assert answered[seed].received == (side.sent, n)


def test_a_gibibyte_comes_whole() -> None:
    block = bytearray(random.Random(3).randbytes(4 * MIB))
    sent = 0

    def give(sock: socket.socket) -> None:
        nonlocal sent
        sock.recv(1)
        for number in range(256):
            block[:8] = number.to_bytes(8, "big")
            sock.sendall(block)
            sent = zlib.crc32(block, sent)

    with Backend(give) as backend, proxy(backend) as program, program.dial(timeout=50) as client:
        client.sendall(b"?")
        received = n = 0
        view = memoryview(bytearray(MIB))
        while count := client.recv_into(view):
            received = zlib.crc32(view[:count], received)
            n += count
        assert n == 1 << 30
        assert received == sent
