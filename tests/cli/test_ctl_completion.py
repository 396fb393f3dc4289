"""Completion of ``vaurienctl``: what may follow, and that each shell really gets it."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.ctl import COMMAND, environment, run
from tests.support import PATIENCE, Backend
from vaurien import Client, start_proxy
from vaurien.cli import completion
from vaurien.cli.ctl_parser import parser


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A Vaurien with proxies ``redis``, with a toxic ``slow``, and ``web``."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VAURIEN_")]:
            patch.delenv(name)
        with start_proxy() as running:
            for name in ("redis", "web"):
                running.client.create(name, "127.0.0.1:0", "127.0.0.1:9")
            running.client.add_toxic("redis", "latency", name="slow")
            yield str(running.http)


@pytest.fixture
def found(host: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("VAURIEN_HOST", host)
    return None


def after(line: str) -> list[str]:
    """What may stand at the end of a line."""
    return [text for text, _ in completion.candidates(parser(), shlex.split(line + "''"))]


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("sho", ["show"]),
        ("set", ["set-handler"]),
        ("toxic ", ["add", "list", "remove", "update"]),
        ("show ", ["redis", "web"]),
        ("show r", ["redis"]),
        ("show redis ", []),
        ("delete redis ", ["web"]),
        ("create --dist", ["--distant"]),
        ("--host unix:/x sho", ["show"]),
        ("set-handler dela", ["delay"]),
        ("set-handler refus", []),
        ("list-handlers refus", ["refuse"]),
        ("set-handler delay sl", ["sleep="]),
        ("set-handler delay sleep=2 sl", []),
        ("set-handler delay before=", ["before=no", "before=yes"]),
        ("set-handler delay --proxy r", ["redis"]),
        ("set-handler delay --proxy=r", ["--proxy=redis"]),
        ("set-handler --proxy redis dela", ["delay"]),
        ("set-handler --ttl ", []),
        ("behavior 20", []),
        ("behavior 1", ["100:"]),
        ("behavior 20:dela", ["20:delay"]),
        ("behavior 20:delay,5:transie", ["20:delay,5:transient"]),
        ("behavior 20:delay+laten", ["20:delay+latency"]),
        ("behavior 100:edge-l", ["100:edge-lossy"]),
        ("behavior --on-connect 10:refu", ["10:refuse"]),
        ("behavior --on-connect=10:refu", ["--on-connect=10:refuse"]),
        ("toxic add redis laten", ["latency"]),
        ("toxic add redis latency jit", ["jitter="]),
        ("toxic add redis cut how=", ["how=fin", "how=reset"]),
        ("toxic add redis latency --stream ", ["both", "downstream", "upstream"]),
        ("toxic update redis ", ["slow"]),
        ("toxic update redis slow jit", ["jitter="]),
        ("toxic remove redis slow ", []),
        ("connections redis --drop ", ["all"]),
        ("connections --how ", ["fin", "reset"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("nonsense ", []),
        ("show --nonsense ", []),
        ("toxic add nobody nothing x", []),
    ],
)
def test_what_may_follow(line: str, texts: list[str]) -> None:
    assert after(line) == texts


@pytest.mark.usefixtures("found")
def test_every_flag_and_command_has_a_word_of_help() -> None:
    for line in ("", "toxic ", "create --", "set-handler --"):
        words = shlex.split(line + "''")
        assert all(what for _, what in completion.candidates(parser(), words))


def test_an_api_that_is_not_there_or_hangs_completes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VAURIEN_HOST", "127.0.0.1:1")
    assert after("show ") == []
    assert after("sho") == ["show"]
    monkeypatch.setenv("VAURIEN_HOST", "no address")
    assert after("show ") == []
    with Backend(lambda sock: sock.recv(65536) and sock.recv(1)) as backend:
        start = time.monotonic()
        assert after(f"--host {backend.address} show ") == []
        assert time.monotonic() - start < 5
    assert run(None, "__complete", "zsh", "show", "--host").stdout == "--host\n"


def test_words_are_taken_apart_as_they_are_typed() -> None:
    def split(line: str) -> list[str]:
        return completion._split(line).words

    assert split("a b") == ["a", "b"]
    assert split("a b ") == ["a", "b", ""]
    assert split("a 'b c") == ["a", "b c"]
    assert split('a "b c" d\\ e') == ["a", "b c", "d e"]
    assert split("a ''") == ["a", ""]


# The shells


@pytest.fixture
def env(host: str, tmp_path: Path) -> dict[str, str]:
    """An environment that has ``vaurienctl``, whether it is installed or not."""
    script = tmp_path / "vaurienctl"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    script.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    return environment(host, PATH=path, TERM="xterm", PS1="$ ", HOME=str(tmp_path))


def bash(env: dict[str, str], line: str) -> list[str]:
    """What bash replaces the piece of a word before the cursor by."""
    script = (
        "source <(vaurienctl completion bash)\n"
        f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}\n"
        "_vaurienctl vaurienctl\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=env,
        timeout=PATIENCE,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line]


def test_bash(env: dict[str, str]) -> None:
    assert bash(env, "vaurienctl sho") == ["show"]
    assert bash(env, "vaurienctl show ") == ["redis", "web"]
    # It breaks words at = and :, and replaces only what follows.
    assert bash(env, "vaurienctl set-handler delay --proxy=r") == ["redis"]
    assert bash(env, "vaurienctl behavior 20:dela") == ["delay"]
    assert bash(env, "vaurienctl set-handler delay sl") == ["sleep="]
    assert bash(env, "FOO=1 vaurienctl nothing ") == []


HOSTILE = "$(touch pwned)"


@pytest.fixture
def names(host: str) -> Iterator[None]:
    """Proxies whose names mean something to a shell."""
    client = Client(host)
    found = (HOSTILE, "my proxy", "*", "it's", "colon:x", "--host=elsewhere")
    for name in found:
        client.create(name, "127.0.0.1:0", "127.0.0.1:9")
    yield
    for name in found:
        client.delete(name)


@pytest.mark.long
@pytest.mark.usefixtures("names")
def test_bash_gets_names_as_words(env: dict[str, str]) -> None:
    names = bash(env, "vaurienctl show ")
    assert sorted(names) == sorted(
        [r"\$\(touch\ pwned\)", r"my\ proxy", r"\*", r"it\'s", "colon:x", "redis", "web"]
    )
    assert bash(env, r"vaurienctl show my\ p") == [r"my\ proxy"]
    assert bash(env, "vaurienctl show colon:") == ["x"]
    # Within a quote it is the quote that says what a word is; what cannot stand there is left out.
    assert bash(env, "vaurienctl show 'my") == ["my proxy"]
    assert bash(env, "vaurienctl show 'it") == []
    assert bash(env, "vaurienctl show '$(") == [HOSTILE]
    assert bash(env, 'vaurienctl show "$(') == []
    assert bash(env, "vaurienctl show --h") == ["--help", "--host"]


@pytest.mark.program("fish")
def test_fish(env: dict[str, str]) -> None:
    def fish(line: str) -> list[str]:
        script = f"vaurienctl completion fish | source; complete -C {shlex.quote(line)}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script],
            capture_output=True,
            text=True,
            env=env,
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout.splitlines()

    assert fish("vaurienctl sho") == ["show\tShow all about a proxy"]
    assert [line.partition("\t")[0] for line in fish("vaurienctl show ")] == ["redis", "web"]
    assert fish("vaurienctl set-handler delay sl") == ["sleep=\tDelay in seconds"]
    (line,) = fish("vaurienctl set-handler delay --proxy=r")
    assert line.startswith("--proxy=redis\t")

    Client(env["VAURIEN_HOST"]).create("my proxy", "127.0.0.1:0", "127.0.0.1:9")
    for line in ("vaurienctl show my\\ p", "vaurienctl show 'my p"):
        assert [text.partition("\t")[0] for text in fish(line)] == ["my proxy"]
    Client(env["VAURIEN_HOST"]).delete("my proxy")


class Terminal:
    """Someone who types into a shell, and looks."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, env)
        self._seen = ""

    def type(self, text: str, expected: str) -> None:
        """Type, and wait until something is on the screen behind it."""
        self._seen = ""
        os.write(self._fd, text.encode())
        until = time.monotonic() + PATIENCE
        while expected not in self._seen:
            left = until - time.monotonic()
            assert left > 0, f"{expected!r} is not in {self._seen!r}"
            if select.select([self._fd], [], [], left)[0]:
                self._seen += os.read(self._fd, 65536).decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)
        os.waitpid(self.pid, 0)


