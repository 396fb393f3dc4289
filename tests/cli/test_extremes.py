"""Every setting that is a number, at the ends of its range: the program works with it."""

from __future__ import annotations

import contextlib

import pytest

from tests.support import Backend, dial, exchange, proxy, run
from vaurien.options import Bounded, Option, whole
from vaurien.settings import SETTINGS

PORTS = ("http-port", "toxiproxy-port")  # of this machine, for anybody to have
NUMBERS = [
    option
    for option in SETTINGS
    if (isinstance(option.type, Bounded) or option.type is whole) and option.name not in PORTS
]


def ends(option: Option) -> list[str]:
    """The least and the most that a setting takes, and next to nothing if that is within."""
    if option.type is whole:
        return [str(-(2**200)), "0", str(2**200)]
    assert isinstance(option.type, Bounded)
    tiny = ["5e-324", "1e-305"] if option.type.low == 0 and option.type.base is not whole else []
    zero = ["0"] if option.type.or_zero else []
    bounds = [option.type.base(bound) for bound in (option.type.low, option.type.high)]
    return [*zero, *tiny, *map(repr, bounds)]


CASES = [(option.name, value) for option in NUMBERS for value in ends(option)]


def test_all_numbers_among_the_settings_are_tried() -> None:
    assert {option.name for option in NUMBERS} == {
        *("seed", "timeout", "connect-timeout", "max-connections", "backlog", "spin", "max-held"),
        *("drain", "dns-ttl", "keepalive"),
    }


@pytest.mark.parametrize(("setting", "value"), CASES)
def test_it_works_at_the_ends(setting: str, value: str, echo_backend: Backend) -> None:
    with proxy(echo_backend, f"--{setting}", value) as program:
        with contextlib.suppress(ConnectionError), dial(program.address) as sock:
            echoed = exchange(sock, b"hello" * 50_000)
            assert echoed == b"hello" * 50_000 or setting == "timeout"
        assert program.stop() == 0
        assert "Traceback" not in program.text


BEYOND = [
    ("timeout", "5e-324", "less than 0.001, and not 0"),
    ("timeout", "1e300", "more than"),
    ("spin", "1" + "0" * 400, "more than 1000000"),
    ("spin", "1" * 5000, "is not a whole number"),
    ("max-held", str(2**63), "more than 9223372036854775807"),
    ("max-connections", str(2**63), "more than 9223372036854775807"),
    ("drain", "nan", "is not a finite number"),
    ("connect-timeout", "1e-305", "less than 0.001"),
]


@pytest.mark.parametrize(("setting", "value", "why"), BEYOND)
def test_what_cannot_work_is_refused_at_the_start(setting: str, value: str, why: str) -> None:
    ended = run("--check", f"--{setting}={value}")
    assert ended.returncode == 2
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith(f"vaurien: --{setting}: ")
    assert why in sentence
