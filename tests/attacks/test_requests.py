"""Requests to the control API that never end: each costs its own client, and nobody else."""

from __future__ import annotations

import pytest

from tests.attacks.helpers import Bystander, pouring
from tests.control.served import Served, statuses
from tests.support import Backend

_CHUNKED = b"POST /reset HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
_PLAIN = b"POST /reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
_MANY = 4096  # times that what is repeated is sent in one go

#: What a client sends, without end, and what it is told: all of them are too much sooner or later.
ENDLESS = {
    "trailers": (_CHUNKED + b"0\r\n", b"a: b\r\n", 413),
    "long trailers": (_CHUNKED + b"0\r\n", b"a: " + b"b" * 8000 + b"\r\n", 413),
    "a trailer": (_CHUNKED + b"0\r\na: ", b"b", 400),
    "chunks of a byte": (_CHUNKED, b"1\r\n \r\n", 413),
    "chunks with extensions": (_CHUNKED, b"1;" + b"e" * 8000 + b"\r\n \r\n", 413),
    "an extension": (_CHUNKED + b"1;", b"e", 400),
    "a size": (_CHUNKED, b"0", 400),
    "a chunk": (_CHUNKED + b"FFFFFFF\r\n", b" ", 413),
    "a body": (_PLAIN % (1 << 40), b" ", 413),
    "a request line": (b"GET /", b"a", 414),
    "headers": (b"GET / HTTP/1.1\r\n", b"a: b\r\n", 400),
    "long headers": (b"GET / HTTP/1.1\r\n", b"a: " + b"b" * 60000 + b"\r\n", 431),
    "a header": (b"GET / HTTP/1.1\r\na: ", b"b", 431),
    "empty lines": (b"", b"\r\n", 400),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_request_without_end_holds_up_nobody(echo_backend: Backend, kind: str) -> None:
    # Each is sent faster than it is read: the reader never waits for more.
    head, repeated, status = ENDLESS[kind]
    data = repeated * max(1, _MANY // len(repeated))
    with (
        Served("--distant", echo_backend.address, "--http-token", "secret") as vaurien,
        Bystander(vaurien.address, vaurien.pid) as others,
        pouring(vaurien.api.address, head, data) as answered,
    ):
        others.unharmed(40)
        found = answered()
        assert statuses(found) in ([status], []), found[:300]  # it may be reset before it reads
        others.unharmed()


def test_requests_one_after_another_without_a_pause_hold_up_nobody(echo_backend: Backend) -> None:
    request = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    chunked = _CHUNKED + b"0\r\n\r\n"
    for one in (request, chunked):
        with (
            Served("--distant", echo_backend.address) as vaurien,
            Bystander(vaurien.address, vaurien.pid) as others,
            pouring(vaurien.api.address, b"", one * 100),
        ):
            others.unharmed(40)


def test_a_body_in_small_chunks_is_taken(echo_backend: Backend) -> None:
    # A bound on what comes over the wire must leave room for the framing of honest clients.
    text = b'{"name": "a", "upstream": "127.0.0.1:1", "listen": "127.0.0.1:0"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
    head = b"POST /proxies HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Served("--distant", echo_backend.address) as vaurien:
        answer = vaurien.api.talk(head + chunks + b"0\r\nchecksum: none\r\n\r\n")
        assert statuses(answer) == [201], answer
