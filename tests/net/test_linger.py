"""A side and its polite end, in memory: what moves is let through, what stands is not."""

from __future__ import annotations

from typing import Any

import pytest

from vaurien.net.linger import ABORT, LINGER, Linger, reset
from vaurien.net.memory import MemoryLoop, Spinning
from vaurien.net.memory_sockets import MemorySocket
from vaurien.net.side import Side

BYTES = bytes(range(256)) * 4


class Fed:
    """Who sends through a side, and what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def drained(self) -> None:
        self.told.append("drained")

    def sink_broke(self, n: int) -> None:
        self.told.append(n)

    def crashed(self) -> None:
        raise


def made(window: int) -> tuple[MemoryLoop, Side, MemorySocket, Fed]:
    """A side whose far end takes `window` bytes."""
    loop = MemoryLoop()
    near, far = loop.pair(window)
    sock: Any = near
    side, fed = Side(sock, loop), Fed()
    side.feeder = fed
    return loop, side, far, fed


def lingering(held: bytes, window: int) -> tuple[MemoryLoop, MemorySocket, list[int], list[str]]:
    """A polite end with `held` still to send."""
    loop = MemoryLoop()
    near, far = loop.pair(window)
    sent: list[int] = []
    done: list[str] = []
    Linger(near, memoryview(held) if held else None, loop, sent.append, lambda: done.append("done"))
    return loop, far, sent, done


def test_what_the_socket_does_not_take_is_held_and_follows_in_order() -> None:
    loop, side, far, fed = made(window=100)
    side.write(BYTES[:300])
    side.write(BYTES[300:400])  # behind what is held
    assert repr(side).endswith(", 300 held>")
    got = bytearray()
    while side.held is not None:
        assert fed.told == []
        got += far.recv(64)
        loop.run()
    assert fed.told == ["drained"]
    got += far.recv(100)
    assert got == BYTES[:400]
    assert side.held is None
    assert not loop.watchers


def test_what_is_kept_is_no_longer_the_memory_of_who_sent_it() -> None:
    loop, side, far, _ = made(window=1)
    memory = bytearray(b"abc")
    side.write(memoryview(memory))
    side.keep()
    memory[:] = b"xyz"
    got = far.recv(9)
    for _ in range(2):
        loop.run()
        got += far.recv(9)
    assert got == b"abc"


def test_a_side_that_is_reset_says_how_much_it_has_not_taken() -> None:
    _, side, far, fed = made(window=100)
    reset(far)
    side.write(BYTES[:7])
    assert fed.told == [7]


def test_a_side_that_is_reset_while_it_holds_says_so_once() -> None:
    loop, side, far, fed = made(window=100)
    side.write(BYTES[:300])
    reset(far)
    loop.turn()
    assert fed.told == [0]
    assert side.drop() == 200
    loop.run()
    assert fed.told == [0]


def test_what_is_dropped_is_not_sent() -> None:
    loop, side, far, fed = made(window=100)
    side.write(BYTES[:300])
    assert side.drop() == 200
    assert len(far.recv(1000)) == 100
    loop.run()
    assert not far.inbox
    assert fed.told == []


def test_an_end_waits_for_as_long_as_its_reader_moves() -> None:
    loop, far, sent, done = lingering(BYTES, window=16)
    got = bytearray()
    while len(got) < len(BYTES):
        loop.advance(LINGER * 0.9)
        assert not done
        assert far.fins == (sum(sent) == len(BYTES))
        got += far.recv(16)
    loop.run()
    assert got == BYTES
    assert sum(sent) == len(BYTES)
    assert far.fins == 1
    far.close()
    loop.run()
    assert done == ["done"]
    assert not loop.watchers
    assert not loop.open_sockets


def test_an_end_gives_up_on_who_takes_nothing_for_its_time() -> None:
    loop, far, sent, done = lingering(BYTES, window=16)
    loop.advance(LINGER * 0.9)
    far.recv(16)
    loop.advance(LINGER * 0.9)
    assert done == []
    loop.advance(LINGER * 0.2)
    assert done == ["done"]
    assert sum(sent) == 32
    assert not loop.watchers


def test_an_end_discards_what_still_comes_and_gives_up_on_who_never_ends() -> None:
    loop, far, _, done = lingering(b"", window=16)
    for _ in range(9):
        far.send(BYTES)
        loop.advance(LINGER / 10)
    assert not far.was_reset
    assert done == []
    loop.advance(LINGER / 10)
    assert done == ["done"]


def test_who_has_ended_already_still_gets_what_is_held() -> None:
    loop, far, sent, done = lingering(BYTES, window=700)
    far.shutdown(1)
    loop.run()
    assert done == []
    assert far.recv(2000) == BYTES[:700]
    loop.run()
    assert sum(sent) == len(BYTES)
    assert done == ["done"]


@pytest.mark.parametrize("held", [b"", BYTES])
def test_an_end_of_who_is_reset_is_over_at_once(held: bytes) -> None:
    loop, far, _, done = lingering(held, window=16)
    reset(far)
    loop.run()
    assert done == ["done"]
    assert not loop.watchers


# What the memory promises, on which all of this stands


def test_sockets_in_memory_end_as_tcp_does() -> None:
    loop = MemoryLoop()
    one, other = loop.pair(window=4)
    assert one.send(b"hello") == 4
    with pytest.raises(BlockingIOError):
        one.send(b"o")
    with pytest.raises(BlockingIOError):
        one.recv(1)
    one.close()
    assert other.recv(9, 2) == b"hell"  # MSG_PEEK
    assert other.recv(9) == b"hell"
    assert other.recv(9) == b""
    assert other.send(b"lost") == 4
    with pytest.raises(ConnectionResetError):
        other.send(b"x")
    with pytest.raises(BrokenPipeError):
        other.send(b"x")
    with pytest.raises(OSError, match="not connected"):
        other.shutdown(1)


@pytest.mark.parametrize("hard", [True, False])
def test_a_reset_comes_after_what_was_sent_before(hard: bool) -> None:
    loop = MemoryLoop()
    one, other = loop.pair()
    one.send(b"last words")
    if hard:
        one.setsockopt(1, 13, ABORT)
    else:
        other.send(b"unread")
    one.close()
    assert other.recv(99) == b"last words"
    with pytest.raises(ConnectionResetError):
        other.recv(99)
    assert other.recv(99) == b""


def test_a_loop_in_memory_says_who_spins() -> None:
    loop = MemoryLoop()
    near, far = loop.pair()
    loop.io(near.fileno(), 1).start(lambda: None)
    far.send(b"x")
    with pytest.raises(Spinning, match="1 unread"):
        loop.run()


def test_timers_in_memory_come_at_their_time_and_in_order() -> None:
    loop = MemoryLoop(start=100.0)
    rang: list[tuple[str, float]] = []
    once, again, never = loop.timer(1.5), loop.timer(1, 1), loop.timer(2)
    once.start(lambda: rang.append(("once", loop.now())))
    again.start(lambda: rang.append(("again", loop.now())))
    never.start(lambda: rang.append(("never", loop.now())))
    never.stop()
    loop.advance(3)
    assert rang == [("again", 101.0), ("once", 101.5), ("again", 102.0), ("again", 103.0)]
    assert not once.active
    assert again.active
    assert loop.now() == 103.0
