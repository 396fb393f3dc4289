"""``vaurienctl``: what it refuses, with which sentence and exit code; how it ends."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.cli.ctl import COMMAND, environment, on_terminal, refused, run
from tests.support import PATIENCE, Backend, dial, exchange, wait_for
from vaurien import start_proxy
from vaurien.cli.ctl_parser import EPILOG
from vaurien.cli.tables import cell

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "no command is given; commands: list, show,"),
        ("lst", "there is no command 'lst'; did you mean 'list'?"),
        ("toxic", "toxic: no command is given; commands: list, add, update, remove"),
        ("toxic ad", "toxic: there is no command 'ad'; did you mean 'add'?"),
        ("enable redis --tll 1", "enable: there is no --tll; did you mean '--ttl'?"),
        ("list --ttl 1", "list: there is no --ttl; flags: --help, --host, --json,"),
        ("list a", "'a' is one word too many"),
        ("list --host", "--host needs a value; write --host VALUE"),
        ("list --host a --host b", "--host is given twice; give it once"),
        ("list --host http://a", "--host: 'http://a' is a URL; write HOST:PORT"),
        ("list --timeout soon", "list: --timeout: 'soon' is no time; give seconds, more than 0"),
        ("show", "show: the following arguments are required: NAME"),
        ("create redis", "create: the following arguments are required: --distant"),
        ("create redis --distant a:1 --seed x", "create: --seed: 'x' is no whole number"),
        ("change redis", "change: nothing to change; give --local or --distant"),
        ("enable redis --ttl 0", "enable: --ttl: '0' is no time"),
        ("set-handler delay sleep", "'sleep' is no option; write NAME=VALUE, such as sleep=2"),
        ("set-handler delay sleep=1 sleep=2", "sleep is given twice; give it once"),
        ("set-handler delay ttl=2", "ttl=2: no option; write --ttl"),
        ("behavior 10:delay 5:error", "behavior: '5:error' is a second one; join them"),
        ("behavior 10:delay sleep=2", "sleep=2: write HANDLER.OPTION=VALUE"),
        ("behavior delay.sleep=2", "behavior: there is no behavior to set"),
        ("toxic add a latency --toxicity 2", "toxic add: --toxicity: '2' is no share"),
        ("toxic add a latency --stream up", "toxic add: --stream: invalid choice: 'up'"),
        ("toxic add a latency name=x", "name=x: no attribute; write --name"),
        ("toxic update a b", "toxic update: nothing to change"),
        ("connections --drop 3", "--drop=3: each proxy counts its own; name the proxy too"),
        ("connections a --how fin", "--how=fin: it says how to drop; give --drop too"),
        ("connections a --drop 0", "connections: --drop: '0' is no number from 1 on"),
        ("watch --count many", "watch: --count: 'many' is no number from 1 on"),
        ("completion tcsh", "completion: shell: invalid choice: 'tcsh'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_2(words: str, sentence: str) -> None:
    assert refused(NOBODY, *words.split(), code=2).startswith(sentence)


def test_nobody_there_is_3() -> None:
    sentence = refused(NOBODY, "list", code=3)
    assert sentence == (
        f"cannot reach Vaurien's API at {NOBODY}: connection refused;"
        " is `vaurien --http` running there?"
    )
    assert "not ready after 0.1 s" in refused(NOBODY, "wait", "--timeout", "0.1", code=3)


def test_no_answer_in_time_is_3() -> None:
    with Backend(lambda sock: sock.recv(65536) and sock.recv(1)) as backend:
        sentence = refused(backend.address, "list", "--timeout", "0.1", code=3)
    assert sentence.endswith("has not answered within 0.1 s")


def test_what_the_api_refuses_or_does_not_have(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        host = str(running.http)
        client = running.client
        client.create("redis", "127.0.0.1:0", echo_backend.address)
        client.add_toxic("redis", "latency", name="slow")
        for words, code, sentence in (
            ("show rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("delete rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("set-handler delay --proxy rdis", 4, "there is no proxy 'rdis'; did you mean"),
            ("toxic list rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("toxic remove redis slwo", 4, "redis has no toxic 'slwo'; did you mean 'slow'?"),
            ("toxic update redis x latency=1", 4, "redis has no toxic 'x'; toxics: slow"),
            ("connections redis --drop 7", 4, "redis has no open connection 7; it has none"),
            ("watch rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("events rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("toxic add redis lateny", 1, "there is no flow handler 'lateny'; did you mean"),
        ):
            assert refused(host, *words.split(), code=code).startswith(sentence)
        for words, code, part in (
            ("create redis --distant a:1", 1, "already"),
            ("set-handler dleay", 1, "did you mean 'delay'?"),
            ("set-handler delay slep=1", 1, "did you mean 'sleep'?"),
            ("set-handler delay sleep=soon", 1, "'soon'"),
            ("behavior 120:delay", 1, "120"),
            (f"create two --distant a:1 --local {running.address}", 1, running.address),
            ("list-handlers dleay", 2, "did you mean 'delay'?"),
        ):
            assert part in refused(host, *words.split(), code=code)
        assert [state["name"] for state in client.proxies()] == ["default", "redis"]
        with dial(running.address) as sock:
            assert exchange(sock, b"hello") == b"hello"


def test_every_exit_code_is_in_the_help() -> None:
    result = run(NOBODY, "--help")
    assert result.returncode == 0
    assert EPILOG in result.stdout
    for code in range(5):
        assert f"\n  {code}  " in EPILOG


def test_every_command_has_help() -> None:
    for command in ("create", "toxic add", "watch", "completion"):
        result = run(NOBODY, *command.split(), "--help")
        assert result.returncode == 0
        assert result.stdout.startswith(f"usage: vaurienctl {command} ")


def test_a_closed_pipe_is_no_error(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        for n in range(20):
            running.client.create(f"proxy{n}", "127.0.0.1:0", echo_backend.address)
        command = f"{' '.join(COMMAND)} watch --interval 0.05; echo $? >&2"
        process = subprocess.Popen(
            ["bash", "-c", f"({command}) | head -1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(str(running.http)),
        )
        output, log = process.communicate(timeout=PATIENCE)
    assert output.count("\n") == 1
    assert log == "0\n"


@pytest.mark.parametrize("words", ["--help", "completion bash", "__complete zsh s"])
def test_output_that_nobody_can_read_is_no_error(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for command in (f"{' '.join(COMMAND)} {words}", f"{' '.join(COMMAND)} {words} >&-"):
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
    os.close(writer)


def test_a_full_disk_is_told(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running, open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(str(running.http)),
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "vaurienctl: cannot write the output: No space left on device\n"


def test_ctrl_c_while_it_waits_is_quiet() -> None:
    with (
        Backend(lambda sock: sock.recv(65536) and sock.recv(1)) as backend,
        subprocess.Popen(
            [*COMMAND, "list", "--timeout", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(backend.address),
        ) as process,
    ):
        wait_for(lambda: backend.accepted, "its connection")
        process.send_signal(signal.SIGINT)
        output, log = process.communicate(timeout=PATIENCE)
        assert (output, log) == ("", "")
        assert process.returncode == 130


# On a terminal


def test_on_a_terminal_tables_have_a_header_and_are_aligned(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address, seed=1) as running:
        host = str(running.http)
        code, text = on_terminal(host, "list")
        assert code == 0
        header, row = text.splitlines()
        assert header.split()[:4] == ["NAME", "LOCAL", "DISTANT", "ENABLED"]
        assert row.split()[:2] == ["default", running.address]
        assert header.index("LOCAL") == row.index(running.address)
        assert "\t" not in text

        code, text = on_terminal(host, "show", "default")
        assert "behavior" in text
        assert code == 0
        code, text = on_terminal(host, "list", "--json")
        assert text.startswith("[\n  {")
        code, text = on_terminal(host, "watch", "--interval", "0.05", "--count", "2", LINES="24")
        assert code == 0
        assert "\x1b[?25l" in text and text.endswith("\x1b[?25h")
        assert f"Vaurien at {host}" in text
        assert text.count("EXCHANGES/S") == 3
        code, text = on_terminal(host, "watch", "--interval", "0.05", "--count", "1", TERM="dumb")
        assert "\x1b" not in text
        code, text = on_terminal(host, "show", "defualt")
        assert code == 4
        assert text == "vaurienctl: there is no proxy 'defualt'; did you mean 'default'?\n"


def test_a_low_terminal_shows_what_fits(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        for n in range(20):
            running.client.create(f"proxy{n}", "127.0.0.1:0", echo_backend.address)
        _, text = on_terminal(
            str(running.http),
            *("watch", "--interval", "0.05", "--count", "1"),
            LINES="10",
            COLUMNS="40",
        )
    screen = text.rpartition("\x1b[H")[2].partition("\x1b[J")[0].replace("\x1b[K", "")
    lines = screen.splitlines()
    assert len(lines) < 11
    assert max(map(len, lines)) <= 40
    assert "more: the terminal is too low" in lines[-1]


def test_what_the_api_says_cannot_steer_the_terminal() -> None:
    assert cell("a\x1b[2Jb\tc\nd") == "a?[2Jb c d"
    assert cell(None) == cell("") == cell([]) == "-"
    assert (cell(True), cell(1.0), cell(0.1)) == ("yes", "1", "0.1")
