"""The log: who logs never waits; what nobody reads is dropped, counted and told."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from tests.cli.helpers import module, refused
from tests.support import Backend, Pipe, Program, exchange, proxy, wait_for
from vaurien.observe.log import QueueWriter, fields


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with Pipe() as made:
        yield made


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("vaurien", logging.INFO, __file__, 1, text, arguments, None)


# The queue


def test_lines_come_out_in_order_and_formatted(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno())
    for number in range(10):
        writer.handle(record("line %d", number))
    writer.stop()
    lines = pipe.read().splitlines()
    assert [line.partition("INFO ")[2] for line in lines] == [f"line {n}" for n in range(10)]


def test_who_logs_never_waits_and_what_is_dropped_is_counted(pipe: Pipe) -> None:
    pipe.fill()
    writer = QueueWriter(pipe.writer.fileno(), limit=100)
    start = time.monotonic()
    for number in range(10_000):
        writer.handle(record("line %d", number))
    assert time.monotonic() - start < 5
    assert 9_800 < writer.dropped <= 9_900
    pipe.read()
    writer.stop()


def test_what_was_dropped_is_told_once_somebody_reads(pipe: Pipe) -> None:
    pipe.fill()
    writer = QueueWriter(pipe.writer.fileno(), limit=100)
    for number in range(1000):
        writer.handle(record("line %d", number))
    text = pipe.read()
    writer.stop()
    text += pipe.read()
    assert f"{writer.dropped} lines of the log were dropped" in text
    assert text.count("dropped") == 1
    assert text.count("line ") == 1000 - writer.dropped


def test_stopping_writes_what_is_waiting(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno())
    for number in range(30):
        writer.handle(record("line %d", number))
    writer.stop()
    pipe.writer.close()
    assert pipe.read().count("line ") == 30


def test_stopping_takes_no_longer_than_its_limit(pipe: Pipe) -> None:
    pipe.fill()
    writer = QueueWriter(pipe.writer.fileno())
    writer.handle(record("line"))
    start = time.monotonic()
    writer.stop(0.3)
    assert 0.2 < time.monotonic() - start < 3
    pipe.read()


def test_a_reader_that_has_gone_does_no_harm(pipe: Pipe) -> None:
    pipe.reader.close()
    writer = QueueWriter(pipe.writer.fileno())
    start = time.monotonic()
    for number in range(1000):
        writer.handle(record("line %d", number))
    writer.stop()
    writer.handle(record("late"))
    assert time.monotonic() - start < 5


def test_a_line_that_cannot_be_formatted_does_not_end_the_log(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno())
    writer.handle(record("%d lines", "many"))
    writer.handle(record("after"))
    writer.stop()
    assert "after" in pipe.read()


def test_what_is_no_utf8_is_written_too(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno())
    writer.handle(record("path %s", os.fsdecode(b"/\xff")))
    writer.stop()
    assert "path /" in pipe.read()


# As JSON


def raised() -> logging.LogRecord:
    """The record of an exception."""
    made = record("it raised")
    try:
        raise RuntimeError("what it said")
    except RuntimeError:
        made.exc_info = sys.exc_info()
    return made


def test_each_line_is_an_object_with_the_fields_given(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno(), form="json")
    made = record("connection %d", 3)
    made.fields = fields(proxy="default", connection=3, handler=None)["fields"]
    writer.handle(made)
    writer.handle(record('a "quote"\nand another line'))
    writer.stop()
    first, second = map(json.loads, pipe.read().splitlines())
    assert datetime.fromisoformat(first.pop("time")).timestamp() == pytest.approx(
        made.created, abs=1e-5
    )
    assert first == {
        "level": "info",
        "message": "connection 3",
        "proxy": "default",
        "connection": 3,
        "handler": None,
    }
    assert second["message"] == 'a "quote"\nand another line'


def test_an_exception_is_a_field(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno(), form="json")
    writer.handle(raised())
    writer.stop()
    (line,) = map(json.loads, pipe.read().splitlines())
    assert line["message"] == "it raised"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: what it said")


def test_what_is_told_and_what_was_dropped_are_objects_too(pipe: Pipe) -> None:
    pipe.fill()
    writer = QueueWriter(pipe.writer.fileno(), limit=50, form="json")
    writer.tell("a table")
    for number in range(100):
        writer.handle(record("line %d", number))
    text = pipe.read()
    writer.stop()
    lines = [json.loads(line) for line in (text + pipe.read()).splitlines() if line]
    assert lines[0]["message"] == "a table"
    (apology,) = [line for line in lines if "dropped" in line["message"]]
    assert apology["message"] == f"{writer.dropped} lines of the log were dropped"
    assert apology["level"] == "warning"


def test_what_is_no_utf8_and_what_is_no_json_are_written_too(pipe: Pipe) -> None:
    writer = QueueWriter(pipe.writer.fileno(), form="json")
    made = record("path %s", os.fsdecode(b"/\xff"))
    made.fields = {"handler": object()}
    writer.handle(made)
    writer.stop()
    assert "path /" in json.loads(pipe.read())["message"]


def test_whoever_logs_does_not_format(pipe: Pipe) -> None:
    """The thread does, so that a slow text holds up nobody."""
    made: list[int] = []

    class Slow:
        def __str__(self) -> str:
            made.append(get_ident())
            return "slow"

    writer = QueueWriter(pipe.writer.fileno(), form="json")
    line = record("line")
    line.fields = {"handler": Slow()}
    writer.handle(line)
    writer.stop()
    assert json.loads(pipe.read())["handler"] == "slow"
    assert made
    assert get_ident() not in made


# The program


def test_bytes_pass_though_nobody_reads_standard_error(pipe: Pipe, echo_backend: Backend) -> None:
    pipe.fill()
    arguments = (
        *("--log-level", "debug", "--behavior", "100:delay", "--handlers.delay.sleep", "0"),
    )
    with proxy(echo_backend, *arguments, stderr=pipe.writer) as program:
        for _ in range(20):
            with program.dial() as client:
                for _ in range(20):
                    assert exchange(client, b"hello") == b"hello"
        start = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - start < 6


def test_it_ends_though_nobody_reads_a_long_log(pipe: Pipe, echo_backend: Backend) -> None:
    # The warnings at start alone are more than the pipe holds.
    env = {f"VAURIEN_{'X' * 200}_{number}": "1" for number in range(100)}
    with proxy(echo_backend, env=env, stderr=pipe.writer) as program:
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0


def test_bytes_pass_though_the_reader_of_standard_error_has_gone(
    pipe: Pipe, echo_backend: Backend
) -> None:
    pipe.reader.close()
    arguments = ("--behavior", "100:delay", "--handlers.delay.sleep", "0")
    with proxy(echo_backend, *arguments, stderr=pipe.writer) as program:
        for _ in range(3):
            with program.dial() as client:
                assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0


def test_memory_stays_bounded_though_nobody_reads_standard_error(
    pipe: Pipe, echo_backend: Backend
) -> None:
    from tests.support import resident

    pipe.fill()
    arguments = (
        *("--behavior", "100:delay", "--handlers.delay.sleep", "0", "--log-level", "debug"),
    )
    with proxy(echo_backend, *arguments, stderr=pipe.writer) as program, program.dial() as client:
        for _ in range(100):
            exchange(client, b"hello")
        before = resident(program.pid)
        for _ in range(3000):
            exchange(client, b"hello")
        assert resident(program.pid) - before < 20e6


def test_what_the_program_logs_is_complete_at_its_end(echo_backend: Backend) -> None:
    arguments = ("--behavior", "100:delay", "--handlers.delay.sleep", "0.001")
    with proxy(echo_backend, *arguments) as program:
        with program.dial() as client:
            for _ in range(200):
                assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0
        wait_for(lambda: program.text.count(": delay") == 200, "all lines")


RAISES = """
class Raises:
    name = "raises"
    options = {}

    def __init__(self, settings, proxy):
        pass

    def __call__(self, client_sock, backend_sock, to_backend):
        raise RuntimeError("what it said")
