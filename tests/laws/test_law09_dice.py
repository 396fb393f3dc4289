"""Law 9: every draw comes from (seed, proxy's name, connection, exchange, purpose) alone.

Not from what other connections do, not from when they do it, not from an address.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.laws.helpers import Acceptor, has_ipv6, own, threads, wait_said, write_module
from tests.support import PATIENCE, Backend, Program, echo, exchange, proxy, receive, run
from vaurien.behavior import Dice

CONNECTIONS, EXCHANGES = 12, 12
Picks = list[list[str]]

#: Two handlers that can be told from each other and from dummy by the answer to "x".
MARKING = """
class Upper(BaseHandler):
    name = "upper"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        (backend_sock if to_backend else client_sock).sendall(data.upper())


class Number(BaseHandler):
    name = "number"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not to_backend:
            data = b"%d" % int(self.exchange(client_sock).draw("digit") * 10) * len(data)
        (backend_sock if to_backend else client_sock).sendall(data)
"""
BEHAVIOR = "30:own.Upper,30:own.Number"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with the handlers."""
    write_module(tmp_path, MARKING)
    return tmp_path


def start(backend: Backend, directory: Path, *arguments: object) -> Program:
    """A Vaurien with the behavior of this file."""
    return proxy(backend, "--behavior", BEHAVIOR, *arguments, cwd=directory)


def picks(vaurien: Program, order: Sequence[tuple[int, int]] | None = None) -> Picks:
    """What each exchange of each connection got, the exchanges done in `order`."""
    if order is None:
        order = [(c, e) for c in range(CONNECTIONS) for e in range(EXCHANGES)]
    answers: Picks = [[] for _ in range(CONNECTIONS)]
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(vaurien.dial()) for _ in range(CONNECTIONS)]
        for connection, _ in order:
            answers[connection].append(exchange(socks[connection], b"x").decode())
    return answers


def interleaved(salt: int) -> list[tuple[int, int]]:
    """A random order that keeps the order within a connection."""
    order = [(c, e) for c in range(CONNECTIONS) for e in range(EXCHANGES)]
    random.Random(salt).shuffle(order)
    return order


@pytest.fixture
def reference(here: Path, echo_backend: Backend) -> Picks:
    """What seed 1 picks, one connection after the other."""
    with start(echo_backend, here, "--seed", 1) as vaurien:
        return picks(vaurien)


def test_the_same_seed_picks_the_same_in_any_order(
    here: Path, echo_backend: Backend, reference: Picks
) -> None:
    for salt in range(2):
        with start(echo_backend, here, "--seed", 1) as vaurien:
            assert picks(vaurien, interleaved(salt)) == reference


def test_the_same_seed_picks_the_same_under_concurrency(
    here: Path, echo_backend: Backend, reference: Picks
) -> None:
    with (
        start(echo_backend, here, "--seed", 1) as vaurien,
        contextlib.ExitStack() as stack,
        threads() as pool,
    ):
        socks = [stack.enter_context(vaurien.dial()) for _ in range(CONNECTIONS)]

        def talk(number: int) -> list[str]:
            return [exchange(socks[number], b"x").decode() for _ in range(EXCHANGES)]

        done = [pool.submit(talk, number) for number in range(CONNECTIONS)]
        assert [future.result(PATIENCE) for future in done] == reference


def test_each_answer_occurs_in_the_reference(reference: Picks) -> None:
    # Else the tests of this file would compare nothing with nothing.
    answers = "".join("".join(row) for row in reference)
    assert set(answers) > {"x", "X"}
    assert len(set(answers) & set("0123456789")) > 4


def test_connections_and_exchanges_draw_differently(reference: Picks) -> None:
    assert len({"".join(row) for row in reference}) == CONNECTIONS
    assert len({"".join(column) for column in zip(*reference, strict=True)}) == EXCHANGES


def test_another_seed_picks_differently(
    here: Path, echo_backend: Backend, reference: Picks
) -> None:
    with start(echo_backend, here, "--seed", 2) as vaurien:
        assert picks(vaurien) != reference


