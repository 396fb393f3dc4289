"""Handlers of one's own: where they are found, and how the program says that one does not do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.helpers import SCRIPT, accepted, checked, module, refused, sentence, table
from tests.support import Backend, Program, exchange, proxy, run

SHOUT = '''
class Shout:
    """Makes the request upper case."""

    name = "shout"
    options = {"mark": ("What stands at its end", str, "!")}

    def __init__(self, settings, proxy):
        self.settings = settings

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        data = source.recv(65536)
        if data:
            sink.sendall(data.upper() + self.settings["mark"].encode() if to_backend else data)
'''


def shouted(program: Program, mark: str = "!") -> None:
    """Its handler is at work, over a connection that is kept."""
    with program.dial() as client:
        for word in (b"hello", b"again"):
            assert exchange(client, word, len(word) + len(mark)) == word.upper() + mark.encode()


# Where it is found


def test_a_dotted_path_is_found_in_the_working_directory(
    tmp_path: Path, echo_backend: Backend
) -> None:
    module(tmp_path, "mine", SHOUT)
    arguments = ("--behavior", "100:mine.Shout", "--handlers.shout.mark", "?")
    with proxy(echo_backend, *arguments, cwd=tmp_path) as program:
        shouted(program, "?")


def test_the_console_script_finds_it_there_too(tmp_path: Path) -> None:
    module(tmp_path, "mine", SHOUT)
    result = subprocess.run(
        [str(SCRIPT), "--check", "--behavior", "20:mine.Shout"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=Program().env,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert table(result.stdout)["shout.mark"] == ("!", "default")


def test_a_dotted_path_is_found_on_pythonpath(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    module(tmp_path / "library", "mine", SHOUT)
    found = checked(
        *("--behavior", "20:mine.Shout"), env={"PYTHONPATH": str(tmp_path / "library")}, cwd="/"
    )
    assert "shout.mark" in found


def test_a_section_gives_it_a_name_and_options(tmp_path: Path, echo_backend: Backend) -> None:
    module(tmp_path, "mine", SHOUT)
    (tmp_path / "config.ini").write_text(
        "[vaurien]\nbehavior = 100:loud\n[handler:loud]\ncallable = mine.Shout\nmark = 007\n"
    )
    with proxy(echo_backend, "--config", "config.ini", cwd=tmp_path) as program:
        shouted(program, "007")


def test_the_environment_sets_options_of_it(tmp_path: Path) -> None:
    module(tmp_path, "mine", SHOUT)
    found = checked(
        *("--behavior", "20:mine.Shout"),
        cwd=tmp_path,
        env={"VAURIEN_HANDLERS_SHOUT_MARK": "?"},
    )
    assert found["shout.mark"] == ("?", "VAURIEN_HANDLERS_SHOUT_MARK")


# Entry points


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where two packages bring handlers, one of them broken."""
    site = tmp_path / "site"
    for name, entry, source in (
        ("shouting", "loud = shouting:Shout", SHOUT),
        ("breaking", "broken = no_such_module:Class", ""),
    ):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vaurien.handlers]\n{entry}\n")
        module(site, name, source)
    return {"PYTHONPATH": str(site)}


def test_an_entry_point_is_a_handler(installed: dict[str, str], echo_backend: Backend) -> None:
    arguments = ("--behavior", "100:loud", "--handlers.loud.mark", "?")
    with proxy(echo_backend, *arguments, env=installed) as program:
        shouted(program, "?")


def test_a_section_sets_options_of_an_entry_point(
    installed: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "config.ini"
    file.write_text("[vaurien]\nbehavior = 20:loud\n[handler:loud]\nmark = ?\n")
    found = checked("--config", file, env=installed)
    assert found["loud.mark"] == ("?", f"{file}: [handler:loud] mark")


def test_an_entry_point_is_the_nearest_name(installed: dict[str, str]) -> None:
    assert "'loud'" in refused("--behavior", "20:lod", env=installed)


def test_an_entry_point_that_does_not_load_is_refused_when_picked(
    installed: dict[str, str],
) -> None:
    text = refused("--behavior", "20:broken", env=installed)
    assert "'broken'" in text
    assert "no_such_module" in text


def test_the_list_has_entry_points_and_survives_those_that_do_not_load(
    installed: dict[str, str],
) -> None:
    result = run("--list-handlers", env=installed)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    assert "loud (socket): Makes the request upper case." in lines
    assert any(line.startswith("delay (flow): ") for line in lines)
    assert any("broken" in line and "no_such_module" in line for line in lines)


# What does not do


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import sys; sys.exit(0)", ["mine.Mine", "SystemExit"]),
        ("raise RuntimeError('no luck')", ["mine.Mine", "RuntimeError: no luck"]),
        ("def x(:", ["mine.Mine", "SyntaxError"]),
        ("class Mien: name = 'mien'", ["'Mine'", "'Mien'"]),
    ],
    ids=["exits", "raises", "syntax", "name"],
)
def test_a_module_that_does_not_do_is_refused_with_the_reason(
    source: str, words: list[str], tmp_path: Path
) -> None:
    module(tmp_path, "mine", source)
    text = refused("--behavior", "20:mine.Mine", cwd=tmp_path)
    assert "--behavior" in text
    for word in words:
        assert word in text


