"""``vaurienctl``: what it refuses, with which sentence and exit code; how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from typing import IO

import pytest

from tests.cli.ctl import COMMAND, environment, on_terminal, refused, run
from tests.support import PATIENCE, Backend, Pipe, dial, exchange, wait_for
from vaurien import Client, start_proxy
from vaurien.cli.ctl_parser import EPILOG
from vaurien.cli.tables import Output, aligned, cell

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
        ("list a", "list: 'a' is one word too many; see vaurienctl list --help"),
        ("show a b", "show: 'b' is one word too many; see vaurienctl show --help"),
        ("toxic list a b", "toxic list: 'b' is one word too many; see vaurienctl toxic list --h"),
        ("create redis --upstream a:1", "create: there is no --upstream; did you mean '--distant"),
        ("set-handler", "set-handler: the following arguments are required: HANDLER; see"),
        ("toxic add a", "toxic add: the following arguments are required: HANDLER; see"),
        (
            "set-handler delay --sleep 1",
            "set-handler: there is no --sleep; an option of a handler is a word: write sleep=VALUE",
        ),
        (
            "behavior 9:delay --sleep 1",
            "behavior: there is no --sleep; an option of a handler"
            " is a word: write HANDLER.sleep=VALUE",
        ),
        ("set-handler delay --prox a", "set-handler: there is no --prox; did you mean '--proxy'?"),
        ("completion", "completion: the following arguments are required: {bash,fish,zsh}"),
        ("list --host", "--host needs a value; write --host VALUE"),
        ("list --host a --host b", "--host is given twice; give it once"),
        ("list --host http://a", "--host: 'http://a' is a URL; write HOST:PORT"),
        ("list --timeout soon", "list: --timeout: 'soon' is not a time; give seconds, more than 0"),
        ("show", "show: the following arguments are required: NAME"),
        ("create redis", "create: the following arguments are required: --distant"),
        ("create redis --distant a:1 --seed x", "create: --seed: 'x' is not a whole number"),
        ("change redis", "change: nothing to change; give --local or --distant"),
        ("enable redis --ttl 0", "enable: --ttl: '0' is not a time"),
        ("set-handler delay sleep", "'sleep' is not an option; write NAME=VALUE, such as sleep=2"),
        ("set-handler delay sleep=1 sleep=2", "sleep is given twice; give it once"),
        ("set-handler delay ttl=2", "ttl=2: no option; write --ttl"),
        ("behavior 10:delay 5:error", "behavior: '5:error' is a second one; join them"),
        ("behavior 10:delay sleep=2", "sleep=2: write HANDLER.OPTION=VALUE"),
        ("behavior delay.sleep=2", "behavior: there is no behavior to set"),
        ("toxic add a latency --toxicity 2", "toxic add: --toxicity: '2' is not a share"),
        ("toxic add a latency --stream up", "toxic add: --stream: invalid choice: 'up'"),
        ("toxic add a latency name=x", "name=x: no attribute; write --name"),
        ("toxic update a b", "toxic update: nothing to change"),
        ("connections --drop 3", "--drop=3: each proxy counts its own; name the proxy too"),
        ("connections a --how fin", "--how=fin: it says how to drop; give --drop too"),
        ("connections a --drop 0", "connections: --drop: '0' is not a whole number from 1 on"),
        ("watch --count many", "watch: --count: 'many' is not a whole number from 1 on"),
        ("completion tcsh", "completion: {bash,fish,zsh}: invalid choice: 'tcsh'"),
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


@pytest.mark.long
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
            ("enable redis rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("disable redis rdis", 4, "there is no proxy 'rdis'; did you mean 'redis'?"),
            ("create x --distant 127.0.0.1", 1, "--distant: '127.0.0.1' has no port; write"),
            ("change redis --local x", 1, "--local: 'x' has no port; write HOST:PORT"),
            ("toxic add redis latency latncy=1", 1, "latncy: there is no option of latency"),
            ("toxic add redis latency --name a/b", 1, "--name: 'a/b' is no name for a toxic"),
            ("create x --distant a:1 --behavior x", 1, "--behavior: "),
            ("create x --distant a:1 --on-connect x", 1, "--on-connect: "),
            ("behavior --on-connect 5:delay", 1, "--on-connect: "),
            (
                "behavior 5:delay dealy.sleep=1",
                1,
                "dealy: the behavior does not pick it; did you mean 'delay'?",
            ),
            ("behavior 5:delay delay.slep=1", 1, "delay.slep: there is no option of delay"),
            (
                "set-handler 20:delay",
                1,
                "'20:delay' is not one handler; for a mixture use vaurienctl behavior 20:delay",
            ),
            (
                "set-handler a+b",
                1,
                "'a+b' is not one handler; for a mixture use vaurienctl behavior 100:a+b",
            ),
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
        assert refused(host, "create", "", "--distant", "a:1", code=1) == "'' is no name"
        for flag in ("--distant", "--local"):
            sentence = refused(host, "change", "redis", flag, "", code=1)
            assert sentence == f"{flag}: '' is no address; write HOST:PORT"
        assert [state["name"] for state in client.proxies()] == ["default", "redis"]
        assert client.proxy("redis")["enabled"]
        with dial(running.address) as sock:
            assert exchange(sock, b"hello") == b"hello"


def test_what_is_missing_is_told_in_the_words_of_the_command_line() -> None:
    with start_proxy(http_token="secret") as running:
        host = str(running.http)
        way = "; give --token TOKEN, or set VAURIEN_HTTP_TOKEN"
        assert refused(host, "list", code=1) == f"a token is needed{way}"
        assert refused(host, "list", "--token", "x", code=1) == f"that is not the token{way}"
        sentence = refused(host, "get-handler", "--token", "secret", code=4)
        assert sentence.endswith("; make one: vaurienctl create NAME --distant ADDRESS")


@pytest.mark.parametrize("words", ["list", "wait --timeout 0.1", "delete x", "show x", "events"])
@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"UP"}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"proxies":[{}]}',
        b"HTTP/1.1 302 \x1b[31mFound\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_a_stranger_is_3(words: str, answer: bytes) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    with Backend(script) as backend:
        sentence = refused(backend.address, *words.split(), code=3)
    assert "is not Vaurien's API" in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize(
    ("number", "sentence"), [(signal.SIGKILL, "broke off"), (signal.SIGTERM, "stops")]
)
def test_events_that_end_by_themselves_are_3(number: int, sentence: str) -> None:
    with (
        start_proxy() as running,
        subprocess.Popen(
            [*COMMAND, "events", "--count", "10"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(str(running.http)),
        ) as process,
    ):
        assert process.stdout is not None
        running.client.create("one", "127.0.0.1:0", "127.0.0.1:9")
        wait_for(lambda: _changed(running.client, process.stdout), "an event")
        os.kill(running.pid, number)
        _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert log.startswith(f"vaurienctl: Vaurien at {running.http} {sentence}")
    assert log.count("\n") == 1


def _changed(client: Client, output: IO[str] | None) -> str:
    """Change something, and read the event if there is one already."""
    client.set_handler("delay")
    assert output is not None
    found, _, _ = select.select([output], [], [], 0)
    return output.readline() if found else ""


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


@pytest.mark.parametrize("words", ["list", "--help", "toxic add --help", "--version"])
def test_a_full_disk_is_told(words: str, echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running, open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *words.split()],
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
        code, text = on_terminal(host, "list", COLUMNS="100")
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


def test_a_table_without_a_row_is_its_header() -> None:
    with start_proxy() as running:
        host = str(running.http)

        def screen(words: str) -> str:
            code, text = on_terminal(host, *words.split(), COLUMNS="80")
            assert code == 0, text
            assert on_terminal(host, *words.split(), COLUMNS="9")[0] == 0
            return text

        for words, header in (
            ("list", "NAME  LOCAL"),
            ("connections", "PROXY  "),
            ("watch --interval 0.05 --count 1", "PROXY  CONNECTIONS"),
            ("journal", "TIME  PROXY"),
        ):
            assert header in screen(words)
        running.client.create("a", "127.0.0.1:0", "127.0.0.1:1", enabled=False)
        for words, header in (("toxic list a", "NAME  TYPE"), ("connections a", "NUMBER")):
            assert header in screen(words)


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


def test_a_narrow_terminal_gets_shorter_columns(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        client, host = running.client, str(running.http)
        client.set_behavior("20:delay,5:error,1:hang,1:reset,1:abort,1:blackout")
        for words in ("list", "behavior", "toxic add default latency", "list-handlers"):
            _, text = on_terminal(host, *words.split(), COLUMNS="80")
            assert max(map(len, text.splitlines())) <= 80
        _, text = on_terminal(host, "list", COLUMNS="80")
        assert "…" in text
        assert running.address in text
        text = run(host, "list", env={"COLUMNS": "40"}).stdout
        assert client.get_behavior()["behavior"] in text
        _, text = on_terminal(host, "list", "--json", COLUMNS="40")
        assert json.loads(text)[0]["behavior"] == client.get_behavior()["behavior"]


def test_columns_are_shortened_by_their_width() -> None:
    header = ("name", "connections", "behavior")
    assert aligned(header, [("a", 1, "100:dummy")], 30) == [
        "NAME  CONNECTIONS  BEHAVIOR",
        "a               1  100:dummy",
    ]
    # first what stands above a column
    assert aligned(header, [("a", 1, "100:dummy")], 22) == [
        "NAME  CONN…  BEHAVIOR",
        "a         1  100:dummy",
    ]
    # then what is widest, but for what says which one it is
    assert aligned(header, [("default", 1, "20:delay,5:error")], 24) == [
        "NAME     CO…  BEHAVIOR",
        "default    1  20:delay,…",
    ]
    assert aligned(header, [("a", 1, "20:delay,5:error")], 22) == [
        "NA…  CO…  BEHAVIOR",
        "a      1  20:delay,5:…",
    ]
    assert aligned(("name", "summary"), [("a", "many words go on below")], 25, prose=True) == [
        "NAME  SUMMARY",
        "a     many words go on",
        "      below",
    ]


def test_columns_are_those_of_the_terminal_though_letters_take_two_or_none() -> None:
    accented = "e\N{COMBINING ACUTE ACCENT}"
    rows = [("漢字漢字", 1), (accented, 2), ("abc", 3)]
    assert aligned(("name", "n"), rows) == [
        "NAME      N",
        "漢字漢字  1",
        f"{accented}         2",
        "abc       3",
    ]
    assert aligned(("name", "n"), [(accented * 8, 1), ("漢字漢字", 2)], 9) == [
        "NAME    N",
        f"{accented * 5}…  1",
        "漢字…   2",
    ]
    assert aligned(("name", "summary"), [("a", "漢字漢字漢字 漢字漢字漢字")], 26, prose=True) == [
        "NAME  SUMMARY",
        "a     漢字漢字漢字",
        "      漢字漢字漢字",
    ]


def test_what_the_api_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).json({"a": "\x9b2Jö\x1b\n"})
    assert capsys.readouterr().out == '{"a": "\\u009b2Jö\\u001b\\n"}\n'
    assert cell("a\x1b[2Jb\tc\nd") == "a?[2Jb c d"
    assert cell(None) == cell("") == cell([]) == "-"
    assert (cell(True), cell(1.0), cell(0.1)) == ("yes", "1", "0.1")


def test_events_end_with_their_reader_though_nothing_happens(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running, Pipe() as pipe:
        process = subprocess.Popen(
            [*COMMAND, "events"],
            stdout=pipe.writer,
            env=environment(str(running.client.address)),
        )
        try:
            pipe.reader.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
