"""The reference of handlers, presets, settings and metrics, generated from what is declared in the
code; the tests of the laws, from the tests.

Law: pure; needs `vaurien` and no Sphinx, so that tests can hold the text against the declarations.
The pages are made anew with each build of the docs; no copy of them is kept.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from tests.rivals.differences import LIST
from vaurien import ini, presets, registry
from vaurien.kinds import Kind
from vaurien.observe.metrics import FAMILIES
from vaurien.options import Option, show
from vaurien.settings import SETTINGS
from vaurien.specification import POINTS, STREAM

ROOT = Path(__file__).parents[2]
PRESETS = Path(presets.__file__).with_name("presets.ini")
ENORMOUS = 1e9  # a bound that only keeps out nonsense is not worth a word in each table
LISTED = 12  # tests; of a file with more, only their number is told


def handlers(kind: str) -> str:
    """A section for each built-in handler of a kind: its docstring, its options, how to use it.

    The kind is one of `vaurien.kinds.Kind`; ValueError if there is no such kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"there is no handler of the kind {kind!r}")
    classes = [cls for cls in registry.builtins().values() if registry.kind(cls) == kind]
    if not classes:
        return "None of these is built in."
    return "\n".join(line for cls in classes for line in _handler(cls))


def common() -> str:
    """A table of the options that every handler takes, and every flow handler."""
    rows = [(f"``{o.name}``", *_row(o)) for o in (*POINTS.values(), *STREAM.values())]
    return "\n".join(table((("Option", "Type", "Default", "Meaning"), *rows), "15 15 15 55"))


def lines() -> str:
    """A table of the presets, with the figures as they are published, and by whom."""
    header = ("Preset", "Delay in ms", "Down in kbit/s", "Up in kbit/s", "Loss in %", "Source")
    rows = []
    for title, given in ini.read(str(PRESETS), "presets.ini").items():
        values = {name: raw.value for name, raw in given.items()}
        if "rtt" in values:
            delay = f"{values['rtt']} there and back"
        elif "latency" in values:
            delay = f"{values['latency']} each way"
        elif "latency_down" in values:
            delay = f"{values['latency_down']} down, {values['latency_up']} up"
        else:
            delay = "\\-"
        figures = (delay, *(values.get(word, "0") for word in ("down", "up", "loss")))
        rows.append((f"``{title[len(presets.PREFIX) :]}``", *figures, plain(values["source"])))
    return "\n".join(table((header, *rows), "18 17 12 12 9 32"))


def preset_options() -> str:
    """A table of what a ``[preset:NAME]`` section may say."""
    rows = [(f"``{o.name}``", *_row(o)) for o in presets.OPTIONS.values()]
    return "\n".join(table((("Option", "Type", "Default", "Meaning"), *rows), "15 15 15 55"))


def settings() -> str:
    """A section for each setting: its description, default, choices, and its three names."""
    return "\n".join(line for option in SETTINGS for line in _setting(option))


def metrics() -> str:
    """A table of the metrics: kind, labels, meaning, and the name for statsd."""
    header = ("Metric", "Kind", "Labels", "Meaning", "In statsd")
    rows = [
        (
            f"``{family.name}``",
            family.kind,
            ", ".join(f"``{label}``" for label in family.labels) or "\\-",
            plain(family.help) + _bounds(family.bounds),
            f"``{family.short}``" if family.short else "\\-",
        )
        for family in FAMILIES
    ]
    return "\n".join(table((header, *rows), "32 10 14 32 12"))


def _bounds(bounds: tuple[float, ...]) -> str:
    return f" Buckets: {', '.join(f'{bound:g}' for bound in bounds)}." if bounds else ""


def sources() -> list[str]:
    """The files that the reference is made from."""
    modules = {
        "vaurien.settings.table",
        "vaurien.observe.metrics",
        "vaurien.specification",
        "vaurien.presets",
        *(cls.__module__ for cls in registry.builtins().values()),
    }
    return sorted([str(sys.modules[module].__file__) for module in modules] + [str(PRESETS)])


