"""A plan: all that one proxy is told to do, checked and frozen.

Law: immutable. Changing a proxy means swapping its plan.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from vaurien.address import Address, networks
from vaurien.behavior import ALWAYS, DUMMY, Behavior, Points
from vaurien.errors import RAISED, UsageError
from vaurien.kinds import STREAMS, closes_listener, is_connect, is_flow
from vaurien.options import (
    Bounded,
    Option,
    Raw,
    Values,
    count,
    declared,
    find,
    key,
    seconds,
    show,
    whole,
)

#: Nobody is in the way of a connection that waits to be opened.
NOTHING = Behavior(())

#: The options that every handler takes, unless its class declares one of that name itself.
POINTS = declared(
    {
        "after": ("Let so many exchanges pass first", count, 0),
        "times": ("Do harm at most so often; any number if not set", count, None),
        "every": ("Of the exchanges, harm each Nth only", Bounded(whole, "count", 1), 1),
        "since": ("Seconds from the start before which nothing is harmed", seconds, 0),
        "until": ("Seconds from the start after which nothing is harmed", seconds, None),
        "scope": (
            "What after, every and times count in: each connection, or the whole proxy",
            str,
            "connection",
            ("connection", "proxy"),
        ),
        "clients": (
            "Harm clients from these networks only, such as 10.0.0.0/8; ! excludes",
            networks,
            None,
        ),
    }
)
STREAM = declared(
    {"stream": ("In which direction it acts", str, "downstream", STREAMS)},
)


def framework(cls: type) -> dict[str, Option]:
    """The options of Vaurien's own that handlers of the class `cls` take, by key."""
    own = declared(cls.options)  # type: ignore[attr-defined]
    given = {**POINTS, **STREAM} if is_flow(cls) else POINTS
    return {key: option for key, option in given.items() if key not in own}


@dataclass(frozen=True)
class Specification:
    """One handler as configured: its name here, its class and its options.

    A plain mapping of options is converted and completed with the defaults; UsageError if it has a
    name that neither the class nor Vaurien declares, or a value that does not convert. The class's
    own options are in `options`; of Vaurien's own, those that were given are in `given`. `written`
    has what each was made of, by its name: what was given, or the default.

    Two are equal if their options are. A value whose class has no comparison of its own, as a type
    that somebody has written may make it, is judged by what was written.
    """

    name: str
    cls: type
    options: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Values):
            raws = {
                key: Raw(value, f"option {key!r} of {self.name!r}")
                for key, value in self.options.items()
            }
            made = specify(self.name, self.cls, raws)
            object.__setattr__(self, "options", made.options)
            object.__setattr__(self, "given", made.given)
            object.__setattr__(self, "written", made.written)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Specification):
            return NotImplemented
        mine, its = self.in_force, other.in_force
        if (self.name, self.cls, mine.keys()) != (other.name, other.cls, its.keys()):
            return False
        for name, value in mine.items():
            equal = _equal(value, its[name])
            if equal is None and name in self.written and name in other.written:
                equal = _equal(self.written[name], other.written[name])
            if not equal:
                return False
        return True

    @property
    def is_flow(self) -> bool:
        """Whether it is a flow handler, and not a socket handler."""
        return is_flow(self.cls)

    @property
    def points(self) -> Points:
        """The exact points that its options stand for."""
        words: Mapping[str, str] = getattr(self.cls, "points", {})

        def value(word: str) -> Any:
            if word in self.given:
                return self.given[word]
            return self.options[words[word]] if word in words else POINTS[word].default

        points = Points(
            value("after"),
            value("times"),
            value("every"),
            value("since"),
            value("until"),
            value("scope") == "proxy",
            value("clients"),
        )
        return ALWAYS if points == ALWAYS else points

    def acts(self, to_backend: bool) -> bool:
        """Whether, as a flow handler, it acts on that flow."""
        stream = self.given.get("stream", self.options.get("stream", "downstream"))
        return bool(stream == "both" or (stream == "upstream") == to_backend)

    @property
    def in_force(self) -> dict[str, Any]:
        """All options: the class's own, and those of Vaurien's own that were given."""
        return {**self.options, **self.given}

    def with_options(self, raws: Mapping[str, Raw]) -> Specification:
        """The same, with some options, by key, in place of its own; UsageError as `specify`."""
        made = specify(self.name, self.cls, raws)
        names = {key(name): name for name in self.options}
        new = {names[word]: made.options[names[word]] for word in raws if word in names}
        values = Values({**self.options, **new})
        given = {**self.given, **made.given}
        written = {name: made.written[name] for name in (*new, *made.given)}
        return Specification(self.name, self.cls, values, given, {**self.written, **written})

    def __str__(self) -> str:
        values = " ".join(f"{name}={show(value)}" for name, value in self.in_force.items())
        return f"{self.name} {values}".rstrip()


