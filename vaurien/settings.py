"""Vaurien's settings: defaults < INI file < environment < command line, resolved once.

Law: whatever is wrong is found here, before anything listens, and every value knows where it came
from. Sources are compared with ``-`` and ``_`` the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vaurien import address, behavior, ini, presets
from vaurien.behavior import DUMMY
from vaurien.errors import UsageError, nearest
from vaurien.handlers import registry
from vaurien.observe import journal
from vaurien.observe.log import LEVELS, STDERR
from vaurien.options import (
    Bounded,
    Option,
    Raw,
    count,
    find,
    key,
    number,
    seconds,
    show,
    whole,
)
from vaurien.plan import (
    NOTHING,
    Plan,
    Specification,
    check,
    check_connect,
    framework,
    specify,
)
from vaurien.presets import Preset

PREFIX = "VAURIEN_"
_HANDLERS = "HANDLERS_"
_FLAG = "--handlers."

connect_seconds = Bounded(number, "seconds", 0.001, 1e6)
held_bytes = Bounded(whole, "bytes", 1)
backlog_count = Bounded(whole, "count", 1, 65535)

SETTINGS: tuple[Option, ...] = (
    Option("local", "Where clients connect: HOST:PORT, [IPV6]:PORT or unix:PATH", str,
           "localhost:8000"),
    Option("distant", "The backend: HOST:PORT, [IPV6]:PORT or unix:PATH", str, "localhost:80"),
    Option("behavior", "Which handlers deal with which share of the exchanges, in percent, such as"
           " 20:delay,5:error; the rest is passed on", str, "100:dummy"),
    Option("on-connect", "Who deals with which share of the clients that connect, in percent, such"
           " as 10:refuse,5:slow_accept; the rest is let in", str, None),
    Option("seed", "The seed of all random decisions; drawn and printed if not set", whole, None),
    Option("timeout", "End a connection that is idle for so many seconds; 0 for never", seconds, 0),
    Option("connect-timeout", "Give up an address of the backend after so many seconds",
           connect_seconds, 10),
    Option("max-connections", "Accept no more than so many connections at a time; 0 for any number",
           count, 0),
    Option("backlog", "How many clients may wait to be accepted", backlog_count, 4096),
    Option("spin", "Poll for so many microseconds after the last event before sleeping: less"
           " latency for more computing time; 0 for never", count, 50),
    Option("max-held", "How many bytes each flow holds at most while handlers delay it; then its"
           " sender waits", held_bytes, 1 << 20),
    Option("journal", "The file to which a line of JSON is appended for each exchange that a"
           " handler touched", str, None),
    Option("journal-all", "Put the exchanges into the journal too that nobody touched", bool,
           False),
    Option("replay", "A journal whose decisions are made again, in place of the draws", str, None),
    Option("strict", "End with exit code 3 if a handler of the behavior never fired", bool, False),
    Option("drain", "On SIGINT or SIGTERM, let connections end for so many seconds", seconds, 5),
    Option("log-level", "How much is logged", str, "info", LEVELS),
    Option("log-output", "The file to which the log is appended; - is standard error", str, STDERR),
)  # fmt: skip


@dataclass
class Settings:
    """All settings, converted, each with where it came from."""

    values: dict[str, Any]
    sources: dict[str, str]
    handlers: dict[str, Specification]  # all that are configured, used or not
    handler_sources: dict[tuple[str, str], str]
    warnings: list[str] = field(default_factory=list)
    plan: Plan = field(init=False)
    presets: Mapping[str, Preset] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[key(name)]

    def lines(self) -> Iterator[str]:
        """What ``--check`` prints."""
        rows = [(name, show(value), self.sources[name]) for name, value in self.values.items()]
        used = {
            *(name for name in self.plan.handlers),
            *(spec.name for name in self.plan.handlers for spec in self.plan.specifications(name)),
        }
        for spec in self.handlers.values():
            sources = {
                name: self.handler_sources.get((spec.name, key(name)), "default")
                for name in spec.in_force
            }
            if spec.name in used or any(source != "default" for source in sources.values()):
                rows.append((f"handler {spec.name}", _path(spec.cls), ""))
                rows += [
                    (f"  {name}", show(value), sources[name])
                    for name, value in spec.in_force.items()
                ]
        rows += [
            (f"preset {name}", preset.summary, "")
            for name, preset in self.presets.items()
            if name in used
        ]
        left = max(len(row[0]) for row in rows)
        middle = max(len(row[1]) for row in rows)
        for name, value, source in rows:
            yield f"{name:{left}}  {value:{middle}}  {source}".rstrip()


def resolve(
    arguments: Mapping[str, Raw],
    handler_arguments: Sequence[tuple[str, Raw]],
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings in force, from what the command line gave and from `environ`.

    `arguments` are by setting; `handler_arguments` are ``(NAME.OPTION, value)``. UsageError for
    anything wrong.
    """
    layers = _Layers(environ)
    config = arguments.get("config") or layers.environment.pop("config", None)
    sections = {} if config is None else ini.read(config.value, config.where)

    raws: dict[str, Raw] = {}
    for name, raw in (sections.get("vaurien") or {}).items():
        setting = find(SETTINGS, name, raw.where, "setting").key
        if setting in raws:
            raise UsageError(f"{raw.where}: {setting!r} is given twice; give it once")
        raws[setting] = raw
    raws.update(layers.environment)
    raws.update({name: raw for name, raw in arguments.items() if name != "config"})
    values, sources = {}, {}
    for option in SETTINGS:
        given = raws.get(option.key)
        sources[option.key] = "default" if given is None else given.where
        values[option.key] = (
            option.get_default() if given is None else option.convert(given.value, given.where)
        )
    if values["seed"] is None:
        values["seed"], sources["seed"] = secrets.randbelow(2**32), "drawn"

    def where(name: str) -> str:
        return f"--{name}" if sources[name] == "default" else sources[name]

    weighted = behavior.parse(values["behavior"], where("behavior"))
    meeting = NOTHING
    if values["on-connect"] is not None:
        meeting = behavior.parse(values["on-connect"], where("on-connect"))
    found = _Handlers(sections)
    found.get(DUMMY, where("behavior"))  # always there: nothing else may be called so
    used = {
        name: found.get(name, where(setting))
        for setting, names in (("behavior", weighted.names), ("on-connect", meeting.names))
        for name in names
        if name != DUMMY
    }
    layered = (found.from_file(), layers.handlers(found.classes), handler_arguments)
    specifications, handler_sources = _specify(found, layered)
    settings = Settings(values, sources, specifications, handler_sources, layers.warnings())
    settings.presets = found.presets
    for name in sorted({name.rpartition(".")[0] for name, _ in handler_arguments}):
        if found.canonical(name) not in used.values():
            settings.warnings.append(f"{_FLAG}{name}.*: no behavior picks {name!r}")
    handlers = {
        name: found.presets[own].specifications if own in found.presets else specifications[own]
        for name, own in used.items()
    }
    replay = None
    if values["replay"] is not None:
        replay = _replay(settings, found)
        weighted, meeting, handlers = replay.behavior, replay.on_connect, replay.handlers

    def stands_for(part: str) -> list[Specification]:
        specs = [handlers.get(name, ()) for name in part.split("+")]
        return [one for spec in specs for one in (spec if isinstance(spec, tuple) else (spec,))]

    places = ("behavior", "on-connect") if replay is None else ("replay", "replay")
    check(weighted, stands_for, where(places[0]))
    check_connect(meeting, stands_for, where(places[1]), replayed=replay is not None)
    files = [values["journal"], values["replay"]]
    if None not in files and os.path.realpath(files[0]) == os.path.realpath(files[1]):
        raise UsageError(
            f"{where('journal')}: {values['journal']!r} is what is replayed, and two runs in one"
            " journal cannot be; give another file"
        )
    if values["journal-all"] and values["journal"] is None:
        raise UsageError(f"{where('journal-all')}: there is no journal; give --journal FILE too")
    local = address.parse(values["local"], where("local"))
    distant = address.parse(values["distant"], where("distant"), port_zero=False)
    if local == distant:
        raise UsageError(
            f"{where('distant')}: {values['distant']!r} is where Vaurien listens itself;"
            " give the address of the backend"
        )
    settings.plan = Plan(
        local=local,
        distant=distant,
        behavior=weighted,
        handlers=handlers,
        seed=values["seed"],
        max_held=values["max-held"],
        on_connect=meeting,
        decisions=replay.decisions if replay is not None else None,
        connect_decisions=replay.connect_decisions if replay is not None else None,
        timeout=values["timeout"],
        connect_timeout=values["connect-timeout"],
        max_connections=values["max-connections"],
        backlog=values["backlog"],
        spin=values["spin"],
    )
    return settings


