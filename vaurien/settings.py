"""Vaurien's settings: defaults < INI file < environment < command line, resolved once.

Law: whatever is wrong is found here, before anything listens, and every value knows where it came
from. Sources are compared with ``-`` and ``_`` the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vaurien import address, behavior, ini, registry
from vaurien.access import TOKEN, Access, check_api
from vaurien.address import Address
from vaurien.behavior import DUMMY
from vaurien.bodies import behaviors, check_name, read_file, read_written
from vaurien.catalog import Catalog, dotted, toxics
from vaurien.control.replayed import Timed, replayed
from vaurien.errors import UsageError, nearest
from vaurien.observe import journal
from vaurien.observe.log import FORMATS, LEVELS, STDERR
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
from vaurien.plan import NOTHING, Plan, Toxic, check, check_connect, framework, together

PREFIX = "VAURIEN_"
_HANDLERS = "HANDLERS_"
_FLAG = "--handlers."
_SECTION = "proxy:"
DEFAULT = "default"  # the proxy of the plain command line

connect_seconds = Bounded(number, "seconds", 0.001, 1e6)
held_bytes = Bounded(whole, "bytes", 1)
port_number = Bounded(whole, "port", 0, 65535)
backlog_count = Bounded(whole, "count", 1, 65535)

SETTINGS: tuple[Option, ...] = (
    Option("local", "Where clients connect: HOST:PORT, [IPV6]:PORT or unix:PATH", str,
           "localhost:8000"),
    Option("distant", "The backend: HOST:PORT, [IPV6]:PORT or unix:PATH", str, "localhost:80"),
    Option("behavior", "Which handlers deal with which share of the exchanges, in percent, such as"
           " 20:delay,5:error; the rest is passed on", str, "100:dummy"),
    Option("on-connect", "Who deals with which share of the clients that connect, in percent, such"
           " as 10:refuse,5:slow_accept; the rest is let in", str, None),
    Option("protocol", "What tells where exchanges begin", str, "tcp", ("tcp",)),
    Option("toxics", "What acts on all exchanges: [NAME:] TYPE [OPTION=VALUE ...], separated by"
           " commas, such as latency latency=100 stream=upstream", str, None),
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
    Option("http", "Serve the control API", bool, False),
    Option("http-host", "Where the control API listens: a host, or unix:PATH", str, "localhost"),
    Option("http-port", "The port of the control API; 0 for any free one", port_number, 8080),
    Option("http-token", "What requests must show: Authorization: Bearer TOKEN; none for nothing,"
           " wherever it listens", str, None),
    Option("http-token-file", "The file that has the token", str, None),
    Option("http-allowed-host", "Names, separated by commas, by which clients may call the control"
           " API, beside those of this machine", str, None),
    Option("toxiproxy", "Serve the control API at Toxiproxy's port too", bool, False),
    Option("toxiproxy-port", "That port; 0 for any free one", port_number, 8474),
    Option("log-level", "How much is logged", str, "info", LEVELS),
    Option("log-output", "The file to which the log is appended; - is standard error", str, STDERR),
    Option("log-format", "How its lines are written", str, "text", FORMATS),
    Option("statsd", "The statsd server to which the metrics are sent once a second, by UDP:"
           " HOST:PORT", str, None),
)  # fmt: skip

#: What a ``[proxy:NAME]`` section may say.
_OF_A_PROXY = ("local", "distant", "behavior", "on-connect", "protocol", "toxics", "seed")
_PROXY: dict[str, Option] = {
    **{option.key: option for option in SETTINGS if option.key in _OF_A_PROXY},
    "enabled": Option("enabled", "Whether it listens from the start", bool, True),
}
_TOXIPROXY = {"listen": "local", "upstream": "distant"}  # its words
_MAKES_DEFAULT = ("local", "distant", "behavior")


@dataclass
class Settings:
    """All settings, converted, each with where it came from; and what becomes of them.

    `plans` are those of the proxies, in order; there may be none if there is an API.
    """

    values: dict[str, Any]
    sources: dict[str, str]
    catalog: Catalog
    plans: tuple[Plan, ...] = ()
    warnings: list[str] = field(default_factory=list)
    access: Access | None = None  # to the control API, if there is one
    statsd: Address | None = None  # where the metrics are sent
    operations: tuple[Timed, ...] = ()  # of a replay

    def __getitem__(self, name: str) -> Any:
        return self.values[key(name)]

    def where(self, name: str) -> str:
        """Who gave a setting, for a message; its flag if nobody did."""
        source = self.sources[name]
        return f"--{name}" if source == "default" else source

    @property
    def plan(self) -> Plan:
        """The plan of the first proxy, which must be there."""
        return self.plans[0]

    @property
    def has_api(self) -> bool:
        """Whether the control API is wanted."""
        return bool(self["http"] or self["toxiproxy"])

    @property
    def common(self) -> dict[str, Any]:
        """What the plans of all proxies have in common, those made by the API included."""
        names = ("max-held", "timeout", "connect-timeout", "max-connections", "backlog")
        return {name.replace("-", "_"): self.values[name] for name in names}

    def lines(self) -> Iterator[str]:
        """What ``--check`` prints."""
        own = () if any(plan.name == DEFAULT for plan in self.plans) else _OF_A_PROXY
        rows = [
            (name, "set" if name == "http-token" and value else show(value), self.sources[name])
            for name, value in self.values.items()
            if name not in own or name == "seed"
        ]
        for plan in self.plans:
            if plan.name != DEFAULT:
                state = "" if plan.enabled else " (disabled)"
                rows.append((f"proxy {plan.name}", f"{plan.local} to {plan.distant}{state}", ""))
                if plan.seed != self["seed"]:
                    rows.append(("  seed", str(plan.seed), ""))
                rows.append(("  behavior", str(plan.behavior), ""))
                if plan.on_connect.parts:
                    rows.append(("  on-connect", str(plan.on_connect), ""))
            for toxic in plan.toxics:
                spec = toxic.specification
                values = " ".join(f"{n}={show(value)}" for n, value in spec.options.items())
                rows.append(
                    (f"  toxic {toxic.name}", f"{toxic.type} {values}".rstrip(),
                     f"{toxic.stream}, toxicity {toxic.toxicity:g}")
                )  # fmt: skip
        handlers = {name: spec for plan in self.plans for name, spec in plan.handlers.items()}
        used = {
            *handlers,
            *(spec.name for name in handlers for spec in together(handlers)(name)),
        }
        for spec in self.catalog.specifications.values():
            sources = {
                name: self.catalog.sources.get((spec.name, key(name)), "default")
                for name in spec.in_force
            }
            if spec.name in used or any(source != "default" for source in sources.values()):
                rows.append((f"handler {spec.name}", dotted(spec.cls), ""))
                rows += [
                    (f"  {name}", show(value), sources[name])
                    for name, value in spec.in_force.items()
                ]
        rows += [
            (f"preset {name}", preset.summary, "")
            for name, preset in self.catalog.presets.items()
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
    running: Settings | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in force, from what the command line gave and from `environ`.

    `arguments` are by setting; `handler_arguments` are ``(NAME.OPTION, value)``. `running` are
    those in force, if they are read again: the seed stays if none is given, and what is replayed in
    any case. `defaults` are others than those of `SETTINGS`. UsageError for anything wrong.
    """
    layers = _Layers(environ)
    config = arguments.get("config") or layers.environment.pop("config", None)
    sections, bodies = ({}, []) if config is None else _read(config)

    raws: dict[str, Raw] = {}
    for name, raw in (sections.get("vaurien") or {}).items():
        setting = find(SETTINGS, name, raw.where, "setting").key
        if setting in raws:
            raise UsageError(f"{raw.where}: {setting!r} is given twice; give it once")
        raws[setting] = raw
    for layer in (layers.environment, {n: r for n, r in arguments.items() if n != "config"}):
        if any(name in layer for name in TOKEN):  # one of them, told here, wins over both there
            raws = {name: raw for name, raw in raws.items() if name not in TOKEN}
        raws.update(layer)
    values, sources = {}, {}
    for option in SETTINGS:
        given = raws.get(option.key)
        sources[option.key] = "default" if given is None else given.where
        values[option.key] = (
            option.get_default() if given is None else option.convert(given.value, given.where)
        )
        if given is None and option.key in (defaults or {}):
            values[option.key] = (defaults or {})[option.key]
    if values["seed"] is None:
        values["seed"] = secrets.randbelow(2**32) if running is None else running["seed"]
        sources["seed"] = "drawn"

    catalog = Catalog(sections)
    settings = Settings(values, sources, catalog)
    served = (running or settings).has_api  # a reload begins and ends no API
    texts = _proxies(settings, raws, sections, bool(bodies) or served)
    written = [proxy.raws.get(word) for proxy in texts for word in ("behavior", "on-connect")]
    written += [raw for body, place in bodies for raw in behaviors(body, place)]
    used = {
        name: catalog.get(name, raw.where)
        for raw in written
        if raw is not None
        for name in behavior.parse(raw.value, raw.where).names
        if name != DUMMY
    }
    catalog.configure(layers.handlers(catalog.classes), handler_arguments)
    settings.warnings = layers.warnings()
    for name in sorted({name.rpartition(".")[0] for name, _ in handler_arguments}):
        if catalog.canonical(name) not in used.values() and not settings.has_api:
            settings.warnings.append(f"{_FLAG}{name}.*: no behavior picks {name!r}")
    common = settings.common
    plans = [proxy.plan(catalog, values["seed"], common) for proxy in texts]
    for body, place in bodies:
        plans.append(read_written(body, catalog, values["seed"], common, place))
    names = [plan.name for plan in plans]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"proxy {doubled!r} is there twice; give one another name")
    _refuse_one_address(plans)
    replaying = running or settings
    if replaying["replay"] is not None:
        where = replaying.sources["replay"]
        plans = _replay(settings, plans, where, replaying["replay"])
    settings.plans = tuple(plans)
    _check_journal(settings)
    settings.access = check_api(settings)
    for name, at in settings.access.addresses.items() if settings.access else ():
        for plan in plans:
            if plan.enabled and plan.local.meets(at):
                raise UsageError(
                    f"{plan.where}: {plan.local} is where --{name} is served; give one of them"
                    " another port"
                )
    if values["statsd"] is not None:
        from vaurien.observe import statsd  # here, for the time that a start takes

        settings.statsd = statsd.parse(values["statsd"], settings.where("statsd"))
    return settings


