"""A handler as configured: its name, its class, its options; and the options of all handlers.

Law: frozen, and whole. What a value is made of is converted and checked once, when the
specification is made, so that code that has one need not ask again whether an option is there. The
options that Vaurien gives to every handler (``after``, ``times``, ``stream``, ...) are declared
here, beside the handlers' own, so that all sources and the docs treat the two alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vaurien.address import networks
from vaurien.behavior import ALWAYS, Points
from vaurien.errors import RAISED, UsageError
from vaurien.kinds import STREAMS, is_flow
from vaurien.options import (
    LARGEST,
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

#: The options that every handler takes, unless its class declares one of that name itself.
POINTS = declared(
    {
        "after": ("How many exchanges pass first", count, 0),
        "times": ("The most exchanges to act on; any number if not set", count, None),
        "every": ("Act on every Nth exchange only", Bounded(whole, "count", 1, LARGEST), 1),
        "since": ("Seconds from the start before which it does not act", seconds, 0),
        "until": ("Seconds from the start after which it does not act", seconds, None),
        "scope": (
            "What after, every and times count in: each connection, or the whole proxy",
            str,
            "connection",
            ("connection", "proxy"),
        ),
        "clients": (
            "Act on clients from these networks only, such as 10.0.0.0/8; ! excludes",
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
    that a user has written may make it, is judged by what was written.
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
        stream = self.given.get("stream") or self.options.get("stream") or _stream_by(self)
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


def _stream_by(spec: Specification) -> str:
    """The direction in which a handler acts that is told no ``stream``."""
    by = getattr(spec.cls, "stream_by", None)
    return "upstream" if by is not None and spec.options[by] else "downstream"


def _equal(one: Any, other: Any) -> bool | None:
    """Whether two values of an option are equal; None if their class cannot tell."""
    try:
        if one is other or one == other:
            return True
    except RAISED:  # of a user's own class
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
            f"{wheres['until']}: {show(until)} is not after since ({show(since)}), so that the"
            " handler would never act; give a later time"
        )
    if is_flow(cls) and values.get("stream", "both") not in STREAMS:
        raise UsageError(f"{name}: {values['stream']!r} is not a stream; streams: {STREAMS}")
    return Specification(name, cls, values, given, written)
