"""The command line: its flags, what it prints, and how it refuses what it does not understand."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vaurien
from tests.cli.helpers import SCRIPT, accepted, checked, module, refused, sentence
from tests.support import Backend, Program, dial, echo, exchange, proxy, run, wait_for

FLAGS = [
    "--local",
    "--distant",
    "--behavior",
    "--config",
    "--seed",
    "--timeout",
    "--connect-timeout",
    "--dns-ttl",
    "--keepalive",
    "--max-connections",
    "--backlog",
    "--spin",
    "--on-connect",
    "--max-held",
    "--journal",
    "--journal-all",
    "--replay",
    "--strict",
    "--drain",
    "--log-level",
    "--log-output",
    "--check",
    "--list-handlers",
    "--demo",
    "--version",
    "--help",
]

#: The built-ins, by what they work on.
BUILTINS = {
    "socket": "dummy error transient",
    "connect": "dial_fail down refuse slow_accept unanswered",
    "flow": "abort bandwidth blackhole blackout corrupt cut delay hang latency limit_data noop"
    " pause reset reset_peer slicer slow_close stall timeout trickle truncate wave",
}


# What it prints


def test_version_is_told() -> None:
    assert accepted("--version") == f"vaurien {vaurien.__version__}\n"


def test_help_tells_every_flag_and_the_defaults() -> None:
    text = accepted("--help")
    for word in [*FLAGS, "--handlers.NAME.OPTION", "localhost:8000", "localhost:80", "100:dummy"]:
        assert word in text


def test_list_handlers_tells_names_options_types_defaults_and_descriptions() -> None:
    lines = accepted("--list-handlers").splitlines()
    heads = [line.partition(":")[0] for line in lines[: lines.index("")] if line[:1] != " "]
    assert heads == sorted(
        f"{name} ({kind})" for kind in BUILTINS for name in BUILTINS[kind].split()
    )
    delay = lines.index(next(line for line in lines if line.startswith("delay (flow):")))
    assert "delay" in lines[delay].partition(":")[2].lower()
    sleep, before = lines[delay + 1 : delay + 3]
    for word in ("sleep", "seconds", "default 1", "Delay in seconds"):
        assert word in sleep
    for word in ("before", "bool", "default yes", "backend is called"):
        assert word in before
    text = "\n".join(lines)
    for option in ("inject", "warmup", "agitate"):
        assert option in text
    for point in ("after", "times", "every", "since", "until", "scope", "clients", "stream"):
        assert f"\n    {point} (" in text
    assert "connection, proxy" in text
    assert "\n    3g: rtt 300, down 1600, up 768 (WebPageTest" in text


def test_check_tells_the_source_of_each_value(tmp_path: Path) -> None:
    file = tmp_path / "vaurien.ini"
    file.write_text(
        "[vaurien]\nlocal = a:1\ndistant = a:2\nbehavior = 20:delay\n"
        "[handler:delay]\nbefore = no\nsleep = 3\n"
    )
    found = checked(
        *("--config", file, "--local", "c:1", "--log-level", "debug"),
        env={"VAURIEN_DISTANT": "b:2", "VAURIEN_HANDLERS_DELAY_SLEEP": "4"},
    )
    assert found["local"] == ("c:1", "--local")
    assert found["distant"] == ("b:2", "VAURIEN_DISTANT")
    assert found["behavior"] == ("20:delay", f"{file}: [vaurien] behavior")
    assert float(found["timeout"][0]) == 0
    assert found["timeout"][1] == "default"
    assert found["seed"][1] == "drawn"
    assert found["delay.before"] == ("no", f"{file}: [handler:delay] before")
    assert float(found["delay.sleep"][0]) == 4
    assert found["delay.sleep"][1] == "VAURIEN_HANDLERS_DELAY_SLEEP"
    assert set(found) >= {flag[2:] for flag in FLAGS[:13]} - {"config"}


def test_check_listens_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    assert checked("--local", f"unix:{path}")["local"] == (f"unix:{path}", "--local")
    assert not path.exists()
    with Backend(echo) as taken:
        assert checked("--local", taken.address)["local"] == (taken.address, "--local")


def test_check_finds_what_is_wrong() -> None:
    assert "'dleay'" in refused("--check", "--behavior", "20:dleay")


def test_check_passes_on_warnings() -> None:
    result = run("--check", env={"VAURIEN_BEHAVIOUR": "20:delay"})
    assert result.returncode == 0
    (warning,) = result.stderr.splitlines()
    assert "VAURIEN_BEHAVIOUR" in warning
    assert "'VAURIEN_BEHAVIOR'" in warning


@pytest.mark.parametrize("flag", ["--help", "--version", "--list-handlers", "--check"])
def test_a_reader_that_has_gone_is_no_error(flag: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "vaurien", flag],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
            check=False,
            env=Program().env,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_help_may_be_piped_into_head() -> None:
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m vaurien --help | head -1"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert result.stdout.startswith("usage: vaurien")
    assert result.stderr == ""


@pytest.mark.parametrize(("program", "heavy"), [("vaurien", "gevent"), ("vaurienctl", "argparse")])
def test_ctrl_c_while_it_starts_is_quiet(program: str, heavy: str, tmp_path: Path) -> None:
    module(tmp_path, heavy, "import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    with subprocess.Popen(
        [sys.executable, str(SCRIPT.with_name(program)), "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**Program().env, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        output, log = process.communicate(timeout=20)
    assert (process.returncode, output, log) == (130, "", "")


@pytest.mark.parametrize("flag", ["--check", "--help", "--version"])
def test_a_full_disk_behind_the_output_is_no_traceback(flag: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vaurien", flag],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
            check=False,
            env=Program().env,
        )
    assert result.returncode == 1
    assert result.stderr == "vaurien: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_it_serves_though_its_output_goes_nowhere(
    redirection: str, tmp_path: Path, echo_backend: Backend
) -> None:
    path = tmp_path / "x.sock"
    command = (
        f"exec {sys.executable} -m vaurien --local unix:{path} --distant {echo_backend.address}"
        f" --drain 0 --seed 1 {redirection}"
    )
    with subprocess.Popen(
        ["bash", "-c", command], stderr=subprocess.PIPE, text=True, env=Program().env
    ) as process:
        try:
            wait_for(lambda: answers(f"unix:{path}"), "it listens")
            with dial(f"unix:{path}") as client:
                assert exchange(client, b"hello") == b"hello"
        finally:
            process.terminate()
            _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in log


def answers(address: str) -> bool:
    try:
        dial(address).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


# The ways to start it


@pytest.mark.parametrize("command", [[SCRIPT], [sys.executable, "-m", "vaurien"]])
def test_script_and_module_are_the_same_program(command: list[object]) -> None:
    result = subprocess.run(
        [*map(str, command), "--version"], capture_output=True, text=True, timeout=20, check=True
    )
    assert result.stdout == f"vaurien {vaurien.__version__}\n"


def test_the_script_refuses_with_the_same_code() -> None:
    result = subprocess.run(
        [str(SCRIPT), "--nonsense"], capture_output=True, text=True, timeout=20, check=False
    )
    assert "--nonsense" in sentence(result)


# How values are given


def test_a_value_may_be_joined_by_an_equals_sign() -> None:
    found = checked(
        *("--local=[::1]:0", "--seed=-5", "--behavior=20:delay", "--handlers.delay.sleep=2.5"),
        "--handlers.delay.before=no",
    )
    assert found["local"][0] == "[::1]:0"
    assert found["seed"][0] == "-5"
    assert found["behavior"][0] == "20:delay"
    assert found["delay.sleep"] == ("2.5", "--handlers.delay.sleep")
    assert found["delay.before"] == ("no", "--handlers.delay.before")


def test_a_value_may_begin_with_a_dash() -> None:
    assert checked("--seed", "-5")["seed"] == ("-5", "--seed")
    assert checked("--log-output", "-")["log-output"] == ("-", "--log-output")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeout", "-1"], ["--timeout: '-1'"]),
        (["--handlers.delay.sleep", "-1"], ["--handlers.delay.sleep: '-1'"]),
        (["--handlers.delay.sleep", "--check"], ["--handlers.delay.sleep: '--check'"]),
        (["--behavior", "-5:delay"], ["--behavior: ", "'-5'"]),
        (["--local", "--distant"], ["--local: '--distant'"]),
    ],
)
def test_a_wrong_value_that_begins_with_a_dash_is_told_as_a_value(
    arguments: list[str], words: list[str]
) -> None:
    text = refused(*arguments)
    for word in words:
        assert word in text


def test_a_value_may_hold_an_equals_sign() -> None:
    assert checked("--log-output", "a=b")["log-output"][0] == "a=b"
    assert checked("--log-output=a=b")["log-output"][0] == "a=b"


def test_underscores_in_names_are_dashes() -> None:
    found = checked("--max_connections", "3", "--log_level=error")
    assert found["max-connections"][0] == "3"
    assert found["log-level"][0] == "error"


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--behaviour", "20:delay"], ["'--behaviour'", "'--behavior'"]),
        (["--behaviour=20:delay"], ["--behaviour", "'--behavior'"]),
        (["--list-handler"], ["'--list-handler'", "'--list-handlers'"]),
        (["--loc", "a:1"], ["'--loc'", "'--local'"]),
        (["--handler.delay.sleep", "1"], ["'--handler.delay.sleep'", "--handlers."]),
        (["localhost:8000"], ["'localhost:8000'"]),
        (["20:delay"], ["'20:delay'", "write --behavior 20:delay"]),
        (["-x"], ["'-x'"]),
        (["--", "x"], ["'--'"]),
        (["--check=yes"], ["--check", "yes"]),
        (["--local"], ["--local"]),
        (["--handlers.delay.sleep"], ["--handlers.delay.sleep"]),
        (["--handlers.delay", "1"], ["--handlers.delay", "--handlers.NAME.OPTION"]),
        (["--handlers.", "1"], ["--handlers.NAME.OPTION"]),
        (["--handlers..sleep", "1"], ["--handlers.NAME.OPTION"]),
        (["--handlers.delay.slep", "1"], ["--handlers.delay.slep", "'sleep'"]),
        (["--handlers.dleay.sleep", "1"], ["--handlers.dleay.sleep", "'delay'"]),
        (["--handlers.delay.sleep", "soon"], ["--handlers.delay.sleep", "'soon'"]),
        (["--log-output", "/no/such/directory/x"], ["--log-output", "'/no/such/directory/x'"]),
        (["--log-output", "/"], ["--log-output", "'/'"]),
        (["--config", "/no/such.ini"], ["--config", "'/no/such.ini'"]),
        (["-local", "a:1"], ["'-local'", "did you mean '--local'?"]),
        (["-version"], ["'-version'", "did you mean '--version'?"]),
        (["-help"], ["'-help'", "did you mean '--help'?"]),
        (["--port", "8000"], ["'--port'", "-port'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_is_not_understood_is_refused_by_name_and_value(
    arguments: list[str], words: list[str]
) -> None:
    text = refused(*arguments)
    for word in words:
        assert word in text


BOTH = "where clients connect is '--local', and the backend is '--distant'"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--proxy", "127.0.0.1:0", "--backend", "127.0.0.1:1"],
        ["--proxy=127.0.0.1:0"],
        ["--local", "127.0.0.1:0", "--backend=127.0.0.1:1"],
        ["--listen", "127.0.0.1:0"],
        ["-listen", "127.0.0.1:0"],
        ["--upstream", "127.0.0.1:1"],
        ["--bind", "127.0.0.1:0"],
        ["--target", "127.0.0.1:1"],
    ],
    ids=" ".join,
)
def test_what_others_call_the_addresses_names_ours(arguments: list[str]) -> None:
    unknown = next(one for one in arguments if not one.startswith(("--local", "127.")))
    assert refused(*arguments) == f"vaurien: unknown argument {unknown!r}; {BOTH}"


def test_files_and_the_environment_name_our_words_too(tmp_path: Path) -> None:
    file = tmp_path / "vaurien.ini"
    both = BOTH.replace("--", "")
    for text in (
        "[vaurien]\nproxy = 127.0.0.1:0\nbackend = 127.0.0.1:1\n",
        "[proxy:one]\nlisten = 127.0.0.1:0\nupstream = 127.0.0.1:1\n",
    ):
        file.write_text(text)
        assert refused("--config", file, "--check").endswith(both)
    result = run("--check", env={"VAURIEN_BACKEND": "127.0.0.1:1"})
    assert result.returncode == 0
    assert f"VAURIEN_BACKEND in the environment is not a setting; {both}" in result.stderr


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("-host=0.0.0.0 -config=f.json", "--toxiproxy --http-host 0.0.0.0 --config f.json"),
        ("-host 0.0.0.0 -port 8474", "--toxiproxy --http-host 0.0.0.0 --toxiproxy-port 8474"),
        ("--host=0.0.0.0", "--toxiproxy --http-host 0.0.0.0"),
        ("--host 0.0.0.0 --port 1", "--toxiproxy --http-host 0.0.0.0 --toxiproxy-port 1"),
        ("-config=a.json -proxy-metrics", "--toxiproxy --config a.json"),
        ("-seed 7 -runtime-metrics", "--toxiproxy --seed 7"),
        ("--proxy-metrics", "--toxiproxy"),
        ("--toxiproxy -config=f.json", "--toxiproxy --config f.json"),
    ],
)
def test_the_command_line_of_a_toxiproxy_server_is_shown_in_our_words(
    theirs: str, ours: str
) -> None:
    text = refused(*theirs.split())
    assert text.startswith(f"vaurien: unknown argument '{theirs.split()[0]}'") or "'-c" in text
    assert text.endswith(f"; in place of the flags of toxiproxy-server write: vaurien {ours}")


def test_the_words_for_a_toxiproxy_server_are_taken(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "the proxies.json"
    file.write_text(
        json.dumps([{"name": "p", "listen": "127.0.0.1:0", "upstream": echo_backend.address}])
    )
    said = refused(f"-config={file}", "-host=127.0.0.1", "-port=0")
    ours = shlex.split(said.partition("write: vaurien ")[2])
    with Program(*ours) as program, program.dial() as client:
        assert exchange(client, b"taken") == b"taken"


@pytest.mark.parametrize(
    ("flag", "first", "second"),
    [
        ("--local", "a:1", "b:1"),
        ("--behavior", "20:delay", "5:error"),
        ("--seed", "1", "1"),
        ("--max-connections", "1", "2"),
        ("--config", "a.ini", "b.ini"),
        ("--handlers.delay.sleep", "1", "2"),
    ],
)
def test_a_flag_given_twice_is_refused(flag: str, first: str, second: str) -> None:
    text = refused("--check", flag, first, f"{flag}={second}")
    assert flag in text
    assert "twice" in text


def test_bytes_that_are_no_text_are_refused_with_a_sentence() -> None:
    text = refused("--log-level", os.fsdecode(b"\xff"))
    assert text.startswith("vaurien: --log-level: ")


# The log


def test_the_log_goes_where_it_is_told_to_and_is_appended(
    tmp_path: Path, echo_backend: Backend
) -> None:
    file = tmp_path / "vaurien.log"
    file.write_text("before\n")
    arguments = ("--log-output", file, "--behavior", "100:delay", "--handlers.delay.sleep", "0")
    with proxy(echo_backend, *arguments) as program:
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0
        assert program.text == ""
    first, *rest = file.read_text().splitlines()
    assert first == "before"
    assert any("delay" in line for line in rest)


def test_the_log_level_holds_back_what_is_less(echo_backend: Backend) -> None:
    arguments = ("--log-level", "warning", "--behavior", "100:delay", "--handlers.delay.sleep", "0")
    with proxy(echo_backend, *arguments) as program:
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0
        # What is left is the table of what happened, which is no line of the log.
        assert not re.search("INFO|exchange 1: delay", program.text), program.text


def test_unknown_variables_warn_and_do_no_harm(echo_backend: Backend) -> None:
    env = {"VAURIEN_PORT": "tcp://10.0.0.1:8000", "VAURIEN_SERVICE_HOST": "10.0.0.1"}
    with proxy(echo_backend, env=env) as program:
        program.wait_log(r"WARNING.*VAURIEN_PORT\b")
        program.wait_log(r"WARNING.*VAURIEN_SERVICE_HOST\b")
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_the_environment_configures_a_real_run(echo_backend: Backend) -> None:
    program = Program(
        env={
            "VAURIEN_LOCAL": "127.0.0.1:0",
            "VAURIEN_DISTANT": echo_backend.address,
            "VAURIEN_SEED": "77",
            "VAURIEN_BEHAVIOR": "100:error",
            "VAURIEN_HANDLERS_ERROR_INJECT": "yes",
            "VAURIEN_DRAIN": "0",
        }
    )
    with program, program.dial() as client:
        assert (program.backend, program.seed) == (echo_backend.address, 77)
        answer = exchange(client, b"hello", 105)
        assert len(answer) == 105
        assert (answer[:2], answer[-3:]) == (b"he", b"llo")
