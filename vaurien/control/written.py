"""What operations are made of, in plain JSON and back: handlers, toxics, the fields of a plan.

Law: pure, and nothing is lost: what is read back equals what was written. (One thing is left out,
the decisions of a replay: they are in the journal that is replayed.) Options are written as they
were given; one that has its default is left out, and gets it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from vaurien import behavior, registry, services
from vaurien.address import Address
from vaurien.behavior import Behavior
from vaurien.bodies import plain
from vaurien.errors import UsageError
from vaurien.options import Option, Raw, told
from vaurien.plan import NOTHING, Handlers, Plan, Specification, Toxic, framework, specify

#: Tells the class of a handler by its name; UsageError, naming the place, if there is none.
Find = Callable[[str, str], type]

#: What an operation is in JSON.
Body = dict[str, Any]


def handlers_body(handlers: Handlers) -> Body:
    """What names in behaviors stand for: an object each, or a list of them for a preset."""
    return {
        name: [_specification(name, one) for one in found]
        if isinstance(found, tuple)
        else _specification(name, found)
        for name, found in handlers.items()
    }


def _specification(name: str, spec: Specification) -> Body:
    own = {} if spec.name == name else {"name": spec.name}
    return {**own, "handler": _class_name(spec.cls, name), "options": _options(spec)}


def _class_name(cls: type, name: str) -> str:
    """By what a class is found again: a built-in's own name, or that by which it was asked for."""
    own = str(cls.name)  # type: ignore[attr-defined]
    return own if registry.builtins().get(own) is cls else name


def _options(spec: Specification) -> Body:
    declared: dict[str, Option] = {**registry.options_of(spec.cls), **framework(spec.cls)}
    defaults = {one.name: one.default for one in declared.values()}
    raws = {name: spec.written.get(name, value) for name, value in spec.in_force.items()}
    return {
        name: plain(raw)
        for name, raw in raws.items()
        if raw is not None and (name in spec.given or raw != defaults.get(name))
    }


def read_handlers(body: Any, find: Find, where: str) -> Handlers:
    """The handlers that `handlers_body` has written."""

    def one(name: str, each: Any) -> Specification:
        found = entries(each, where)
        cls = find(found["handler"], where)
        return _specify(str(found.get("name", name)), cls, found["options"], where)

    return {
        name: tuple(one(name, each) for each in found)
        if isinstance(found, list)
        else one(name, found)
        for name, found in entries(body, where).items()
    }


def _specify(name: str, cls: type, options: Any, where: str) -> Specification:
    values = entries(options, where)
    return specify(name, cls, {key: Raw(v, f"{where}: {name}.{key}") for key, v in values.items()})


def toxic_body(toxic: Toxic) -> Body:
    """A toxic with all that makes it, also what Toxiproxy's words leave open."""
    cls = _class_name(toxic.specification.cls, toxic.type)
    return {
        "name": toxic.name,
        "type": toxic.type,
        **({} if cls == toxic.type else {"handler": cls}),
        "stream": toxic.stream,
        "toxicity": toxic.toxicity,
        "options": _options(toxic.specification),
    }


def read_toxic(body: Any, find: Find, where: str) -> Toxic:
    """The toxic that `toxic_body` has written."""
    found = entries(body, where)
    kind = str(found["type"])
    cls = find(str(found.get("handler", kind)), where)
    spec = _specify(found["name"], cls, found["options"], where)
    return Toxic(spec, found["toxicity"], kind, found["stream"])


def behavior_text(value: Behavior) -> str | None:
    """A behavior as it is written, None for nobody."""
    return str(value) if value.parts else None


def read_behavior(text: str | None, where: str) -> Behavior:
    """The behavior that `behavior_text` has written."""
    return NOTHING if text is None else behavior.parse(text, where)


Write = Callable[[Any], Any]
Read = Callable[[Any, Find, str], Any]


def _text(reader: Callable[[Any, str], Any]) -> Read:
    return lambda text, _, where: reader(text, where)


def _address(text: str, where: str) -> Address:
    return services.parse(text, where, any_host=True)


#: Between the two that 0.0.0.0 is for Toxiproxy.
_AND = " and [::]:"


def _local_text(local: Address) -> str:
    return f"{local}{_AND}{local.port}" if local.both else str(local)


def _local(text: str, where: str) -> Address:
    first, both, _ = text.partition(_AND)
    return replace(_address(first, where), both=bool(both))


def _read_toxics(bodies: Any, find: Find, where: str) -> tuple[Toxic, ...]:
    return tuple(read_toxic(body, find, where) for body in bodies)


def _plan_body(plan: Plan) -> Body:
    return fields_body({one.name: getattr(plan, one.name) for one in fields(Plan)})


def _read_plan(body: Any, find: Find, where: str) -> Plan:
    return Plan(**read_fields(body, find, where))


def fields_body(values: Mapping[str, Any]) -> Body:
    """Fields of a plan, or of an operation, by name."""
    return {
        name: _FIELDS[name][0](value) if name in _FIELDS else value
        for name, value in values.items()
        if name not in _NEVER
    }


def read_fields(body: Any, find: Find, where: str) -> dict[str, Any]:
    """The fields that `fields_body` has written."""
    return {
        name: _FIELDS[name][1](value, find, where) if name in _FIELDS else value
        for name, value in entries(body, where).items()
    }


#: The fields that are no plain values: how each is written, and read back.
_FIELDS: Mapping[str, tuple[Write, Read]] = {
    "local": (_local_text, _text(_local)),
    "distant": (str, _text(_address)),
    "behavior": (behavior_text, _text(read_behavior)),
    "on_connect": (behavior_text, _text(read_behavior)),
    "handlers": (handlers_body, read_handlers),
    "toxic": (toxic_body, read_toxic),
    "toxics": (lambda toxics: [toxic_body(one) for one in toxics], _read_toxics),
    "fields": (fields_body, read_fields),
    "plan": (_plan_body, _read_plan),
}
_NEVER = ("decisions", "connect_decisions")


def entries(body: Any, where: str) -> Body:
    """An object, as a journal has it; UsageError if it is another thing."""
    if not isinstance(body, dict):
        raise UsageError(f"{where}: {told(body)} is not an object")
    return body