def _read(config: Raw) -> tuple[dict[str, ini.Section], list[tuple[Any, str]]]:
    """The sections of the file, or the proxies of one in Toxiproxy's format, with their places."""
    bodies = read_file(config.value, config.where)
    return (ini.read(config.value, config.where), []) if bodies is None else ({}, bodies)


@dataclass
class _Text:
    """A proxy as it was written: its name, and what was given."""

    name: str
    raws: Mapping[str, Raw]
    where: Callable[[str], str]

    def get(self, word: str) -> Any:
        """A setting's value, or its default."""
        option, raw = _PROXY[word], self.raws.get(word)
        return option.get_default() if raw is None else option.convert(raw.value, raw.where)

    def plan(self, catalog: Catalog, seed: int, common: Mapping[str, Any]) -> Plan:
        """What it is told to do; UsageError for what is wrong."""
        weighted = behavior.parse(self.get("behavior"), self.where("behavior"))
        meeting = NOTHING
        if self.get("on-connect") is not None:
            meeting = behavior.parse(self.get("on-connect"), self.where("on-connect"))
        names = [name for name in (*weighted.names, *meeting.names) if name != DUMMY]
        handlers = {name: catalog.stands_for(name) for name in names}
        check(weighted, together(handlers), self.where("behavior"))
        check_connect(meeting, together(handlers), self.where("on-connect"))
        local = address.parse(self.get("local"), self.where("local"))
        distant = address.parse(self.get("distant"), self.where("distant"), port_zero=False)
        if distant.leads_to(local):
            raise UsageError(
                f"{self.where('distant')}: {self.get('distant')!r} is where Vaurien listens itself;"
                " give the address of the backend"
            )
        pinned: tuple[Toxic, ...] = ()
        if self.get("toxics") is not None:
            pinned = toxics(catalog, Raw(self.get("toxics"), self.where("toxics")))
        own = self.get("seed")
        return Plan(
            local=local,
            distant=distant,
            behavior=weighted,
            handlers=handlers,
            seed=seed if own is None else own,
            name=self.name,
            enabled=self.get("enabled"),
            protocol=self.get("protocol"),
            on_connect=meeting,
            toxics=pinned,
            **common,
        )