RAISES = """
class Mine:
    name = "mine"
    options = {}

    def __init__(self, settings, proxy):
        raise RuntimeError("no luck")

    def __call__(self, client_sock, backend_sock, to_backend):
        pass
"""


@pytest.mark.parametrize("arguments", [["--check"], ["--local", "127.0.0.1:0"]])
def test_a_handler_that_cannot_be_built_is_refused_with_the_reason(
    arguments: list[str], tmp_path: Path
) -> None:
    module(tmp_path, "mine", RAISES)
    text = refused(*arguments, "--behavior", "20:mine.Mine", cwd=tmp_path)
    for word in ("mine", "RuntimeError", "no luck"):
        assert word in text


def test_two_classes_of_one_name_are_refused_from_the_command_line(tmp_path: Path) -> None:
    module(tmp_path, "mine", SHOUT.replace('"shout"', '"delay"'))
    for behavior in ("10:delay,10:mine.Shout", "10:mine.Shout,10:delay"):
        text = refused("--behavior", behavior, cwd=tmp_path)
        assert "'delay'" in text
        assert "mine.Shout" in text


def test_a_class_called_like_a_builtin_stands_in_for_it_alone(
    tmp_path: Path, echo_backend: Backend
) -> None:
    module(tmp_path, "mine", SHOUT.replace('"shout"', '"delay"'))
    arguments = ("--behavior", "100:mine.Shout", "--handlers.delay.mark", "?")
    with proxy(echo_backend, *arguments, cwd=tmp_path) as program:
        shouted(program, "?")


def test_what_a_module_prints_when_imported_does_not_hide_the_line(
    tmp_path: Path, echo_backend: Backend
) -> None:
    module(tmp_path, "mine", "print('imported')\n" + SHOUT)
    with proxy(echo_backend, "--behavior", "100:mine.Shout", cwd=tmp_path) as program:
        shouted(program)
        assert program.output[0] == "imported\n"


# A file as a user has it


def test_a_whole_file_configures_a_real_run(tmp_path: Path, echo_backend: Backend) -> None:
    module(tmp_path, "mine", SHOUT)
    (tmp_path / "base.ini").write_text(
        "[DEFAULT]\nhost = 127.0.0.1\n[vaurien]\nlocal = ${host}:0\nseed = 3\ntimeout = 30\n"
    )
    (tmp_path / "vaurien.ini").write_text(
        "# a comment\n[DEFAULT]\nextends = base.ini\n\n[vaurien]\ndistant = ${BACKEND}\nseed = 5\n"
        "behavior =\n    0:delay\n    100:loud\ndrain = 0\n\n"
        "[handler:loud]\ncallable = mine.Shout\n"
    )
    program = Program(
        *("--config", "vaurien.ini", "--seed", 6),
        cwd=tmp_path,
        env={"BACKEND": echo_backend.address},
    )
    with program:
        assert (program.seed, program.backend) == (6, echo_backend.address)
        shouted(program)


def test_a_wrong_file_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "vaurien.ini"
    file.write_text("[vaurien]\nbehaviour = 20:delay\n")
    text = refused("--config", file)
    for word in (str(file), "[vaurien] behaviour", "'behavior'"):
        assert word in text


def test_a_missing_file_named_by_the_environment_is_told_by_its_variable() -> None:
    text = refused(env={"VAURIEN_CONFIG": "/no/such.ini"})
    assert "VAURIEN_CONFIG" in text
    assert "'/no/such.ini'" in text


def test_an_example_of_the_documentation_is_accepted() -> None:
    accepted("--check", "--behavior", "20:delay,5:error", "--distant", "127.0.0.1:6379")


def test_the_sentence_of_the_script_is_the_same(tmp_path: Path) -> None:
    result = subprocess.run(
        [str(SCRIPT), "--behavior", "20:no.such.Class"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=tmp_path,
    )
    assert "no.such.Class" in sentence(result)