@pytest.mark.parametrize("kind", ["unix", "ipv6", "other backend"])
def test_no_pick_depends_on_an_address(
    here: Path, echo_backend: Backend, reference: Picks, kind: str
) -> None:
    if kind == "ipv6" and not has_ipv6():
        pytest.skip("this machine has no ::1")
    local = {"unix": f"unix:{here}/l", "ipv6": "[::1]:0", "other backend": "127.0.0.1:0"}[kind]
    with (
        Backend(echo, str(here / "b")) as other,
        start(
            other if kind == "other backend" else echo_backend,
            here,
            "--seed",
            1,
            "--local",
            local,
        ) as vaurien,
    ):
        assert picks(vaurien) == reference


def test_a_probe_that_sends_nothing_counts_as_a_connection(
    here: Path, echo_backend: Backend, reference: Picks
) -> None:
    with start(echo_backend, here, "--seed", 1) as vaurien:
        vaurien.dial().close()
        with vaurien.dial() as second:
            assert [exchange(second, b"x").decode() for _ in range(EXCHANGES)] == reference[1]


def test_how_a_request_is_cut_into_pieces_changes_no_pick(here: Path, reference: Picks) -> None:
    # An exchange begins with client bytes after backend bytes, in however many pieces they come.
    with (
        Acceptor() as backend,
        start(backend, here, "--seed", 1) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        got = []
        for number in range(EXCHANGES):
            for _ in range(number % 3 + 1):
                client.sendall(b"piece")
                receive(server, 5)
            server.sendall(b"x")
            got.append(receive(client, 1).decode())
        assert got == reference[0]


def test_the_drawn_seed_is_printed_and_repeats_the_run(here: Path, echo_backend: Backend) -> None:
    with start(echo_backend, here) as vaurien:
        drawn = vaurien.seed
        first = picks(vaurien)
    with start(echo_backend, here, "--seed", drawn) as vaurien:
        assert vaurien.seed == drawn
        assert picks(vaurien) == first
    with start(echo_backend, here) as vaurien:
        assert vaurien.seed != drawn


def test_a_drawn_seed_is_told_by_check() -> None:
    assert "seed" in run("--check").stdout


def test_the_bytes_of_error_follow_from_the_seed_in_any_order() -> None:
    runs = []
    with Backend(echo) as backend:
        for seed, order in ((1, (0, 1, 2)), (1, (2, 1, 0)), (2, (0, 1, 2))):
            with (
                proxy(backend, "--behavior", "100:error", "--seed", seed) as vaurien,
                contextlib.ExitStack() as stack,
            ):
                socks = [stack.enter_context(vaurien.dial()) for _ in range(3)]
                got = {number: exchange(socks[number], b"x" * 50) for number in order}
                runs.append([got[number] for number in range(3)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len(set(runs[0])) == 3


def test_the_bytes_of_error_do_not_depend_on_how_a_response_is_cut_into_pieces() -> None:
    runs = []
    for pieces in ((50,), (17, 33), (1, 2, 3, 44)):
        with (
            Acceptor() as backend,
            proxy(backend, "--behavior", "100:error", "--seed", 1) as vaurien,
            vaurien.dial() as client,
            backend.accept() as server,
        ):
            client.sendall(b"?")
            receive(server, 1)
            got = b""
            for piece in pieces:
                server.sendall(b"x" * piece)
                got += receive(client, piece)
            runs.append(got)
    assert runs[0] == runs[1] == runs[2]


def test_a_draw_is_of_the_exchange_that_the_call_deals_with(tmp_path: Path) -> None:
    # The response to 1 is still in its handler when 2 begins.
    write_module(
        tmp_path,
        """
class Late(BaseHandler):
    name = "late"
    options = {}

    def __init__(self, settings, proxy):
        self.second = Event()

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data == b"2":
            self.second.set()
        if data == b"a":
            say("a")
            self.second.wait()
        if data:
            number = self.exchange(client_sock).number
            draw = self.exchange(client_sock).draw("something")
            sink = backend_sock if to_backend else client_sock
            sink.sendall(b"%s %d %.17f\\n" % (data, number, draw))
        """,
    )

    def expected(word: str, number: int) -> bytes:
        return b"%s %d %.17f\n" % (word.encode(), number, dice.draw(1, number, "something"))

    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Late", "--seed", 7) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
        client.makefile("rb") as read_client,
        server.makefile("rb") as read_server,
    ):
        dice = Dice(7, "default")
        client.sendall(b"1")
        assert read_server.readline() == expected("1", 1)
        server.sendall(b"a")
        wait_said(vaurien, "a")
        client.sendall(b"2")
        assert read_server.readline() == expected("2", 2)
        assert read_client.readline() == expected("a", 1)
        server.sendall(b"b")
        assert read_client.readline() == expected("b", 2)


def test_a_request_that_a_handler_reads_itself_begins_an_exchange(tmp_path: Path) -> None:
    # The call on request 1 reads request 2 as well; what then comes belongs to exchange 2.
    write_module(
        tmp_path,
        """
class Two(BaseHandler):
    name = "two"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data == b"1":
            backend_sock.sendall(data)
            client_sock.sendall(backend_sock.recv(1))
            backend_sock.sendall(client_sock.recv(1))
        elif data:
            say("exchange", to_backend, self.exchange(client_sock).number)
            (backend_sock if to_backend else client_sock).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Two") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for word in (b"1", b"2", b"3"):
            client.sendall(word)
            assert receive(server, 1) == word
            server.sendall(word)
            assert receive(client, 1) == word
        assert wait_said(vaurien, "exchange", 3) == ["False 2", "True 3", "False 3"]


def test_200_connections_at_once_are_decided_alike_whatever_pythons_hash_seed(
    tmp_path: Path, echo_backend: Backend
) -> None:
    # Who comes in which order differs from run to run; what number so and so gets does not.
    n, exchanges = 200, 4
    behavior = "15:corrupt,15:corrupt+error,15:latency,15:stall+slicer,10:error"
    options = (
        *("--behavior", behavior, "--on-connect", "20:slow_accept", "--seed", 11),
        *("--handlers.latency.jitter", 5, "--handlers.latency.latency", 5),
        *("--handlers.latency.distribution", "normal", "--handlers.corrupt.chance", 20),
        *(
            "--handlers.stall.loss",
            50,
            "--handlers.stall.rto",
            5,
            "--handlers.stall.stream",
            "both",
        ),
        *("--handlers.slicer.average_size", 5, "--handlers.slicer.size_variation", 4),
        *("--handlers.slow_accept.delay", 10, "--journal-all", "--log-level", "error"),
    )

    def talk(vaurien: Program) -> tuple[str, list[bytes]]:
        with vaurien.dial() as client:
            name = "{}:{}".format(*client.getsockname())
            return name, [exchange(client, bytes(40)) for _ in range(exchanges)]

    runs = []
    for hash_seed in ("0", "1"):
        file = tmp_path / f"{hash_seed}.jsonl"
        env = {"PYTHONHASHSEED": hash_seed}
        with (
            proxy(echo_backend, *options, "--journal", file, env=env) as vaurien,
            ThreadPoolExecutor(n) as pool,
        ):
            talks = [pool.submit(talk, vaurien) for _ in range(n)]
            answers = dict(future.result(2 * PATIENCE) for future in talks)
            assert vaurien.stop() == 0
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        runs.append(
            {
                (line["connection"], line["exchange"]): (
                    line["handler"],
                    line["exchange"] and answers[line["client"]][line["exchange"] - 1],
                )
                for line in lines
            }
        )
    first, second = runs
    assert first == second
    picked = Counter(handler for handler, _ in first.values())
    assert len(first) == n * exchanges + picked["slow_accept"]
    assert set(picked) == {*behavior.replace("15:", "").replace("10:", "").split(",")} | {
        "dummy",
        "slow_accept",
    }
    # different exchanges get different draws
    noises = [answer for handler, answer in first.values() if handler == "error"]
    assert len(set(noises)) == len(noises) > 50