def _proxies(
    settings: Settings,
    raws: Mapping[str, Raw],
    sections: Mapping[str, ini.Section],
    others: bool,
) -> list[_Text]:
    """The proxies that are written in settings and sections; `others` says if there are more."""
    found = []
    for title, section in sections.items():
        if not title.startswith(_SECTION):
            continue
        name = title[len(_SECTION) :].strip()
        check_name(name, section.where)
        given: dict[str, Raw] = {}
        for word, raw in section.items():
            if word in _TOXIPROXY:
                raise UsageError(
                    f"{raw.where}: there is no option of a proxy {word!r}; did you mean"
                    f" {_TOXIPROXY[word]!r}?"
                )
            option = find(_PROXY, word, raw.where, "option of a proxy")
            if option.key in given:
                raise UsageError(f"{raw.where}: {option.key!r} is given twice; give it once")
            given[option.key] = raw
        if "distant" not in given:
            raise UsageError(f"{section.where}: distant is missing; give the backend's address")
        if "local" not in given:
            raise UsageError(f"{section.where}: local is missing; give where clients connect")

        def place(word: str, given: Mapping[str, Raw] = given, place: str = section.where) -> str:
            return given[word].where if word in given else f"{place} {word}"

        found.append(_Text(name, given, place))
    if any(word in raws for word in _MAKES_DEFAULT) or not (found or others):
        own = {word: raw for word, raw in raws.items() if word in _PROXY and word != "seed"}
        found.insert(0, _Text(DEFAULT, own, settings.where))
    else:
        for word in ("on-connect", "toxics", "protocol"):
            if word in raws:
                raise UsageError(
                    f"{raws[word].where}: this is for the proxy {DEFAULT!r}, and there is none;"
                    " give --local and --distant too, or put it into a [proxy:NAME] section"
                )
    return found


