"""What a caller has given, checked and put into the words of a request.

Law: what no request can say is a UsageError here, by the argument's name, before anybody is asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from vaurien.errors import UsageError


def path_of(proxy: str | None, *rest: str) -> str:
    """The path of something, of a proxy's if one is given; UsageError for a name that is none."""
    hint = "; options of a handler are keywords" if isinstance(proxy, Mapping) else ""
    check("proxy", proxy, (str,), f"a name{hint}")
    for name in rest:
        if not isinstance(name, str):
            raise UsageError(f"name: {name!r} is not a text")
    parts = rest if proxy is None else ("proxies", proxy, *rest)
    return "".join("/" + quote(part, safe="") for part in parts)


def check(name: str, value: object, types: tuple[type, ...], wanted: str) -> None:
    """UsageError if an argument has another type; None stands for one that is not given."""
    wrong = isinstance(value, bool) or not isinstance(value, types)
    if value is not None and wrong:
        raise UsageError(f"{name}: {value!r} is not {wanted}")


def time_of(timeout: float) -> float:
    """A time in seconds; UsageError if it is none, or not more than 0."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise UsageError(f"timeout: {timeout!r} is not a time; give seconds, more than 0")
    if not 0 < timeout < math.inf:
        raise UsageError(f"timeout: {timeout!r} is not a time; give seconds, more than 0")
    return timeout


def encoded(body: object) -> bytes:
    """`body` as JSON; UsageError naming what JSON does not have."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError):
        name, value = _unfit("body", body)
        raise UsageError(
            f"{name}: {value!r} cannot be sent; give a text, a number, True, False or None"
        ) from None


def _unfit(name: str, value: object) -> tuple[str, object]:
    """What JSON does not have in a value, and its name."""
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, one in value.items() if isinstance(value, Mapping) else inner:
        try:
            json.dumps({key: one}, allow_nan=False)
        except (TypeError, ValueError):
            return _unfit(str(key), one)
    return name, value


def given(**fields: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
