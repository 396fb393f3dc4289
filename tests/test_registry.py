"""What counts as a handler, by which name, and with which sentence all else is refused."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support import CONTRACT
from vaurien import registry
from vaurien.errors import UsageError
from vaurien.options import Raw
from vaurien.plan import Specification
from vaurien.settings import Settings, resolve

BUILTINS = [
    "abort",
    "bandwidth",
    "blackhole",
    "blackout",
    "corrupt",
    "cut",
    "delay",
    "dial_fail",
    "down",
    "dummy",
    "error",
    "hang",
    "latency",
    "limit_data",
    "noop",
    "pause",
    "refuse",
    "reset",
    "reset_peer",
    "slicer",
    "slow_accept",
    "slow_close",
    "stall",
    "timeout",
    "transient",
    "trickle",
    "truncate",
    "unanswered",
    "wave",
]
#: Those that share a file: where two names mean one thing, one implementation serves both.
SHARED = {
    **dict.fromkeys(("abort", "blackout", "reset", "reset_peer"), "cut"),
    "hang": "blackhole",
    **dict.fromkeys(("dial_fail", "down", "refuse", "slow_accept", "unanswered"), "connect"),
}

#: A handler that inherits from nothing.
PLAIN = '''
class Plain:
    """Does little."""

    name = "plain"
    options = {"level": ("How much", int, 3)}

    def __init__(self, settings, proxy):
        self.settings = settings

    def __call__(self, client_sock, backend_sock, to_backend):
        pass
'''

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module that can be imported, by name; it is forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(dedent(source))
        return name

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def resolved(behavior: str, config: Path | None = None, **options: str) -> Settings:
    arguments = {"behavior": Raw(behavior, "--behavior")}
    if config is not None:
        arguments["config"] = Raw(str(config), "--config")
    handlers = [
        (name.replace("__", "."), Raw(value, f"--handlers.{name.replace('__', '.')}"))
        for name, value in options.items()
    ]
    return resolve(arguments, handlers, {})


def specs(settings: Settings) -> dict[str, Specification]:
    """What each name of the behavior stands for."""
    return {name: settings.plan.specifications(name)[0] for name in settings.plan.handlers}


def refused(behavior: str, config: Path | None = None, **options: str) -> str:
    with pytest.raises(UsageError) as caught:
        resolved(behavior, config, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# Built-ins


def test_the_builtins_are_those_of_the_documentation() -> None:
    assert list(registry.builtins()) == BUILTINS
    assert set(BUILTINS) <= set(registry.known())


@pytest.mark.parametrize("name", BUILTINS)
def test_a_builtin_is_documented(name: str) -> None:
    cls = registry.find(name, "")
    assert registry.summary(cls).endswith(".")
    for option in registry.options_of(cls).values():
        assert option.description


@pytest.mark.parametrize("name", BUILTINS)
def test_a_builtin_has_a_file_of_its_own_name_or_that_of_what_it_is(name: str) -> None:
    file = inspect.getsourcefile(registry.find(name, ""))
    assert file is not None
    assert Path(file).stem == SHARED.get(name, name)


# Dotted paths


def test_the_contracts_example_is_a_handler_with_converted_options(write: Write) -> None:
    write("contract_example", "import gevent\n" + CONTRACT)
    found = resolved("20:contract_example.Delay", delay__sleep="2", delay__before="no")
    (spec,) = specs(found).values()
    assert spec.cls.__module__ == "contract_example"
    assert spec.name == "delay"
    assert spec.options == {"sleep": 2, "before": False}
    assert type(spec.options["sleep"]) is int


def test_the_contracts_example_takes_no_fraction_of_a_second(write: Write) -> None:
    write("contract_fraction", "import gevent\n" + CONTRACT)
    sentence = refused("20:contract_fraction.Delay", delay__sleep="1.5")
    assert "--handlers.delay.sleep" in sentence
    assert "'1.5'" in sentence


def test_the_contracts_example_runs_from_a_file(write: Write, tmp_path: Path) -> None:
    write("contract_file", "import gevent\n" + CONTRACT)
    config = tmp_path / "config.ini"
    config.write_text("[handler:foobar]\ncallable = contract_file.Delay\nsleep=4\n")
    (spec,) = specs(resolved("20:foobar", config)).values()
    assert (spec.name, spec.cls.__module__) == ("foobar", "contract_file")
    assert spec.options == {"sleep": 4, "before": True}


def test_a_class_that_does_not_inherit_counts(write: Write) -> None:
    write("plain_class", PLAIN)
    found = resolved("20:plain_class.Plain", plain__level="5")
    assert specs(found)["plain_class.Plain"].options == {"level": 5}


def test_a_class_in_a_package_counts(write: Write, tmp_path: Path) -> None:
    (tmp_path / "some_package").mkdir()
    write("some_package/__init__", "")
    write("some_package/inner", PLAIN)
    assert specs(resolved("20:some_package.inner.Plain"))


def test_a_class_may_be_written_twice(write: Write) -> None:
    write("twice_first", PLAIN)
    write("twice_second", "from twice_first import Plain")
    found = resolved("20:twice_first.Plain,30:twice_second.Plain,10:twice_first.Plain")
    assert {spec.name for spec in specs(found).values()} == {"plain"}


BODY = "def __init__(self, settings, proxy): pass\n    def __call__(self, c, b, t): pass"

WRONG: list[tuple[str, str, str, list[str]]] = [
    # what is wrong, the module's source, what is asked of it, words of the sentence
    ("missing module", "", "no_such_module.Class", ["no_such_module"]),
    ("missing submodule", "", "{}.inner.Class", ["inner"]),
    ("missing import", "import no_such_lib", "{}.Class", ["no_such_lib", "{}"]),
    ("wrong syntax", "def x(:", "{}.Class", ["SyntaxError", "{}"]),
    ("import that raises", "1 / 0", "{}.Class", ["ZeroDivisionError", "{}"]),
    ("import that exits", "import sys; sys.exit(0)", "{}.Class", ["SystemExit", "{}"]),
    ("missing class", PLAIN, "{}.Plian", ["Plian", "'Plain'"]),
    ("empty class name", PLAIN, "{}.", ["{}."]),
    ("class that is a number", "X = 3", "{}.X", ["{}.X", "class"]),
    ("function", "def handle(c, b, t): pass", "{}.handle", ["function", "class"]),
    ("module", "import os", "{}.os", ["{}.os", "class"]),
    ("no name", f"class X:\n    options = {{}}\n    {BODY}", "{}.X", ["name"]),
    ("empty name", f"class X:\n    name = ''\n    options = {{}}\n    {BODY}", "{}.X", ["name"]),
    ("name no text", f"class X:\n    name = 3\n    options = {{}}\n    {BODY}", "{}.X", ["name"]),
    ("no options", f"class X:\n    name = 'x'\n    {BODY}", "{}.X", ["options"]),
    (
        "options no mapping",
        f"class X:\n    name = 'x'\n    options = [1]\n    {BODY}",
        "{}.X",
        ["options"],
    ),
    (
        "no __call__",
        "class X:\n    name = 'x'\n    options = {}\n    def __init__(self, s, p): pass",
        "{}.X",
        ["__call__"],
    ),
    (
        "__call__ inherited only",
        "from vaurien.handlers import BaseHandler\nclass X(BaseHandler):\n    name = 'x'",
        "{}.X",
        ["__call__"],
    ),
    (
        "__call__ with too few arguments",
        "class X:\n    name = 'x'\n    options = {}\n    def __init__(self, s, p): pass\n"
        "    def __call__(self, client_sock): pass",
        "{}.X",
        ["__call__", "client_sock, backend_sock, to_backend"],
    ),
    (
        "__init__ with too few arguments",
        "class X:\n    name = 'x'\n    options = {}\n    def __init__(self): pass\n"
        "    def __call__(self, c, b, t): pass",
        "{}.X",
        ["__init__", "settings, proxy"],
    ),
]

OPTIONS: list[tuple[str, str]] = [
    ("('Text', int)", "'x'"),
    ("('Text', int, 1, (1, 2), 5)", "'x'"),
    ("'Text'", "'x'"),
    ("('Text', 'int', 1)", "'int'"),
    ("('Text', int, 'many')", "'many'"),
    ("('Text', int, 1, 5)", "'x'"),
    ("('Text', str, 'a', ('b', 'c'))", "'a'"),
]


@pytest.mark.parametrize(
    ("what", "source", "path", "words"), WRONG, ids=[entry[0] for entry in WRONG]
)
def test_what_is_no_handler_is_refused_with_the_reason(
    what: str, source: str, path: str, words: list[str], write: Write
) -> None:
    module = write("wrong_" + "".join(filter(str.isalnum, what)), source)
    try:
        sentence = refused("20:" + path.format(module))
    except SystemExit:
        pytest.fail("it ends the program")
    assert sentence.startswith("--behavior: ")
    for word in words:
        assert word.format(module) in sentence


@pytest.mark.parametrize(("declaration", "word"), OPTIONS)
def test_an_option_that_is_declared_wrongly_is_refused(
    declaration: str, word: str, write: Write
) -> None:
    number = [entry[0] for entry in OPTIONS].index(declaration)
    module = write(
        f"wrong_option_{number}",
        f"class X:\n    name = 'x'\n    options = {{'x': {declaration}}}\n    {BODY}",
    )
    sentence = refused(f"20:{module}.X")
    assert "'x'" in sentence
    assert word in sentence


def test_two_options_of_one_name_are_refused(write: Write) -> None:
    write(
        "doubled_option",
        f"O = ('Text', int, 1)\nclass X:\n    name = 'x'\n    options = {{'a-b': O, 'a_b': O}}\n"
        f"    {BODY}",
    )
    assert "a_b" in refused("20:doubled_option.X")


@pytest.mark.parametrize("path", ["a b.C", "a-b.C", "../a.C", ".a.C", "a..C", "a.C()", "a:C"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    assert path in refused(f"20:{path}")


def test_a_type_of_the_users_own_converts(write: Write) -> None:
    write(
        "own_type",
        """
        def percent(text):
            number = float(str(text).rstrip("%"))
            if number > 100:
                raise RuntimeError("that is too much")
            return number / 100

        class X:
            name = "x"
            options = {"share": ("How much", percent, "50%")}
            def __init__(self, settings, proxy): pass
            def __call__(self, c, b, t): pass
        """,
    )
    (spec,) = specs(resolved("20:own_type.X", x__share="20%")).values()
    assert spec.options == {"share": 0.2}
    sentence = refused("20:own_type.X", x__share="200%")
    assert "--handlers.x.share" in sentence
    assert "'200%'" in sentence
    assert "that is too much" in sentence


# Two classes of one name

OTHER = PLAIN.replace("class Plain", "class Other")
OTHER_DELAY = PLAIN.replace('"plain"', '"delay"')


@pytest.mark.parametrize("behavior", ["10:{0}.Plain,10:{0}.Other", "10:{0}.Other,10:{0}.Plain"])
def test_two_classes_of_one_name_are_refused(behavior: str, write: Write) -> None:
    sentence = refused(behavior.format(write("two_of_one_name", PLAIN + OTHER)))
    assert "'plain'" in sentence
    assert "two_of_one_name.Plain" in sentence
    assert "two_of_one_name.Other" in sentence


@pytest.mark.parametrize("behavior", ["10:delay,10:{0}.Plain", "10:{0}.Plain,10:delay"])
def test_a_class_called_like_a_builtin_beside_it_is_refused(behavior: str, write: Write) -> None:
    sentence = refused(behavior.format(write("called_delay", OTHER_DELAY)))
    assert "'delay'" in sentence
    assert "called_delay.Plain" in sentence


@pytest.mark.parametrize(
    "behavior", ["10:plain,10:{0}.Other", "10:{0}.Other,10:plain", "10:{0}.Other"]
)
def test_a_class_called_like_a_section_beside_it_is_refused(
    behavior: str, write: Write, tmp_path: Path
) -> None:
    module = write("called_like_section", PLAIN + OTHER)
    config = tmp_path / "config.ini"
    config.write_text(f"[handler:plain]\ncallable = {module}.Plain\n")
    sentence = refused(behavior.format(module), config)
    assert "'plain'" in sentence
    assert f"{module}.Plain" in sentence
    assert f"{module}.Other" in sentence


@pytest.mark.parametrize("behavior", ["50:dummy,10:{0}.Plain", "10:{0}.Plain,50:dummy"])
def test_a_class_called_dummy_beside_dummy_is_refused(behavior: str, write: Write) -> None:
    module = write("called_dummy", PLAIN.replace('"plain"', '"dummy"'))
    assert "'dummy'" in refused(behavior.format(module))


def test_the_refusal_tells_the_way_out_and_it_works(write: Write, tmp_path: Path) -> None:
    module = write("way_out", PLAIN + OTHER)
    assert "[handler:NAME]" in refused(f"10:{module}.Plain,10:{module}.Other")
    config = tmp_path / "config.ini"
    config.write_text(f"[handler:second]\ncallable = {module}.Other\nlevel = 9\n")
    found = specs(resolved(f"10:{module}.Plain,10:second", config))
    assert found[f"{module}.Plain"].options == {"level": 3}
    assert found["second"].options == {"level": 9}


def test_one_class_may_have_two_sections(write: Write, tmp_path: Path) -> None:
    module = write("two_sections", PLAIN)
    config = tmp_path / "config.ini"
    config.write_text(
        f"[handler:low]\ncallable={module}.Plain\nlevel=1\n"
        f"[handler:high]\ncallable={module}.Plain\nlevel=9\n"
    )
    found = specs(resolved("10:low,10:high", config, low__level="2"))
    assert found["low"].options == {"level": 2}
    assert found["high"].options == {"level": 9}


def test_a_section_with_a_builtins_name_and_a_callable_is_that_callable(
    write: Write, tmp_path: Path
) -> None:
    module = write("instead_of_delay", PLAIN)
    config = tmp_path / "config.ini"
    config.write_text(f"[handler:delay]\ncallable = {module}.Plain\nlevel = 2\n")
    found = specs(resolved("10:delay", config))
    assert found["delay"].cls.__module__ == module
    assert found["delay"].options == {"level": 2}
