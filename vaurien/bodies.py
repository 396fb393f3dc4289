"""Proxies and toxics in Toxiproxy's JSON, to plans and back.

Law: nothing that a body says is dropped: what is unknown or wrong is refused, with the
words that Toxiproxy's clients know where there are such (`docs/toxiproxy.rst`). What clients send
beside it, since they send whole objects of theirs, says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from math import inf
from typing import Any

from vaurien import behavior, registry, services
from vaurien.address import Address
from vaurien.catalog import Catalog
from vaurien.errors import AlreadyThere, UsageError, VaurienError, nearest
from vaurien.gojson import fields, loads, named
from vaurien.handlers.bandwidth import UNLIMITED
from vaurien.kinds import STREAMS
from vaurien.options import Raw, show, told
from vaurien.plan import NOTHING, Plan, Specification, Toxic
from vaurien.strictjson import BAD, Refused, Worded, bad

#: The types that Toxiproxy has, with their attributes, which are 0 if they are not given.
STANDARD: Mapping[str, tuple[str, ...]] = {
    "latency": ("latency", "jitter"),
    "bandwidth": ("rate",),
    "slow_close": ("delay",),
    "timeout": ("timeout",),
    "reset_peer": ("timeout",),
    "slicer": ("average_size", "size_variation", "delay"),
    "limit_data": ("bytes",),
    "noop": (),
}

NAME = 255  # characters of a name at most, so that it fits into a path
PROXIES = 10_000  # in one list at most
TOXICS = 200  # of one proxy at most: each is looked at on every new connection

#: The fields of a body, with the types that they may have; null stands for a field left out.
_TEXT, _NUMBER = (str,), (int, float)
PROXY: Mapping[str, tuple[type, ...]] = {
    "name": _TEXT,
    "listen": _TEXT,
    "upstream": _TEXT,
    "enabled": (bool,),
    "toxics": (list,),
    "behavior": _TEXT,
    "on_connect": _TEXT,
    "protocol": _TEXT,
    "seed": (int,),
    "ttl": _NUMBER,
}
TOXIC: Mapping[str, tuple[type, ...]] = {
    "name": _TEXT,
    "type": _TEXT,
    "stream": _TEXT,
    "toxicity": _NUMBER,
    "attributes": (dict,),
    "ttl": _NUMBER,
}
#: Such are those of Node's client, whose toxics and proxies are sent with all that they have, and
#: what Toxiproxy shows of itself.
_BESIDE = {"proxy": dict, "toxiproxy": dict, "api": dict, "proxyPath": str, "Logger": dict}
_NESTED = {name: types for name, types in TOXIC.items() if name != "ttl"}  # in a proxy's body
_NEW = {**TOXIC, "defaults": (bool,)}


def given_in(body: object, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The fields of a body that are given; UsageError for unknown ones and wrong types."""
    return fields(body, known, _BESIDE)


def check_name(name: str, where: str) -> None:
    """UsageError if a proxy cannot be called so: the API has the name in its paths."""
    _check(name, where, "proxy")


def _check(name: str, where: str, what: str) -> None:
    fits = 0 < len(name) <= NAME and "/" not in name and name.isprintable()
    if not fits or name in (".", ".."):
        shown = name if len(name) <= NAME else f"{name[:20]}..."
        raise UsageError(
            f"{where}: {shown!r} is no name for a {what}; give a text of at most {NAME} characters,"
            " without slashes and control characters"
        )


# Proxies


def read_proxy(
    body: object,
    catalog: Catalog,
    seed: int,
    common: Mapping[str, Any],
    where: str = "",
    by_request: bool = True,
) -> Plan:
    """The plan that a proxy's JSON describes, toxics included; `where` is its place in a list."""
    place = f" at {where}" if where else ""
    given = given_in(body, PROXY)
    for name in ("name", "upstream"):
        if not given.get(name):
            raise UsageError(f"missing required field: {name}{place}")
    check_name(given["name"], f"name{place}")
    before = f"proxy {given['name']!r}: " if where else ""
    local = read_listen(given.get("listen") or "localhost:0", f"{before}listen")
    distant = services.parse(given["upstream"], f"{before}upstream", port_zero=False, any_host=True)
    if by_request:
        refuse_paths(local, distant)
    if distant.leads_to(local):
        raise UsageError(f"{before}upstream: {given['upstream']!r} is where it listens itself")
    weighted = behavior.parse(given.get("behavior", "100:dummy"), f"{before}behavior")
    meeting = NOTHING
    if "on_connect" in given:
        meeting = behavior.parse(given["on_connect"], f"{before}on_connect")
    if given.get("protocol", "tcp") != "tcp":
        raise UsageError(
            f"{before}protocol: {given['protocol']!r} is not a protocol; the only one is tcp"
        )
    toxics: dict[str, Toxic] = {}
    if len(given.get("toxics", [])) > TOXICS:
        raise UsageError(f"{before}toxics: {_too_many_toxics(len(given['toxics']))}")
    for one in given.get("toxics", []):
        given_in(one, _NESTED)
        try:
            toxic = read_toxic(one, catalog, toxics, by_request)
        except AlreadyThere as error:
            raise UsageError(f"{error}: {error.name!r}") from None
        toxics[toxic.name] = toxic
    return Plan(
        local=local,
        distant=distant,
        behavior=weighted,
        handlers=catalog.choose(weighted, meeting, f"{before}behavior", f"{before}on_connect"),
        seed=given.get("seed", seed),
        name=given["name"],
        enabled=given.get("enabled", True),
        on_connect=meeting,
        toxics=tuple(toxics.values()),
        **common,
    )