SHELLS = [
    pytest.param(["bash", "--norc", "--noprofile", "-i"], "", id="bash"),
    pytest.param(
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit; compinit -u -D;",
        marks=pytest.mark.program("zsh"),
        id="zsh",
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(("argv", "prepare"), SHELLS)
def test_no_shell_expands_a_name(
    argv: list[str], prepare: str, env: dict[str, str], host: str, tmp_path: Path
) -> None:
    client = Client(host)
    terminal = Terminal(argv, env)
    try:
        terminal.type(
            f"cd {tmp_path}; {prepare} source <(vaurienctl completion {argv[0]}); echo rea''dy\r",
            "ready",
        )
        names = [(HOSTILE, r"\$\("), ("*", r"\*"), ("my proxy", "my")]
        names += [("my proxy", typed) for typed in ("'my", '"my', "'my p", r"my\ p")]
        for name, typed in [*names, (HOSTILE, "'$("), ("a'b", '"a'), ('a"b', "'a"), ("$a", "'$")]:
            client.create(name, "127.0.0.1:0", "127.0.0.1:9", seed=4711)
            terminal.type(f"vaurienctl show {typed}\t", " ")
            terminal.type("\r", "4711")  # it was found by its name
            client.delete(name)
    finally:
        terminal.close()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("argv", "prepare"), SHELLS)
def test_the_tab_key(argv: list[str], prepare: str, env: dict[str, str]) -> None:
    terminal = Terminal(argv, env)
    try:
        source = f"source <(vaurienctl completion {argv[0]}); echo rea''dy\r"
        terminal.type(f"{prepare} {source}", "ready")
        terminal.type("vaurienctl sho\t", "vaurienctl show")
        terminal.type("re\t", "dis")
        terminal.type("\r", "127.0.0.1:9")
        terminal.type("vaurienctl set-handler dela\t", "vaurienctl set-handler delay")
        terminal.type("sle\t", "ep=")
        terminal.type("2 --proxy=w\t", "eb")
        terminal.type("\r", "100:delay")
    finally:
        terminal.close()
