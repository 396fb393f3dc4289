"""JSON that others send: read strictly, and refused in sentences.

Law: nothing that a body says is dropped. What is there twice, unknown or of another type is
refused, with the words that Toxiproxy's clients know where there are such (`docs/toxiproxy.rst`).
What is sent on Toxiproxy's paths is read by `vaurien.gojson`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from vaurien.errors import UsageError, nearest
from vaurien.options import told

_CALLED = {
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    int: "a number",
    float: "a number",
    type(None): "null",
}
BAD = "bad request body"


class Worded(UsageError):
    """Said in the very words that Toxiproxy's clients know; `detail` is for who writes files."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


def bad(reason: str) -> UsageError:
    """A body that is not what was asked for."""
    return UsageError(f"{BAD}: {reason}")


def load(data: bytes) -> Any:
    """The JSON in `data`; UsageError if it is none."""
    try:
        return loads(data)
    except json.JSONDecodeError as error:
        raise bad(f"it is no JSON: {error}") from None
    except Refused as error:
        raise bad(str(error)) from None


def loads(data: bytes) -> Any:
    """The JSON in `data`; JSONDecodeError or `Refused`, saying why, if it is none."""
    try:
        return decode(data.decode(), _once)
    except UnicodeDecodeError as error:
        raise Refused(f"it is not UTF-8 (byte {error.start})") from None


def decode(text: str, pairs: Callable[[list[tuple[str, Any]]], Any], whole: bool = True) -> Any:
    """The JSON value in `text`; JSONDecodeError or `Refused`, saying why, if it is none.

    `pairs` makes an object of its pairs. Unless it is to be the `whole` text, more may follow.
    """
    if not text:
        raise Refused("there is none; send JSON")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    decoder = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=pairs)
    try:
        return decoder.decode(text) if whole else decoder.raw_decode(text, start)[0]
    except RecursionError:
        raise Refused("it is nested too deeply") from None
    except (json.JSONDecodeError, Refused):
        raise
    except ValueError:  # Python's own bound
        raise Refused("it has a number with too many digits") from None


class Refused(ValueError):
    """What JSON may have, and a body may not."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are each given once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        raise Refused(f"{told(next(n for n in counted if counted[n] > 1))} is given twice")
    return found


def dumps(body: object) -> bytes:
    """JSON as text."""
    return json.dumps(body).encode()


def _constant(word: str) -> float:
    raise Refused(f"{word} is no JSON")


def fields(body: object, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The fields of a JSON object that are given; UsageError for unknown ones and wrong types."""
    if not isinstance(body, dict):
        raise bad(f"it is {_CALLED.get(type(body), 'no object')}, not an object")
    for name, value in body.items():
        if name not in known:
            raise bad(f"there is no field {told(name)}; {nearest(name, known, 'fields')}")
        types = known[name]
        fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        if value is not None and not fits:
            raise bad(f"{name} is {told(value)}, not {_CALLED[types[0]]}")
    return {name: value for name, value in body.items() if value is not None}
