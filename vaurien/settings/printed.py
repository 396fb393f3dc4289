"""What ``--check`` prints: every setting in force, with where it came from.

Law: a secret is never among it, and nothing is that no proxy uses, but for what was set.
"""

from __future__ import annotations

from collections.abc import Iterator

from vaurien.configured import dotted
from vaurien.fitting import together
from vaurien.options import key, show
from vaurien.plan import Plan
from vaurien.settings.in_force import Settings
from vaurien.settings.table import DEFAULT, OF_A_PROXY

Row = tuple[str, str, str]  # what, its value, where it came from


def lines(settings: Settings) -> Iterator[str]:
    """What ``--check`` prints, line by line, in three columns."""
    rows = [*_values(settings)]
    for plan in settings.plans:
        rows += _proxy(plan, settings["seed"])
    rows += _used(settings)
    left = max(len(row[0]) for row in rows)
    middle = max(len(row[1]) for row in rows)
    for name, value, source in rows:
        yield f"{name:{left}}  {value:{middle}}  {source}".rstrip()


def _values(settings: Settings) -> Iterator[Row]:
    # What is a proxy's own is shown with it, unless the command line has made the only one.
    own = () if any(plan.name == DEFAULT for plan in settings.plans) else OF_A_PROXY
    for name, value in settings.values.items():
        if name not in own or name == "seed":
            shown = "set" if name == "http-token" and value else show(value)
            yield name, shown, settings.sources[name]


def _proxy(plan: Plan, seed: int) -> Iterator[Row]:
    if plan.name != DEFAULT:
        state = "" if plan.enabled else " (disabled)"
        yield f"proxy {plan.name}", f"{plan.local} to {plan.distant}{state}", ""
        if plan.seed != seed:
            yield "  seed", str(plan.seed), ""
        yield "  behavior", str(plan.behavior), ""
        if plan.on_connect.parts:
            yield "  on-connect", str(plan.on_connect), ""
    for toxic in plan.toxics:
        options = toxic.specification.options
        values = " ".join(f"{name}={show(value)}" for name, value in options.items())
        harm = f"{toxic.type} {values}".rstrip()
        yield f"  toxic {toxic.name}", harm, f"{toxic.stream}, toxicity {toxic.toxicity:g}"


def _used(settings: Settings) -> Iterator[Row]:
    """The handlers and presets that a behavior picks, and handlers whose options were set."""
    handlers = {name: spec for plan in settings.plans for name, spec in plan.handlers.items()}
    inside = (spec.name for name in handlers for spec in together(handlers)(name))
    used = {*handlers, *inside}
    catalog = settings.catalog
    for spec in catalog.specifications.values():
        sources = {
            name: catalog.sources.get((spec.name, key(name)), "default") for name in spec.in_force
        }
        if spec.name in used or any(source != "default" for source in sources.values()):
            yield f"handler {spec.name}", dotted(spec.cls), ""
            for name, value in spec.in_force.items():
                yield f"  {name}", show(value), sources[name]
    for name, preset in catalog.presets.items():
        if name in used:
            yield f"preset {name}", preset.summary, ""
