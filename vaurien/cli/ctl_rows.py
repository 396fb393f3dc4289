"""How what the API tells of proxies, behaviors, toxics and connections looks as rows of a table.

Law: each thing looks the same in every command that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vaurien.cli.tables import cell, words
from vaurien.client import Json

PROXY = ("name", "local", "distant", "enabled", "behavior", "on connect", "toxics", "connections")
BEHAVIOR = ("proxy", "behavior", "on connect", "handlers")
TOXIC = ("name", "type", "stream", "toxicity", "attributes")
CONNECTION = (
    "proxy", "number", "client", "exchange", "handlers",
    "received up", "received down", "sent up", "sent down", "held",
)  # fmt: skip
JOURNAL = ("time", "proxy", "connection", "exchange", "handler", "fired", "seconds", "end")


def proxy_row(state: Json) -> tuple[object, ...]:
    toxics = " ".join(toxic["name"] for toxic in state["toxics"])
    fields = [state[n] for n in ("name", "local", "distant", "enabled", "behavior", "on_connect")]
    return (*fields, toxics, state["connections"])


def behavior_row(answer: Json) -> tuple[object, ...]:
    options = [text for name, o in answer["handlers"].items() for text in _dotted(name, o)]
    return (answer["proxy"], answer["behavior"], answer["on_connect"], " ".join(options))


def _dotted(name: str, options: Any) -> Iterator[str]:
    """The options of a handler as `behavior` takes them; a preset's are in its file."""
    if isinstance(options, dict):
        yield from (f"{name}.{pair}" for o, v in options.items() for pair in [words({o: v})])


def toxic_row(toxic: Json) -> tuple[object, ...]:
    fields = [toxic[name] for name in ("name", "type", "stream", "toxicity")]
    return (*fields, words(toxic["attributes"]))


def connection_row(one: Json) -> tuple[object, ...]:
    received, sent = one["received"], one["sent"]
    return (
        one["proxy"],
        one["number"],
        one["client"],
        one["exchange"],
        " ".join(one["handlers"]),
        received["upstream"],
        received["downstream"],
        sent["upstream"],
        sent["downstream"],
        one["held"],
    )


def state_rows(state: Json) -> Iterator[tuple[str, object]]:
    """All there is to say about a proxy, a line for each thing."""
    for name in ("name", "local", "distant", "enabled", "protocol", "seed", "behavior"):
        yield name, state[name]
    yield "on connect", state["on_connect"]
    for name, options in state["handlers"].items():
        parts = [("", options)] if isinstance(options, dict) else []
        parts = parts or [(f" {part['handler']}", part["options"]) for part in options]
        for part, given in parts:
            yield f"handler {name}{part}", words(given)
    for toxic in state["toxics"]:
        yield f"toxic {toxic['name']}", " ".join(map(str, toxic_row(toxic)[1:]))
    for name, left in state["ttl"].items():
        yield f"ttl {name}", f"{left:.1f} s"
    yield "connections", state["connections"]
    for name, value in state["counters"].items():
        if isinstance(value, dict):
            yield from ((f"{name.replace('_', ' ')} {way}", n) for way, n in value.items())
        else:
            yield ("accepted" if name == "connections" else name.replace("_", " ")), value
    for name, stats in state["stats"].items():
        counts = {field: stats[field] for field in ("picked", "fired", "bytes")}
        yield f"stats {name}", f"{words(counts)} {_added(stats)}"


def _added(stats: Json) -> str:
    """How much time a handler added."""
    ms = {n: s if s is None else round(s * 1000, 3) for n, s in stats.items() if "added" in n}
    return " ".join(
        f"{name}={cell(value)}{'' if value is None else ' ms'}" for name, value in ms.items()
    )
