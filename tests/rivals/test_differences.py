"""The list of what differs from Toxiproxy holds: all of it is tested, and nothing else differs."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.rivals.differences import BY_NAME, LIST, Difference, differs
from tests.wire import differences as of_answers
from tests.wire.differences import expected, same
from tests.wire.scripts import SCRIPTS

TESTS = Path(__file__).parents[1]


@cache
def marked() -> tuple[tuple[str, str], ...]:
    """The differences that tests are marked with, each with the test."""
    return tuple(found for path in sorted(TESTS.rglob("test_*.py")) for found in marked_in(path))


def marked_in(path: Path) -> Iterator[tuple[str, str]]:
    """Those in one file."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)) if "@differs(" in text else ():
        for mark in getattr(node, "decorator_list", ()):
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "differs":
                for name in mark.args:
                    assert isinstance(name, ast.Constant), f"{path}: {ast.unparse(mark)}"
                    yield str(name.value), f"{path.name}::{getattr(node, 'name', '?')}"


def recorded() -> Iterator[tuple[str, str]]:
    """The differences that recordings name, each with the recording."""
    for name in SCRIPTS:
        for difference in json.loads((TESTS / "wire" / f"{name}.json").read_text())["differences"]:
            yield difference, name


def test_each_difference_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(LIST)
    for one in LIST:
        assert all(text == " ".join(text.split()) and text for text in one), one
        assert one.why.endswith(".") and not one.here.endswith("."), one


@pytest.mark.parametrize("one", LIST, ids=lambda one: one.name)
def test_each_difference_is_shown_by_a_test_or_a_recording(one: Difference) -> None:
    assert one.name in {name for name, _ in (*marked(), *recorded())}


def test_nothing_names_a_difference_that_is_not_listed() -> None:
    unlisted = [(name, place) for name, place in (*marked(), *recorded()) if name not in BY_NAME]
    assert unlisted == []
    assert set(of_answers.DIFFERENCES) <= set(BY_NAME)
    with pytest.raises(KeyError):
        differs("nothing")


@pytest.mark.parametrize("name", SCRIPTS)
def test_where_vaurien_answers_otherwise_a_difference_is_named(name: str) -> None:
    for entry in json.loads((TESTS / "wire" / f"{name}.json").read_text())["talk"]:
        made, names = expected(entry["answer"])
        wanted = entry.get("vaurien", made)
        names += [entry["differs"]] if "differs" in entry else []
        assert bool(names) != same(wanted, entry["answer"]), entry["request"]
        if "vaurien" in entry:  # else it needs none of its own, and names one that is not there
            assert entry["differs"] and not same(wanted, made), entry["request"]
