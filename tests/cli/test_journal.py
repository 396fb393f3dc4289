"""``--journal``: a line of JSON for each exchange that a handler touched. Its schema, version 1."""

from __future__ import annotations

import contextlib
import json
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import refused
from tests.laws.helpers import Acceptor, seed_for, unused_port, write_module
from tests.support import (
    Backend,
    Program,
    exchange,
    proxy,
    receive,
    receive_all,
    reset,
    wait_for,
)

Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """The lines of a journal, whole ones only."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def wait_lines(path: Path, n: int) -> list[Line]:
    """Wait for `n` lines."""
    wait_for(lambda: len(read(path)) >= n, f"{n} lines in the journal")
    return read(path)


def quick(*_: object) -> tuple[object, ...]:
    return ("--behavior", "100:latency", "--handlers.latency.latency", 1)


def test_each_field_says_what_it_is_called(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "run.jsonl"
    options = (
        *("--behavior", "100:latency+error", "--seed", 7, "--journal", file),
        *("--handlers.latency.latency", 100, "--handlers.latency.clients", "127.0.0.0/8"),
    )
    before = datetime.now(timezone.utc)
    with proxy(echo_backend, *options) as vaurien:
        with vaurien.dial() as client:
            name = "{}:{}".format(*client.getsockname())
            assert len(exchange(client, b"hello")) == 5
            assert len(exchange(client, b"hello world")) == 11
        first, second = wait_lines(file, 2)
        assert vaurien.stop() == 0
    assert len(read(file)) == 2
    assert set(first) == {
        *("v", "seed", "time", "proxy", "connection", "client", "exchange", "handler"),
        *("options", "fired", "from_client", "from_backend", "seconds", "end"),
    }
    for line in (first, second):
        assert (line["v"], line["seed"], line["proxy"], line["connection"]) == (1, 7, "default", 1)
        assert line["client"] == name
        assert line["handler"] == "latency+error"
        assert sorted(line["fired"]) == ["error", "latency"]
        assert line["options"] == {
            "latency": {
                "latency": 100,
                "jitter": 0,
                "distribution": "uniform",
                "correlation": 0,
                "clients": "127.0.0.0/8",
            },
            "error": {"inject": False, "warmup": 0},
        }
        assert 0.1 <= line["seconds"] < 5
    times = [datetime.fromisoformat(line["time"]) for line in (first, second)]
    assert before - timedelta(seconds=0.1) < times[0] < times[1] < datetime.now(timezone.utc)
    assert (first["exchange"], first["from_client"], first["from_backend"]) == (1, 5, 5)
    assert (second["exchange"], second["from_client"], second["from_backend"]) == (2, 11, 11)
    assert (first["end"], second["end"]) == ("next", "client")


def test_exchanges_that_nobody_touched_are_there_only_with_journal_all(
    tmp_path: Path, echo_backend: Backend
) -> None:
    seed = seed_for("50:latency", {(1, 1): 0, (1, 2): 1, (1, 3): 0})
    found = []
    for every in ("no", "yes"):
        file = tmp_path / f"{every}.jsonl"
        options = ("--behavior", "50:latency", "--handlers.latency.latency", 0, "--seed", seed)
        with proxy(echo_backend, *options, "--journal", file, "--journal-all", every) as vaurien:
            with vaurien.dial() as client:
                for _ in range(3):
                    exchange(client, b"x")
            wait_lines(file, 2 if every == "no" else 3)
            vaurien.stop()
        found.append([(line["exchange"], line["handler"], line["options"]) for line in read(file)])
    latency = found[0][0][2]
    assert found[0] == [(1, "latency", latency), (3, "latency", latency)]
    assert found[1] == [(1, "latency", latency), (2, "dummy", {}), (3, "latency", latency)]


def test_how_an_exchange_ended_is_told(tmp_path: Path) -> None:
    # One connection each; those that are open at exit are there too.
    file = tmp_path / "run.jsonl"
    write_module(
        tmp_path,
        """
