"""``--replay``: the decisions of a journal are made again, and do the same harm."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import refused
from tests.cli.test_journal import read, wait_lines
from tests.laws.helpers import write_module
from tests.support import Backend, Program, dial, exchange, proxy, run, wait_for
from vaurien import start_proxy
from vaurien.options import Raw
from vaurien.settings import resolve

BEHAVIOR = "20:corrupt,10:corrupt+error,10:reset,10:own.Upper,5:truncate"
ON_CONNECT = "20:refuse"
OPTIONS = (
    *("--handlers.corrupt.chance", 50, "--handlers.truncate.bytes", 3),
    *("--handlers.error.times", 1, "--handlers.reset.after", 2),
)
UPPER = """
class Upper(BaseHandler):
    name = "upper"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        (backend_sock if to_backend else client_sock).sendall(data.upper())
"""
CONNECTIONS, EXCHANGES = 20, 6
NOTHING = b"-"  # in place of an answer


def harm(vaurien: Program) -> list[list[bytes]]:
    """What each exchange got, on some connections, one after the other."""
    found = []
    for _ in range(CONNECTIONS):
        answers: list[bytes] = []
        with contextlib.suppress(ConnectionError), vaurien.dial() as client:
            for _ in range(EXCHANGES):
                answers.append(NOTHING)
                answers[-1] = exchange(client, b"hello world")
                if len(answers[-1]) < 11:
                    break
        found.append(answers or [NOTHING])  # a connect may be reset before it has returned
    return found


def line(connection: int, exchange: int, handler: str = "corrupt", **options: Any) -> str:
    """A line of a journal, as it would be written."""
    return json.dumps(
        {
            "v": 1,
            "seed": 7,
            "time": "2026-11-22T10:00:00.000000+00:00",
            "proxy": "default",
            "connection": connection,
            "client": "127.0.0.1:1",
            "exchange": exchange,
            "handler": handler,
            "options": dict.fromkeys(handler.split("+"), options),
            "fired": [],
            "from_client": 1,
            "from_backend": 1,
            "seconds": 0.1,
            "end": "next",
        }
    )


def journal(directory: Path, *lines: str) -> Path:
    file = directory / "given.jsonl"
    file.write_text("".join(f"{text}\n" for text in lines))
    return file


def touched(vaurien: Program, exchanges: int = 3, connections: int = 1) -> list[tuple[int, int]]:
    """Which (connection, exchange) got something else than an echo."""
    found = []
    for number in range(1, connections + 1):
        with vaurien.dial() as client:
            for n in range(1, exchanges + 1):
                if exchange(client, b"UUUU") != b"UUUU":
                    found.append((number, n))
    return found


def summary(lines: Sequence[dict[str, Any]]) -> dict[tuple[int, int], Any]:
    return {
        (line["connection"], line["exchange"]): (line["handler"], line["options"]) for line in lines
    }


def test_a_replay_does_the_same_harm_again_whatever_else_is_given(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, UPPER)
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    given = ("--behavior", BEHAVIOR, "--on-connect", ON_CONNECT, *OPTIONS)
    with proxy(echo_backend, *given, "--journal", first, cwd=tmp_path) as vaurien:
        seed = vaurien.seed
        done = harm(vaurien)
        assert vaurien.stop() == 0
    kinds = {line["handler"] for line in read(first)}
    assert kinds >= {"corrupt", "corrupt+error", "reset", "upper", "refuse"}, kinds
    # other weights, another seed, other options; the class has to be found again
    other = ("--behavior", "100:own.Upper", "--seed", 999, "--handlers.upper.after", 3)
    again = ("--replay", first, "--journal", second)
    with proxy(echo_backend, *other, *again, cwd=tmp_path) as vaurien:
        assert vaurien.seed == seed
        assert harm(vaurien) == done
        assert vaurien.stop() == 0
        assert vaurien.text.count("do not count") == 1
        assert "all decisions of the replay came to pass" in vaurien.text
        assert "Traceback" not in vaurien.text
    assert {at: name for at, (name, _) in summary(read(second)).items()} == {
        at: name for at, (name, _) in summary(read(first)).items()
    }


def test_what_is_not_named_is_passed_on_and_what_did_not_come_to_pass_is_told(
    tmp_path: Path, echo_backend: Backend
) -> None:
    file = journal(
        tmp_path,
        *(line(1, 2, chance=100), line(2, 1, chance=100)),
        *(line(1, 9, chance=100), line(30, 1, chance=100), line(31, 0, "refuse")),
    )
    arguments = ("--behavior", "100:error", "--on-connect", "100:refuse", "--seed", 3)
    with proxy(echo_backend, "--replay", file, *arguments) as vaurien:
        assert vaurien.seed == 7
        assert touched(vaurien, 3, 3) == [(1, 2), (2, 1)]
        assert vaurien.stop() == 0
    (said,) = [text for text in vaurien.log if "do not count" in text]
    assert all(word in said for word in ("--behavior", "--seed", str(file), "5"))
    (said,) = [text for text in vaurien.log if "did not come to pass" in text]
    assert "WARNING" in said
    assert re.search(r"\b3\b.*\b1\.9\b.*\b30\.1\b.*\b31\.0\b", said)


def test_options_are_those_of_the_journal_line_by_line(
    tmp_path: Path, echo_backend: Backend
) -> None:
    file = journal(
        tmp_path, line(1, 1, chance=0, offset=0), line(1, 2, chance=0), line(1, 3, offset=2)
    )
    with proxy(echo_backend, "--replay", file) as vaurien, vaurien.dial() as client:
        one, two, three = (exchange(client, b"UUUU") for _ in range(3))
        assert one != b"UUUU" and one[1:] == b"UUU"
        assert two == b"UUUU"
        assert three != b"UUUU" and three[:2] + three[3:] == b"UUU"
        client.close()
        assert vaurien.stop() == 0


def test_a_torn_last_line_warns_and_the_rest_is_replayed(
    tmp_path: Path, echo_backend: Backend
) -> None:
    file = journal(tmp_path, line(1, 2, chance=100))
    with file.open("a") as end:
        end.write(line(1, 1)[:70])
    with proxy(echo_backend, "--replay", file) as vaurien:
        assert touched(vaurien) == [(1, 2)]
        vaurien.stop()
        (said,) = [text for text in vaurien.log if " is torn" in text]
        assert "WARNING" in said and "line 2" in said


@pytest.mark.parametrize("kind", ["version", "two runs"])
def test_a_journal_that_does_not_do_is_refused_before_anything_listens(
    tmp_path: Path, kind: str
) -> None:
    newer = json.dumps({**json.loads(line(1, 1)), "v": 2})
    lines, words = {
        "version": ([newer], "version 2"),
        "two runs": ([line(1, 1), line(1, 1)], "two runs"),
    }[kind]
    file = journal(tmp_path, *lines)
    text = refused("--replay", file, "--local", "127.0.0.1:0")
    assert words in text and str(file) in text


def test_a_last_line_counts_that_only_lacks_its_line_feed(tmp_path: Path) -> None:
    file = journal(tmp_path, line(1, 2))
    file.write_text(file.read_text().rstrip("\n"))
    found = resolve({"replay": Raw(str(file), "--replay")}, [], {})
    assert found.plan.decisions == {(1, 2): "corrupt"}
    assert not any(" is torn" in warning for warning in found.warnings)


def test_an_empty_journal_does_nothing_and_is_no_error(tmp_path: Path) -> None:
    raws = {"replay": str(journal(tmp_path)), "behavior": "100:error", "seed": "3"}
    found = resolve({name: Raw(value, f"--{name}") for name, value in raws.items()}, [], {})
    assert found.plan.is_quiet
    assert found["seed"] == 3


def test_check_shows_what_a_replay_makes_of_the_settings(tmp_path: Path) -> None:
    file = journal(tmp_path, line(1, 1))
    result = run("--check", "--replay", file, "--seed", 3)
    assert result.returncode == 0
    assert re.search(r"^seed +7 +--replay$", result.stdout, re.M)
    assert "do not count" in result.stderr


def test_a_run_under_exact_points_is_replayed_without_them(
    tmp_path: Path, echo_backend: Backend
) -> None:
    # scope=proxy, since and until depend on interleaving; a replay covers them.
    file = tmp_path / "run.jsonl"
    points = (
        *("--behavior", "100:corrupt", "--handlers.corrupt.chance", 100),
        *("--handlers.corrupt.scope", "proxy", "--handlers.corrupt.every", 3),
        *("--handlers.corrupt.times", 2, "--handlers.corrupt.clients", "127.0.0.0/8"),
    )
    with proxy(echo_backend, *points, "--journal", file) as vaurien:
        done = touched(vaurien, 2, 5)
        wait_lines(file, 2)
        vaurien.stop()
    assert done == [(2, 1), (3, 2)]
    with proxy(echo_backend, "--replay", file) as vaurien:
        assert touched(vaurien, 2, 5) == done
        vaurien.stop()
        assert "all decisions of the replay came to pass" in vaurien.text


def test_a_preset_is_replayed(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "run.jsonl"
    config = tmp_path / "mine.ini"
    config.write_text("[preset:mine]\nlatency = 30\nloss = 0\n")
    with proxy(echo_backend, "--config", config, "--behavior", "100:mine", "--journal", file) as v:
        assert touched(v, 2) == []
        wait_lines(file, 2)
        v.stop()
    with proxy(echo_backend, "--replay", file, "--journal", tmp_path / "again.jsonl") as v:
        assert touched(v, 3) == []
        v.stop()
    again = read(tmp_path / "again.jsonl")
    assert summary(again) == summary(read(file))
    assert all(entry["seconds"] >= 0.06 for entry in again)


def test_a_replay_goes_on_when_its_behavior_comes_back_and_what_it_missed_is_told(
    tmp_path: Path, echo_backend: Backend
) -> None:
    file = journal(tmp_path, *(line(1, n, chance=100) for n in (1, 2, 3)))
    with start_proxy(distant=echo_backend.address, replay=str(file)) as running:
        api, client = running.client, dial(running.address)
        assert exchange(client, b"UUUU") != b"UUUU"
        api.set_behavior("100:dummy", ttl=1)
        assert exchange(client, b"UUUU") == b"UUUU"
        former = str(resolve({"replay": Raw(str(file), "")}, [], {}).plan.behavior)
        wait_for(lambda: api.get_behavior()["behavior"] == former)
        api.set_behavior(on_connect="100:slow_accept")  # which is none of its business
        assert exchange(client, b"UUUU") != b"UUUU"
        client.close()
        running.stop()
    (said,) = [text for text in running.log.splitlines() if "did not come to pass" in text]
    assert re.search(r"\b1\b.*\b1\.2\b", said) and "1.3" not in said


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_journal_of_a_replay_is_that_of_the_run(
    tmp_path: Path, echo_backend: Backend, warmup: int
) -> None:
    behavior = ("--behavior", "50:error,50:transient", "--handlers.error.warmup", warmup)
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    kept = []
    for file, given in ((first, behavior), (second, ("--replay", first))):
        with proxy(echo_backend, *given, "--journal", file) as vaurien, vaurien.dial() as client:
            for _ in range(10):
                assert len(exchange(client, b"hello")) == 5
            client.close()
            assert vaurien.stop() == 0
        changes = {"time": None, "seconds": None, "client": None}
        kept.append([{**line, **changes} for line in read(file)])
    assert kept[0] and kept[0] == kept[1]
