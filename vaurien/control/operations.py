"""Operations: all that can be done to a proxy while it runs, as values.

Laws: frozen and pure. `apply` makes another plan of a plan and touches nothing else; `inverse` is
the operation that brings back what this one has touched, and leaves other parts as they are by then
(`Change` and `Reset` bring back whole fields: all toxics). All go to plain JSON and back. Whoever
changes anything (the two APIs, a reload, a ttl that ends, a replay, Python) makes such a value and
hands it to the `Farm`, which alone puts it in force.

An operation changes one *part* of a proxy, or several. A part has a name, by which ttls are kept:
``enabled``, ``behavior``, ``on_connect``, ``toxic NAME``; ``proxy`` is whether it is there at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from vaurien.address import Address
from vaurien.behavior import DUMMY, Behavior, parse
from vaurien.control import written
from vaurien.control.written import Body, Find
from vaurien.errors import AlreadyThere, NotFound, UsageError
from vaurien.options import show, told
from vaurien.plan import NOTHING, Decisions, Handlers, Plan, Toxic

#: The parts that pick, each with where the decisions of its replay stand.
PICKING = {"behavior": "decisions", "on_connect": "connect_decisions"}

#: A behavior that picks nobody.
HARMLESS = parse(f"100:{DUMMY}", "behavior")


class Operation:
    """Something that is done to one proxy; `change` and `detail` are the words for it."""

    kind: ClassVar[str]

    @property
    def change(self) -> str:
        """What was done, in a word or two."""
        return self.kind

    @property
    def detail(self) -> str:
        """What the word leaves open."""
        return ""

    @property
    def again(self) -> str:
        """The detail when it brings back what was there before."""
        return f"{self.detail} again".strip()

    def to_json(self) -> Body:
        """All of it in plain JSON, from which `from_json` makes it again."""
        made_of: Any = self  # each one is a dataclass
        own = {one.name: getattr(self, one.name) for one in fields(made_of)}
        return {"kind": self.kind, **written.fields_body(own)}


class Edit(Operation):
    """An operation that makes of a proxy's plan another one, for the same proxy."""

    @property
    def part(self) -> str:
        """What it changes, if that is one part; only such an operation may be for a while."""
        return ""

    def apply(self, plan: Plan) -> Plan:
        """`plan`, changed; NotFound or AlreadyThere if it does not fit there."""
        raise NotImplementedError

    def inverse(self, before: Plan) -> Edit:
        """What brings back what it touches, as that was in the plan `before` it."""
        raise NotImplementedError

    def touched(self, before: Plan, after: Plan) -> tuple[str, ...]:
        """The parts that it has changed, or confirmed."""
        return (self.part,)


def part_of(plan: Plan, part: str) -> object:
    """What a part is in `plan`, to be compared: two are equal if nobody has changed it."""
    if part in PICKING:
        behavior: Behavior = getattr(plan, part)
        return behavior, {name: plan.handlers.get(name) for name in behavior.names}
    if part.startswith("toxic "):
        return toxic_of(plan, part.removeprefix("toxic "))
    return getattr(plan, part)


def toxic_of(plan: Plan, name: str) -> Toxic | None:
    """The toxic of that name."""
    return next((toxic for toxic in plan.toxics if toxic.name == name), None)


# Who deals with exchanges, or meets clients


@dataclass(frozen=True)
class SetBehavior(Edit):
    """Have others picked: `what` is ``behavior`` or ``on_connect``, `handlers` are those named."""

    kind = "set_behavior"
    what: str
    behavior: Behavior
    handlers: Handlers = field(default_factory=dict)
    decisions: Decisions | None = None  # of a replay, that come back with its behavior

    def __post_init__(self) -> None:
        if self.what not in PICKING:
            raise UsageError(f"{self.what!r} is not a behavior; there are {', '.join(PICKING)}")

    @property
    def part(self) -> str:
        return self.what

    @property
    def change(self) -> str:
        return self.what

    @property
    def detail(self) -> str:
        return str(self.behavior) if self.behavior.parts else "nobody"

    def apply(self, plan: Plan) -> Plan:
        changed: dict[str, Any] = {self.what: self.behavior, PICKING[self.what]: self.decisions}
        both = [changed.get(what, getattr(plan, what)) for what in PICKING]
        named = {name for behavior in both for name in behavior.names}
        # Without what nobody names any more: a reload would take that for a difference.
        kept = {n: h for n, h in {**plan.handlers, **self.handlers}.items() if n in named}
        return replace(plan, handlers=kept, **changed)

    def inverse(self, before: Plan) -> SetBehavior:
        return former_behavior(self.what, before)