def differences() -> str:
    """A table of where Vaurien differs from Toxiproxy on purpose, as the tests know it."""
    rows = [(one.here, one.why) for one in LIST]
    return "\n".join(table((("Vaurien", "Why"), *rows), "36 64"))


def tests(patterns: Iterable[str]) -> str:
    """An item for each file of tests: its name, and what its tests say or how many there are."""
    return "\n".join(line for path in files(patterns) for line in _tests(path))


def files(patterns: Iterable[str]) -> list[Path]:
    """The files of the checkout that match; ValueError for a pattern that matches none."""
    found: list[Path] = []
    for pattern in patterns:
        matching = sorted(ROOT.glob(pattern))
        if not matching:
            raise ValueError(f"no file of tests matches {pattern}")
        found += matching
    return found


def _tests(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    names = [
        node.name.removeprefix("test_").replace("_", " ")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    if not names:
        raise ValueError(f"{path} has no tests")
    said = "; ".join(names) if len(names) <= LISTED else f"{len(names)} tests"
    yield from (f"- ``{path.relative_to(ROOT)}``: {plain(said)}.", "")


def _handler(cls: type) -> Iterator[str]:
    name = str(cls.name)  # type: ignore[attr-defined]
    options = list(registry.options_of(cls).values())
    yield from _heading(f"handler-{name}", f"``{name}``")
    yield from (inspect.getdoc(cls) or "").splitlines()
    yield ""
    if not options:
        yield from ("It has no options of its own.", "")
        return
    header = ("Option", "Type", "Default", "Meaning")
    rows = [(f"``{o.name}``", *_row(o)) for o in options]
    yield from table((header, *rows), "15 15 15 55")
    told = next((option for option in options if option.default is not None), None)
    if told is None:
        return
    first, value = told.name, show(told.default)
    yield from (
        f"To set ``{first}``: ``--handlers.{name}.{first} {value}``, or"
        f" ``{_variable(f'handlers-{name}-{first}')}={value}`` in the environment, or in the INI"
        " file::",
        "",
        f"    [handler:{name}]",
        f"    {first} = {value}",
        "",
    )


def _setting(option: Option) -> Iterator[str]:
    yield from _heading(f"setting-{option.name}", f"``--{option.name}``")
    yield from (f"{plain(option.description)}.", "")
    yield from (
        f":Type: {_type(option)}",
        f":Default: {'not set' if option.default is None else f'``{show(option.default)}``'}",
        f":INI file: ``{option.name}`` in ``[vaurien]``",
        f":Environment: ``{_variable(option.name)}``",
        "",
    )


def _row(option: Option) -> tuple[str, str, str]:
    """Type, default and meaning."""
    default = f"``{show(option.default)}``" if option.default != "" else "empty"
    return _type(option), default, plain(option.description)


def plain(text: str) -> str:
    """A description, which is no reStructuredText, as such."""
    return re.sub(r"([\\\\*`|_])", r"\\\1", text)


def _heading(label: str, title: str) -> tuple[str, ...]:
    return (f".. _{label}:", "", title, "-" * len(title), "")


def _type(option: Option) -> str:
    if option.choices:
        return "one of " + ", ".join(f"``{choice}``" for choice in option.choices)
    bounds = [
        f"{word} {bound:,.15g}"
        for word, bound in (
            ("from", getattr(option.type, "low", float("-inf"))),
            ("to", getattr(option.type, "high", float("inf"))),
        )
        if abs(bound) < ENORMOUS
    ]
    return " ".join([option.type_name, *bounds])


def _variable(name: str) -> str:
    return "VAURIEN_" + name.replace("-", "_").upper()


def table(rows: Iterable[Iterable[str]], widths: str) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in rows:
        for number, cell in enumerate(row):
            yield f"   {'*' if number == 0 else ' '} - {cell}"
    yield ""
