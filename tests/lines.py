"""Lines of text: a protocol for tests, the simplest that has all that is hard about framing.

A request is a line. Its answer is one line; to ``many N ...`` it is N lines; to ``quiet ...`` there
is none. A line of the backend that begins with ``!`` is pushed, and belongs to no exchange. A line
that begins with ``\\x00`` is none of this protocol. Long lines come in pieces, so that nothing is
kept that need not be.

Its handlers say what they do by their names; each acts on every exchange that it is picked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from vaurien import MessageHandler
from vaurien.protocols.framer import FramingError, Piece

KEPT = 100  # bytes of a line that are kept until it is known what it says


class Lines:
    """The framer."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[int] = deque()  # exchanges, in order
        self._lines: dict[int, int] = {}  # that are to come, of each
        self._kept = {True: b"", False: b""}
        self._inside: dict[bool, int | None] = {True: None, False: None}  # a line of that exchange
        self._answering = 0  # the exchange whose answer has begun

    def feed(self, to_backend: bool, data: bytes) -> Iterator[Piece]:
        """Cut at the ends of lines."""
        data, start = self._kept[to_backend] + data, 0
        make = self._request if to_backend else self._answer
        while start < len(data):
            end = data.find(b"\n", start) + 1
            inside = self._inside[to_backend]
            if inside is None:
                if data[start] == 0:
                    raise FramingError("a line cannot begin with a zero byte")
                if not end and len(data) - start < KEPT:
                    self._kept[to_backend] = data[start:]
                    return
            piece = make(data[start : end or len(data)], inside, bool(end))
            self._kept[to_backend] = b""
            self._inside[to_backend] = None if end else piece.exchange
            start = end or len(data)
            yield piece

    def _request(self, line: bytes, inside: int | None, end: bool) -> Piece:
        if inside is not None:
            return Piece(line, inside, False, end)
        self._begun += 1
        words = line.split()
        lines = 0 if words[:1] == [b"quiet"] else 1
        if words[:1] == [b"many"] and len(words) > 1 and words[1].isdigit():
            lines = int(words[1])
        self._waiting.append(self._begun)
        self._lines[self._begun] = lines
        summary = line[:KEPT].decode("latin-1").rstrip() or "(empty)"
        return Piece(line, self._begun, True, end, len(line) if end else None, summary)

    def _answer(self, line: bytes, inside: int | None, end: bool) -> Piece:
        if inside == 0 or (inside is None and line.startswith(b"!")):
            return Piece(line, 0, inside is None, end)
        while self._waiting and not self._lines[self._waiting[0]]:
            del self._lines[self._waiting.popleft()]
        if not self._waiting:
            raise FramingError("an answer to nothing")
        exchange = self._waiting[0]
        first, self._answering = self._answering != exchange, exchange
        self._lines[exchange] -= end
        return Piece(line, exchange, first, not self._lines[exchange])

    def instead(self, exchange: int, data: bytes) -> None:
        """The backend gets something else; the answer to that is one line."""
        self._lines[exchange] = 1 if data else 0


class Broken(Lines):
    """A framer with a bug: it raises what is not its error at the third request."""

    def feed(self, to_backend: bool, data: bytes) -> Iterator[Piece]:
        for piece in super().feed(to_backend, data):
            if to_backend and piece.exchange == 3:
                raise KeyError(piece.exchange)
            yield piece


class Keeps(Lines):
    """A framer that keeps all."""

    def feed(self, to_backend: bool, data: bytes) -> Iterator[Piece]:
        return iter(())


class Busy(MessageHandler):
    """Answers in place of the backend."""

    name = "busy"
    options: Any = {"text": ("What it says", str, "busy"), "early": ("At once", bool, False)}

    def on_request(self, request: Any) -> Any:
        text = str(self.options("text")).replace("SUMMARY", request.summary)
        return self.answer(text.encode() + b"\n", self.options("early"))


class Other(MessageHandler):
    """Sends something else."""

    name = "other"
    options: Any = {}

    def on_request(self, request: Any) -> Any:
        return self.send(b"other " + request.data)


class Said(MessageHandler):
    """Replaces the answer."""

    name = "said"
    options: Any = {}

    def on_request(self, request: Any) -> Any:
        return self.replace(f"said of {request.exchange.number}\n".encode())


class Lost(MessageHandler):
    """Loses the answer."""

    name = "lost"
    options: Any = {}

    def on_request(self, request: Any) -> Any:
        return self.lose()


class ByWord(MessageHandler):
    """Does what the second word of the request says, so that a pipeline can mix all."""

    name = "byword"
    options: Any = {}

    def on_request(self, request: Any) -> Any:
        word = [*request.summary.split(), "", ""][1]
        if word == "busy":
            return self.answer(b"busy " + request.summary.split()[0].encode() + b"\n")
        if word == "big":
            return self.answer(b"b" * 1_000_000 + b"\n")
        if word == "other":
            return self.send(b"other\n")
        if word == "said":
            return self.replace(b"said " + request.summary.split()[0].encode() + b"\n")
        if word == "raise":
            raise RuntimeError("as it was asked to")
        if word == "wrong":
            return b"what is not allowed"
        return self.lose() if word == "lost" else None
