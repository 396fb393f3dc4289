"""JSON as Toxiproxy reads it: its clients rely on what Go's decoder takes.

A name may be in any case, and given twice: of two values the last one counts, two objects are one,
and null says nothing. Bytes that are no UTF-8 are taken, and what stands behind the first value is
not looked at. Nothing else is read differently from `vaurien.strictjson`, which reads what is sent
to Vaurien's own API.

Law: a name that nobody knows is refused, in whatever case it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from vaurien import strictjson
from vaurien.strictjson import Refused, bad

_SURROGATE = re.compile("[\ud800-\udfff]")
#: What stands for two letters in Go, beside their two cases (Unicode's simple case folding).
_FOLDED = str.maketrans({"\u017f": "s", "\u212a": "k"})

_NOTHING: Mapping[str, type] = MappingProxyType({})

Pairs = Sequence[tuple[str, Any]]


class Loose(dict[str, Any]):
    """An object of such JSON: `pairs` has all that it gives, in order, and names as written."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def load(data: bytes) -> Any:
    """The first JSON value in `data`, objects as `Loose`; UsageError if there is none."""
    try:
        return loads(data)
    except json.JSONDecodeError as error:
        raise bad(f"it is no JSON: {error}") from None
    except Refused as error:
        raise bad(str(error)) from None


def loads(data: bytes) -> Any:
    """The first JSON value in `data`; JSONDecodeError or `Refused`, saying why, if it is none."""
    return strictjson.decode(_text(data.decode(errors="surrogateescape")), _object, whole=False)


def _text(text: str) -> str:
    """`text` with the character for what cannot be shown in place of what is no character."""
    return _SURROGATE.sub("\ufffd", text)


def _object(pairs: Pairs) -> Loose:
    return Loose([(_text(name), _characters(value)) for name, value in pairs])


def _characters(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


def _folded(name: str) -> str:
    return name.translate(_FOLDED).lower()


def named(body: Any, known: Iterable[str]) -> Any:
    """`body` with the names as those that are `known` are written; the others stay.

    What is not `Loose` stays as it is.
    """
    return together(pairs_of(body, known)) if isinstance(body, Loose) else body


def pairs_of(body: Loose, known: Iterable[str]) -> Pairs:
    """All that `body` gives, in order, under the names that are `known`."""
    exact = set(known)
    same: dict[str, str] = {}
    for name in exact:
        same.setdefault(_folded(name), name)
    return [
        (name if name in exact else same.get(_folded(name), name), value)
        for name, value in body.pairs
    ]


def together(pairs: Pairs) -> dict[str, Any]:
    """One value for each name."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        before = found.get(name)
        if value is None and name in found:
            continue
        if isinstance(value, Loose) and isinstance(before, Loose):
            value = Loose([*before.pairs, *value.pairs])
        found[name] = value
    return found


def fields(
    body: object, known: Mapping[str, tuple[type, ...]], beside: Mapping[str, type] = _NOTHING
) -> dict[str, Any]:
    """As `vaurien.strictjson.fields`, for either kind of JSON; null is an object without fields.

    What is called as one `beside` the fields, and of its type, is passed over.
    """
    if body is None:
        return {}
    if not isinstance(body, Loose):
        return strictjson.fields(body, known)
    pairs = [
        (name, value)
        for name, value in pairs_of(body, [*known, *beside])
        if name not in beside or not isinstance(value, beside[name])
    ]
    for name, value in pairs:
        strictjson.fields({name: value}, known)
    return {name: value for name, value in together(pairs).items() if value is not None}
