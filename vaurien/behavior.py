"""The weighted choice of a handler, the random draws behind it, and exact points.

A behavior is text; `parse` makes exact fractions of its weights, and `cuts` turns those into bounds
in the space of 64-bit numbers. A draw is a keyed hash of what it is for (`Dice`), compared with the
bounds as bytes. The weights are exact, because floats that should add up to 100 may add up to more,
and would be refused.

Law: pure. Every draw is derived from (seed, proxy's name, connection, exchange, purpose) and never
taken from a shared stream, so neither concurrency nor an address can change it.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2s
from struct import Struct
from typing import Any

from vaurien.address import Networks
from vaurien.errors import UsageError

DUMMY = "dummy"
_HUNDRED = 100
_SPACE = 2**64  # draws are 64-bit: the least weight, 1e-15 percent, is still some hundred of them
LONGEST = 10_000  # characters of a behavior at most: some ms of reading
#: The colon is missing. (What stands between begins with no point: there is one way to match.)
_GLUED = re.compile(r"([0-9.]+)(?:[^0-9A-Za-z.][^0-9A-Za-z]*)?([A-Za-z]\S*)")
_WEIGHT = re.compile(r"[0-9]{1,3}(\.[0-9]{0,15})?|\.[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True)
class Behavior:
    """A behavior string, taken apart: ``(weight in percent, handler)`` as written.

    The handler is a name, or several joined by ``+``.
    """

    parts: tuple[tuple[Fraction, str], ...]

    def __str__(self) -> str:
        return ",".join(f"{_decimal(weight)}:{name}" for weight, name in self.parts)

    @property
    def names(self) -> list[str]:
        """The names of the handlers, each once, in the order written."""
        return list(dict.fromkeys(name for _, part in self.parts for name in part.split("+")))


def parse(text: str, where: str) -> Behavior:
    """The behavior in `text`, such as ``20:delay,5:error``; UsageError naming `where` if wrong.

    Weights are percentages, fractions included; they may not exceed 100 in sum.
    """
    if len(text) > LONGEST:
        raise UsageError(
            f"{where}: {text[:20]!r}... has {len(text):,} characters; write {LONGEST:,} at most"
        )
    parts: list[tuple[Fraction, str]] = []
    for part in text.split(","):
        weight, colon, name = (piece.strip() for piece in part.strip().partition(":"))
        if not part.strip():
            raise UsageError(
                f"{where}: {text.strip()!r} has an empty part; write for instance 20:delay, with"
                " commas between parts only"
            )
        if not colon and (glued := _GLUED.fullmatch(weight)):
            raise UsageError(
                f"{where}: {weight!r} is not WEIGHT:HANDLER; write {glued[1]}:{glued[2]}"
            )
        if not colon or not name:
            wanted = weight or name or "delay"
            hint = f"20:{wanted}" if not _WEIGHT.fullmatch(wanted) else f"{wanted}:delay"
            raise UsageError(
                f"{where}: {part.strip()!r} is not WEIGHT:HANDLER; write for instance {hint}"
            )
        if not _WEIGHT.fullmatch(weight):
            raise UsageError(
                f"{where}: weight {weight!r} of {name!r} is not a percentage; give 0 to 100"
            )
        parts.append((Fraction(weight), combination(name, where)))
    total = sum((weight for weight, _ in parts), Fraction(0))
    if total > _HUNDRED:
        raise UsageError(
            f"{where}: the weights of {text.strip()!r} add up to {_decimal(total)};"
            " lower them to 100 or less (the rest goes to dummy)"
        )
    return Behavior(tuple(parts))


def combination(text: str, where: str) -> str:
    """The handlers in `text`, joined by ``+`` without spaces; UsageError if one is missing."""
    names = [name.strip() for name in text.split("+")]
    seen: set[str] = set()
    for name in names:
        if any(c.isspace() for c in name):
            hint = "separate behaviors by commas"
            if "#" in name or ";" in name:
                hint = "put a comment on a line of its own"
            raise UsageError(f"{where}: {name!r} is not a handler name; {hint}")
        if not name:
            raise UsageError(f"{where}: {text!r} has a + without a handler; remove it")
        if name in seen:
            raise UsageError(f"{where}: {text!r} names {name!r} twice; name it once")
        seen.add(name)
        if name == DUMMY and len(names) > 1:
            raise UsageError(f"{where}: {text!r}: dummy does nothing; leave it out")
    return "+".join(names)


def _decimal(value: Fraction) -> str:
    """An exact decimal; every weight is one, since it was written as one."""
    return str(int(value)) if value.denominator == 1 else f"{float(value):.15g}"


def cuts(behavior: Behavior) -> list[bytes]:
    """Where one part ends and the next begins in the 64-bit space of draws, as 8-byte big-endian.

    ``bisect_right(cuts, draw)`` is the index of the part; past the last cut it is dummy. A cut at
    the very end of the space is left out, since no draw lies beyond it.
    """
    result: list[bytes] = []
    total = Fraction(0)
    for weight, _ in behavior.parts:
        total += weight
        if total < _HUNDRED:
            result.append(int(total * _SPACE / _HUNDRED).to_bytes(8, "big"))
    return result


_numbers = Struct(">QQ").pack


class Dice:
    """The draws of one proxy: a keyed hash of (connection, exchange, purpose), BLAKE2s of 64 bits.

    Cheap enough to make one for each exchange (0.4 µs, a ``random.Random`` costs 6). A hash has no
    state, so connections that run at once cannot change each other's draws, as they would with a
    common stream of random numbers.
    """

    __slots__ = ("_copy", "name", "seed")

    def __init__(self, seed: int, name: str) -> None:
        self.seed, self.name = seed, name
        key = blake2s(f"{seed}\0{name}".encode(), digest_size=32).digest()
        self._copy = blake2s(digest_size=8, key=key).copy  # the key is taken in once

    def __repr__(self) -> str:
        return f"<Dice of {self.name!r}, seed {self.seed}>"

    def bits(self, connection: int, exchange: int, purpose: bytes) -> bytes:
        """64 random bits, as 8 bytes, big-endian: compares like the number that it is."""
        hasher = self._copy()
        hasher.update(_numbers(connection, exchange) + purpose)
        return hasher.digest()

    def draw(self, connection: int, exchange: int, purpose: str) -> float:
        """A number from 0 to 1, 1 excluded."""
        bits = self.bits(connection, exchange, purpose.encode())
        # A double has 53 bits: more would round up to 1.
        return (int.from_bytes(bits, "big") >> 11) * 2.0**-53

    def stream(self, connection: int, exchange: int, purpose: str) -> random.Random:
        """A separate generator, where many numbers are needed for one purpose."""
        return random.Random(self.bits(connection, exchange, purpose.encode()))

    def part(
        self, cuts: Sequence[bytes], connection: int, exchange: int, purpose: bytes = b"pick"
    ) -> int:
        """The index of the behavior's part for an exchange; ``len(parts)`` is dummy."""
        return bisect_right(cuts, self.bits(connection, exchange, purpose))


