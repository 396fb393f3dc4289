"""Settings from all their sources to what is in force: defaults < file < environment < flags.

Law: they are resolved once, before anything listens, and whatever is wrong is found on the way.
The order of the steps is the order in which they need each other: values, then the catalog of
handlers, then the plans that pick from it, then what all plans together must keep.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from vaurien import behavior, ini
from vaurien.access import TOKEN, check_api
from vaurien.behavior import DUMMY
from vaurien.bodies import behaviors, read_file, read_written
from vaurien.catalog import Catalog
from vaurien.errors import UsageError
from vaurien.options import Raw, find
from vaurien.plan import Plan
from vaurien.settings.environment import Environment
from vaurien.settings.in_force import Settings
from vaurien.settings.proxies import (
    Written,
    proxies,
    refuse_circle,
    refuse_one_address,
    refuse_one_name,
)
from vaurien.settings.replayed import check_journal, replay
from vaurien.settings.table import SETTINGS, instead

_FLAG = "--handlers."


def resolve(
    arguments: Mapping[str, Raw],
    handler_arguments: Sequence[tuple[str, Raw]],
    environ: Mapping[str, str] = os.environ,
    running: Settings | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in force, from what the command line gave and from `environ`.

    `arguments` are by setting; `handler_arguments` are ``(NAME.OPTION, value)``. `running` are
    those in force, if they are read again: the seed stays if none is given, and what is replayed in
    any case. `defaults` are others than those of `SETTINGS`. UsageError for anything wrong.
    """
    environment = Environment(environ)
    config = arguments.get("config") or environment.settings.pop("config", None)
    sections, bodies = ({}, []) if config is None else _read(config)
    flags = {name: raw for name, raw in arguments.items() if name != "config"}
    raws = _merged(sections.get("vaurien") or {}, environment.settings, flags)
    values, sources = _converted(raws, defaults or {})
    if values["seed"] is None:
        values["seed"] = secrets.randbelow(2**32) if running is None else running["seed"]
        sources["seed"] = "drawn"

    catalog = Catalog(sections)
    settings = Settings(values, sources, catalog)
    served = (running or settings).has_api  # a reload begins and ends no API
    texts = proxies(settings, raws, sections, bool(bodies) or served)
    used = _picked(catalog, texts, bodies)
    catalog.configure(environment.handlers(catalog.classes), handler_arguments)
    settings.warnings = environment.warnings()
    for name in sorted({name.rpartition(".")[0] for name, _ in handler_arguments}):
        if catalog.canonical(name) not in used and not settings.has_api:
            settings.warnings.append(f"{_FLAG}{name}.*: no behavior picks {name!r}")

    common, seed = settings.common, values["seed"]
    plans = [text.plan(catalog, seed, common) for text in texts]
    plans += [read_written(body, catalog, seed, common, place) for body, place in bodies]
    refuse_one_name(plans)
    refuse_one_address(plans)
    refuse_circle(plans)
    replaying = running or settings
    if replaying["replay"] is not None:
        where = replaying.sources["replay"]
        plans = replay(settings, plans, where, replaying["replay"])
    settings.plans = tuple(plans)
    if settings["strict"] and not settings.has_api and not any(_harms(plan) for plan in plans):
        settings.warnings.append(
            f"{settings.where('strict')}: there is no handler that could fail to fire; give"
            " --behavior, --on-connect or --toxics too"
        )
    check_journal(settings)
    settings.access = check_api(settings)
    _refuse_the_apis_address(settings)
    if values["statsd"] is not None:
        from vaurien.observe import statsd  # here, for the time that a start takes

        settings.statsd = statsd.parse(values["statsd"], settings.where("statsd"))
    return settings


def _merged(section: Mapping[str, Raw], *above: Mapping[str, Raw]) -> dict[str, Raw]:
    """What is given by setting: the file's section, and layers `above` it, the last one wins."""
    raws: dict[str, Raw] = {}
    for name, raw in section.items():
        if hint := instead(name):
            raise UsageError(f"{raw.where}: there is no setting {name!r}; {hint}")
        setting = find(SETTINGS, name, raw.where, "setting").key
        if setting in raws:
            raise UsageError(f"{raw.where}: {setting!r} is given twice; give it once")
        raws[setting] = raw
    for layer in above:
        # Both ways to give a token are one setting: the one given here wins over both below.
        if any(name in layer for name in TOKEN):
            raws = {name: raw for name, raw in raws.items() if name not in TOKEN}
        raws.update(layer)
    return raws


def _converted(
    raws: Mapping[str, Raw], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """All settings by name, and where each came from."""
    values, sources = {}, {}
    for option in SETTINGS:
        given = raws.get(option.key)
        if given is not None:
            values[option.key] = option.convert(given.value, given.where)
        else:
            values[option.key] = defaults.get(option.key, option.get_default())
        sources[option.key] = "default" if given is None else given.where
    return values, sources


def _picked(
    catalog: Catalog, texts: Sequence[Written], bodies: Sequence[tuple[Any, str]]
) -> set[str]:
    """The handlers that some behavior picks; to look them up makes the catalog know their class.

    That is to be before `Catalog.configure`, which converts the options of all that it knows.
    """
    written = [text.raws.get(word) for text in texts for word in ("behavior", "on-connect")]
    written += [raw for body, place in bodies for raw in behaviors(body, place)]
    return {
        catalog.get(name, raw.where)
        for raw in written
        if raw is not None
        for name in behavior.parse(raw.value, raw.where).names
        if name != DUMMY
    }


def _harms(plan: Plan) -> bool:
    """Whether anything of a plan could ever act."""
    return bool(plan.toxics or plan.handlers or plan.decisions or plan.connect_decisions)


def _refuse_the_apis_address(settings: Settings) -> None:
    """UsageError if a proxy is to listen where the API does."""
    for name, at in settings.access.addresses.items() if settings.access else ():
        for plan in settings.plans:
            if plan.enabled and plan.local.meets(at):
                raise UsageError(
                    f"{plan.where}: {plan.local} is where --{name} is served; give one of them"
                    " another port"
                )


def _read(config: Raw) -> tuple[dict[str, ini.Section], list[tuple[Any, str]]]:
    """The sections of the file, or the proxies of one in Toxiproxy's format, with their places."""
    bodies = read_file(config.value, config.where)
    return (ini.read(config.value, config.where), []) if bodies is None else ({}, bodies)
