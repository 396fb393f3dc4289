"""``vaurien --demo``: two hundred requests, and a table that checks itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from math import comb

import pytest

from tests.cli.helpers import accepted, refused
from tests.support import PATIENCE, Program
from vaurien.cli.demo import BEHAVIOR, REQUESTS, Expected, Seen, bounds, check

HANDLERS = {"delay": 25, "error": 15, "reset": 10, "dummy": 50}


def counts(output: str) -> dict[str, int]:
    """How many exchanges the table gives each handler."""
    rows = re.findall(r"^(\w+) +(\d+)% +(\d+) +", output, re.MULTILINE)
    assert {name: int(share) for name, share, _ in rows} == HANDLERS
    return {name: int(count) for name, _, count in rows}


@pytest.fixture(scope="module")
def output() -> str:
    return accepted("--demo")


def test_the_demo_is_what_was_promised() -> None:
    assert (BEHAVIOR, REQUESTS) == ("25:delay,15:error,10:reset", 200)


def test_all_requests_are_in_the_table(output: str) -> None:
    assert sum(counts(output).values()) == 200


def test_each_handler_did_what_it_says(output: str) -> None:
    for name, word in (
        ("delay", "the answer"),
        ("error", "garbage"),
        ("reset", "connection reset"),
        ("dummy", "the answer"),
    ):
        (row,) = re.findall(rf"^{name} .*", output, re.MULTILINE)
        assert word in row
        p50, longest = re.findall(r"([\d.]+) ms", row)
        assert float(p50) <= float(longest)
        assert (float(p50) >= 50) == (name == "delay")


def test_shares_lie_within_the_bounds_that_are_shown(output: str) -> None:
    rows = re.findall(r"^\w+ +\d+% +(\d+) +(\d+) to (\d+) ", output, re.MULTILINE)
    assert len(rows) == 4
    for count, low, high in rows:
        assert int(low) <= int(count) <= int(high)


def test_the_seed_is_1_unless_told_otherwise(output: str) -> None:
    assert re.search(r"seed 1\b", output)


def test_the_same_seed_picks_the_same(output: str) -> None:
    assert counts(accepted("--demo", "--seed", 1)) == counts(output)


def test_another_seed_picks_otherwise_and_a_terminal_sees_a_bar(output: str) -> None:
    master, slave = os.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "vaurien", "--demo", "--seed=7"],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=Program().env,
        ) as process:
            os.close(slave)
            data = b""
            try:
                while chunk := os.read(master, 65536):
                    data += chunk
            except OSError:
                pass  # Linux says EIO when the other end is closed
            _, errors = process.communicate(timeout=20)
    finally:
        os.close(master)
    text = data.decode().replace("\r\n", "\n")
    assert (process.returncode, errors) == (0, b"")
    assert text.count("\r") > 20, "the bar moves"
    assert re.search(r"seed 7\b", text)
    assert counts(text) != counts(output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_ended_is_no_success(number: int, code: int) -> None:
    master, slave = os.openpty()
    with (
        open(master, "rb", buffering=0) as screen,
        subprocess.Popen(
            [sys.executable, "-m", "vaurien", "--demo"],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=Program().env,
        ) as process,
    ):
        os.close(slave)
        while b"] 1 of" not in screen.read(65536):
            pass
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (code, b"")


def test_without_a_terminal_there_is_no_bar(output: str) -> None:
    assert "\r" not in output
    assert len(output.splitlines()) < 20


def test_settings_that_the_demo_would_ignore_are_refused() -> None:
    assert "--behavior" in refused("--demo", "--behavior", "20:delay")


# How it checks itself


@pytest.mark.parametrize("share", [0.1, 0.15, 0.25, 0.5])
def test_the_bounds_are_those_of_the_binomial_distribution(share: float) -> None:
    def chance(first: int, last: int) -> float:
        return sum(comb(200, k) * share**k * (1 - share) ** (200 - k) for k in range(first, last))

    low, high = bounds(200, share)
    assert chance(low, high + 1) >= 0.9999
    assert chance(0, low + 1) > 0.00005, "the lower bound is as high as it may be"
    assert chance(high, 201) > 0.00005, "the upper bound is as low as it may be"


EXPECTED = {"delay": Expected(0.5, "the answer", 0.05), "dummy": Expected(0.5, "the answer")}
GOOD = [Seen("delay", "the answer", 0.06), Seen("dummy", "the answer", 0.001)] * 100


def test_it_has_nothing_to_complain_of_when_all_is_well() -> None:
    assert list(check(GOOD, EXPECTED)) == []


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ([Seen("delay", "the answer", 0.01), *GOOD[1:]], "delay"),
        ([*GOOD[:-1], Seen("dummy", "garbage", 0.001)], "dummy"),
        ([*GOOD[:-1], Seen("hang", "the answer", 0.001)], "hang"),
        ([GOOD[0]] * 60 + [GOOD[1]] * 140, "delay"),
    ],
    ids=["too quick", "wrong outcome", "unknown handler", "wrong share"],
)
def test_it_complains_of_what_is_not_as_it_should_be(wrong: list[Seen], word: str) -> None:
    assert any(word in complaint for complaint in check(wrong, EXPECTED))