class Exchange:
    """One exchange: the handlers that deal with it, their random numbers, and what came of it.

    `handlers` are keys, such as a chain's places have; `taker` is the socket handler that takes
    what leaves the chains. `added` has those that did something, each with the most seconds that
    it added to a piece of data. `began` is seconds of the monotonic clock; `from_client` and
    `from_backend` are the bytes that were read of it, once it is over (see
    `vaurien.exchange.ledger`).
    """

    __slots__ = (
        "_dice",
        "_random",
        "added",
        "began",
        "connection",
        "from_backend",
        "from_client",
        "handlers",
        "number",
        "summary",
        "taker",
    )

    def __init__(
        self,
        dice: Dice,
        connection: int,
        number: int,
        handlers: tuple[Any, ...] = (),
        taker: Any = None,
    ) -> None:
        self._dice, self.connection, self.number = dice, connection, number
        self.handlers, self.taker = handlers, taker
        self.added: dict[Any, float] = {}
        self.began = 0.0
        self.from_client = self.from_backend = 0
        self.summary = ""  # a short name of its request, from a framer
        self._random: _Random | None = None

    def __repr__(self) -> str:
        return f"<Exchange {self.number} of connection {self.connection} of {self._dice.name!r}>"

    @property
    def taken(self) -> bool:
        """Whether a socket handler takes what leaves the chains, and has not left the behavior."""
        return self.taker is not None and not self.taker.gone

    def draw(self, purpose: str) -> float:
        """A number from 0 to 1, 1 excluded; the same each time for one purpose."""
        return self._dice.draw(self.connection, self.number, purpose)

    def stream(self, purpose: str) -> random.Random:
        """A generator for one purpose, going on where the last use of it in this exchange ended."""
        streams = self._used().streams
        if purpose not in streams:
            streams[purpose] = self._dice.stream(self.connection, self.number, purpose)
        return streams[purpose]

    def noise(self, n: int) -> bytes:
        """The next `n` random bytes; how a response is cut into pieces does not change them."""
        # From blocks of a fixed size: a generator asked for 10 bytes and 10 more gives others than
        # for 20, and the cuts of the network must not show.
        used = self._used()
        blocks = [used.noise]
        missing = n - len(used.noise)
        while missing > 0:
            blocks.append(self.stream("noise").randbytes(1024))
            missing -= 1024
        data = b"".join(blocks)
        used.noise = data[n:]
        return data[:n]

    def _used(self) -> _Random:
        if self._random is None:
            self._random = _Random()
        return self._random


class _Random:
    """What an exchange has used up of its random numbers."""

    def __init__(self) -> None:
        self.streams: dict[str, random.Random] = {}
        self.noise = b""


@dataclass(frozen=True)
class Points:
    """At which exchanges a handler may act, once it was picked.

    `after` lets that many exchanges of the scope pass first; of those that follow, `every` allows
    each Nth, and `times` is how often it may act, None for any number. The scope is the
    connection, or the whole proxy with `per_proxy`. `since` and `until` are seconds from the start
    of the proxy.
    """

    after: int = 0
    times: int | None = None
    every: int = 1
    since: float = 0.0
    until: float | None = None
    per_proxy: bool = False
    clients: Networks | None = None

    def allow(self, exchange: int, harms: int, seconds: float = 0.0, client: object = None) -> bool:
        """Whether it may act on the `exchange` of the scope (from 1), after `harms` times before.

        `seconds` is the time since the proxy's start, `client` the client's address as the system
        gives it: ``(host, port, ...)``, or a text for a unix socket.
        """
        return (
            exchange > self.after
            and (exchange - self.after) % self.every == 0
            and (self.times is None or harms < self.times)
            and self.since <= seconds
            and (self.until is None or seconds < self.until)
            and (self.clients is None or self.clients.allow(client))
        )


ALWAYS = Points()
