"""Which handlers deal with an exchange, or meet a client: a plan's choices, made ready.

A plan names handlers; a draw must not look names up. So when a plan comes into force, `Picks` makes
a `Choice` of each part of its behavior, once: the handlers as `Picked`, sorted by kind and by flow.
A pick is then an index into a list, and hands out the same object each time. `Picked` is also what
a handler is elsewhere: the key of its place in a chain, of its counts, of its exact points. A new
plan takes over the `Picked` that have not changed, and with them all of that.

Laws: a draw is one hash and a bisection; it is made first, and what it picks is dropped if its
exact points do not allow it, without another draw.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from vaurien.behavior import ALWAYS, DUMMY, Behavior, Dice, cuts
from vaurien.counts import Stats
from vaurien.errors import RAISED, UsageError
from vaurien.kinds import kind_of
from vaurien.options import Values
from vaurien.plan import Decisions, Plan, Specification, order


class Member(Protocol):
    """A connection, as far as picks ask."""

    number: int
    address: Any  # of the client, as the system gives it
    harms: dict[Picked, int] | None  # how often each was allowed to act here


class Picked:
    """A handler that a behavior can pick: its configuration, its instance, what it did."""

    __slots__ = (
        "acts",
        "call",
        "gone",
        "harms",
        "name",
        "place",
        "points",
        "shared",
        "specification",
        "stats",
    )

    def __init__(
        self, specification: Specification, place: tuple[int, int], stats: Stats, call: Any = None
    ) -> None:
        """`call` is the instance, None for a flow handler."""
        self.specification, self.name, self.stats = specification, specification.name, stats
        self.place = place  # in a chain: that of its name, and within a preset
        self.call = call
        self.acts = (specification.acts(False), specification.acts(True))  # downstream, upstream
        self.shared: dict[Any, Any] = {}  # see FlowHandler
        points = specification.points
        self.points = None if points == ALWAYS else points
        self.harms = 0  # in the whole proxy
        self.gone = False  # the behavior has changed, and picks it no more

    def __repr__(self) -> str:
        return f"<Picked {self.name!r}: {self.specification}>"


class Choice:
    """Who deals with an exchange: by kind, and flow handlers by the flow that they act on."""

    __slots__ = ("asked", "downstream", "handlers", "taker", "upstream")

    def __init__(self, handlers: tuple[Picked, ...]) -> None:
        self.handlers = handlers
        flows = [picked for picked in handlers if picked.call is None]
        #: The message handlers, in the order in which they are asked.
        self.asked = [one for one in handlers if kind_of(one.specification.cls) == "message"]
        self.upstream = [picked for picked in flows if picked.acts[True]]
        self.downstream = [picked for picked in flows if picked.acts[False]]
        #: The socket handler, which takes what the others let through; it stands last.
        last = handlers[-1] if handlers and handlers[-1].call is not None else None
        self.taker = last if last not in self.asked else None

    def __repr__(self) -> str:
        return f"<Choice {'+'.join(dict.fromkeys(one.name for one in self.handlers)) or DUMMY}>"


NOBODY = Choice(())


class Builder:
    """Makes the instances of a proxy's socket handlers, for each specification one.

    That is users' code, and may take time. Meanwhile another operation may change the plan, and the
    caller begins again; then it finds here what has been built already.
    """

    def __init__(self, proxy: object) -> None:
        self._proxy = proxy
        self._made: list[tuple[Specification, Any]] = []

    def __call__(self, spec: Specification) -> Any:
        """The instance, None for a flow handler; UsageError if it cannot be made."""
        if spec.is_flow:
            return None
        for other, made in self._made:
            if other is spec:
                return made
        made = _build(spec, self._proxy)
        self._made.append((spec, made))
        return made


class Picks:
    """The choice among the parts of one behavior; `purpose` makes its draws differ from others'.

    `now` is the clock, in seconds. It takes over from the one `before` it: what is the same in both
    goes on, with its instance and what it has done; so do the counts. A flow handler whose place
    among the others has changed is made again: in open chains it holds bytes at its old place, and
    to move it would reorder them.
    """

    def __init__(
        self,
        behavior: Behavior,
        plan: Plan,
        dice: Dice,
        build: Builder,
        now: Callable[[], float],
        purpose: bytes = b"pick",
        decisions: Decisions | None = None,
        before: Picks | None = None,
    ) -> None:
        self._plan, self._build, self._now = plan, build, now
        self._made: dict[str, tuple[Picked, ...]] = {}
        made = before._made if before is not None else {}
        flows = [name for name in made if made[name][0].call is None and name in behavior.names]
        flows.sort(key=lambda name: made[name][0].place)
        self._order = order(behavior, "behavior", flows)
        stay = staying(flows, self._order)
        self._before = {
            name: one for name, one in made.items() if name in stay or name not in flows
        }
        #: What each handler did, by the name that it is configured under.
        self.stats: dict[str, Stats] = dict(before.stats) if before is not None else {}
        self._places: list[tuple[Picked, tuple[int, int]]] = []
        parts = [part for _, part in behavior.parts]
        self._choices = [
            Choice(tuple(picked for name in part.split("+") for picked in self._make(name)))
            for part in parts
        ]
        self._choices.append(NOBODY)  # what is left
        self._lesser: dict[tuple[Picked, ...], Choice] = {}  # what exact points leave of them
        self._cuts, self._dice, self._purpose = cuts(behavior), dice, purpose
        self._decided: dict[tuple[int, int], int] | None = None
        if decisions is not None:
            self._decided = {at: parts.index(part) for at, part in decisions.items()}
        #: Of each set of decisions that was ever in force, those that came to pass.
        self._played: list[tuple[Decisions, set[tuple[int, int]]]] = (
            [*before._played] if before is not None else []
        )
        self._met = self._met_of(decisions)
        self.started: float = before.started if before is not None else now()
        self._count = 0  # picks in the whole proxy
        self._former = before
        kept = {id(picked) for made in self._made.values() for picked in made}
        #: Those of `before` that are not picked any more.
        self.left = {
            picked for former in made.values() for picked in former if id(picked) not in kept
        }
        self._before = {}

    def take_over(self) -> None:
        """From now on it is in force."""
        if self._former is not None:
            self.started, self._count = self._former.started, self._former._count
            self._former = None
        for picked in self.left:
            picked.gone = True
        for picked, place in self._places:
            picked.place = place

    def _make(self, name: str) -> tuple[Picked, ...]:
        """The handlers that a behavior calls `name`: one, several for a preset, none for dummy."""
        specifications = self._plan.specifications(name) if name != DUMMY else ()
        if not specifications:
            return ()
        for made in self._made.values():  # by another name, such as a dotted path
            if tuple(picked.specification for picked in made) == specifications:
                return made
        own, place = specifications[0].name, self._order.get(name, 0)
        before = self._before.get(name, ())
        if tuple(picked.specification for picked in before) == specifications:
            self._places += [(picked, (place, i)) for i, picked in enumerate(before)]
            self._made[name] = before
            return before
        stats = self.stats.setdefault(own, Stats())
        self._made[name] = tuple(
            Picked(specification, (place, i), stats, self._build(specification))
            for i, specification in enumerate(specifications)
        )
        return self._made[name]

    def pick(self, connection: Member, exchange: int) -> Choice:
        """The handlers for `exchange` of `connection`, 0 for meeting the client; none is dummy."""
        self._count += 1
        if self._decided is None:
            part = 0  # without a cut there is but one, and nothing to draw
            if self._cuts:
                part = self._dice.part(self._cuts, connection.number, exchange, self._purpose)
        else:
            part = self._decided.get((connection.number, exchange), -1)
            if part >= 0:
                self._met.add((connection.number, exchange))
        choice = self._choices[part]  # -1, what a replay does not name, is the last: `NOBODY`
        left = choice.handlers
        for picked in choice.handlers:
            picked.stats.picked += not picked.place[1]  # a preset counts once, by its first
            if picked.points is not None and not self._allow(picked, exchange, connection):
                left = tuple(other for other in left if other is not picked)
            else:
                picked.harms += 1
        return choice if left is choice.handlers else self._lesser_of(left)

    def stays(self, connection: Member, exchange: int) -> None:
        """`exchange` goes to the handlers of the one before: no draw, but a replay has met it.

        A handler that has read it itself has taken it; so it had when the journal was written that
        is replayed here.
        """
        if self._decided is not None and (connection.number, exchange) in self._decided:
            self._met.add((connection.number, exchange))

    def _lesser_of(self, left: tuple[Picked, ...]) -> Choice:
        if left not in self._lesser:
            self._lesser[left] = Choice(left) if left else NOBODY
        return self._lesser[left]

    def only(self, such: Callable[[type], bool]) -> Picked | None:
        """The handler that each part picks, if its class is `such`."""
        found = {picked for choice in self._choices for picked in choice.handlers}
        return next((one for one in found if such(one.specification.cls)), None)

    def _met_of(self, decisions: Decisions | None) -> set[tuple[int, int]]:
        for known, met in self._played:
            if known is decisions:
                return met
        met = set()
        if decisions is not None:
            self._played.append((decisions, met))
        return met

    def unmet(self) -> list[tuple[int, int]]:
        """The decisions that did not come to pass, those in force once and no more too."""
        return [at for decisions, met in self._played for at in decisions if at not in met]

    def _allow(self, picked: Picked, exchange: int, connection: Member) -> bool:
        points = picked.points
        assert points is not None
        seconds = self._now() - self.started if points.since or points.until is not None else 0.0
        if points.per_proxy or not exchange:  # connect handlers count in the whole proxy
            return points.allow(self._count, picked.harms, seconds, connection.address)
        if connection.harms is None:
            connection.harms = {}
        done = connection.harms.get(picked, 0)
        if not points.allow(exchange, done, seconds, connection.address):
            return False
        connection.harms[picked] = done + 1
        return True


def staying(before: Iterable[str], after: Iterable[str]) -> set[str]:
    """Of the names in both, as many as keep their order when the others are taken out and put back.

    That is a longest increasing subsequence. Fewer moves mean fewer handlers that let go what they
    hold: moving one toxic of ten leaves the other nine alone.
    """
    place = {name: at for at, name in enumerate(after)}
    ends: list[str] = []  # for each length, the lowest name that a sequence can end with
    below: dict[str, str | None] = {}
    for name in before:
        if name in place:
            at = bisect_left(ends, place[name], key=place.__getitem__)
            below[name] = ends[at - 1] if at else None
            ends[at : at + 1] = [name]
    stay: set[str] = set()
    last = ends[-1] if ends else None
    while last is not None:
        stay.add(last)
        last = below[last]
    return stay


def _build(spec: Specification, proxy: object) -> Any:
    """The instance of a socket handler, or of one that meets clients."""
    try:
        return spec.cls(Values(spec.options), proxy)
    except RAISED as error:
        raise UsageError(
            f"handler {spec.name!r}: {spec.cls.__qualname__}(settings, proxy) raised"
            f" {type(error).__name__}: {error}"
        ) from error
