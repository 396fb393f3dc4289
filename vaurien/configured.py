"""The handlers that the configuration names: their classes, and the options that it gives to each.

Law: a class comes in here only, while the configuration is read; one name is one class. All that
is given is kept with its place until `Configured.configure` converts it, for an option may be given
before it is known what its handler is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vaurien import ini, presets, registry
from vaurien.behavior import DUMMY
from vaurien.errors import UsageError, nearest
from vaurien.kinds import is_connect
from vaurien.options import Raw, find
from vaurien.presets import Preset
from vaurien.specification import Specification, framework, specify


class Configured:
    """The classes that names stand for: sections of the file, built-ins, dotted paths."""

    def __init__(self, sections: Mapping[str, ini.Section] | None = None) -> None:
        self.classes: dict[str, type] = dict(registry.builtins())
        #: Each as configured, used or not; filled by `configure`.
        self.specifications: dict[str, Specification] = {}
        #: Where each option came from, by (handler, option).
        self.sources: dict[tuple[str, str], str] = {}
        self._chosen: dict[str, dict[str, Raw]] = {}
        self._wheres: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._options: list[tuple[str, Raw]] = []
        sections = sections or {}
        self.presets: dict[str, Preset] = {**presets.builtins(), **presets.found_in(sections)}
        for section, options in sections.items():
            if section != "vaurien" and not section.startswith("proxy:"):  # those are others'
                self._take_in(section, options)
        self.get(DUMMY, "behavior")  # always there: nothing else may be called so

    def _take_in(self, section: str, options: ini.Section) -> None:
        if section.startswith(presets.PREFIX) and section != presets.PREFIX:
            if (own := section[len(presets.PREFIX) :].strip()) in self.classes:
                raise UsageError(
                    f"{options.where}: {own!r} is a handler; give the preset another name"
                )
            return
        kind, _, name = section.partition(":")
        name = name.strip()
        where = options.where
        if kind.strip() != "handler" or not name:
            known = ["vaurien", "proxy:NAME", "handler:NAME", "preset:NAME"]
            raise UsageError(
                f"{where}: there is no such section; {nearest(section, known, 'sections')}"
            )
        if (path := options.get("callable")) is not None:
            self._add(name, registry.load(path.value, path.where), where)
        elif name not in self.classes:
            if name not in registry.installed():
                raise UsageError(
                    f"{where}: {name!r} is not a built-in handler and the section has no callable;"
                    f" {nearest(name, registry.known(), 'handlers')}"
                )
            self._add(name, registry.find(name, where), where)
        self._options += [
            (f"{name}.{option}", raw) for option, raw in options.items() if option != "callable"
        ]

    def get(self, name: str, where: str) -> str:
        """The name under which the handler that a behavior calls `name` is configured."""
        if name in self._paths.values() and name not in self._paths:
            self._refuse(name, registry.builtins().get(name, self.classes[name]), where)
        if name in self.classes:
            self._wheres.setdefault(name, where)
            return name
        if name in self.presets:
            return name
        if "." not in name and name not in registry.installed():
            raise UsageError(f"{where}: there is no handler {name!r}; {self._nearest(name)}")
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

    def configure(
        self, environment: Sequence[tuple[str, Raw]], arguments: Sequence[tuple[str, Raw]]
    ) -> None:
        """Make every handler's specification, of the file, the environment, the command line.

        Each option is given as ``(NAME.OPTION, value)``; what comes later wins.
        """
        for path, raw in (*self._options, *environment, *arguments):
            name, _, option = path.rpartition(".")
            name = self.canonical(name)
            if name not in self.classes and name not in self.presets:
                raise UsageError(
                    f"{raw.where}: there is no handler {name!r};"
                    f" {nearest(name, self.classes, 'handlers')}"
                )
            self._chosen.setdefault(name, {})[self._option(name, option, raw)] = raw
        for name, cls in self.classes.items():
            raws = self._chosen.get(name, {})
            self.specifications[name] = specify(name, cls, raws)
            self.sources.update({(name, option): raw.where for option, raw in raws.items()})

    def _option(self, name: str, option: str, raw: Raw) -> str:
        """The key of an option of the handler `name`."""
        if name in self.presets:
            raise UsageError(
                f"{raw.where}: {name!r} is a preset and takes no options; make one of your own in a"
                f" [preset:NAME] section"
            )
        cls = self.classes[name]
        declared = {**registry.options_of(cls), **framework(cls)}
        return find(declared, option, raw.where, f"option of {name}").key

    def _by_key(self, name: str, options: Mapping[str, Raw]) -> dict[str, Raw]:
        """Options of the handler `name` by their keys; UsageError if one is given in two ways."""
        raws: dict[str, Raw] = {}
        for option, raw in options.items():
            found = self._option(name, option, raw)
            if found in raws:
                raise UsageError(f"{raw.where}: {option!r} is given twice; give it once")
            raws[found] = raw
        return raws

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
                f"{where}: {dotted(cls)} and {dotted(before)} are both called {name!r};"
                " give one of them another name in a [handler:NAME] section"
            )

    def _nearest(self, name: str, meets: bool | None = None) -> str:
        """The nearest name; `meets` says whether of those that meet clients, or of the others."""
        names = {*self.classes, *registry.known(), *self.presets}
        if meets is not None:
            connect = {own for own, cls in self.classes.items() if is_connect(cls)}
            names = names & connect if meets else names - connect
        return nearest(name, names, "handlers")


def dotted(cls: type) -> str:
    """A class by its dotted path."""
    return f"{cls.__module__}.{cls.__qualname__}"
