"""Whoever takes a time or a size says in which unit: a docstring names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import vaurien
from tests.laws.rooms import modules

ROOT = Path(vaurien.__file__).parent

#: What a parameter is called that is a time, a size or a rate: one of its words is among these.
QUANTITIES = {
    *("timeout", "delay", "duration", "interval", "drain", "ttl", "now", "until", "since", "due"),
    *("deadline", "seconds", "took", "patience", "period", "wait", "after", "lag", "latency"),
    *("size", "limit", "bytes", "held", "rate", "bufsize", "nbytes", "microseconds", "width"),
}
#: Words that say what it is counted in.
UNIT = re.compile(
    r"\b(s|ms|seconds?|milliseconds?|microseconds?|bytes?|KiB|MiB|KB|kB|KB/s|columns?|lines?"
    r"|characters?|percent|exchanges?|many|clock)\b"
)


class Taken(NamedTuple):
    """A public function, and what it takes."""

    place: str
    parameters: tuple[str, ...]
    text: str  # its docstring, with its class's and those of its own parameters' names


def quantities(tree: ast.Module, place: str) -> Iterator[Taken]:
    """The public functions and methods of a module that take a time or a size as a number."""
    yield from _of(tree.body, place, "", inherits=False)


def _of(body: list[ast.stmt], place: str, around: str, inherits: bool) -> Iterator[Taken]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node) or ""
            yield from _of(node.body, f"{place}.{node.name}", text, bool(node.bases))
        elif isinstance(node, ast.FunctionDef):
            public = not node.name.startswith("_") or node.name in ("__init__", "__new__")
            taken = tuple(_numbers(node.args)) if public else ()
            if taken:
                # A class says for its __init__ what that does not; a method speaks for itself, or
                # without a docstring, as what it overrides does.
                own = ast.get_docstring(node)
                if own is None and inherits and not node.name.startswith("_"):
                    continue
                text = f"{around}\n{own or ''}" if node.name.startswith("_") else own or ""
                yield Taken(f"{place}.{node.name}", taken, text)


def _numbers(arguments: ast.arguments) -> Iterator[str]:
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        kind = "" if one.annotation is None else ast.unparse(one.annotation)
        number = re.search(r"\b(float|int)\b", kind)
        if number and QUANTITIES & set(one.arg.split("_")):
            yield one.arg


def unnamed(root: Path) -> dict[str, tuple[str, ...]]:
    """The functions of a package whose docstrings name no unit, with what they take."""
    return {
        taken.place: taken.parameters
        for name, path in modules(root).items()
        if not any(part.startswith("_") for part in name.split("."))
        for taken in quantities(ast.parse(path.read_text()), name)
        if not UNIT.search(taken.text)
    }


def test_who_takes_a_time_or_a_size_names_its_unit() -> None:
    assert set(unnamed(ROOT)) == set()


def house(root: Path, text: str) -> Path:
    """A package ``house`` with one module."""
    (root / "house").mkdir()
    (root / "house" / "room.py").write_text(text)
    return root / "house"


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ('def f(timeout: float):\n    """Wait."""', {"house.room.f": ("timeout",)}),
        ('def f(timeout: float):\n    """Wait so many seconds."""', {}),
        ('def f(timeout: float):\n    """Wait; `timeout` in ms."""', {}),
        ("def f(timeout: float | None): ...", {"house.room.f": ("timeout",)}),
        ("def f(timeout: Timer): ...", {}),
        ("def _f(timeout: float): ...", {}),
        ("def f(*, max_size: int): ...", {"house.room.f": ("max_size",)}),
        (
            'class C:\n    """With s."""\n    def f(self, n_bytes: int): ...',
            {"house.room.C.f": ("n_bytes",)},
        ),
        ('class C:\n    """`n_bytes`, bytes."""\n    def __init__(self, n_bytes: int): ...', {}),
        ("class C(D):\n    def f(self, size: int): ...", {}),
        ("class _C:\n    def f(self, size: int): ...", {}),
    ],
)
def test_the_rule_itself(function: str, found: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    assert unnamed(house(tmp_path, function)) == found