def former_behavior(part: str, plan: Plan) -> SetBehavior:
    """What brings back the behavior `part` of `plan`, and all that belongs to that."""
    behavior: Behavior = getattr(plan, part)
    handlers = {name: found for name, found in plan.handlers.items() if name in behavior.names}
    return SetBehavior(part, behavior, handlers, getattr(plan, PICKING[part]))


# Toxics


@dataclass(frozen=True)
class _Pins(Edit):
    toxic: Toxic

    @property
    def detail(self) -> str:
        toxic, options = self.toxic, self.toxic.specification.options
        told = "".join(f", {name} {show(value)}" for name, value in options.items())
        return f"{toxic.name}: {toxic.type} {toxic.stream}, toxicity {toxic.toxicity:g}{told}"

    @property
    def part(self) -> str:
        return f"toxic {self.toxic.name}"


@dataclass(frozen=True)
class AddToxic(_Pins):
    """Pin a toxic to the proxy; AlreadyThere if it has one of that name."""

    kind, change = "add_toxic", "toxic added"
    place: int | None = None  # among the others, from 0; None for the last

    def apply(self, plan: Plan) -> Plan:
        if toxic_of(plan, self.toxic.name) is not None:
            raise AlreadyThere("toxic already exists")
        toxics = [*plan.toxics]
        toxics.insert(len(toxics) if self.place is None else self.place, self.toxic)
        return replace(plan, toxics=tuple(toxics))

    def inverse(self, before: Plan) -> RemoveToxic:
        return RemoveToxic(self.toxic.name)


@dataclass(frozen=True)
class UpdateToxic(_Pins):
    """Put a toxic in the place of the one of its name; NotFound if there is none."""

    kind, change = "update_toxic", "toxic changed"

    def apply(self, plan: Plan) -> Plan:
        old = _known(plan, self.toxic.name)
        return replace(plan, toxics=tuple(self.toxic if one is old else one for one in plan.toxics))

    def inverse(self, before: Plan) -> UpdateToxic:
        return UpdateToxic(_known(before, self.toxic.name))


@dataclass(frozen=True)
class RemoveToxic(Edit):
    """Take a toxic away; NotFound if there is none of that name."""

    kind, change = "remove_toxic", "toxic removed"
    name: str

    @property
    def detail(self) -> str:
        return self.name

    @property
    def again(self) -> str:
        return self.detail  # it was not there before: nothing comes again

    @property
    def part(self) -> str:
        return f"toxic {self.name}"

    def apply(self, plan: Plan) -> Plan:
        _known(plan, self.name)
        return replace(plan, toxics=tuple(one for one in plan.toxics if one.name != self.name))

    def inverse(self, before: Plan) -> AddToxic:
        # Where it stood, for bytes pass toxics in their order.
        toxic = _known(before, self.name)
        return AddToxic(toxic, before.toxics.index(toxic))


def _known(plan: Plan, name: str) -> Toxic:
    toxic = toxic_of(plan, name)
    if toxic is None:
        raise NotFound("toxic not found")
    return toxic


# The whole of a plan


class _Switch(Edit):
    enabled: ClassVar[bool]
    part = "enabled"

    def apply(self, plan: Plan) -> Plan:
        return replace(plan, enabled=self.enabled)

    def inverse(self, before: Plan) -> Edit:
        return Enable() if before.enabled else Disable()


@dataclass(frozen=True)
class Enable(_Switch):
    """Have the proxy listen."""

    kind, change, enabled = "enable", "enabled", True


@dataclass(frozen=True)
class Disable(_Switch):
    """Have the proxy listen no more, and end its connections."""

    kind, change, enabled = "disable", "disabled", False