def read_listen(text: str, where: str) -> Address:
    """Where a proxy is to listen; at 0.0.0.0 it does so on IPv6 too, as in Toxiproxy."""
    found = services.parse(text, where, any_host=True)
    return replace(found, both=found.host == "0.0.0.0")


def refuse_paths(*places: Address | None) -> None:
    """UsageError for a unix socket: a request names no file."""
    for place in places:
        if place is not None and place.path:
            raise UsageError(
                f"{place}: unix sockets are for the configuration only, since a request may not"
                " name a file; put it there, in a [proxy:NAME] section"
            )


def behaviors(body: object, place: str) -> list[Raw]:
    """What a proxy in a file picks from, as far as it can be told before all is checked."""
    given = named(body, ("behavior", "on_connect")) if isinstance(body, dict) else {}
    return [
        Raw(given[name], f"{place}: {name}")
        for name in ("behavior", "on_connect")
        if isinstance(given.get(name), str)
    ]


def read_written(
    body: object, catalog: Catalog, seed: int, common: Mapping[str, Any], place: str
) -> Plan:
    """As `read_proxy`, for a file; UsageError naming the `place` for all that is wrong."""
    try:
        if isinstance(body, dict) and named(body, ("ttl",)).get("ttl") is not None:
            raise UsageError("ttl is for requests; leave it out")
        return read_proxy(body, catalog, seed, common, by_request=False)
    except VaurienError as error:
        detail = f": {error.detail}" if isinstance(error, Worded) else ""
        raise UsageError(f"{place}: {str(error).removeprefix(f'{BAD}: ')}{detail}") from None


def read_file(path: str, where: str) -> list[tuple[Any, str]] | None:
    """The proxies in the JSON file at `path`, each with its place; None if it is no JSON.

    UsageError for one that has the ending of JSON but is none, or is not a list.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None  # the reader of INI files says so
    if not path.lower().endswith(".json") and data.lstrip()[:1] not in (b"[", b"{"):
        return None
    try:
        found = loads(data)
    except (json.JSONDecodeError, Refused) as error:
        if path.lower().endswith(".json"):
            raise UsageError(f"{where}: {path!r} is no JSON: {error}") from None
        return None
    if not path.lower().endswith(".json") and _may_be_section(found):
        return None
    if not isinstance(found, list):
        raise UsageError(
            f'{where}: {path!r} is not a list of proxies; write [{{"name": ..., "listen": ...,'
            ' "upstream": ...}]'
        )
    return [(body, f"{path}, proxy {number}") for number, body in enumerate(found, 1)]


def _may_be_section(found: Any) -> bool:
    """Whether a value that a file begins with may be a section of an INI file, such as ``[1]``."""
    return isinstance(found, list) and len(found) > 0 and not isinstance(found[0], dict)


def proxy_body(plan: Plan, listen: object, enabled: bool) -> dict[str, Any]:
    """A proxy in Toxiproxy's words; `listen` is where it listens in fact."""
    return {
        "name": plan.name,
        "listen": str(listen),
        "upstream": str(plan.distant),
        "enabled": enabled,
        "toxics": [toxic_body(toxic) for toxic in in_order(plan.toxics)],
    }


# Toxics


def in_order(toxics: tuple[Toxic, ...]) -> Iterator[Toxic]:
    """As Toxiproxy lists them: those upstream, then those downstream."""
    yield from (toxic for toxic in toxics if toxic.stream.lower() != "downstream")
    yield from (toxic for toxic in toxics if toxic.stream.lower() == "downstream")


def toxic_body(toxic: Toxic) -> dict[str, Any]:
    """A toxic in Toxiproxy's words."""
    return {
        "attributes": attributes(toxic),
        "name": toxic.name,
        "type": toxic.type,
        "stream": toxic.stream,
        "toxicity": plain(toxic.toxicity),
    }


