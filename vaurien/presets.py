"""Network presets: a name for a line's latency, bandwidth and loss, as flow handlers.

The figures, each with its source, stand in ``presets.ini`` beside this file; a user's INI file adds
others in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vaurien import ini, registry
from vaurien.errors import UsageError
from vaurien.options import Bounded, declared, find, milliseconds, number, percent
from vaurien.specification import Specification

PREFIX = "preset:"
_FILE = Path(__file__).with_name("presets.ini")

kilobits = Bounded(number, "kbit/s", 0.001, 1e9, or_zero=True)

#: What a ``[preset:NAME]`` section may say.
OPTIONS = declared(
    {
        "rtt": ("Delay both ways together in ms", milliseconds, None),
        "latency": ("Delay each way in ms", milliseconds, None),
        "latency_down": ("Delay to the client in ms", milliseconds, None),
        "latency_up": ("Delay to the backend in ms", milliseconds, None),
        "down": ("Rate to the client in kbit/s; 0 lets nothing through", kilobits, None),
        "up": ("Rate to the backend in kbit/s; 0 lets nothing through", kilobits, None),
        "loss": ("Packets lost each way, in percent", percent, 0),
        "source": ("Where the figures are from", str, ""),
    }
)


@dataclass(frozen=True)
class Preset:
    """A named line; `specifications` are the flow handlers that imitate it."""

    name: str
    summary: str
    specifications: tuple[Specification, ...]


@cache
def builtins() -> Mapping[str, Preset]:
    """The presets that come with Vaurien, by name."""
    return found_in(ini.read(str(_FILE), "presets.ini"))


def found_in(sections: Mapping[str, ini.Section]) -> dict[str, Preset]:
    """The presets among the sections of an INI file, by name; UsageError if one is wrong."""
    return {
        name: _made(name, section)
        for title, section in sections.items()
        if title.startswith(PREFIX) and (name := title[len(PREFIX) :].strip())
    }


def _made(name: str, section: ini.Section) -> Preset:
    values = {option.key: option.get_default() for option in OPTIONS.values()}
    for word, raw in section.items():
        option = find(OPTIONS, word, raw.where, "option of a preset")
        values[option.key] = option.convert(raw.value, raw.where)
    rtt, each = values["rtt"], values["latency"]
    one_way = (values["latency-down"], values["latency-up"])
    ways = [rtt is not None, each is not None, any(way is not None for way in one_way)]
    if sum(ways) > 1:
        raise UsageError(
            f"{section.where}: gives the delay in several words; give rtt, or latency, or"
            " latency_down and latency_up"
        )
    specifications: list[Specification] = []
    for stream, rate, way in (
        ("downstream", values["down"], one_way[0]),
        ("upstream", values["up"], one_way[1]),
    ):
        latency = rtt / 2 if rtt is not None else each if each is not None else way
        specifications += _one_way(name, stream, rate, latency, values["loss"])
    if not specifications:
        raise UsageError(f"{section.where}: does nothing; give for instance rtt or down")
    said = [f"{word} {raw.value}" for word, raw in section.items() if word != "source"]
    source = f" ({values['source']})" if values["source"] else ""
    return Preset(name, f"{', '.join(said)}{source}", tuple(specifications))


def _one_way(
    name: str, stream: str, rate: float | None, latency: float | None, loss: float
) -> list[Specification]:
    """One direction of the line: its sender's rate, its length, its losses."""
    given, handlers = {"stream": stream}, registry.builtins()
    if rate == 0:
        return [Specification(name, handlers["blackhole"], given)]
    found = []
    if rate is not None:
        found.append(Specification(name, handlers["bandwidth"], {"rate": rate / 8, **given}))
    if latency:
        found.append(Specification(name, handlers["latency"], {"latency": latency, **given}))
    if loss:
        found.append(Specification(name, handlers["stall"], {"loss": loss, **given}))
    return found