class Odd(BaseHandler):
    name = "odd"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data == b"raise":
            raise ValueError("odd")
        if data == b"False":
            return False
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)
        """,
    )
    ends = ["client", "backend", "reset", "handler", "error", "exit"]
    options = ("--behavior", "100:own.Odd", "--journal", file)
    with (
        Acceptor() as backend,
        proxy(backend, *options, cwd=tmp_path) as vaurien,
        contextlib.ExitStack() as stack,
    ):
        for n, end in enumerate(ends):
            client = stack.enter_context(vaurien.dial())
            server = stack.enter_context(backend.accept())
            client.sendall(b"x")
            assert receive(server, 1) == b"x"
            server.sendall(b"y")
            assert receive(client, 1) == b"y"
            if end == "client":
                client.close()
                assert receive_all(server) == b""
                server.close()
            elif end == "backend":
                server.close()
                assert receive_all(client) == b""
                client.close()
            elif end == "reset":
                reset(client)
            elif end != "exit":
                client.sendall({"handler": b"False", "error": b"raise"}[end])
            if end != "exit":
                wait_for(lambda n=n: {line["connection"] for line in read(file)} >= {n + 1})  # type: ignore[misc]
        assert vaurien.stop() == 0
    last = {line["connection"]: line["end"] for line in read(file)}
    assert last == dict(enumerate(ends, 1))
    handled = [line for line in read(file) if line["connection"] in (4, 5)]
    assert [line["end"] for line in handled] == ["next", "handler", "next", "error"]


def test_the_idle_and_those_who_met_nobody_are_told(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    options = (
        *("--on-connect", "100:slow_accept", "--handlers.slow_accept.delay", 50),
        *("--behavior", "100:hang", "--timeout", 0.3, "--journal", file),
    )
    with Acceptor() as backend, proxy(backend, *options) as vaurien:
        with vaurien.dial() as client:
            client.sendall(b"request")
            assert receive_all(client) == b""
        wait_lines(file, 2)
        vaurien.stop()
    met, hung = read(file)
    assert (met["exchange"], met["handler"], met["fired"]) == (0, "slow_accept", ["slow_accept"])
    assert met["options"] == {"slow_accept": {"delay": 50}}
    assert (hung["exchange"], hung["handler"], hung["end"]) == (1, "hang", "idle")
    assert (hung["from_client"], hung["from_backend"]) == (7, 0)


def test_a_backend_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    options = ("--on-connect", "100:slow_accept", "--handlers.slow_accept.delay", 1)
    distant = f"127.0.0.1:{unused_port()}"
    with proxy(distant, *options, "--journal", file) as vaurien:
        with vaurien.dial() as client:
            assert receive_all(client) == b""
        (line,) = wait_lines(file, 1)
        assert (line["exchange"], line["end"], line["connection"]) == (0, "dial", 1)
        vaurien.stop()


def test_a_preset_is_there_with_all_that_it_is_made_of(
    tmp_path: Path, echo_backend: Backend
) -> None:
    file = tmp_path / "run.jsonl"
    with proxy(echo_backend, "--behavior", "100:fios", "--journal", file) as vaurien:
        with vaurien.dial() as client:
            assert exchange(client, b"x") == b"x"
        (line,) = wait_lines(file, 1)
        vaurien.stop()
    # one row in the table of what happened, too
    assert re.search(r"^fios +1 +1 +2 ", vaurien.text, re.M)
    assert "latency" not in vaurien.text
    assert (line["handler"], line["fired"]) == ("fios", ["fios"])
    parts = [
        (part["handler"], part["options"]["stream"], part["options"].get("latency"))
        for part in line["options"]["fios"]
    ]
    assert parts == [
        ("bandwidth", "downstream", None),
        ("latency", "downstream", 2),
        ("bandwidth", "upstream", None),
        ("latency", "upstream", 2),
    ]


def test_lines_are_appended_after_a_torn_one(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text('{"v": 1, "whole": true}\n{"v": 1, "to')
    with proxy(echo_backend, *quick(), "--journal", file) as vaurien:
        with vaurien.dial() as client:
            exchange(client, b"x")
        wait_for(lambda: file.read_text().count("\n") == 3)
        vaurien.stop()
    whole, torn, new = file.read_text().splitlines()
    assert (whole, torn) == ('{"v": 1, "whole": true}', '{"v": 1, "to')
    assert json.loads(new)["exchange"] == 1


def talks(vaurien: Program, n: int) -> None:
    """`n` exchanges come through."""
    with vaurien.dial() as client:
        for _ in range(n):
            assert exchange(client, b"x") == b"x"


def test_a_full_disk_stops_the_journal_with_one_line_and_not_the_proxy(
    echo_backend: Backend,
) -> None:
    with proxy(echo_backend, *quick(), "--journal", "/dev/full") as vaurien:
        talks(vaurien, 3)
        vaurien.wait_log(r"journal /dev/full stops: No space left on device")
        talks(vaurien, 50)
        assert vaurien.stop() == 0
    assert vaurien.text.count("No space left") == 1
    assert "Traceback" not in vaurien.text


def test_a_pipe_whose_reader_goes_stops_the_journal_with_one_line_and_not_the_proxy(
    tmp_path: Path, echo_backend: Backend
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with proxy(echo_backend, *quick(), "--journal", pipe) as vaurien:
        talks(vaurien, 2)
        wait_for(lambda: _readable(reader))
        os.close(reader)
        talks(vaurien, 3)
        vaurien.wait_log(r"journal \S+ stops: Broken pipe")
        talks(vaurien, 50)
        assert vaurien.stop() == 0
    assert vaurien.text.count("Broken pipe") == 1
    assert "Traceback" not in vaurien.text


def _readable(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        return json.loads(os.read(descriptor, 65536).splitlines()[0])["v"] == 1  # type: ignore[no-any-return]
    return False


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_is_lost_is_told(
    tmp_path: Path, echo_backend: Backend
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with proxy(echo_backend, *quick(), "--journal", pipe, "--log-level", "error") as vaurien:
            talks(vaurien, 400)  # some 150 KB of lines; a pipe takes 64
            assert vaurien.stop() == 0
            assert "not all could be written" in vaurien.text
    finally:
        os.close(reader)


@pytest.mark.parametrize("kind", ["directory", "a pipe without a reader"])
def test_a_journal_that_cannot_be_written_is_refused_before_anything_listens(
    tmp_path: Path, kind: str
) -> None:
    path = {
        "directory": tmp_path,
        "a pipe without a reader": tmp_path / "pipe",
    }[kind]
    if "pipe" in kind:
        os.mkfifo(path)
    text = refused("--local", "127.0.0.1:0", "--journal", path)
    assert "--journal" in text and str(path) in text