def _refuse_one_address(plans: Sequence[Plan]) -> None:
    """UsageError if two proxies are to listen at one address."""
    seen: dict[tuple[int, str], list[Plan]] = {}
    for plan in plans:
        if plan.enabled and (plan.local.port or plan.local.path):
            near = seen.setdefault((plan.local.port, plan.local.path), [])
            for other in near:
                if plan.local.meets(other.local):
                    raise UsageError(
                        f"proxies {other.name!r} and {plan.name!r} both listen at {plan.local};"
                        " give one another port, or 0 for a free one"
                    )
            near.append(plan)


def _check_journal(settings: Settings) -> None:
    files = [settings["journal"], settings["replay"]]
    if None not in files and os.path.realpath(files[0]) == os.path.realpath(files[1]):
        raise UsageError(
            f"{settings.where('journal')}: {settings['journal']!r} is what is replayed, and two"
            " runs in one journal cannot be; give another file"
        )
    if settings["journal-all"] and settings["journal"] is None:
        raise UsageError(
            f"{settings.where('journal-all')}: there is no journal; give --journal FILE too"
        )


def _replay(settings: Settings, plans: Sequence[Plan], where: str, path: str) -> list[Plan]:
    """The plans with the decisions of the journal at `path`; those and its seed win."""
    made, count, missing = [], 0, []
    due: list[Timed] = []
    for plan in plans:
        replay = journal.read(path, where, plan.name, settings.catalog.cls, len(plans) > 1)
        settings.warnings += [one for one in replay.warnings if one not in settings.warnings]
        if replay.seed is None:
            missing.append(plan.name)
        elif plan.name == DEFAULT:
            settings.values["seed"], settings.sources["seed"] = replay.seed, where
        count += len(replay.decisions) + len(replay.connect_decisions)
        stand = together(replay.handlers)
        check(replay.behavior, stand, where)
        check_connect(replay.on_connect, stand, where, replayed=True)
        plan, later, left_out = replayed(plan, replay.operations, settings.catalog.cls)
        due += later
        if left_out:
            settings.warnings.append(
                f"{where}: {plan.name}: what is not done again: {', '.join(sorted(left_out))}"
            )
        made.append(
            replace(
                plan,
                behavior=replay.behavior,
                on_connect=replay.on_connect,
                handlers=replay.handlers,
                seed=plan.seed if replay.seed is None else replay.seed,
                decisions=replay.decisions,
                connect_decisions=replay.connect_decisions,
            )
        )
    if missing and len(plans) > 1:
        if len(missing) == len(plans):
            raise UsageError(f"{where}: {path!r} has nothing of any proxy here; give its journal")
        settings.warnings.append(
            f"{where}: {path} has nothing of {', '.join(missing)}: nothing is harmed there"
        )
    settings.warnings.append(
        f"{where}: the seed and all decisions ({count}) are those of {path}; the weights of"
        " --behavior and --on-connect, and --seed, do not count"
    )
    settings.operations = tuple(sorted(due, key=lambda timed: timed.since))
    return made


class _Layers:
    """The environment: settings, handlers' options, and what is neither."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        known = {option.key.replace("-", "_").upper(): option.key for option in SETTINGS}
        known["CONFIG"] = "config"
        others = ("HOST",)  # vaurienctl's
        self.environment: dict[str, Raw] = {}
        self._handlers: dict[str, Raw] = {}
        self._unknown: list[str] = []
        for variable, value in sorted(environ.items()):
            if not variable.startswith(PREFIX) or variable[len(PREFIX) :] in others:
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