def _equal(one: Any, other: Any) -> bool | None:
    """Whether two values of an option are equal; None if their class cannot tell."""
    try:
        if one is other or one == other:
            return True
    except RAISED:  # of a class that somebody else has written
        return None
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and one.keys() == other.keys():
        pairs = [(one[key], other[key]) for key in one]
    elif isinstance(one, (list, tuple)) and len(one) == len(other):
        pairs = [*zip(one, other, strict=True)]
    else:
        by_identity: Any = object.__eq__
        return None if type(one).__eq__ is by_identity else False
    found = [_equal(*pair) for pair in pairs]
    return False if False in found else None


def specify(name: str, cls: type, raws: Mapping[str, Raw]) -> Specification:
    """The handler `name` of the class `cls`, with what is given by option.

    UsageError for an option that does not exist, a value that does not convert, or one thing
    said twice in two words.
    """
    own, ours = declared(cls.options), framework(cls)  # type: ignore[attr-defined]
    values = Values({option.name: option.get_default() for option in own.values()})
    given: dict[str, Any] = {}
    wheres: dict[str, str] = {}
    written = {option.name: option.default for option in own.values()}
    for word, raw in raws.items():
        option = find({**own, **ours}, word, raw.where, f"option of {name}")
        wheres[option.key], written[option.name] = raw.where, raw.value
        if option.key in own:
            values[option.name] = option.convert(raw.value, raw.where)
        else:
            given[option.name] = option.convert(raw.value, raw.where)
    for word, synonym in getattr(cls, "points", {}).items():
        if word in wheres and synonym in wheres:
            raise UsageError(
                f"{wheres[word]}: {synonym!r} is given too, and means the same; give one of them"
            )
    since, until = given.get("since", 0), given.get("until")
    if until is not None and until <= since:
        raise UsageError(
            f"{wheres['until']}: {show(until)} is not after since ({show(since)}), so that nothing"
            " would ever be harmed; give a later time"
        )
    if is_flow(cls) and values.get("stream", "both") not in STREAMS:
        raise UsageError(f"{name}: {values['stream']!r} is no stream; streams: {STREAMS}")
    return Specification(name, cls, values, given, written)


@dataclass(frozen=True)
class Toxic:
    """A flow handler pinned to a proxy: it acts on all exchanges of the connections that it hits.

    It hits a connection when the draw made for the two is below `toxicity` (0 to 1). The name of
    its specification is its own, and unique in its proxy. `type` is what it was asked by, a
    handler's name; `stream` is as it was written, in any case.
    """

    specification: Specification
    toxicity: float = 1.0
    type: str = ""
    stream: str = ""

    def __post_init__(self) -> None:
        if not self.specification.is_flow:
            raise UsageError(f"toxic {self.name!r}: {self.specification.cls} is no flow handler")
        for word in sorted(set(self.specification.given) - set(STREAM)):
            raise UsageError(
                f"toxic {self.name!r}: {word} is for what a behavior picks, and a toxic acts on all"
                " exchanges; leave it away"
            )
        _refuse_length(self.specification, f"toxic {self.name!r}")
        if not 0 <= self.toxicity <= 1:
            raise UsageError(f"toxic {self.name!r}: toxicity {self.toxicity} is not from 0 to 1")
        spec = self.specification
        if not self.type:
            object.__setattr__(self, "type", spec.cls.name)  # type: ignore[attr-defined]
        if not self.stream:
            both, up = all(map(spec.acts, (True, False))), spec.acts(True)
            stream = "both" if both else "upstream" if up else "downstream"
            object.__setattr__(self, "stream", stream)

    @property
    def name(self) -> str:
        """Its name."""
        return self.specification.name

    def same_kind(self, other: Toxic) -> bool:
        """Whether one can be updated to the other: of one class, and in one stream."""
        mine, its = self.specification, other.specification
        return mine.cls is its.cls and all(
            mine.acts(flow) == its.acts(flow) for flow in (False, True)
        )


def order(behavior: Behavior, where: str, former: Sequence[str] = ()) -> dict[str, int]:
    """Where each name stands in a chain: as the behavior's parts write them.

    Where they leave that open, those in `former` stand in that order. UsageError naming `where` if
    two parts write two names in different orders.
    """
    parts = [part.split("+") for _, part in behavior.parts]
    rank = {name: place for place, name in enumerate(former)}
    for more in ((former,), ()):  # all of them in that order, or as near as can be
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for names in (*parts, *more):
            for before, name in zip((None, *names), names, strict=False):
                sorter.add(name, *([before] if before else []))
        try:
            sorter.prepare()
            break
        except CycleError as error:
            circle = sorted(set(error.args[1]))
    else:
        raise UsageError(
            f"{where}: {str(behavior)!r} has {' and '.join(circle)} in different orders; write them"
            " in the same order everywhere"
        )
    places: dict[str, int] = {}
    ready: list[tuple[int, int, str]] = []
    seen = itertools.count()
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, (rank.get(name, len(rank)), next(seen), name))
        name = heappop(ready)[2]
        places[name] = len(places)
        sorter.done(name)
    return places


