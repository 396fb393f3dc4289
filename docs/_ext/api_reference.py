"""The reference of the HTTP API, generated from its OpenAPI document.

Law: pure; needs `vaurien` and no Sphinx, so that tests can hold the text against the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from reference import plain, table

from vaurien.control import openapi

Schema = dict[str, Any]

#: The paths of Toxiproxy's API; all others are Vaurien's own.
TOXIPROXY = (
    "/proxies",
    "/proxies/{name}",
    "/proxies/{name}/toxics",
    "/proxies/{name}/toxics/{toxic}",
    "/populate",
    "/reset",
    "/version",
    "/metrics",
)
OF_A_PROXY = "/proxies/{name}"
#: What any request may be answered with, which is told once.
ALWAYS = ("400", "401", "403", "408", "413")
ALIKE = {"patch": "post"}  # methods that do the same
SCALARS = {"string": "text", "number": "number", "boolean": "true or false"}


def requests(group: str) -> str:
    """A section for each request of a group, ``native`` or ``toxiproxy``."""
    lines: list[str] = []
    for titles, operation, nameless in _merged(group):
        lines += _operation(titles, operation, nameless)
    return "\n".join(lines)


def bodies() -> str:
    """A section for each schema, with its fields."""
    lines: list[str] = []
    for name, schema in openapi.document()["components"]["schemas"].items():
        lines += (f".. _api-{name}:", "", name, "-" * len(name), "")
        if "description" in schema:
            lines += (f"{plain(schema['description'])}.", "")
        lines += _fields(schema)
    return "\n".join(lines)


def sources() -> list[str]:
    """The files that this reference is made from."""
    return [str(openapi.__file__)]


def _merged(group: str) -> Iterator[tuple[list[str], Schema, Schema]]:
    """The operations, those together that differ in the method or in "the first proxy" only.

    With each, the one without a proxy's name, if there is such a one, or itself.
    """
    paths = openapi.document()["paths"]
    titles: dict[str, list[str]] = {}
    operations: dict[str, Schema] = {}
    for path, methods in paths.items():
        if (path in TOXIPROXY) != (group == "toxiproxy"):
            continue
        named = path if path.startswith(OF_A_PROXY) else f"{OF_A_PROXY}{path}"
        for method, operation in methods.items():
            one = named in paths and (named in TOXIPROXY) == (path in TOXIPROXY)
            key = f"{ALIKE.get(method, method)} {named if one else path}"
            titles.setdefault(key, []).append(f"{method.upper()} {path}")
            if path == key.partition(" ")[2]:
                operations[key] = operation  # the one with the proxy's name as a parameter
    for key, found in titles.items():
        method, path = found[0].split()
        yield found, operations[key], paths[path][method.lower()]


def _operation(titles: list[str], operation: Schema, nameless: Schema) -> Iterator[str]:
    heading = ", ".join(f"``{title}``" for title in titles)
    yield from (f".. _api-{operation['operationId']}:", "", heading, "-" * len(heading), "")
    summary, other = operation["summary"], nameless["summary"]
    told = f"{plain(summary)}."
    if other.endswith("of the first proxy"):
        told += " Without a name, the first proxy is meant."
    elif other != summary:
        told += f" Without a name: {plain(other[0].lower() + other[1:])}."
    yield from (told, "")
    for parameter in operation["parameters"]:
        if parameter["in"] == "query":
            what = f"{parameter['description']}: " if "description" in parameter else ""
            yield f":?{parameter['name']}=: {what}{_type(parameter['schema'])}"
    body = operation.get("requestBody")
    if body is not None:
        content = body["content"]["application/json"]
        optional = "" if body["required"] else ", or nothing"
        yield f":Body: {_type(content['schema'])}{optional}"
        if "example" in content:
            yield f":For instance: ``{json.dumps(content['example'])}``"
    for status, response in operation["responses"].items():
        if status not in ALWAYS:
            said = _response(status, response)
            also = _response(status, nameless["responses"].get(status, response))
            yield f":{status}: {said}{f'; without a name {also}' if also != said else ''}"
    yield ""


def _response(status: str, response: Schema) -> str:
    content = response.get("content")
    if content is None:
        return "no body"
    ((kind, held),) = content.items()
    schema = held["schema"]
    if schema == {"$ref": "#/components/schemas/Error"}:
        return str(response["description"])
    what = _type(schema) if kind == "application/json" else f"``{kind}``"
    return what if status < "300" else f"{response['description']}: {what}"


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", [])
    optional = set(required) != set(schema["properties"])
    rows = []
    for path, what in _walk(schema):
        description = plain(what.get("description", ""))
        if optional and path in required:
            description += "; it must be there" if description else "It must be there"
        kind = _type({**what, "type": _without_null(what)} if optional and "type" in what else what)
        if any(other.startswith((f"{path}.", f"{path}[")) for other, _ in _walk(schema)):
            kind = kind.partition(": ``")[0]  # its fields have rows of their own
        rows.append((f"``{path}``", kind, description or "\\-"))
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        rows.append(("all others", _type(others), "\\-"))
    yield from table((("Field", "Type", "Meaning"), *rows), "25 30 45")


def _without_null(schema: Schema) -> list[str]:
    """The types of an optional field: null means the same as leaving it out."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return [kind for kind in kinds if kind != "null"]


def _walk(schema: Schema, before: str = "") -> Iterator[tuple[str, Schema]]:
    """The fields of an object, and those of inner objects."""
    for name, what in schema["properties"].items():
        inner, path = what, f"{before}{name}"
        yield path, what
        if isinstance(what.get("additionalProperties"), dict):
            inner, path = what["additionalProperties"], f"{path}.NAME"
        elif what.get("type") == "array":
            inner, path = what["items"], f"{path}[]"
        if "properties" in inner and not _is_pair(inner):
            yield from _walk(inner, f"{path}.")


def _is_pair(schema: Schema) -> bool:
    """Whether it is a number for each direction."""
    return set(schema["properties"]) == {"upstream", "downstream"}


def _type(schema: Schema) -> str:
    """What a value is, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f":ref:`{name} <api-{name}>`"
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        words = [f"``{word}``" for word in schema["enum"] if word is not None]
        return " or ".join(words)
    kinds = schema.get("type", "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if set(SCALARS) <= set(kinds):
        return "any plain value"
    return " or ".join(_one(kind, schema) for kind in kinds)


def _one(kind: str, schema: Schema) -> str:
    if kind == "array" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    values = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, dict):
        return f"object, by name: {_type(values)}"
    if kind == "object" and "properties" in schema:
        fields = {name: _type(what) for name, what in schema["properties"].items()}
        named = ((name, f" ({what})" if ":ref:" in what else "") for name, what in fields.items())
        return "object: " + ", ".join(f"``{name}``{what}" for name, what in named)
    bounds = "".join(
        f" {word} {schema[bound]:,.15g}"
        for word, bound in (("from", "minimum"), ("above", "exclusiveMinimum"), ("to", "maximum"))
        if bound in schema and kind == "number"
    )
    return {**SCALARS, "integer": "whole number", "array": "list"}.get(kind, kind) + bounds
