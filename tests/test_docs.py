"""The docs are true: nothing undocumented, nothing stale, and their commands do what they show."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vaurien
from tests.cli.ctl import read_terminal
from tests.rivals.differences import LIST
from tests.support import PATIENCE, Program, parse_address, run, wait_for
from vaurien import flow, presets, registry
from vaurien.cli.ctl_parser import (
    DONE,
    MISSING,
    REFUSED,
    UNREACHABLE,
    USAGE,
    parser,
)
from vaurien.cli.signals import INTERRUPTED
from vaurien.control import openapi
from vaurien.observe.events import Ended
from vaurien.observe.journal import Journal
from vaurien.observe.metrics import FAMILIES
from vaurien.options import show
from vaurien.plan import POINTS, STREAM
from vaurien.settings import SETTINGS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.rst"), *ROOT.glob("*.rst"), ROOT / "examples" / "README.rst"]


def block(kind: str) -> re.Pattern[str]:
    """The ``code-block`` of a kind."""
    return re.compile(rf"^\.\. code-block:: {kind}\n\n((?:   .*\n|\n)+)", re.MULTILINE)


def generator(name: str) -> ModuleType:
    """A module of `docs/_ext`, without Sphinx around it."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The generator of the reference."""
    return generator("reference")


@pytest.fixture(scope="module")
def api_reference() -> ModuleType:
    """The generator of the API's reference, which takes from the other one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "_ext"))
        return generator("api_reference")


# Nothing undocumented


def everything(reference: ModuleType) -> str:
    """The generated text about all handlers."""
    return "".join(reference.handlers(kind) for kind in ("flow", "socket", "message", "connect"))


def test_every_kind_of_handler_has_its_place() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    for kind in {registry.kind(cls) for cls in registry.builtins().values()}:
        assert pages.count(f"vaurien-handlers:: {kind}\n") == 1


def test_the_reference_has_every_handler_with_every_option(reference: ModuleType) -> None:
    text = everything(reference)
    for name, cls in registry.builtins().items():
        section = text.partition(f".. _handler-{name}:\n")[2].partition("\n.. _")[0]
        assert inspect.getdoc(cls) is not None
        assert str(inspect.getdoc(cls)) in section
        for option in registry.options_of(cls).values():
            assert f"- ``{option.name}``" in section
            assert f"- ``{show(option.default)}``" in section
            assert f"- {option.description}" in section.replace("\\", "")
            for choice in option.choices:
                assert f"``{choice}``" in section


def test_the_reference_has_every_option_that_all_handlers_take(reference: ModuleType) -> None:
    text = reference.common()
    assert "vaurien-common::" in (DOCS / "handlers.rst").read_text()
    points = (DOCS / "behaviors.rst").read_text()
    for option in (*POINTS.values(), *STREAM.values()):
        assert f"- ``{option.name}``" in text
        assert f"- ``{show(option.default)}``" in text
        assert f"- {option.description}" in text.replace("\\", "")
        assert f"``{option.name}``" in points or option.name in STREAM


def test_the_reference_has_every_preset_with_its_figures_and_their_source(
    reference: ModuleType,
) -> None:
    text = reference.lines()
    assert "vaurien-presets::" in (DOCS / "presets.rst").read_text()
    for name, preset in presets.builtins().items():
        row = text.partition(f"* - ``{name}``\n")[2].partition("\n   * - ")[0]
        said, _, source = preset.summary.partition(" (")
        assert source
        assert source.removesuffix(")") in row.replace("\\", "")
        for figure in said.split(", "):
            assert re.search(rf"(?<!\S){re.escape(figure.split()[1])}(?!\S)", row)


def test_the_reference_has_all_that_a_preset_may_say(reference: ModuleType) -> None:
    text = reference.preset_options()
    assert "vaurien-preset-options::" in (DOCS / "presets.rst").read_text()
    for option in presets.OPTIONS.values():
        assert f"- ``{option.name}``" in text
        assert f"- {option.description}" in text.replace("\\", "")


def test_every_field_of_the_journal_is_documented(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal(Ended(0.0, "default", 1, 1, "client", 1, (), (), (), 0, 0, 0.0, "next"))
    journal.stop()
    page = (DOCS / "journal.rst").read_text()
    fields = list(json.loads(path.read_text()))
    assert re.findall(r"^   \* - ``(\w+)``$", page, re.MULTILINE) == fields
    for end in re.findall(r"``(\w+)``", str(Ended.__doc__)):
        assert f"``{end}``" in page.partition("\nHow it ended\n")[2], f"end {end!r} is not told"


def test_the_reference_has_every_metric(reference: ModuleType) -> None:
    text = reference.metrics()
    page = (DOCS / "metrics.rst").read_text()
    assert "vaurien-metrics::" in page
    for family in FAMILIES:
        row = text.partition(f"* - ``{family.name}``\n")[2].partition("\n   * - ")[0]
        assert f"- {family.kind}\n" in row
        assert family.help in row.replace("\\", "")
        for label in family.labels:
            assert f"``{label}``" in row
            assert re.search(rf"^``{label}``|, ``{label}``$", page, re.MULTILINE) or (
                label == "version"
            )
        assert f"``{family.short}``" in row or not family.short
        for bound in family.bounds:
            assert f" {bound:g}" in row


def test_every_event_of_a_flow_is_documented() -> None:
    page = (DOCS / "flow-handlers.rst").read_text()
    for name in flow.__all__:
        assert re.search(rf"^``{name}\b", page, re.MULTILINE), f"{name} is not told of"


def test_the_reference_has_every_setting(reference: ModuleType) -> None:
    text = reference.settings()
    assert "vaurien-settings::" in (DOCS / "settings.rst").read_text()
    for option in SETTINGS:
        section = text.partition(f".. _setting-{option.name}:\n")[2].partition("\n.. _")[0]
        assert f"``--{option.name}``" in section
        assert f"``VAURIEN_{option.name.upper().replace('-', '_')}``" in section
        assert option.description in section.replace("\\", "")
        assert show(option.default) in section
        for choice in option.choices:
            assert f"``{choice}``" in section


def test_the_reference_has_every_request_of_the_api(api_reference: ModuleType) -> None:
    page = (DOCS / "api.rst").read_text()
    assert page.count("vaurien-api-requests::") == 2
    text = "\n".join(api_reference.requests(group) for group in ("native", "toxiproxy"))
    for path, methods in openapi.document()["paths"].items():
        for method, operation in methods.items():
            title = f"``{method.upper()} {path}``"
            found = [one for one in text.split("\n.. _") if title in one]
            assert len(found) == 1, f"{title} is told {len(found)} times"
            said = found[0].replace("\\", "")
            assert operation["summary"].removesuffix(", of the first proxy").lower() in said.lower()
            for parameter in operation["parameters"]:
                assert f"{{{parameter['name']}}}" in said or f"?{parameter['name']}=" in said
            for status in operation["responses"]:
                assert f":{status}:" in said or re.search(rf"^{status}  ", page, re.MULTILINE)


def test_the_reference_has_every_body_of_the_api(api_reference: ModuleType) -> None:
    assert "vaurien-api-bodies::" in (DOCS / "api.rst").read_text()
    text = api_reference.bodies()
    for name, schema in openapi.document()["components"]["schemas"].items():
        section = text.partition(f"\n{name}\n---")[2].partition("\n.. _")[0]
        for field, what in schema["properties"].items():
            assert f"- ``{field}" in section, f"{name}.{field} is not told"
            assert what.get("description", "") in section.replace("\\", "")


def test_the_reference_is_made_anew_when_its_sources_change(reference: ModuleType) -> None:
    sources = set(reference.sources())
    assert {inspect.getfile(cls) for cls in registry.builtins().values()} <= sources
    assert {"table.py", "specification.py", "presets.ini"} <= {Path(path).name for path in sources}


def test_the_table_of_what_differs_from_toxiproxy_is_the_tests_list(reference: ModuleType) -> None:
    page = (DOCS / "toxiproxy.rst").read_text()
    section = re.split(r"^(.+)\n-+$", page, flags=re.MULTILINE)
    said = section[section.index("What differs on purpose") + 1]
    assert ".. vaurien-differences::" in said
    assert "list-table" not in said, "what differs stands in tests/rivals/differences.py"
    table = reference.differences()
    for one in LIST:
        assert f"   * - {one.here}\n     - {one.why}\n" in table, one.name


def test_every_flag_is_documented(reference: ModuleType) -> None:
    told = (DOCS / "settings.rst").read_text() + reference.settings()
    for flag in set(re.findall(r"(?<![\w-])--[a-zA-Z.-]+\w", run("--help").stdout)):
        if not flag.startswith("--handlers."):
            assert f"``{flag}" in told, f"{flag} is not in docs/settings.rst"


def test_every_public_name_is_documented() -> None:
    told = "".join(page.read_text() for page in PAGES)
    internal = {"Plan", "Specification", "Toxic", "ListenError", "UsageError", "VaurienError"}
    names = {*vaurien.__all__, "BaseHandler", "FlowHandler", "play"} - internal - {"__version__"}
    for name in names:
        assert re.search(
            rf"auto(class|exception|function):: vaurien\.((handlers|testing)\.)?{name}\b", told
        ), f"{name} is documented nowhere"


def test_every_command_of_vaurienctl_is_documented_with_its_flags() -> None:
    page = (DOCS / "vaurienctl.rst").read_text()
    for command in commands_of(parser()):
        assert re.search(rf"^``(enable NAME\.\.\.``, ``)?{command}\b", page, re.MULTILINE), command
    flags = {name for one in commands_of(parser()).values() for name in flags_of(one)}
    for flag in flags - {"--help", "-h"}:
        assert f"``{flag}" in page, f"{flag} is not told of"


def test_every_exit_code_of_vaurienctl_is_documented() -> None:
    page = (DOCS / "vaurienctl.rst").read_text()
    for code in (DONE, REFUSED, USAGE, UNREACHABLE, MISSING, INTERRUPTED):
        assert re.search(rf"^{code:<4}  \w", page, re.MULTILINE)


def commands_of(made: argparse.ArgumentParser, before: str = "") -> dict[str, Any]:
    """The parsers of the commands, by name."""
    found: dict[str, Any] = {}
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found |= commands_of(inner, f"{before}{name} ") or {f"{before}{name}": inner}
    return found


def flags_of(made: argparse.ArgumentParser) -> list[str]:
    """The flags of a command."""
    return [name for action in made._actions for name in action.option_strings]


# Nothing stale


def test_the_changes_tell_of_this_version() -> None:
    newest = re.search(r"^(\d\S*)( \(.*\))?\n-+$", (ROOT / "CHANGES.rst").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == vaurien.__version__


def test_every_file_that_the_docs_name_exists() -> None:
    named = re.compile(
        r"(?<![\w/.])(?:(?:vaurien|tests|docs|examples|benchmarks|\.ci)/)[\w./-]*\w"
        r"|\b(?:CONTRIBUTING|CHANGES|README)\.rst"
    )
    for page in PAGES:
        text = re.sub(r"vaurien-tests::.*", "", page.read_text())  # patterns, see below
        for path in set(named.findall(text)):
            made = path in ("docs/_build/html", "benchmarks/results.json") or "NAME" in path
            assert made or (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_test_that_the_docs_name_exists() -> None:
    for page in PAGES:
        for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text()):
            assert f"def {name}(" in (ROOT / path).read_text(), f"{page.name}: {path}::{name}"


def test_every_law_is_shown_by_tests(reference: ModuleType) -> None:
    laws = re.split(r"^\*\*Law (\d+)\.\*\*", (DOCS / "design.rst").read_text(), flags=re.MULTILINE)
    assert laws[1::2] == [str(number) for number in range(1, 13)]
    for text in laws[2::2]:
        if "there is no test yet" not in text:
            shown = re.search(r"^\.\. vaurien-tests:: (.*)$", text, re.MULTILINE)
            assert shown is not None
            assert reference.tests(shown[1].split())


def test_every_make_target_that_the_docs_name_exists() -> None:
    targets = re.findall(r"^([\w ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {target for line in targets for target in line.split()}
    for page in PAGES:
        for target in re.findall(r"``make (\w+)", page.read_text()):
            assert target in known, f"{page.name} names make {target}"


def test_tox_runs_the_pythons_of_the_classifiers() -> None:
    classified = re.findall(r'Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert classified
    for version in classified:
        assert f"py{version.replace('.', '')}" in (ROOT / "tox.ini").read_text()


@pytest.mark.parametrize(("kind", "suffix"), [("ini", ".ini"), ("python", ".py")])
def test_the_readme_shows_what_is_in_the_examples(kind: str, suffix: str) -> None:
    shown = block(kind).findall((ROOT / "README.rst").read_text())
    examples = [path.read_text() for path in (ROOT / "examples").glob(f"*{suffix}")]
    assert shown
    for code in shown:
        code = textwrap.dedent(code).strip()
        assert any(code in text for text in examples), f"in no example:\n{code}"


# The commands, run


#: Preparations that the tests stand upon, or that take a machine of their own; .ci/run has them.
ELSEWHERE = ("make ", "python3 -m venv", ". .venv", "pip install")
STOP = "^C"
#: Flags with which ``vaurien`` does not serve.
ENDS = {"--check", "--list-handlers", "--demo", "--version", "--help"}
LATER, EARLIER = 0.9, 0.1  # seconds by which a time may differ from the one that is shown


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands in a page's console blocks, each with the lines that it shows.

    ``^C`` is one too: it ends the proxy, and shows what that wrote.
    """
    command, shown = "", list[str]()
    for code in block("console").findall(page.read_text()):
        for line in textwrap.dedent(code).strip("\n").splitlines():
            if line.startswith("$ ") or line == STOP:
                if command:
                    yield command, shown
                command, shown = line.removeprefix("$ "), []
            elif command.endswith("\\"):
                command = command[:-1] + line.strip()
            elif command.startswith("for ") and not command.endswith("done"):
                command += f"\n{line.strip()}"
            else:
                shown.append(line)
    if command:
        yield command, shown


