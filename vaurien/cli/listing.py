"""What ``--list-handlers`` prints: handlers with their options, and presets.

Law: a handler of another package that does not load is a line among the others, and ends nothing.
"""

from __future__ import annotations

from vaurien import registry
from vaurien.errors import UsageError
from vaurien.options import Option, show
from vaurien.settings import Settings
from vaurien.specification import POINTS, STREAM


def handler_lines(settings: Settings) -> list[str]:
    """What ``--list-handlers`` prints: built-in, installed and configured ones, and presets."""
    lines = []
    for name in sorted({*registry.known(), *settings.catalog.specifications}):
        try:
            spec = settings.catalog.specifications.get(name)
            cls = spec.cls if spec is not None else registry.find(name, "--list-handlers")
        except UsageError as error:  # another package's fault
            lines.append(f"{name}: {error}")
            continue
        lines.append(f"{name} ({registry.kind(cls)}): {registry.summary(cls)}")
        lines += map(_option_line, registry.options_of(cls).values())
    lines += ["", "Every flow handler takes too:", *map(_option_line, STREAM.values())]
    lines += ["", "Every handler takes too:", *map(_option_line, POINTS.values())]
    lines += ["", "Presets, for --behavior 100:NAME:"]
    lines += [
        f"    {name}: {preset.summary}" for name, preset in sorted(settings.catalog.presets.items())
    ]
    return lines


def _option_line(option: Option) -> str:
    choices = f", one of {', '.join(map(str, option.choices))}" if option.choices else ""
    return (
        f"    {option.name} ({option.type_name}{choices}, default {show(option.default)}):"
        f" {option.description}"
    )
