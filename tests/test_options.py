"""Declared options: what is a declaration, how a value converts, what is said of a wrong one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaurien import options
from vaurien.errors import UsageError
from vaurien.options import Bounded, Option, count, declared, seconds, show, told, whole


def option(kind: Any, default: Any = None, *choices: Any) -> Option:
    """A declared option ``x``."""
    declaration = ("What it is", kind, default, *([choices] if choices else []))
    return Option.declared("x", declaration)


def test_a_value_in_a_sentence_is_told_as_json_has_it() -> None:
    assert told("soon") == "'soon'"
    assert [told(value) for value in (True, None, 1, 0.5)] == ["true", "null", "1", "0.5"]
    assert told({"a": [None]}) == '{"a": [null]}'
    assert told("x" * 1000) == f"'{'x' * 199}..."
    assert told(object()).startswith('"<object')  # of a program in Python


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "7", 7),
        (int, " 7 ", 7),
        (int, "-7", -7),
        (int, "007", 7),
        (int, 7, 7),
        (int, 7.0, 7),
        (float, "1.5", 1.5),
        (float, "1", 1.0),
        (float, "-.5", -0.5),
        (float, "1e3", 1000.0),
        (bool, "yes", True),
        (bool, "on", True),
        (bool, "true", True),
        (bool, "1", True),
        (bool, "YES", True),
        (bool, True, True),
        (bool, 1, True),
        (bool, "no", False),
        (bool, "off", False),
        (bool, "false", False),
        (bool, "0", False),
        (bool, " Off ", False),
        (bool, False, False),
        (str, "text", "text"),
        (str, "1.10", "1.10"),
        (str, "", ""),
        (seconds, "0", 0.0),
        (seconds, "0.05", 0.05),
        (count, "3", 3),
    ],
)
def test_a_value_is_converted(kind: Any, value: Any, expected: Any) -> None:
    converted = option(kind).convert(value, "here")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, ""),
        (int, "1.5"),
        (int, 1.5),
        (int, "seven"),
        (int, True),
        (int, None),
        (float, ""),
        (float, "soon"),
        (float, "nan"),
        (float, "inf"),
        (float, "-inf"),
        (float, True),
        (bool, ""),
        (bool, "maybe"),
        (bool, "2"),
        (bool, "y e s"),
        (seconds, "-0.1"),
        (seconds, "nan"),
        (count, "-1"),
        (count, "1.5"),
    ],
)
def test_a_value_that_does_not_convert_is_refused_with_all_that_helps(
    kind: Any, value: Any
) -> None:
    default = {bool: True}.get(kind, 1)
    with pytest.raises(UsageError) as caught:
        option(kind, default).convert(value, "--handlers.delay.x")
    sentence = str(caught.value)
    assert sentence.startswith(f"--handlers.delay.x: {told(value)} ")
    assert "What it is" in sentence
    assert f"default: {show(default)}" in sentence
    assert "\n" not in sentence


def test_a_choice_has_to_be_one() -> None:
    scope = option(str, "connection", "connection", "proxy")
    assert scope.convert("proxy", "here") == "proxy"
    with pytest.raises(UsageError, match="here: 'proxi' is not a choice; did you mean 'proxy'"):
        scope.convert("proxi", "here")


def test_choices_are_of_the_options_type() -> None:
    size = option(int, 1, 1, 2, 4)
    assert size.convert("4", "here") == 4
    with pytest.raises(UsageError, match="choices: 1, 2, 4"):
        size.convert("3", "here")


def test_a_type_of_the_users_own_may_refuse_in_its_own_words() -> None:
    def colour(value: str) -> str:
        if value not in ("red", "green"):
            raise LookupError("there is no such colour")
        return value.upper()

    paint = option(colour, "red")
    assert paint.convert("green", "here") == "GREEN"
    with pytest.raises(UsageError, match="here: 'blue' is not accepted as colour: there is no"):
        paint.convert("blue", "here")


@pytest.mark.parametrize(
    ("name", "declaration"),
    [
        ("x", "What it is"),
        ("x", ("What it is", int)),
        ("x", ("What it is", int, 1, (1,), "more")),
        ("x", ("What it is", "int", 1)),
        ("x", ("What it is", int, "one")),
        ("x", ("What it is", bool, "maybe")),
        ("x", ("What it is", str, "a", 5)),
        ("x", ("What it is", str, "c", ("a", "b"))),
        ("", ("What it is", int, 1)),
        (5, ("What it is", int, 1)),
    ],
)
def test_a_malformed_declaration_is_refused(name: object, declaration: object) -> None:
    with pytest.raises(ValueError, match="option"):
        Option.declared(name, declaration)


def test_one_name_in_two_spellings_is_declared_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        declared({"a_b": ("", int, 1), "a-b": ("", int, 1)})


def test_an_option_is_found_in_both_spellings() -> None:
    table = declared({"a_b": ("", int, 1)})
    for name in ("a_b", "a-b"):
        assert options.find(table, name, "here", "option").name == "a_b"


def test_an_option_that_is_not_there_is_told_with_the_nearest() -> None:
    table = declared({"sleep": ("", int, 1), "before": ("", bool, True)})
    with pytest.raises(UsageError, match=r"^here: there is no option 'slep'; did you mean 'sleep'"):
        options.find(table, "slep", "here", "option")
    with pytest.raises(UsageError, match="options: before, sleep"):
        options.find(table, "colour", "here", "option")


@pytest.mark.parametrize(
    ("kind", "default", "expected"),
    [
        (float, 1, 1.0),
        (bool, "no", False),
        (int, "5", 5),
        (int, None, None),
        (str, "x", "x"),
    ],
)
def test_a_default_is_converted_and_none_stays_none(kind: Any, default: Any, expected: Any) -> None:
    got = option(kind, default).get_default()
    assert got == expected
    assert type(got) is type(expected)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_comes_through_its_text(value: float) -> None:
    assert option(float).convert(repr(value), "here") == value


@given(st.booleans() | st.integers() | st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_what_show_writes_converts_back(value: Any) -> None:
    assert option(type(value)).convert(show(value), "here") == value


@given(st.text())
def test_any_text_converts_or_is_refused_in_a_sentence(text: str) -> None:
    for kind in (int, float, bool, whole, seconds, count):
        with contextlib.suppress(UsageError), _told_by("here: "):
            option(kind).convert(text, "here")


@contextlib.contextmanager
def _told_by(start: str) -> Iterator[None]:
    """A UsageError passes if its text begins with `start`."""
    try:
        yield
    except UsageError as error:
        if not str(error).startswith(start):
            raise AssertionError(f"{error} does not begin with {start!r}") from error
        raise


def test_bounds_are_part_of_the_type() -> None:
    dozen = Bounded(whole, "dozen", 1, 12)
    assert [dozen("1"), dozen("12")] == [1, 12]
    for wrong, why in (("0", "less than 1"), ("13", "more than 12")):
        with pytest.raises(UsageError, match=f"here: '{wrong}' is {why}"):
            option(dozen).convert(wrong, "here")