"""


def objects(program: Program, **wanted: Any) -> list[dict[str, Any]]:
    """The lines of the log in which the fields are as wanted."""
    lines = [json.loads(line) for line in program.text.splitlines()]
    return [line for line in lines if wanted.items() <= line.items()]


def test_a_log_as_json_has_a_line_for_each_fault_and_none_for_dummy(
    tmp_path: Path, echo_backend: Backend
) -> None:
    journal = tmp_path / "journal"
    behavior = ("--behavior", "30:delay,30:noop+delay", "--handlers.delay.sleep", "0")
    arguments = (*behavior, "--seed", "1", "--journal", journal, "--log-format", "json")
    with proxy(echo_backend, *arguments) as program:
        for _ in range(3):
            with program.dial() as client:
                for _ in range(20):
                    assert exchange(client, b"hello") == b"hello"
        assert program.stop() == 0
    took = [json.loads(line) for line in journal.read_text().splitlines()]
    names = ("proxy", "connection", "exchange", "handler")
    picked = {tuple(line[name] for name in names) for line in took}
    faults = objects(program, proxy="default", level="info")
    found = [tuple(line[name] for name in names) for line in faults if "handler" in line]
    assert sorted(found) == sorted(picked), "one line for each, and no more"
    assert {one[1] for one in found} == {1, 2, 3}
    assert {one[3] for one in found} == {"delay", "noop+delay"}
    assert 10 < len(found) < 50
    assert all(re.match(r"\d{4}-.*\+00:00$", line["time"]) for line in objects(program))


def test_a_log_as_json_tells_of_exceptions_in_a_field(
    tmp_path: Path, echo_backend: Backend
) -> None:
    module(tmp_path, "mine", RAISES)
    arguments = ("--behavior", "100:mine.Raises", "--log-format", "json")
    with proxy(echo_backend, *arguments, cwd=tmp_path) as program:
        with program.dial() as client:
            exchange(client, b"hello", 0)
            assert client.recv(1) == b""
        assert program.stop() == 0
        (line,) = objects(program, level="error")
        assert line["exception"].endswith("RuntimeError: what it said")
        place = (line["proxy"], line["connection"], line["exchange"], line["handler"])
        assert place == ("default", 1, 1, "raises")


def test_another_format_is_refused() -> None:
    assert "--log-format" in refused("--log-format", "yaml")


def test_what_toxics_did_to_an_exchange_is_a_line_when_it_is_over(echo_backend: Backend) -> None:
    toxics = "first: corrupt chance=100, second: latency latency=1, third: noop"
    with proxy(echo_backend, "--toxics", toxics, "--log-format", "json") as program:
        with program.dial() as client:
            exchange(client, b"hello")
            exchange(client, b"again")
        wait_for(lambda: program.text.count('"handler"') == 2)
        assert program.stop() == 0
    lines = [json.loads(line) for line in program.log if '"handler"' in line]
    assert [(line["connection"], line["exchange"]) for line in lines] == [(1, 1), (1, 2)]
    assert [{*line["handler"].split("+")} for line in lines] == [{"first", "second"}] * 2
    place = "default: connection 1, exchange 1: toxic "
    assert lines[0]["message"] == place + lines[0]["handler"]
