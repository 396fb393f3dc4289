"""What a message handler is, and the base class to write one.

Law: pure. It is asked once for each exchange that a behavior picks it for, when the request is
there, and says what becomes of it. It works where the proxy's protocol tells messages apart; plain
``tcp`` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from vaurien import options as options_
from vaurien.behavior import Exchange
from vaurien.kinds import Kind, left_open
from vaurien.options import Values


class Request(NamedTuple):
    """The beginning of a request: `data` are its first bytes, `summary` a short name for it.

    `exchange` has its number and the draws for it.
    """

    exchange: Exchange
    summary: str
    data: bytes


@dataclass(frozen=True)
class Answer:
    """The client gets `data`; the backend never sees the request.

    That is when the request is there in full, or with `early` as soon as it begins.
    """

    data: bytes
    early: bool = False


@dataclass(frozen=True)
class Send:
    """The backend gets `data` in place of the request; the client gets its answer."""

    data: bytes


@dataclass(frozen=True)
class Replace:
    """The backend answers in full; the client gets `data` in place of that."""

    data: bytes


@dataclass(frozen=True)
class Lose:
    """The backend answers in full; the client gets nothing."""


#: What may become of a request; None passes it on.
Action = Answer | Send | Replace | Lose | None


class MessageHandler:
    """A handler that decides about requests; subclasses set `name` and `options`.

    ::

        class Busy(MessageHandler):
            name = "busy"
            options = {"text": ("What the client is told", str, "busy")}

            def on_request(self, request):
                return self.answer(self.options("text").encode() + b"\\n")

    There is one instance for all connections of a proxy. Made by hand, as in a test, it takes a
    mapping of options: ``Busy({"text": "later"})``.
    """

    works_on: ClassVar[Kind] = "message"
    name: ClassVar[str] = ""

    #: ``{name: (description, type, default[, choices])}``; on an instance, ``self.options('x')``
    #: gives the converted value.
    options: Any = {}

    #: See `vaurien.handlers.BaseHandler.points`.
    points: ClassVar[Mapping[str, str]] = {}

    proxy: Any  # the proxy that asks, None where it was made by hand

    def __new__(cls, options: Any = None, proxy: Any = None) -> Any:
        # Here and not in __init__, which subclasses may leave uncalled.
        self = super().__new__(cls)
        given = {} if options is None else options
        if not isinstance(given, Values):
            given = options_.fill(cls.options, given, cls.name)
        self.options, self.proxy = given, proxy
        return self

    def __init__(self, options: Any = None, proxy: Any = None) -> None:
        """For subclasses to extend; the attributes are there before it is called."""

    @left_open
    def on_request(self, request: Request) -> Action:
        """What becomes of `request`: `answer`, `send`, `replace`, `lose`, or None to pass it on."""
        raise TypeError(f"message handler {self.name!r} does not implement on_request()")

    @staticmethod
    def answer(data: bytes, early: bool = False) -> Answer:
        """Answer with `data` instead of the backend, which does not see the request.

        The client gets it when its request is there in full, or with `early` as soon as it begins.
        """
        return Answer(data, early)

    @staticmethod
    def send(data: bytes) -> Send:
        """Send the backend `data` instead of the request, and pass on its answer."""
        return Send(data)

    @staticmethod
    def replace(data: bytes) -> Replace:
        """Pass the request on, and answer with `data` once the backend has answered in full."""
        return Replace(data)

    @staticmethod
    def lose() -> Lose:
        """Pass the request on, and drop the backend's answer."""
        return Lose()

    def __repr__(self) -> str:
        values = " ".join(f"{k}={options_.show(v)}" for k, v in self.options.items())
        return f"<{type(self).__name__} {self.name!r}{' ' + values if values else ''}>"