def check(
    behavior: Behavior, specifications: Callable[[str], Sequence[Specification]], where: str
) -> None:
    """UsageError naming `where` if what a behavior picks does not fit, alone or together.

    `specifications` gives what a name stands for; see `Plan.specifications`.
    """
    order(behavior, where)
    for _, part in behavior.parts:
        found = specifications(part)
        for spec in found:
            if is_connect(spec.cls):
                raise UsageError(
                    f"{where}: {spec.name!r} deals with clients that connect, not with exchanges;"
                    f" give it to --on-connect"
                )
            _refuse_length(spec, where)
        sockets = [spec.name for spec in found if not spec.is_flow]
        if len(sockets) > 1:
            raise UsageError(
                f"{where}: {part!r}: {' and '.join(map(repr, sockets))} exclude each other: each"
                " works on the sockets itself; take one of them"
            )
        if sockets and found[-1].name != sockets[0]:
            raise UsageError(
                f"{where}: {part!r}: {sockets[0]!r} works on the sockets itself, and gets what the"
                " others let through; write it last"
            )


def _refuse_length(spec: Specification, where: str) -> None:
    """UsageError if an option needs to know how long messages are, which tcp does not tell."""
    for word in getattr(spec.cls, "needs_length", ()):
        if spec.options[word] is not None:
            raise UsageError(
                f"{where}: {spec.name}.{word} needs a protocol that tells how long a message is;"
                " tcp does not: leave it away"
            )


def check_connect(
    behavior: Behavior,
    specifications: Callable[[str], Sequence[Specification]],
    where: str,
    replayed: bool = False,
) -> None:
    """UsageError naming `where` if what is to meet clients cannot."""
    for weight, part in behavior.parts:
        found = specifications(part)
        for spec in found:
            if not is_connect(spec.cls):
                raise UsageError(
                    f"{where}: {spec.name!r} deals with exchanges, not with clients that connect;"
                    " give it to --behavior"
                )
            if "scope" in spec.given:
                raise UsageError(
                    f"{where}: {spec.name}.scope has no effect: clients are counted in the whole"
                    " proxy; leave it away"
                )
            given = sorted(set(spec.given) - {"since", "until"})
            if closes_listener(spec.cls) and weight != 100 and not replayed:
                raise UsageError(
                    f"{where}: {part!r} closes the listener for everybody; write 100:down"
                )
            if closes_listener(spec.cls) and given:
                raise UsageError(
                    f"{where}: down.{given[0]} has no effect: nobody is accepted; give since and"
                    " until only"
                )
        if len(found) > 1:
            raise UsageError(f"{where}: {part!r}: one handler meets a client; take one of them")


#: Which part of a behavior deals with (connection, exchange), in place of a draw; what is not there
#: is dummy.
Decisions = Mapping[tuple[int, int], str]

#: What the names in behaviors stand for: one handler, or several for a preset.
Handlers = Mapping[str, Specification | tuple[Specification, ...]]


def together(handlers: Handlers) -> Callable[[str], tuple[Specification, ...]]:
    """Tells what handlers joined by ``+`` are; nothing for dummy."""

    def stand_for(combination: str) -> tuple[Specification, ...]:
        found: list[Specification] = []
        for name in combination.split("+"):
            specs = handlers.get(name, ())
            found += specs if isinstance(specs, tuple) else (specs,)
        return tuple(found)

    return stand_for


@dataclass(frozen=True)
class Plan:
    """What one proxy does. Times are in seconds, sizes in bytes.

    `timeout` 0 and `max_connections` 0 mean none. `handlers` has the specifications for each name
    in `behavior` and in `on_connect` but dummy: one, or several for a preset.
    """

    local: Address
    distant: Address
    behavior: Behavior
    handlers: Handlers
    seed: int
    name: str = "default"
    enabled: bool = True
    protocol: str = "tcp"
    timeout: float = 0.0
    connect_timeout: float = 10.0
    max_connections: int = 0
    backlog: int = 1024
    max_held: int = 1 << 20
    on_connect: Behavior = NOTHING
    toxics: tuple[Toxic, ...] = ()
    decisions: Decisions | None = None
    connect_decisions: Decisions | None = None

    def specifications(self, combination: str) -> tuple[Specification, ...]:
        """What the handlers joined by ``+`` in `combination` are; nothing for dummy."""
        return together(self.handlers)(combination)

    def __post_init__(self) -> None:
        counted = Counter(toxic.name for toxic in self.toxics)
        if doubled := [name for name, n in counted.items() if n > 1]:
            raise UsageError(f"toxic {doubled[0]!r} is there twice; give one another name")
        check(self.behavior, self.specifications, "behavior")
        replayed = self.connect_decisions is not None
        check_connect(self.on_connect, self.specifications, "on_connect", replayed)

    @property
    def where(self) -> str:
        """The setting that says where it listens, for messages."""
        return "--local" if self.name == "default" else f"proxy {self.name!r}: local"

    @property
    def is_quiet(self) -> bool:
        """True when nothing but dummy can ever be picked, so that no draw is needed."""
        if self.decisions is not None:
            return not self.decisions
        return not any(weight and name != DUMMY for weight, name in self.behavior.parts)

    @property
    def goes_down(self) -> bool:
        """Whether `down` may have it that it does not listen."""
        met = (spec for name in self.on_connect.names for spec in self.specifications(name))
        return any(closes_listener(spec.cls) for spec in met)
