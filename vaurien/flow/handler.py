"""What a flow handler is, and the base class to write one.

Law: pure. A flow handler turns events into later events; it has no socket, no clock and does not
sleep. One configured handler makes one instance, a *stage*, for each connection and direction; the
stage keeps its state in itself and lives as long as the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from vaurien import options as options_
from vaurien.behavior import Dice
from vaurien.flow.events import Event
from vaurien.flow.line import Turn
from vaurien.kinds import Kind, left_open
from vaurien.options import Values

#: Bytes that a stage is given at a time at most, if it sets nothing. The pump reads half of that;
#: a call of a socket handler, and pieces that a change has joined, can make it more.
CHUNK = 65536

#: Pieces that a stage may make of one chunk. All are made in one callback of the loop, about 2 ms
#: of work, and each is held with `PIECE` bytes of its own, 128 KiB for all.
PIECES = 500


class Draws:
    """The random numbers of one stage, of the exchange that it deals with.

    They are counted by purpose and exchange, not taken from a stream: a draw more in one exchange,
    or for one purpose, must not change all that come after it (law 9).
    """

    __slots__ = ("_counted", "_counts", "_prefix", "connection", "dice", "exchange")

    def __init__(self, dice: Dice, connection: int, prefix: str) -> None:
        self.dice, self.connection, self._prefix = dice, connection, prefix
        self.exchange = self._counted = 0
        self._counts: dict[str, int] = {}

    def __call__(self, purpose: str) -> float:
        """The next number for `purpose` in this exchange: from 0 to 1, 1 excluded."""
        if self._counted != self.exchange:
            self._counted = self.exchange
            self._counts.clear()
        n = self._counts.get(purpose, 0)
        self._counts[purpose] = n + 1
        return self.dice.draw(self.connection, self.exchange, f"{self._prefix} {purpose} {n}")


class FlowHandler:
    """A handler that works on the events of one flow.

    Subclasses set `name` and `options` and implement `on`. Keep state in attributes, and set their
    first values in the class: an instance serves one flow of one connection.

    In a test, make one with a mapping of options: ``Latency({"latency": 20})``.
    """

    works_on: ClassVar[Kind] = "flow"
    name: ClassVar[str] = ""

    #: ``{name: (description, type, default[, choices])}``; on an instance, ``self.options('x')``
    #: gives the converted value.
    options: Any = {}

    #: See `vaurien.handlers.BaseHandler.points`.
    points: ClassVar[Mapping[str, str]] = {}

    #: Whether `on` wants `Begin`; False saves an event for each exchange.
    wants_begin: ClassVar[bool] = True

    #: The most bytes that it wants at a time. A handler that makes small pieces sets it at OPEN,
    #: because a chunk becomes all its pieces at once: time and memory depend on their number.
    chunk: int = CHUNK

    #: Its part of a line that it shares with other connections' stages, see `vaurien.flow.line`;
    #: set at OPEN. What it answers with a delay is due when the line says.
    turn: Turn | None = None

    #: The option, a bool, that says in which direction it acts if ``stream`` does not: upstream if
    #: it is True. Without one that is downstream.
    stream_by: ClassVar[str | None] = None

    to_backend: bool  # True upstream, False downstream
    draw: Draws
    shared: dict[Any, Any]  # one for all stages of this handler in the proxy
    pinned = False  # True for a toxic, which acts on all exchanges, False for what a behavior picks

    def __new__(
        cls,
        options: Any = None,
        to_backend: bool = False,
        draw: Draws | None = None,
        shared: dict[Any, Any] | None = None,
    ) -> Any:
        # Here and not in __init__, which subclasses may leave uncalled.
        self = super().__new__(cls)
        given = {} if options is None else options
        if not isinstance(given, Values):
            given = options_.fill(cls.options, given, cls.name)
        self.options, self.to_backend = given, to_backend
        self.draw = draw if draw is not None else Draws(Dice(0, "default"), 1, cls.name)
        self.shared = shared if shared is not None else {}
        return self

    def __init__(
        self,
        options: Any = None,
        to_backend: bool = False,
        draw: Draws | None = None,
        shared: dict[Any, Any] | None = None,
    ) -> None:
        """For subclasses to extend; the attributes are there before it is called."""

    @left_open
    def on(self, event: Event, now: float) -> Iterable[tuple[float, Event]]:
        """What becomes of `event`, which came at `now`: pairs of a delay and an event.

        Delays and `now` are in seconds; the zero of `now` is arbitrary. No answer drops the event.
        The engine keeps the order, so an answer may leave later than its delay says. ``(delay,
        WAKE)`` brings WAKE back to this stage.
        """
        raise TypeError(f"flow handler {self.name!r} does not implement on()")

    def removed(self, now: float) -> Iterable[tuple[float, Event]]:
        """What follows when the handler is removed from an open connection; times in seconds.

        The answers are pairs as of `on`, but their delays are ignored: they go on at once, behind
        what the stage held, since no stage is left to wait for them.
        """
        return ()

    def closed(self, now: float) -> None:
        """The last call, at `now` (seconds): the connection has ended, or the handler has left it.

        What the stage still held is lost, or has gone on. Give back here what it has taken of
        `shared`.
        """

    def __repr__(self) -> str:
        values = " ".join(f"{k}={options_.show(v)}" for k, v in self.options.items())
        return f"<{type(self).__name__} {self.name!r}{' ' + values if values else ''}>"