def _replay(settings: Settings, found: _Handlers) -> journal.Replay:
    """The journal to replay; its decisions and its seed win, which is said once."""
    where = settings.sources["replay"]
    replay = journal.read(settings["replay"], where, "default", found.cls)
    if replay.seed is not None:
        settings.values["seed"], settings.sources["seed"] = replay.seed, where
    settings.warnings += replay.warnings
    settings.warnings.append(
        f"{where}: the seed and all decisions"
        f" ({len(replay.decisions) + len(replay.connect_decisions)}) are those of"
        f" {settings['replay']}; the weights of --behavior and --on-connect, and --seed, do not"
        " count"
    )
    return replay


class _Layers:
    """The environment: settings, handlers' options, and what is neither."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        known = {option.key.replace("-", "_").upper(): option.key for option in SETTINGS}
        known["CONFIG"] = "config"
        self.environment: dict[str, Raw] = {}
        self._handlers: dict[str, Raw] = {}
        self._unknown: list[str] = []
        for variable, value in sorted(environ.items()):
            if not variable.startswith(PREFIX):
                continue
            name = variable[len(PREFIX) :]
            if name in known:
                self.environment[known[name]] = Raw(value, variable)
            elif name.startswith(_HANDLERS):
                self._handlers[name[len(_HANDLERS) :]] = Raw(value, variable)
            else:
                self._unknown.append(variable)
        self._names = [PREFIX + name for name in known]

    def handlers(self, classes: Mapping[str, type]) -> list[tuple[str, Raw]]:
        """The handlers' options among the variables, as (NAME.OPTION, value)."""
        names = {}
        for handler, cls in classes.items():
            for option in (*registry.options_of(cls).values(), *framework(cls).values()):
                words = f"{handler}_{option.name}".replace("-", "_").replace(".", "_").upper()
                names[words] = f"{handler}.{option.name}"
        result = []
        for words, raw in self._handlers.items():
            if words in names:
                result.append((names[words], raw))
            else:
                self._unknown.append(raw.where)
                self._names += [PREFIX + _HANDLERS + name for name in names]
        return result

    def warnings(self) -> list[str]:
        """A sentence for each variable that means nothing (Kubernetes makes such)."""
        return [
            f"{variable} in the environment is no setting; {nearest(variable, self._names)}"
            for variable in self._unknown
        ]