def attributes(toxic: Toxic) -> dict[str, Any]:
    """The options of a toxic; of Toxiproxy's types its own, and others that are set."""
    spec = toxic.specification
    values = {name: plain(value) for name, value in spec.options.items() if name != "stream"}
    known = _standard(toxic.type, spec.cls)
    if known is None:
        return values
    defaults = _defaults(spec.cls)
    return {
        name: 0 if value == UNLIMITED else value  # as it was left out
        for name, value in values.items()
        if name in known or value != defaults[name]
    }


@cache
def _defaults(cls: type) -> dict[str, Any]:
    return {one.name: plain(one.get_default()) for one in registry.options_of(cls).values()}


def _standard(kind: str, cls: type) -> tuple[str, ...] | None:
    """The attributes of a type of Toxiproxy's."""
    return STANDARD.get(kind) if registry.builtins().get(kind) is cls else None


def plain(value: Any) -> Any:
    """A value as JSON has it; whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value == inf:
        return show(value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else show(value)


def _too_many_toxics(n: int) -> str:
    return f"{n:,} toxics are more than a proxy can have; give {TOXICS:,} at most"


def read_toxic(
    body: object, catalog: Catalog, others: Collection[str], by_request: bool = True
) -> Toxic:
    """The toxic that a body describes; AlreadyThere if `others`, which are names, has its own.

    Toxiproxy's attributes that are not given are 0, unless it asks for our own defaults.
    """
    given = given_in(body, _NEW)
    stream = given.get("stream", "downstream")
    if stream.lower() not in STREAMS:
        raise Worded(
            "stream was invalid, can be either upstream or downstream",
            f"{stream!r}; {nearest(stream, STREAMS, 'streams')}",
        )
    kind = given.get("type", "")
    cls = catalog.classes.get(catalog.canonical(kind))
    if cls is None or registry.kind(cls) != "flow":
        flows = [name for name, c in catalog.classes.items() if registry.kind(c) == "flow"]
        raise UsageError(f"invalid toxic type: {told(kind)}; {nearest(kind, flows, 'types')}")
    name = given.get("name") or f"{kind}_{stream}"
    _check(name, "name", "toxic")
    if name in others:
        raise AlreadyThere("toxic already exists", name)
    if len(others) >= TOXICS:
        raise UsageError(_too_many_toxics(len(others) + 1))
    options = _options(given.get("attributes", {}), cls)
    if not given.get("defaults"):
        for attribute in _standard(kind, cls) or ():
            # a toxic without attributes injects no fault
            harmless = UNLIMITED if attribute == "rate" else 0
            options.setdefault(attribute, Raw(harmless, f"attributes.{attribute}"))
    with _as_bad():
        catalog.check_values(kind, options, by_request)
        toxicity = _toxicity(given.get("toxicity", 1))
        return catalog.toxic(kind, name, stream, toxicity, options, "type")


def changed_toxic(body: object, catalog: Catalog, toxic: Toxic) -> Toxic:
    """`toxic` with the attributes and the toxicity of `body` in place of its own."""
    given = given_in(body, TOXIC)
    options = _options(given.get("attributes", {}), toxic.specification.cls)
    with _as_bad():
        catalog.check_values(toxic.type, options)
        toxicity = _toxicity(given.get("toxicity", toxic.toxicity))
        return catalog.toxic(
            toxic.type, toxic.name, toxic.stream, toxicity, options, "type", toxic.specification
        )


@contextmanager
def _as_bad() -> Iterator[None]:
    """What is wrong with a toxic's attributes is wrong with the body."""
    try:
        yield
    except UsageError as error:
        raise bad(str(error)) from None


def _options(body: Mapping[str, Any], cls: type) -> dict[str, Raw]:
    given = named(body, ("stream", *(option.name for option in registry.options_of(cls).values())))
    if given.get("stream") is not None:
        raise bad(
            "attributes.stream: it is not an attribute; give the field stream beside attributes"
        )
    return {
        name: Raw(value, f"attributes.{name}") for name, value in given.items() if value is not None
    }


def _toxicity(value: float) -> float:
    if not 0 <= value <= 1:
        raise UsageError(f"toxicity: {told(value)} is not from 0 to 1")
    return value


def options(body: Mapping[str, Any], where: str) -> dict[str, Raw]:
    """A handler's options in a native body."""
    return {name: Raw(value, f"{where}{name}") for name, value in body.items() if value is not None}


def handler_bodies(plan: Plan) -> dict[str, Any]:
    """The options of what a plan's behaviors pick, by name; of a preset, a list of its handlers."""
    return {
        name: [
            {"handler": one.cls.name, "options": _values(one)}  # type: ignore[attr-defined]
            for one in found
        ]
        if isinstance(found, tuple)
        else _values(found)
        for name, found in plan.handlers.items()
    }


def _values(spec: Specification) -> dict[str, Any]:
    return {name: plain(value) for name, value in spec.in_force.items()}
