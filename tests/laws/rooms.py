"""The rooms of the house, read from its imports: pure functions of a tree of files.

All imports count: those for types only, and those inside functions. What is looked up by a name at
run time, as the registry does with handlers, is no import. Whoever imports the package itself may
take its version from it and nothing else, for its other names are those of the rooms above.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: Modules by full name, each with those that it imports.
Graph = Mapping[str, frozenset[str]]


def modules(root: Path) -> dict[str, Path]:
    """The files of the package at `root` by the names of their modules."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(root: Path) -> dict[str, frozenset[str]]:
    """Who imports whom in the package at `root`."""
    files = modules(root)
    return {name: frozenset(_imported(name, path, files)) for name, path in files.items()}


def _imported(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    top = name.partition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                lends = alias.name == top and alias.asname is None and _takes_version(tree, top)
                if alias.name in files and not lends:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            levels = package.split(".")
            above = levels[: len(levels) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                if whole in files:
                    yield whole
                elif module in files:
                    yield module


def _takes_version(tree: ast.AST, top: str) -> bool:
    """Whether all that a file takes from the name `top` is the version."""
    return all(
        node.attr == "__version__"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == top
    )


def circles(graph: Graph) -> list[list[str]]:
    """The modules that import each other by any way round, each circle in alphabetical order."""
    reach = {name: _reached(graph, name) for name in graph}
    found: dict[str, list[str]] = {}
    for name in sorted(graph):
        circle = sorted(other for other in reach[name] if name in reach[other])
        if circle:
            found.setdefault(circle[0], circle)
    return list(found.values())


def _reached(graph: Graph, start: str) -> set[str]:
    """All that `start` imports, and what those do, and so on."""
    seen: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def level(name: str, levels: Sequence[Sequence[str]]) -> int:
    """At which of the `levels` a module is, from the top; the last one is of those without a name.

    The package itself and its ``__main__`` are doors, above all.
    """
    parts = name.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return -1
    places = (place for place, rooms in enumerate(levels) if parts[1] in rooms)
    return next(places, len(levels))


def upward(graph: Graph, levels: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The imports from a level above one's own."""
    return sorted(
        (name, other)
        for name, others in graph.items()
        for other in others
        if level(other, levels) < level(name, levels)
    )


def joined(graph: Graph, some: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """The imports between two groups of rooms that are not to know each other, either way."""

    def between(name: str, other: str) -> bool:
        rooms = [part.split(".")[1] if "." in part else "" for part in (name, other)]
        return any(one in some and two in others for one, two in (rooms, rooms[::-1]))

    return sorted(
        (name, other) for name, them in graph.items() for other in them if between(name, other)
    )


def long_files(root: Path, most: int) -> dict[str, int]:
    """The files of more than `most` lines, and how many they have."""
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules(root).items()}
    return {name: n for name, n in lengths.items() if n > most}


def large_classes(root: Path, most: int) -> dict[str, int]:
    """The classes of more than `most` lines, as ``module:Class``, and how many they have."""
    found = {}
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.end_lineno is not None:
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                found[f"{name}:{node.name}"] = node.end_lineno - first + 1
    return {name: n for name, n in found.items() if n > most}
