"""The writer's thread: few wake-ups, one write a batch, and every line written or counted."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import PATIENCE, Pipe, wait_for
from vaurien.observe import writer as module
from vaurien.observe.writer import BATCH, REST, Writer


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with Pipe() as made:
        yield made


def held(pipe: Pipe) -> int:
    """How many bytes a pipe holds."""
    (n,) = struct.unpack("i", fcntl.ioctl(pipe.reader, termios.FIONREAD, b"\0" * 4))
    return int(n)


def test_a_busy_second_takes_some_twenty_wake_ups_and_as_many_writes() -> None:
    # Each write is a datagram of its own.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        writer: Writer[int] = Writer(ours.fileno(), str)
        pause, begun, n = threading.Event(), time.monotonic(), 0
        while time.monotonic() - begun < 1:
            writer.put(n)
            n += 1
            pause.wait(0.0005)
        assert writer.stop()
        took = time.monotonic() - begun
        ours.shutdown(socket.SHUT_WR)
        writes = list(iter(lambda: theirs.recv(1 << 20), b""))
    assert [int(line) for line in b"".join(writes).split()] == list(range(n))
    assert n > 200
    assert len(writes) <= writer.batches <= took / REST + 2
    assert len(writes) > 5, "a line was to come within a fraction of a second"


def test_the_first_line_after_a_silence_is_written_at_once_and_stopping_cuts_the_rest_short(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 3600.0)
    writer: Writer[str] = Writer(pipe.writer.fileno(), str)
    writer.put("first")
    assert pipe.reader.read(100) == b"first\n"
    writer.put("second")
    assert pipe.read() == ""
    assert writer.stop()
    assert pipe.read() == "second\n"


def test_what_is_being_written_still_waits(pipe: Pipe) -> None:
    pipe.fill()
    entered = threading.Event()

    def line(thing: int) -> str:
        entered.set()
        return str(thing)

    writer: Writer[int] = Writer(pipe.writer.fileno(), line, limit=100)
    writer.put(0)
    assert entered.wait(PATIENCE)
    for number in range(1, 1000):
        writer.put(number)
    assert writer.dropped == 900
    text = pipe.read()
    assert writer.stop()
    assert (text + pipe.read()).split() == [str(number) for number in range(100)]


def test_a_long_queue_is_written_in_pieces(pipe: Pipe) -> None:
    pipe.fill()
    writer: Writer[int] = Writer(pipe.writer.fileno(), str)
    n = BATCH * 2 + 10
    for number in range(n):
        writer.put(number)
    text = pipe.read()
    assert writer.stop()
    assert (text + pipe.read()).split() == [str(number) for number in range(n)]
    assert writer.dropped == 0


def test_when_the_reader_goes_all_that_it_did_not_get_is_counted(pipe: Pipe) -> None:
    failed: list[int | None] = []
    entered, go = threading.Event(), threading.Event()

    def text(thing: str) -> str:
        entered.set()
        go.wait()
        return thing

    writer: Writer[str] = Writer(
        pipe.writer.fileno(), text, failed=lambda error: failed.append(error.errno)
    )
    writer.put("x" * 99)
    assert entered.wait(PATIENCE)  # so that this one is written alone, and all others together
    for _ in range(99):
        writer.put("x" * 99)
    go.set()
    wait_for(lambda: held(pipe) > 100)
    whole = held(pipe) // 100  # a pipe does not always fill its last page
    pipe.reader.close()
    wait_for(lambda: failed)
    assert writer.dropped == 100 - whole
    writer.put("late")
    assert writer.dropped == 101 - whole
    assert len(failed) == 1
    assert writer.stop()


def test_what_is_put_after_the_end_is_counted(pipe: Pipe) -> None:
    writer: Writer[str] = Writer(pipe.writer.fileno(), str)
    writer.put("in time")
    assert writer.stop()
    writer.put("late")
    assert (pipe.read(), writer.dropped) == ("in time\n", 1)


def test_lines_of_many_threads_are_all_there(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "lines")
    with open(path, "wb") as file:
        writer: Writer[str] = Writer(file.fileno(), str)

        def put_all(name: str) -> None:
            for number in range(1000):
                writer.put(f"{name} {number}")

        threads = [threading.Thread(target=put_all, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.stop()
    with open(path) as text:
        lines = text.read().splitlines()
    for name in "abcd":  # each thread's in its order
        assert [line for line in lines if line[0] == name] == [f"{name} {n}" for n in range(1000)]
    assert (len(lines), writer.dropped) == (4000, 0)
