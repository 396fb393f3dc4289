"""A place in a chain, and what the engine asks of the stage that stands there.

Law: whatever a stage answers, wants or raises that cannot be is an error of that stage's handler,
reported in one sentence, and never as an internal error.

A stage is code of users; the engine is not. So each call of a stage is made here or in
`Places._run`, inside a ``try`` that catches all, and what comes back is checked before the engine
uses it: a wrong answer found later would look like a bug of the chain.
"""

from __future__ import annotations

from collections import deque
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from vaurien.errors import HandlerRaised
from vaurien.flow.events import WAKE, Begin, Close, Data, Event, Reset, Signal
from vaurien.flow.handler import CHUNK, FlowHandler
from vaurien.flow.line import Turn

if TYPE_CHECKING:
    from vaurien.behavior import Exchange

#: What is held: when it is due, in planned seconds where the place has a turn; its number among all
#: that is held; the event and its route.
Held = tuple[float, int, Event, "Exchange"]
EVENTS = (Data, Begin, Close, Reset, Signal)


class Refused(ValueError):
    """A stage answered, or wants, what cannot be."""


class Place:
    """A stage's place in a chain. `pinned` acts on every exchange, others where they are picked.

    One whose `stage` is None lets all pass, in order; the engine makes such places for itself.
    """

    __slots__ = (
        "chunk",
        "cost",
        "key",
        "next",
        "pinned",
        "position",
        "queue",
        "route",
        "stage",
        "turn",
        "wants_begin",
    )

    def __init__(self, stage: FlowHandler | None, key: Any, pinned: bool = False) -> None:
        self.stage: Any = stage
        self.key, self.pinned = key, pinned
        self.position = 0  # among all places
        self.next: Place | None = None  # the one behind it
        #: What waits to go on from here, the next one first. Each is due when the one before it is,
        #: or later: so a queue does, and thousands of pieces cost no more each than one.
        self.queue: deque[Held] = deque()
        self.route: Exchange | None = None  # the exchange that the stage's draws are of
        # What the stage wants, as the engine last looked.
        self.chunk, self.wants_begin = CHUNK, True
        #: How many bytes are as much work as `PIECES` pieces; 0 for no work to speak of. A stage
        #: that sets a chunk says by it how much it has to do for each byte, whatever it makes of
        #: them.
        self.cost = 0
        self.turn: Turn | None = None

    def __repr__(self) -> str:
        return f"<Place {self.position}: {self.stage!r}, {self.pending} pending>"

    @property
    def pending(self) -> int:
        """How many events wait to go on from here."""
        return len(self.queue)

    def look(self) -> None:
        """Look at what the stage wants; HandlerRaised if that cannot be.

        Not with each event: a stage says it in its class, or at OPEN.
        """
        stage = self.stage
        try:
            chunk, wants_begin, turn = stage.chunk, stage.wants_begin, stage.turn
            if type(chunk) is not int or chunk < 1:
                raise Refused(
                    f"chunk is {short(chunk)}; set it to a whole number of bytes from 1 on"
                )
            if type(wants_begin) is not bool:
                raise Refused(f"wants_begin is {short(wants_begin)}; set it to True or False")
            if turn is not None and type(turn) is not Turn:
                raise Refused(f"turn is {short(turn)}; it is the engine's: take another name")
        except BaseException as error:
            raise HandlerRaised(self.key) from error
        self.chunk, self.wants_begin, self.turn = chunk, wants_begin, turn
        self.cost = chunk if chunk < CHUNK else 0

    def removed(self, now: float) -> list[Event]:
        """What follows when the handler is taken away at `now`, in seconds."""
        answer: Any = None
        answers: Any = NOTHING
        events: list[Event] = []
        try:
            answers = self.stage.removed(now)
            for answer in answers:
                _, made = answer
                if type(made) not in EVENTS or made is WAKE:
                    raise Refused(sentence(answer))
                if type(made) is Data:
                    self.size(made)
                events.append(made)
        except BaseException as error:  # a handler may raise what is no Exception, too
            raise HandlerRaised(self.key) from self.reason(error, answers, answer)
        return events

    def close(self, now: float) -> None:
        """Nothing comes here from `now` (seconds) on: let the stage give back what it shares."""
        try:
            self.stage.closed(now)
        except BaseException as error:
            raise HandlerRaised(self.key) from error
        finally:
            if self.turn is not None:
                self.turn.sooner = None
                self.turn.leave(now)

    def size(self, made: Data) -> int:
        """The bytes of what the stage made; what is like bytes becomes bytes, which do not change.

        `Refused` if they are none.
        """
        data = made.data
        if not isinstance(data, bytes):
            if not isinstance(data, (bytearray, memoryview)):
                raise Refused(
                    f"answered Data({short(data)}); its data is bytes, such as Data(b'text')"
                )
            made.data = data = bytes(data)
        return len(data)

    def reason(self, error: BaseException, answers: Any, answer: Any) -> BaseException:
        """The error to report for `error`, raised while `answers` were read, `answer` the last one.

        If it was not raised in the handler's code, it is about what that has answered.
        """
        # One frame only is the engine's own: it failed to take the answer apart.
        trace = error.__traceback__
        if answers is NOTHING or isinstance(error, Refused) or trace is None or trace.tb_next:
            return error
        return Refused(sentence(answers if answer is None else answer))


NOTHING: Any = object()  # before the handler has answered


def sentence(answer: Any) -> str:
    return (
        f"answered {short(answer)}; it answers with pairs of a delay, 0 seconds or more, and an"
        " event"
    )
