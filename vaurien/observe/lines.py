"""A journal's line: the JSON object that an exchange or a change becomes.

The thread that makes lines takes the interpreter's lock from the loop, so that each microsecond
here is one that traffic waits. What repeats (the names, the options in force, the second) is made
once and kept; the rest is put between, and no dictionary is built. ``docs/journal.rst`` describes
the lines; a change of them raises `VERSION`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from json import dumps
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from vaurien import registry
from vaurien.behavior import DUMMY
from vaurien.observe.events import Changed, Ended
from vaurien.options import show
from vaurien.plan import POINTS, Specification

VERSION = 1

#: Texts that are kept at most. A behavior needs one for each set of its handlers that can be picked
#: together, and each set of those that fired.
_KEPT = 1000

_Kept = tuple[str, tuple[Any, ...]]

#: The text of what was picked and what fired, by the ids of these tuples, which are the same ones
#: from event to event: to hash their contents would cost more than the rest of the line. The tuples
#: are kept beside, so that no others can get these ids.
_texts: dict[tuple[int, ...], _Kept] = {}

_second = (-1, "")  # the last one that was written, since the epoch and as text


def line(event: Ended | Changed) -> str:
    """What the journal says of an exchange, or of a change."""
    if event.__class__ is Changed:
        return _change_line(event)
    (
        began, proxy, seed, connection, client, exchange, handlers, specifications, fired,
        from_client, from_backend, seconds, end,
    ) = event  # type: ignore[misc]  # fmt: skip
    kept = _texts.get((id(handlers), id(specifications), id(fired))) or _keep(event)  # type: ignore[arg-type]
    second, micro = divmod(int(began * 1e6 + 0.5), 1_000_000)
    known, text = _second
    if second != known:
        text = _begin(second)
    whole, part = divmod(int(seconds * 1e6 + 0.5), 1_000_000)
    return (
        f'{{"v": {VERSION}, "seed": {seed}, "time": "{text}.{micro:06d}+00:00",'
        f' "proxy": {quoted(proxy)}, "connection": {connection}, "client": {quoted(client)},'
        f' "exchange": {exchange}, {kept[0]}, "from_client": {from_client},'
        f' "from_backend": {from_backend}, "seconds": {whole}.{part:06d}, "end": {quoted(end)}}}'
    )


def _change_line(event: Changed) -> str:
    """A change is rare: nothing of it is kept."""
    time = datetime.fromtimestamp(event.time, timezone.utc).isoformat(timespec="microseconds")
    return dumps(
        {
            "v": VERSION,
            "seed": event.seed,
            "time": time,
            "proxy": event.proxy,
            "since": round(event.since, 6),
            "ttl": event.ttl,
            "operation": event.operation and event.operation.to_json(),
        }
    )


def _begin(second: int) -> str:
    global _second
    text = datetime.fromtimestamp(second, timezone.utc).isoformat()[:19]
    _second = (second, text)
    return text


def _keep(event: Ended) -> _Kept:
    """The part of the line that repeats, from ``handler`` to ``fired``."""
    part = {
        "handler": "+".join(event.handlers) or DUMMY,
        "options": _options(event.specifications),
        "fired": list(event.fired),
    }
    if len(_texts) >= _KEPT:
        _texts.clear()
    known = (event.handlers, event.specifications, event.fired)
    _texts[tuple(map(id, known))] = made = (dumps(part)[1:-1], known)
    return made


def _options(specifications: tuple[Specification, ...]) -> dict[str, Any]:
    """The options in force by handler; of a preset, a list of its handlers with theirs."""
    found: dict[str, Any] = {}
    for spec in specifications:
        # A replay has taken away the point that a word of the class's own stands for.
        words = getattr(spec.cls, "points", {})
        values = {
            name: _plain(value)
            for name, value in spec.in_force.items()
            if name not in words or value != POINTS[name].default
        }
        if spec.name in registry.builtins() or spec.cls.name not in registry.builtins():  # type: ignore[attr-defined]
            found[spec.name] = values
        else:  # of a preset
            found.setdefault(spec.name, []).append({"handler": spec.cls.name, "options": values})  # type: ignore[attr-defined]
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str, type(None))) else show(value)
