"""The built-in handlers ``error`` and ``transient``.

Random bytes instead of the response, or in it; what is counted, and for whom.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.laws.helpers import Acceptor
from tests.support import Backend, Program, exchange, proxy, receive

WORD = b"a response that nobody mistakes for anything else"


@contextlib.contextmanager
def spoiling(backend: Backend, behavior: str = "100:error", **options: object) -> Iterator[Program]:
    """A Vaurien with an error handler and its options."""
    name = behavior.partition(":")[2]
    given = [f"--handlers.{name}.{option}={value}" for option, value in options.items()]
    with proxy(backend, "--behavior", behavior, "--seed", 1, *given) as vaurien:
        yield vaurien


def outcomes(vaurien: Program, *connections: int) -> list[str]:
    """So many exchanges on each of some connections: ``.`` for one that passed, ``E`` for an error.

    The connections are open at the same time, and used one exchange each in turn.
    """
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(vaurien.dial()) for _ in connections]
        results = ["" for _ in connections]
        for number in range(max(connections)):
            for index, sock in enumerate(socks):
                if number < connections[index]:
                    results[index] += ".E"[exchange(sock, WORD) != WORD]
        return results


def test_error_answers_with_random_bytes_instead_of_the_response() -> None:
    with (
        Acceptor() as backend,
        spoiling(backend) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        seen = set()
        for _ in range(3):
            client.sendall(b"request")
            assert receive(server, 7) == b"request", "the backend gets the request as it is"
            server.sendall(WORD)
            answer = receive(client, len(WORD))
            assert len(answer) == len(WORD)
            assert sum(a == b for a, b in zip(answer, WORD, strict=True)) < len(WORD) / 4
            seen.add(answer)
        assert len(seen) == 3


def test_error_injects_random_bytes_inside_the_response() -> None:
    with (
        Acceptor() as backend,
        spoiling(backend, inject="yes") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for _ in range(3):
            client.sendall(b"request")
            assert receive(server, 7) == b"request"
            server.sendall(WORD)
            head = receive(client, len(WORD))
            client.settimeout(1)
            rest = client.recv(10_000)
            client.settimeout(20)
            answer = head + rest
            injected = len(answer) - len(WORD)
            assert injected > 0
            assert any(
                answer[:cut] + answer[cut + injected :] == WORD for cut in range(1, len(WORD))
            ), "all of the response is there, with something inside it"


@pytest.mark.parametrize("inject", ["yes", "no"])
def test_error_passes_the_end_of_both_sides_on(echo_backend: Backend, inject: str) -> None:
    with spoiling(echo_backend, inject=inject) as vaurien, vaurien.dial() as client:
        client.sendall(WORD)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while data := client.recv(1000):
            got += data
        assert len(got) >= len(WORD)
        assert got != WORD


def test_error_spoils_every_exchange(echo_backend: Backend) -> None:
    with spoiling(echo_backend) as vaurien:
        assert outcomes(vaurien, 10) == ["E" * 10]


def test_warmup_lets_the_first_exchanges_of_each_connection_pass(echo_backend: Backend) -> None:
    with spoiling(echo_backend, warmup=3) as vaurien:
        assert outcomes(vaurien, 6, 4, 2) == ["...EEE", "...E", ".."]
        assert outcomes(vaurien, 5) == ["...EE"]


def test_warmup_counts_the_exchanges_of_the_whole_proxy(echo_backend: Backend) -> None:
    with spoiling(echo_backend, warmup=5, scope="proxy") as vaurien:
        assert outcomes(vaurien, 4, 4) == ["...E", "..EE"]
        assert outcomes(vaurien, 3) == ["EEE"]


def test_agitate_spoils_the_first_exchanges_of_each_connection(echo_backend: Backend) -> None:
    with spoiling(echo_backend, "100:transient", agitate=3) as vaurien:
        assert outcomes(vaurien, 6, 2, 4) == ["EEE...", "EE", "EEE."]
        assert outcomes(vaurien, 5) == ["EEE.."]


def test_agitate_counts_the_exchanges_of_the_whole_proxy(echo_backend: Backend) -> None:
    with spoiling(echo_backend, "100:transient", agitate=5, scope="proxy") as vaurien:
        assert outcomes(vaurien, 4, 4) == ["EEE.", "EE.."]
        assert outcomes(vaurien, 3) == ["..."]


def test_agitate_of_none_spoils_nothing(echo_backend: Backend) -> None:
    with spoiling(echo_backend, "100:transient", agitate=0) as vaurien:
        assert outcomes(vaurien, 5) == ["....."]


def test_transient_spoils_one_exchange_unless_told_otherwise(echo_backend: Backend) -> None:
    with spoiling(echo_backend, "100:transient") as vaurien:
        result = outcomes(vaurien, 20)[0]
        assert result == "E" * (20 - result.count(".")) + "." * result.count(".")
        assert 0 < result.count("E") < 20


def test_counts_go_by_exchanges_and_not_by_pieces() -> None:
    # One request and one response in three pieces each are one exchange.
    with (
        Acceptor() as backend,
        spoiling(backend, warmup=2) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for expected in "..EE":
            for _ in range(3):
                client.sendall(WORD)
                assert receive(server, len(WORD)) == WORD
            passed = True
            for _ in range(3):
                server.sendall(WORD)
                passed &= receive(client, len(WORD)) == WORD
            assert passed == (expected == ".")