def same(shown: Sequence[str], got: Sequence[str]) -> bool:
    """Whether the lines are the same; ``...`` stands for any number, and times may differ."""
    if not shown:
        return not got
    if shown[0] == "...":
        return any(same(shown[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and same_line(shown[0], got[0]) and same(shown[1:], got[1:])


#: What differs from time to time in the log, in the table and in a journal. How many bytes a client
#: and a server send for one request is up to their versions.
VARIES = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]\d+(\+00:00)?"), "TIME"),
    (re.compile(r"(?<=seconds\": )[\d.]+"), "SECONDS"),
    (re.compile(r"(?<=client\": \"127.0.0.1:)\d+"), "PORT"),
    (re.compile(r"(?<=from_client\": )[1-9]\d+"), "N"),
    (re.compile(r"(?<=from_backend\": )[1-9]\d+"), "N"),
    (re.compile(r"(?<=\d )[1-9]\d{2,}(?= |$)"), "BYTES"),
    (re.compile(r"\b\d+ open of"), "N open of"),
    (re.compile(r"(?<=127.0.0.1:)[3-6]\d{4}\b"), "PORT"),  # any free one
    (re.compile(r"(?<=passed in )[\d.]+s"), "SECONDS"),
)


def same_line(shown: str, got: str) -> bool:
    """Whether two lines are the same but for times."""
    ms = re.compile(r" +[\d.]+ ms")
    seconds = re.compile(r"(\d+\.\d+)(?= s\b)")
    wanted, found = seconds.findall(shown), seconds.findall(got)
    shown, got = (re.sub(" +", " ", seconds.sub("", ms.sub("", line))) for line in (shown, got))
    for pattern, word in VARIES:
        shown, got = pattern.sub(word, shown), pattern.sub(word, got)
    return shown == got and all(
        float(a) - EARLIER <= float(b) <= float(a) + LATER
        for a, b in zip(wanted, found, strict=True)
    )


class Served(Program):
    """A Vaurien with an API or several proxies; it is ready once it has said `lines` lines."""

    def __init__(self, lines: int, *arguments: object, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.wanted = lines

    def start(self) -> Served:
        self.spawn()
        for _ in range(self.wanted):
            assert self.lines.get(timeout=PATIENCE) is not None, f"it ended: {self.text}"
        return self


#: Where something listens, in the lines that Vaurien prints at its start.
PLACE = re.compile(r"^\S+ listening on 127\.0\.0\.1:(\d+)")
#: Where a command or a file has a proxy listen.
LISTEN = re.compile(r'("listen": "|--local |^local = )127\.0\.0\.1:([1-9]\d*)', re.MULTILINE)


def free_port() -> str:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


def on_terminal(command: str, directory: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command on a wide terminal; its exit code, and what it shows."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=directory,
        env={**env, "COLUMNS": "200"},
    ) as process:
        os.close(slave)
        text = read_terminal(master)
        code = process.wait(PATIENCE)
    os.close(master)
    return code, text


class Reader:
    """Someone who types a page's commands. Servers get free ports; the page's stand for them.

    The working directory is an empty one but for the examples; what a page makes goes there.
    """

    def __init__(self, addresses: dict[str, str], directory: Path) -> None:
        self.addresses = addresses  # as the page has them -> as they are
        self.directory = directory
        shutil.copytree(
            ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.code = 0  # the exit code of the last proxy
        self.ports: dict[str, str] = {}
        self.servers: dict[str, Program] = {}
        self.stack = contextlib.ExitStack()
        scripts = str(Path(sys.executable).parent)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("VAURIEN_")}
        self.env["PATH"] = os.pathsep.join([scripts, self.env.get("PATH", "")])
        self.env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # ours take seconds to load

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def type(self, command: str, shown: list[str]) -> None:
        """Run one command, and compare."""
        if command.startswith(ELSEWHERE):
            return
        error = shown[:1] and shown[0].startswith("vaurien: ")
        words = shlex.split(command)
        if command == STOP:
            got = self._stop()
        elif words[0] == "pkill":
            got = self._signal(words, len(shown))
        elif command == "echo $?":
            got = [str(self.code)]
        elif words[0] == "vaurienctl" and "|" not in words:
            self.code, text = on_terminal(self._real(command), self.directory, self.env)
            got = text.splitlines()
        elif "http.server" in words:
            self._web(words)
            got = []
        elif "vaurien" in words and not ENDS & set(words) and not error:
            several = {"--http", "--toxiproxy"} & set(words) or self._proxies(words)
            got = self._serve(words, shown) if several else self._vaurien(words)
        else:
            got = self._run(command)
        assert same(self._masked(shown, command), self._masked(got, command)), (
            f"$ {command}\n" + "\n".join(got)
        )

    def _masked(self, lines: Sequence[str], command: str) -> list[str]:
        """The lines without what differs from time to time."""
        text = "\n".join(lines)
        for there, here in self.addresses.items():
            text = text.replace(here, there)
        for there, here in self.ports.items():
            text = re.sub(rf"\b{here}\b", there, text)
        if "--demo" in command:
            text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
        elif "--seed" not in command:
            text = re.sub(r"seed( +)\d+", r"seed\1SEED", text)
        return text.splitlines()

    def _real(self, text: str) -> str:
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        for there, here in self.ports.items():
            text = re.sub(rf"\b{there}\b", here, text)
        return text

    def _stop(self) -> list[str]:
        """Ctrl-C where the proxy runs: what it has written to standard error."""
        (program,) = self.servers.values()
        self.servers.clear()
        self.code = program.stop(signal.SIGINT)
        return program.text.splitlines()

    def _signal(self, words: list[str], lines: int) -> list[str]:
        """``pkill -SIGNAL -x vaurien``, for ours only; the `lines` that it writes then."""
        assert words[2:] == ["-x", "vaurien"]
        (program,) = self.servers.values()
        before = len(program.log)
        program.send_signal(signal.Signals[f"SIG{words[1].removeprefix('-')}"])
        wait_for(lambda: len(program.log) >= before + lines, f"{lines} lines")
        return [line.rstrip("\n") for line in program.log[before:]]

    def _run(self, command: str) -> list[str]:
        for _, port in LISTEN.findall(command):
            self.ports.setdefault(port, free_port())
        done = subprocess.run(
            ["bash", "-c", command if "--check" in command else self._real(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=self.env,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout.splitlines()

    def _web(self, words: list[str]) -> None:
        server = subprocess.Popen(
            [sys.executable, "-u", *words[1:-1], "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.directory,
        )
        self.stack.callback(server.communicate)
        self.stack.callback(server.kill)
        assert server.stdout is not None
        found = re.search(r" port (\d+) ", server.stdout.readline())
        assert found is not None
        self.ports[words[-1]] = found[1]

    def _proxies(self, words: list[str]) -> Path | None:
        """The file with several proxies that a command names."""
        if "--config" not in words:
            return None
        path = self.directory / words[words.index("--config") + 1]
        return path if path.suffix == ".json" or "[proxy:" in path.read_text() else None

    def _serve(self, words: list[str], shown: list[str]) -> list[str]:
        """A Vaurien with an API or several proxies; it takes the place of the one before."""
        for program in self.servers.values():
            assert program.stop(signal.SIGINT) == 0
        self.servers.clear()
        self.ports.update({port: "0" for line in shown for port in PLACE.findall(line)})
        if path := self._proxies(words):
            text = path.read_text().replace('"listen": "localhost:', '"listen": "127.0.0.1:')
            self.ports.update({port: "0" for _, port in LISTEN.findall(text)})
            path.write_text(self._real(text))
        start = words.index("vaurien")
        env = {key: self._real(v) for key, _, v in (word.partition("=") for word in words[:start])}
        for api in ("http", "toxiproxy"):
            if f"--{api}" in words:
                env[f"VAURIEN_{api.upper()}_PORT"] = "0"
        arguments = [self._real(word) for word in words[start + 1 :]]
        program = Served(len(shown), *arguments, env=env, cwd=self.directory)
        self.servers["all"] = self.stack.enter_context(program)
        got = [line.rstrip("\n") for line in program.output]
        for there, here in zip(shown, got, strict=True):
            self.ports.update(zip(PLACE.findall(there), PLACE.findall(here), strict=True))
        self.ports = {there: here for there, here in self.ports.items() if here != "0"}
        self.env["VAURIEN_HOST"] = f"127.0.0.1:{self.ports.get('8080')}"  # for vaurienctl
        return got

    def _vaurien(self, words: list[str]) -> list[str]:
        start = words.index("vaurien")
        env = dict(word.split("=", 1) for word in words[:start])
        there = words[words.index("--local") + 1] if "--local" in words else "127.0.0.1:8000"
        for before in {there, "all"} & set(self.servers):
            assert self.servers.pop(before).stop(signal.SIGINT) == 0
        self.ports.pop("8000", None)
        arguments = [self._real(word) for word in words[start + 1 :] if word != there]
        if "--local" in arguments:
            arguments.remove("--local")
        env = {key: self._real(value) for key, value in env.items()}
        program = Program("--local", "127.0.0.1:0", *arguments, env=env, cwd=self.directory)
        self.servers[there] = self.stack.enter_context(program)
        self.ports["8000"] = str(parse_address(program.address)[1])
        return [line.rstrip("\n") for line in program.output]


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    """A Redis at a unix socket, for that at port 6379 of the pages."""
    server = shutil.which("redis-server")
    if server is None:
        yield {}
        return
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/redis.sock"
        process = subprocess.Popen(
            [server, "--port", "0", "--unixsocket", path, "--save", ""],
            stdout=subprocess.DEVNULL,
            cwd=directory,
        )
        try:
            wait_for(Path(path).exists, "redis-server to listen")
            yield {"127.0.0.1:6379": f"unix:{path}"}
        finally:
            process.terminate()
            process.wait()


@pytest.mark.program("curl")
@pytest.mark.program("redis-server")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_do_what_the_page_shows(
    page: Path, addresses: dict[str, str], tmp_path: Path
) -> None:
    with Reader(addresses, tmp_path) as reader:
        for command, shown in commands(page):
            reader.type(command, shown)