@dataclass(frozen=True)
class Change(Edit):
    """Give fields of the plan other values, by name; all at once. The name stays.

    Another local address, backend or seed ends the proxy's connections. Port 0 is always another
    one, though the plan had it before.
    """

    kind, change = "change", "changed"
    fields: Mapping[str, Any]

    def __post_init__(self) -> None:
        # The decisions of a replay go with the behavior that they are for.
        gone = {PICKING[what]: None for what in PICKING if what in self.fields}
        object.__setattr__(self, "fields", {**gone, **self.fields})

    @staticmethod
    def between(before: Plan, after: Plan) -> Change:
        """What makes the plan `after` of the plan `before`: the fields that differ."""
        names = [one.name for one in fields(Plan)]
        differ = {name for name in names if getattr(after, name) != getattr(before, name)}
        picking = {*PICKING, *PICKING.values(), "handlers"}
        if differ & picking:  # these belong together: the names, and what they stand for
            differ |= picking
        return Change({name: getattr(after, name) for name in names if name in differ})

    @property
    def anew(self) -> bool:
        """Whether it asks for a port that the proxy has not got, whichever that is."""
        local: Address | None = self.fields.get("local")
        return local is not None and not local.path and not local.port

    def apply(self, plan: Plan) -> Plan:
        return replace(plan, **self.fields)

    def inverse(self, before: Plan) -> Change:
        return Change({name: getattr(before, name) for name in self.fields})

    def touched(self, before: Plan, after: Plan) -> tuple[str, ...]:
        parts = [name for name in ("enabled", *PICKING) if name in self.fields]
        if "toxics" in self.fields:
            both = dict.fromkeys(toxic.name for toxic in (*before.toxics, *after.toxics))
            parts += [f"toxic {name}" for name in both]
        return tuple(parts)


@dataclass(frozen=True)
class Reset(Edit):
    """No fault is left: enabled, no toxics, nobody picked."""

    kind = "reset"

    def apply(self, plan: Plan) -> Plan:
        return _RESET.apply(plan)

    def inverse(self, before: Plan) -> Change:
        return _RESET.inverse(before)

    def touched(self, before: Plan, after: Plan) -> tuple[str, ...]:
        return _RESET.touched(before, after)


_RESET = Change(
    {"enabled": True, "toxics": (), "behavior": HARMLESS, "on_connect": NOTHING, "handlers": {}}
)


# Whether it is there, and what goes on in it


@dataclass(frozen=True)
class Create(Operation):
    """Make a proxy; there is no plan before it."""

    kind, change, part = "create", "created", "proxy"
    plan: Plan

    def apply(self, plan: None) -> Plan:
        """The plan of the new proxy; AlreadyThere if one of its name is there."""
        if plan is not None:
            raise AlreadyThere("proxy already exists")
        return self.plan

    def inverse(self, before: None = None) -> Delete:
        """What takes it away again."""
        return Delete()


@dataclass(frozen=True)
class Delete(Operation):
    """Take the proxy away, and end its connections; there is no plan after it."""

    kind, change, part = "delete", "deleted", "proxy"

    def apply(self, plan: Plan | None) -> None:
        """No plan; NotFound if there is no proxy."""
        if plan is None:
            raise NotFound("proxy not found")

    def inverse(self, before: Plan) -> Create:
        """What makes it again, as it was."""
        return Create(before)


@dataclass(frozen=True)
class Drop(Operation):
    """End connections, and change no plan: what has ended does not come back.

    All of the proxy, or that of a `number`; `how` is ``fin`` or ``reset``.
    """

    kind, change = "drop", ""  # neither the log nor the stream of changes has it
    number: int | None = None
    how: str = "fin"


# From JSON

KINDS: Mapping[str, type[Operation]] = {
    cls.kind: cls
    for cls in (
        *(SetBehavior, AddToxic, UpdateToxic, RemoveToxic),
        *(Enable, Disable, Change, Reset, Create, Delete, Drop),
    )
}


def from_json(body: Any, find: Find, where: str) -> Operation:
    """The operation that `to_json` has written; UsageError, naming `where`, if it is none.

    `find` tells the class of a handler by its name.
    """
    found = dict(written.entries(body, where))
    cls = KINDS.get(str(found.pop("kind", None)))
    if cls is None:
        raise UsageError(
            f"{where}: {told(body)} is not an operation; its kind is one of {', '.join(KINDS)}"
        )
    try:
        return cls(**written.read_fields(found, find, where))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{where} is damaged ({error!r})") from None
