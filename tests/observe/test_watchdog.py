"""The watch on the loop: a handler that computes is named; one that only waits is not."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import gevent

from tests.cli.helpers import module
from tests.support import Backend, Program, exchange, proxy, wait_for
from vaurien.net.loop import current
from vaurien.observe.watchdog import Watchdog

HANDLER = """
import time

class Busy:
    name = "busy"
    options = {{}}

    def __init__(self, settings, proxy):
        pass

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        data = source.recv(65536)
        if data == b"work":
            {work}
        if data:
            sink.sendall(data)
"""
COMPUTE = """until = time.monotonic() + 1.2
            while time.monotonic() < until:
                pass"""
WAIT = "time.sleep(1.5)"


def busy(directory: Path, backend: Backend, work: str) -> Program:
    module(directory, "mine", HANDLER.format(work=work))
    return proxy(backend, "--behavior", "100:mine.Busy", cwd=directory)


def test_a_handler_that_holds_the_loop_is_named(tmp_path: Path, echo_backend: Backend) -> None:
    with busy(tmp_path, echo_backend, COMPUTE) as program, program.dial() as client:
        assert exchange(client, b"work", 0) == b""
        match = program.wait_log(r"WARNING.*loop.*")
        assert "busy" in match[0]
        assert "mine.py:" in match[0]
        client.settimeout(20)
        assert client.recv(4) == b"work"
        assert exchange(client, b"hello") == b"hello"


def test_one_hold_is_told_once(tmp_path: Path, echo_backend: Backend) -> None:
    with busy(tmp_path, echo_backend, COMPUTE) as program:
        with program.dial() as client:
            assert exchange(client, b"hello") == b"hello"
            for _ in range(2):  # to the backend, and back: the handler works twice each time
                assert exchange(client, b"work") == b"work"
        wait_for(lambda: program.text.count("busy' computes") >= 2, "a warning for each")
        assert program.stop() == 0
        assert program.text.count("busy' computes") <= 4


def test_much_to_do_at_once_is_not_a_hold() -> None:
    # Thousands of callbacks in one turn of the loop, each of them short: nobody is at fault.
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    watcher, seen = Lines(), []
    log = logging.getLogger("vaurien")
    log.addHandler(watcher)
    dog = Watchdog(current().caller)
    dog.start()
    try:
        for _ in range(60):
            gevent.get_hub().loop.run_callback(compute, 0.025)
        timers = [gevent.get_hub().loop.timer(0) for _ in range(60)]
        for timer in timers:
            timer.start(compute, 0.025)
        gevent.sleep(0.1)
        seen.append(list(lines))
        compute(1.2)
        gevent.sleep(0.2)
        seen.append(list(lines))
    finally:
        dog.stop()
        log.removeHandler(watcher)
    assert seen[0] == []
    (line,) = seen[1]
    assert "the loop is held" in line
    assert "compute" in line


def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_time_sleep_in_a_handler_holds_up_nobody(tmp_path: Path, echo_backend: Backend) -> None:
    with (
        busy(tmp_path, echo_backend, WAIT) as program,
        program.dial() as sleeper,
        program.dial() as client,
    ):
        start = time.monotonic()
        sleeper.sendall(b"work")
        program.wait_log("connection 1, exchange 1: busy")
        rounds = 0
        while time.monotonic() - start < 1.3:
            assert exchange(client, b"hello") == b"hello"
            rounds += 1
        assert rounds > 10
        assert sleeper.recv(4) == b"work"
        assert time.monotonic() - start >= 2.9  # there and back
        assert "loop" not in program.text
