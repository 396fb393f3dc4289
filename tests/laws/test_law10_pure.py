"""Law 10: the pure rooms import no gevent, socket or time."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import vaurien
from vaurien import registry

ROOT = Path(vaurien.__file__).parent
FORBIDDEN = {
    "asyncio",
    "datetime",
    "gevent",
    "greenlet",
    "select",
    "selectors",
    "socket",
    "_socket",
    "ssl",
    "threading",
    "time",
}
#: The files of the built-in handlers that work on events, and of those that meet clients.
HANDLERS = {
    Path(file)
    for cls in registry.builtins().values()
    if registry.kind(cls) != "socket" and (file := inspect.getsourcefile(cls))
}
#: What pure rooms may take from Vaurien itself: each other, and the errors.
PURE = [
    *sorted(ROOT.glob("flow/**/*.py")),
    *sorted(ROOT.glob("exchange/**/*.py")),
    *sorted(HANDLERS),
    ROOT / "handlers" / "message.py",
    ROOT / "kinds.py",
    ROOT / "plan.py",
    ROOT / "fitting.py",
    ROOT / "specification.py",
    ROOT / "ini.py",
    ROOT / "counts.py",
    *sorted(ROOT.glob("protocols/**/*.py")),
    ROOT / "behavior.py",
    ROOT / "options.py",
    ROOT / "address.py",
    ROOT / "errors.py",
]


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, by full name, relative ones too."""
    package = ("vaurien", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield module
            room = ROOT.parent / module.replace(".", "/")
            if room.is_dir():
                names = {alias.name for alias in node.names}
                files = {path.stem for path in room.iterdir()}
                yield from (f"{module}.{name}" for name in names & files)


def of(path: Path) -> str:
    """The name of a file as tests show it."""
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """The module's full name."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_a_pure_room_imports_no_clock_no_socket_and_no_loop() -> None:
    found = {
        of(path): names
        for path in PURE
        if (names := {name.partition(".")[0] for name in imports(path)} & FORBIDDEN)
    }
    assert found == {}


def test_a_pure_room_imports_of_vaurien_only_what_is_pure() -> None:
    pure = {"vaurien", *map(module, PURE)}  # the bare package: `from vaurien import options`
    found = {
        of(path): names
        for path in PURE
        if (names := {n for n in imports(path) if n.partition(".")[0] == "vaurien"} - pure)
    }
    assert found == {}


def test_a_pure_room_imports_nothing_by_name_at_run_time() -> None:
    assert [of(path) for path in PURE if "import_module" in path.read_text()] == []
    assert [of(path) for path in PURE if "__import__" in path.read_text()] == []


def test_the_rooms_are_there() -> None:
    # Else the tests above would look at nothing.
    assert ROOT / "protocols" / "tcp.py" in PURE
    assert ROOT / "flow" / "chain.py" in PURE
    assert ROOT / "exchange" / "ledger.py" in PURE
    assert len(HANDLERS) > 15
    assert all(path.is_file() for path in PURE)