class _Handlers:
    """The classes that names stand for: sections of the file, built-ins, dotted paths."""

    def __init__(self, sections: Mapping[str, ini.Section]) -> None:
        self.classes: dict[str, type] = dict(registry.builtins())
        self._wheres: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._options: list[tuple[str, Raw]] = []
        self.presets: dict[str, Preset] = {**presets.builtins(), **presets.found_in(sections)}
        for section, options in sections.items():
            if section == "vaurien":
                continue
            if section.startswith(presets.PREFIX) and section != presets.PREFIX:
                if (own := section[len(presets.PREFIX) :].strip()) in self.classes:
                    raise UsageError(
                        f"{options.where}: {own!r} is a handler; give the preset another name"
                    )
                continue
            kind, _, name = section.partition(":")
            name = name.strip()
            where = options.where
            if kind.strip() != "handler" or not name:
                hint = nearest(section, ["vaurien", "handler:NAME", "preset:NAME"], "sections")
                raise UsageError(f"{where}: there is no such section; {hint}")
            if (path := options.get("callable")) is not None:
                self._add(name, registry.load(path.value, path.where), where)
            elif name not in self.classes:
                if name not in registry.installed():
                    raise UsageError(
                        f"{where}: {name!r} is no built-in handler and the section has no callable;"
                        f" {nearest(name, registry.known(), 'handlers')}"
                    )
                self._add(name, registry.find(name, where), where)
            self._options += [
                (f"{name}.{option}", raw) for option, raw in options.items() if option != "callable"
            ]

    def from_file(self) -> list[tuple[str, Raw]]:
        """The options in the file's sections, as (NAME.OPTION, value)."""
        return list(self._options)

    def get(self, name: str, where: str) -> str:
        """The name under which the handler that a behavior calls `name` is configured."""
        if name in self._paths.values() and name not in self._paths:
            self._refuse(name, registry.builtins().get(name, self.classes[name]), where)
        if name in self.classes:
            self._wheres.setdefault(name, where)
            return name
        if name in self.presets:
            return name
        known = [*self.classes, *registry.known(), *self.presets]
        if "." not in name and name not in registry.installed():
            raise UsageError(
                f"{where}: there is no handler {name!r}; {nearest(name, known, 'handlers')}"
            )
        cls = registry.find(name, where)
        own = name if name in registry.installed() else str(cls.name)  # type: ignore[attr-defined]
        self._add(own, cls, f"{where} {name}")
        self._paths[name] = own
        return own

    def cls(self, name: str, where: str) -> type:
        """The class of a handler by the name that it is configured under."""
        return self.classes[self.get(name, where)]

    def canonical(self, name: str) -> str:
        """The name under which `name` is configured."""
        return self._paths.get(name, name)

    def _add(self, name: str, cls: type, where: str) -> None:
        if name in self._wheres:
            self._refuse(name, cls, where)
        self.classes[name] = cls
        self._wheres[name] = where

    def _refuse(self, name: str, cls: type, where: str) -> None:
        """Refuse two different classes of one name in one plan."""
        before = self.classes[name]
        if before is not cls:
            raise UsageError(
                f"{where}: {_path(cls)} and {_path(before)} are both called {name!r};"
                " give one of them another name in a [handler:NAME] section"
            )


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _specify(
    found: _Handlers, layers: Sequence[Sequence[tuple[str, Raw]]]
) -> tuple[dict[str, Specification], dict[tuple[str, str], str]]:
    """The specification of every handler, and where each option came from; later layers win."""
    chosen: dict[str, dict[str, Raw]] = {}
    for path, raw in (item for layer in layers for item in layer):
        name, _, option = path.rpartition(".")
        name = found.canonical(name)
        if name in found.presets:
            raise UsageError(
                f"{raw.where}: {name!r} is a preset and takes no options; make one of your own in a"
                f" [preset:NAME] section"
            )
        if name not in found.classes:
            raise UsageError(
                f"{raw.where}: there is no handler {name!r};"
                f" {nearest(name, found.classes, 'handlers')}"
            )
        cls = found.classes[name]
        declared = {**registry.options_of(cls), **framework(cls)}
        chosen.setdefault(name, {})[find(declared, option, raw.where, f"option of {name}").key] = (
            raw
        )
    specifications, sources = {}, {}
    for name, cls in found.classes.items():
        raws = chosen.get(name, {})
        specifications[name] = specify(name, cls, raws)
        sources.update({(name, option): raw.where for option, raw in raws.items()})
    return specifications, sources
