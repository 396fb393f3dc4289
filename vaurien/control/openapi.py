"""The OpenAPI document of the control API, both halves of it.

Law: it is true. A test holds its paths and methods against those that are served, and the real
answers against its schemas.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import vaurien

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_VALUE: Schema = {"type": ["string", "number", "boolean", "null"]}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _object(properties: Schema, required: bool | list[str] = True) -> Schema:
    """An object with these properties and no others; `required` are all, none, or some."""
    names = list(properties) if required is True else required or []
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
    }


def _mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _told(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


_TTL = {
    "type": ["number", "null"],
    "exclusiveMinimum": 0,
    "maximum": 1e9,
    "description": "Seconds after which what was there before comes back, if this still stands",
}
_MEETING = _told(_TEXT, "Which handlers meet clients, such as 10:refuse")
_HITS = "The share of the connections that it hits"
_IN_FORCE = "The options in force of those that are picked; of a preset a list of its handlers"
_OPTIONS = _told(_mapping(_VALUE), "A handler's options by name")
_WAYS = _object({"upstream": _WHOLE, "downstream": _WHOLE})
_BEHAVIOR = _told(_TEXT, "Such as 20:delay,5:error; the rest is passed on")
_LOCAL = (
    "HOST:PORT, [IPV6]:PORT or :PORT, which is all addresses, as 0.0.0.0 is; port 0 is any free one"
)
_STREAM = _told(_TEXT, "upstream, downstream or both, in any case")
_SHARE: Schema = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_SECONDS = _or_null({"type": "number"})

_SCHEMAS: Schema = {
    "Error": _object(
        {
            "error": _told(_TEXT, "What is wrong, in a sentence"),
            "status": _told({"type": "integer"}, "As in the answer's first line"),
        }
    ),
    "Proxy": _object(
        {
            "name": _TEXT,
            "listen": _told(_TEXT, "Where it listens, or last did: port 0 is the real port then"),
            "upstream": _told(_TEXT, "The backend"),
            "enabled": _told(_FLAG, "Whether it listens"),
            "toxics": _told(_array(_ref("Toxic")), "Those upstream first"),
        }
    ),
    "NewProxy": _object(
        {
            "name": {**_TEXT, "minLength": 1},
            "listen": _told(_or_null(_TEXT), _LOCAL),
            "upstream": _told({**_TEXT, "minLength": 1}, "The backend"),
            "enabled": _told(_or_null(_FLAG), "Whether it listens; true by default"),
            "toxics": _told(_or_null(_array(_ref("NewToxic"))), "Added before it listens"),
            "behavior": _or_null(_BEHAVIOR),
            "on_connect": _or_null(_MEETING),
            "protocol": _told({"enum": ["tcp", None]}, "How to find where exchanges begin"),
            "seed": _told({"type": ["integer", "null"]}, "By default that of the process"),
            "ttl": _told(_TTL, "Seconds after which the proxy goes away"),
        },
        ["name", "upstream"],
    ),
    "ChangedProxy": _object(
        {
            "name": _told(_or_null(_TEXT), "Not changed"),
            "listen": _told({**_or_null(_TEXT), "minLength": 1}, _LOCAL),
            "upstream": _told({**_or_null(_TEXT), "minLength": 1}, "The backend"),
            "enabled": _told(_or_null(_FLAG), "Whether it listens"),
            "toxics": _told(_or_null(_array({})), "Those that a client knows of; not looked at"),
        },
        False,
    ),
    "Toxic": _object(
        {
            "attributes": _OPTIONS,
            "name": _TEXT,
            "type": _told(_TEXT, "A flow handler"),
            "stream": _STREAM,
            "toxicity": _told({"type": "number", "minimum": 0, "maximum": 1}, _HITS),
        }
    ),
    "NewToxic": _object(
        {
            "type": _told(_TEXT, "A flow handler"),
            "name": _told(_or_null(_TEXT), "TYPE_STREAM by default"),
            "stream": _told(_or_null(_STREAM), f"{_STREAM['description']}; downstream by default"),
            "toxicity": _told(_SHARE, f"{_HITS}; 1 by default"),
            "attributes": _or_null(_OPTIONS),
            "defaults": _told(
                _or_null(_FLAG),
                "Whether attributes of Toxiproxy's types that are"
                " not given are Vaurien's defaults, and not 0",
            ),
            "ttl": _TTL,
        },
        ["type"],
    ),
    "ChangedToxic": _object(
        {
            "name": _told(_or_null(_TEXT), "Not changed"),
            "type": _told(_or_null(_TEXT), "Not changed"),
            "stream": _told(_or_null(_TEXT), "Not changed"),
            "toxicity": _told(_SHARE, _HITS),
            "attributes": _told(_or_null(_OPTIONS), "Merged with those that it has"),
            "ttl": _TTL,
        },
        False,
    ),
    "Handler": _object(
        {
            "proxy": _TEXT,
            "name": _told(_or_null(_TEXT), "null if the behavior is a mixture"),
            "options": _told(
                {"type": ["object", "array", "null"]},
                "Those in force; of a preset a list of its handlers",
            ),
            "behavior": _BEHAVIOR,
        }
    ),
    "NewHandler": {
        "type": "object",
        "properties": {"name": {**_TEXT, "minLength": 1}, "ttl": _TTL},
        "required": ["name"],
        "additionalProperties": _VALUE,
        "description": "The handler's options stand beside its name",
    },
    "Behavior": _object(
        {
            "proxy": _TEXT,
            "behavior": _BEHAVIOR,
            "on_connect": _or_null(_MEETING),
            "handlers": _told(_mapping({"type": ["object", "array"]}), _IN_FORCE),
        }
    ),
    "NewBehavior": {
        **_object(
            {
                "behavior": _or_null(_BEHAVIOR),
                "on_connect": _told(_or_null(_TEXT), "Which handlers meet clients; null for none"),
                "handlers": _told(_or_null(_mapping(_OPTIONS)), "Options, by handler and name"),
                "ttl": _TTL,
            },
            False,
        ),
        "anyOf": [
            {"required": ["behavior"], "properties": {"behavior": _TEXT}},
            {"required": ["on_connect"]},
        ],
    },
    "Time": _object({"ttl": _TTL}, False),
    "State": _object(
        {
            "name": _TEXT,
            "local": _told(_TEXT, "Where it listens, or last did"),
            "distant": _told(_TEXT, "The backend"),
            "enabled": _told(_FLAG, "Whether it listens"),
            "protocol": _told(_TEXT, "How to find where exchanges begin"),
            "seed": {"type": "integer"},
            "behavior": _BEHAVIOR,
            "on_connect": _or_null(_MEETING),
            "handlers": _told(_mapping({"type": ["object", "array"]}), _IN_FORCE),
            "toxics": _array(_ref("Toxic")),
            "connections": _told(_WHOLE, "Those that are open"),
            "counters": _object(
                {
                    "connections": _told(_WHOLE, "Accepted so far"),
                    "refused": _told(_WHOLE, "Reset by refuse as they connected"),
                    "failed_dials": _told(_WHOLE, "Backends that could not be reached"),
                    "handler_errors": _told(_WHOLE, "Handlers that raised"),
                    "internal_errors": _told(_WHOLE, "Faults of Vaurien's own"),
                    "accept_errors": _told(_WHOLE, "How often an accept failed"),
                    "exchanges": _WHOLE,
                    "received": _told(_WAYS, "Bytes read"),
                    "sent": _told(_WAYS, "Bytes sent"),
                }
            ),
            "stats": _mapping(
                _object(
                    {
                        "picked": _told(_WHOLE, "How often the draw chose it"),
                        "fired": _told(_WHOLE, "Exchanges that it did something to"),
                        "bytes": _told(_WHOLE, "Bytes read in those"),
                        "added_p50": _told(_SECONDS, "Delay that it added, in seconds: the median"),
                        "added_p99": _told(_SECONDS, "The same, 99 % not longer than this"),
                    }
                )
            ),
            "ttl": _told(_mapping({"type": "number"}), "Seconds left, by what was changed"),
        }
    ),
    "Connection": _object(
        {
            "number": _told(_WHOLE, "From 1, in the order of accepting"),
            "client": _told(_TEXT, "Its address"),
            "exchange": _told(_WHOLE, "The number of its present exchange"),
            "handlers": _told(_array(_TEXT), "The handlers that deal with it"),
            "received": _told(_WAYS, "Bytes read"),
            "sent": _told(_WAYS, "Bytes sent"),
            "held": _told(_WHOLE, "Bytes that are on their way"),
        }
    ),
    "Option": _object(
        {
            "name": _TEXT,
            "type": _TEXT,
            "default": _VALUE,
            "choices": _or_null(_array(_VALUE)),
            "description": _TEXT,
        }
    ),
    "Handlers": _object(
        {
            "handlers": _array(
                _object(
                    {
                        "name": _TEXT,
                        "kind": {"enum": ["flow", "socket", "message", "connect"]},
                        "summary": _TEXT,
                        "options": _array(_ref("Option")),
                    }
                )
            ),
            "presets": _array(_object({"name": _TEXT, "summary": _TEXT})),
        }
    ),
}

_PROXIES = _mapping(_ref("Proxy"))
_STATES = _object({"version": _TEXT, "proxies": _array(_ref("State"))})
_CONNECTIONS = _object({"connections": _array(_ref("Connection"))})
_DROPPED = _object({"dropped": _WHOLE})
_POPULATED = _object({"proxies": _array(_ref("Proxy"))})
_NAMES = _array(_TEXT)
_RELOADED = _object(
    {
        "created": _NAMES,
        "changed": _NAMES,
        "deleted": _NAMES,
        "unchanged": _NAMES,
        "after_restart": _told(_NAMES, "Settings that only a restart puts in force"),
    }
)
_HEALTH = _object({"status": {"enum": ["ok", "stopping"]}, "version": _TEXT, "proxies": _WHOLE})
_ROOT = _object(
    {"name": {"const": "vaurien"}, "version": _TEXT, "api": _told(_TEXT, "The path of this")}
)
_HOW = {
    "name": "how",
    "in": "query",
    "schema": {"enum": ["fin", "reset"]},
    "description": "How connections are ended",
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0},
    "description": "How many lines at most, the last ones",
}


def _nullable_body(schema: Schema) -> Schema:
    """A body for which null, as Toxiproxy reads it, says that nothing is given."""
    return {"anyOf": [schema, {"type": "null"}]}


# method, path, summary, body, status, answer, more statuses
_FIRST_OR_ONE = (
    ("get", "handler", "The handler that deals with all exchanges", None, 200, _ref("Handler")),
    ("post", "handler", "Have one handler deal with all exchanges", _ref("NewHandler"), 200,
     _ref("Handler")),
    ("get", "behavior", "Which handlers deal with which share", None, 200, _ref("Behavior")),
    ("post", "behavior", "Have others deal with exchanges, or meet clients", _ref("NewBehavior"),
     200, _ref("Behavior")),
    ("get", "connections", "The connections that are open", None, 200, _CONNECTIONS),
    ("delete", "connections", "End all connections", None, 200, _DROPPED),
)  # fmt: skip
_OPERATIONS: tuple[tuple[Any, ...], ...] = (
    ("get", "/", "What this is, and where it is described", None, 200, _ROOT),
    ("get", "/health", "Whether it lives", None, 200, _HEALTH),
    ("head", "/health", "Whether it lives, by the status alone", None, 200, None),
    ("get", "/version", "The version", None, 200, _object({"version": _TEXT})),
    ("get", "/metrics", "Prometheus' text", None, 200, "text/plain"),
    ("get", "/openapi.json", "This document", None, 200, {"type": "object"}),
    ("get", "/handlers", "All handlers and presets", None, 200, _ref("Handlers")),
    ("get", "/state", "All proxies, with all there is to say", None, 200, _STATES),
    ("get", "/events", "Exchanges and changes as they happen", None, 200, "text/event-stream"),
    ("get", "/journal", "The last exchanges that a handler touched", None, 200,
     "application/x-ndjson"),
    *((method, f"/{path}", f"{summary}, of the first proxy", *rest)
      for method, path, summary, *rest in _FIRST_OR_ONE),
    ("get", "/proxies", "All proxies", None, 200, _PROXIES),
    ("post", "/proxies", "Make a proxy", _ref("NewProxy"), 201, _ref("Proxy"), 409, 500),
    ("post", "/populate", "Make proxies, unless they are there",
     _nullable_body(_array(_ref("NewProxy"))), 201, _POPULATED, 500),
    ("post", "/reset", "No fault is left: all enabled, no toxics, no handlers", None, 204, None,
     500),
    ("post", "/reload", "Read the configuration again, and be as it says", None, 200, _RELOADED,
     500),
    ("get", "/proxies/{name}", "A proxy", None, 200, _ref("Proxy")),
    *((method, "/proxies/{name}", "Change where a proxy listens, its backend, or whether it does",
       _nullable_body(_ref("ChangedProxy")), 200, _ref("Proxy"), 500)
      for method in ("post", "patch")),
    ("delete", "/proxies/{name}", "End a proxy", None, 204, None),
    ("get", "/proxies/{name}/toxics", "The toxics of a proxy", None, 200, _array(_ref("Toxic"))),
    ("post", "/proxies/{name}/toxics", "Add a toxic", _ref("NewToxic"), 200, _ref("Toxic"), 409),
    ("get", "/proxies/{name}/toxics/{toxic}", "A toxic", None, 200, _ref("Toxic")),
    *((method, "/proxies/{name}/toxics/{toxic}", "Change a toxic",
       _nullable_body(_ref("ChangedToxic")), 200, _ref("Toxic")) for method in ("post", "patch")),
    ("delete", "/proxies/{name}/toxics/{toxic}", "Remove a toxic", None, 204, None),
    ("get", "/proxies/{name}/state", "All there is to say of a proxy", None, 200, _ref("State")),
    ("post", "/proxies/{name}/enable", "Have a proxy listen", _ref("Time"), 200, _ref("State"),
     500),
    ("post", "/proxies/{name}/disable", "Have a proxy listen no more", _ref("Time"), 200,
     _ref("State")),
    ("post", "/proxies/{name}/reset", "No fault is left of a proxy", None, 204, None, 500),
    *((method, f"/proxies/{{name}}/{path}", summary, *rest)
      for method, path, summary, *rest in _FIRST_OR_ONE),
    ("delete", "/proxies/{name}/connections/{number}", "End a connection", None, 204, None),
    ("get", "/proxies/{name}/events", "Exchanges and changes of a proxy as they happen", None, 200,
     "text/event-stream"),
    ("get", "/proxies/{name}/journal", "The last exchanges of a proxy that a handler touched",
     None, 200, "application/x-ndjson"),
)  # fmt: skip

#: Bodies, by method and the last word of the path.
_EXAMPLES: dict[tuple[str, str], Any] = {
    ("post", "handler"): {"name": "delay", "sleep": 0.5, "ttl": 60},
    ("post", "behavior"): {"behavior": "20:delay,5:error", "handlers": {"delay": {"sleep": 0.5}}},
    ("post", "proxies"): {"name": "redis", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:6379"},
    ("post", "populate"): [
        {"name": "redis", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:6379"},
        {"name": "web", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:80", "toxics": []},
    ],
    ("post", "{name}"): {"enabled": True},
    ("patch", "{name}"): {"enabled": False},
    ("post", "toxics"): {"type": "latency", "attributes": {"latency": 100, "jitter": 20}},
    ("post", "{toxic}"): {"attributes": {"latency": 200}},
    ("patch", "{toxic}"): {"toxicity": 0.5},
    ("post", "enable"): {},
    ("post", "disable"): {"ttl": 5},
}

#: What any request may get.
_ALWAYS = {400: "What is wrong with the request", 401: "A token is needed", 403: "Not let in",
           408: "Too slow", 413: "Too large"}  # fmt: skip
_SOMETIMES = {404: "There is no such thing", 409: "It is there already", 500: "It cannot be done"}


@cache
def document() -> Schema:
    """The document, OpenAPI 3.1."""
    paths: dict[str, Schema] = {}
    for operation in _OPERATIONS:
        method, path, *_ = operation
        paths.setdefault(path, {})[method] = _operation(*operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vaurien",
            "version": vaurien.__version__,
            "description": "The control API. The paths of Toxiproxy's API, version 2, are among"
            " them, and answer as its clients expect.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    method: str,
    path: str,
    summary: str,
    body: Schema | None,
    status: int,
    answer: Schema | str | None,
    *others: int,
) -> Schema:
    names = re.findall(r"{(\w+)}", path)
    words = [word for word in re.split(r"\W+", path) if word]
    parameters: list[Schema] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0} if name == "number" else _TEXT,
        }
        for name in names
    ]
    if "connections" in path and method == "delete":
        parameters.append(_HOW)
    if path.endswith("/journal"):
        parameters.append(_LIMIT)
    found: Schema = {
        "operationId": "_".join((method, *words)),
        "summary": summary,
        "parameters": parameters,
        "responses": {str(status): _response("Done", answer)},
    }
    first = path in {f"/{own}" for _, own, *_ in _FIRST_OR_ONE}
    more = {*others, *([404] if names or first else [])}
    limited = path.endswith("/events")
    if path == "/health" or body is not None or path in ("/reload", "/reset") or limited:
        ending = answer if path == "/health" else _ref("Error")
        why = "It is ending, or there are as many of something as there can be"
        found["responses"]["503"] = _response(why, ending)
    for code in sorted({*_ALWAYS, *more}):
        why = _ALWAYS.get(code) or _SOMETIMES[code]
        schema = _ref("Error")
        if path == "/populate" and code == 500:
            schema = _object({**_SCHEMAS["Error"]["properties"], "proxies": _array(_ref("Proxy"))})
        found["responses"][str(code)] = _response(why, schema)
    if body is not None:
        content = {"schema": body}
        if (example := _EXAMPLES.get((method, path.rpartition("/")[2]))) is not None:
            content["example"] = example
        found["requestBody"] = {
            "required": body != _ref("Time"),
            "content": {"application/json": content},
        }
    return found


def _response(description: str, answer: Schema | str | None) -> Schema:
    if answer is None:
        return {"description": description}
    if isinstance(answer, str):
        return {"description": description, "content": {answer: {"schema": _TEXT}}}
    return {"description": description, "content": {"application/json": {"schema": answer}}}
