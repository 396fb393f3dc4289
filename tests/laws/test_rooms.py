"""The house: no circle of imports, no arrow upwards, no file and no class too large to be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import vaurien
from tests.laws.rooms import circles, graph, joined, large_classes, long_files, upward

ROOT = Path(vaurien.__file__).parent
GRAPH = graph(ROOT)

#: From the top. A file imports from the levels below, and from its own if no circle comes of it;
#: what is not named is the ground: kinds, plan, catalog, options, address, counts, errors, ...
LEVELS = (
    ("cli",),
    ("kit", "client", "testing"),
    ("settings",),
    ("control",),
    ("relay",),
    ("access", "bodies", "gojson", "strictjson"),
    ("handlers",),
    ("exchange", "protocols", "flow", "net"),
    ("observe",),
)
#: What decides, and what moves bytes: relay joins them.
PURE, LOOP = ("exchange", "protocols", "flow"), ("net",)
LINES, LINES_OF_A_CLASS = 400, 250
#: Files that are tables, as long as what they list.
TABLES = {"vaurien.control.openapi"}


def test_no_modules_import_each_other() -> None:
    assert circles(GRAPH) == []


def test_no_arrow_runs_up() -> None:
    assert upward(GRAPH, LEVELS) == []


def test_what_decides_and_what_moves_bytes_do_not_know_each_other() -> None:
    assert joined(GRAPH, PURE, LOOP) == []


def test_no_file_is_too_long_but_tables() -> None:
    assert set(long_files(ROOT, LINES)) == TABLES


def test_no_class_is_too_large() -> None:
    assert large_classes(ROOT, LINES_OF_A_CLASS) == {}


def test_each_room_of_the_table_is_there() -> None:
    there = {name.split(".")[1] for name in GRAPH if "." in name}
    assert {room for level in LEVELS for room in level} <= there


# The rules themselves, on houses that are built to break them.


def built(root: Path, files: Mapping[str, str]) -> Path:
    """A package ``house`` of `files`, text by path."""
    house = root / "house"
    for path, text in {"__init__.py": "__version__ = '1'\n", **files}.items():
        file = house / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return house


PLANTED = {
    "plain": "from house.low import b",
    "of the whole module": "import house.low.b",
    "for types only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.low.b",
    "inside a function": "def f():\n    from house.low import b",
    "relative": "from ..low.b import x",
    "of a package": "from house import low",
}


@pytest.mark.parametrize("how", PLANTED)
def test_an_import_counts_however_it_is_written(how: str, tmp_path: Path) -> None:
    house = built(
        tmp_path,
        {"low/__init__.py": "", "low/b.py": "import house.high.a", "high/a.py": PLANTED[how]},
    )
    target = "house.low" if how == "of a package" else "house.low.b"
    assert graph(house)["house.high.a"] == {target}
    levels = (("high",), ("low",))
    assert upward(graph(house), levels) == [("house.low.b", "house.high.a")]
    assert upward(graph(house), levels[::-1]) == [("house.high.a", target)]
    if target == "house.low.b":
        assert circles(graph(house)) == [["house.high.a", "house.low.b"]]


def test_a_circle_of_several_is_found_once(tmp_path: Path) -> None:
    house = built(
        tmp_path,
        {
            "a.py": "from house import b",
            "b.py": "from house import c",
            "c.py": "from house.a import x",
            "d.py": "from house import a",
            "e.py": "",
        },
    )
    assert circles(graph(house)) == [["house.a", "house.b", "house.c"]]


def test_the_door_lends_its_version_only(tmp_path: Path) -> None:
    house = built(
        tmp_path,
        {
            "low/a.py": "import house\nhouse.__version__",
            "low/b.py": "import house\nhouse.Client",
            "low/c.py": "from house import Client",
            "low/d.py": "import house as h\nh.Client",
        },
    )
    up = upward(graph(house), (("high",), ("low",)))
    assert up == [("house.low.b", "house"), ("house.low.c", "house"), ("house.low.d", "house")]


def test_what_is_not_named_is_the_ground(tmp_path: Path) -> None:
    house = built(
        tmp_path, {"errors.py": "import house.high.a", "high/a.py": "import house.errors"}
    )
    assert upward(graph(house), (("high",),)) == [("house.errors", "house.high.a")]


@pytest.mark.parametrize("first", ["pure", "loop"])
def test_two_rooms_that_are_not_to_know_each_other(first: str, tmp_path: Path) -> None:
    other = {"pure": "loop", "loop": "pure"}[first]
    house = built(tmp_path, {f"{first}/a.py": f"import house.{other}.b", f"{other}/b.py": ""})
    found = joined(graph(house), ("pure",), ("loop",))
    assert found == [(f"house.{first}.a", f"house.{other}.b")]


def test_long_files_and_large_classes_are_found(tmp_path: Path) -> None:
    house = built(
        tmp_path,
        {
            "long.py": "x = 1\n" * 11,
            "short.py": "x = 1\n" * 10,
            "large.py": "@str\nclass Large:\n    x = 1\n    y = 2\n\n\nclass Small:\n    x = 1\n",
        },
    )
    assert long_files(house, 10) == {"house.long": 11}
    assert large_classes(house, 3) == {"house.large:Large": 4}
