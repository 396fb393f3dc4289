"""The proxies that are written: sections of the file, and the one of the plain command line.

Law: a proxy that cannot run is refused here, alone or beside the others, by the line in which it
was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaurien import behavior, ini, registry, services
from vaurien.address import ANY, Place
from vaurien.behavior import DUMMY
from vaurien.bodies import check_name
from vaurien.catalog import Catalog, toxics
from vaurien.circles import refuse_circles
from vaurien.errors import UsageError
from vaurien.fitting import check, check_connect, together
from vaurien.options import Raw, find
from vaurien.plan import NOTHING, Plan, Toxic
from vaurien.settings.in_force import Settings
from vaurien.settings.table import DEFAULT, MAKES_DEFAULT, PROXY, instead

_SECTION = "proxy:"


@dataclass
class Written:
    """A proxy as it was written: its name, and what was given."""

    name: str
    raws: Mapping[str, Raw]
    where: Callable[[str], str]

    def get(self, word: str) -> Any:
        """A setting's value, or its default."""
        option, raw = PROXY[word], self.raws.get(word)
        return option.get_default() if raw is None else option.convert(raw.value, raw.where)

    def plan(self, catalog: Catalog, seed: int, common: Mapping[str, Any]) -> Plan:
        """What it is told to do; UsageError for what is wrong."""
        weighted = behavior.parse(self.get("behavior"), self.where("behavior"))
        meeting = NOTHING
        if self.get("on-connect") is not None:
            meeting = behavior.parse(self.get("on-connect"), self.where("on-connect"))
        names = [name for name in (*weighted.names, *meeting.names) if name != DUMMY]
        handlers = {name: catalog.stands_for(name) for name in names}
        protocol = self.get("protocol")
        registry.framer(protocol, self.where("protocol"))
        check(weighted, together(handlers), self.where("behavior"), protocol)
        check_connect(meeting, together(handlers), self.where("on-connect"))
        local = services.parse(self.get("local"), self.where("local"))
        distant = services.parse(self.get("distant"), self.where("distant"), port_zero=False)
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
            protocol=protocol,
            on_connect=meeting,
            toxics=pinned,
            **common,
        )


def proxies(
    settings: Settings,
    raws: Mapping[str, Raw],
    sections: Mapping[str, ini.Section],
    others: bool,
) -> list[Written]:
    """The proxies that are written in settings and sections; `others` says if there are more."""
    found = []
    for title, section in sections.items():
        if not title.startswith(_SECTION):
            continue
        name = title[len(_SECTION) :].strip()
        check_name(name, section.where)
        given: dict[str, Raw] = {}
        for word, raw in section.items():
            if hint := instead(word):
                raise UsageError(f"{raw.where}: there is no option of a proxy {word!r}; {hint}")
            option = find(PROXY, word, raw.where, "option of a proxy")
            if option.key in given:
                raise UsageError(f"{raw.where}: {option.key!r} is given twice; give it once")
            given[option.key] = raw
        if "distant" not in given:
            raise UsageError(f"{section.where}: distant is missing; give the backend's address")
        if "local" not in given:
            raise UsageError(f"{section.where}: local is missing; give where clients connect")

        def place(word: str, given: Mapping[str, Raw] = given, place: str = section.where) -> str:
            return given[word].where if word in given else f"{place} {word}"

        found.append(Written(name, given, place))
    if any(word in raws for word in MAKES_DEFAULT) or not (found or others):
        own = {word: raw for word, raw in raws.items() if word in PROXY and word != "seed"}
        found.insert(0, Written(DEFAULT, own, settings.where))
    else:
        for word in ("on-connect", "toxics", "protocol"):
            if word in raws:
                raise UsageError(
                    f"{raws[word].where}: this is for the proxy {DEFAULT!r}, and there is none;"
                    " give --local and --distant too, or put it into a [proxy:NAME] section"
                )
    return found


def refuse_one_name(plans: Sequence[Plan]) -> None:
    """UsageError if two proxies have one name."""
    names = Counter(plan.name for plan in plans)
    if doubled := next((name for name, n in names.items() if n > 1), None):
        raise UsageError(f"proxy {doubled!r} is there twice; give one another name")


def refuse_circle(plans: Sequence[Plan]) -> None:
    """UsageError if two or more proxies lead to each other."""
    refuse_circles((plan.name, plan.local, plan.distant) for plan in plans if plan.enabled)


def refuse_one_address(plans: Sequence[Plan]) -> None:
    """UsageError if two proxies are to listen at one address."""
    # Not each with each: thousands may listen at one port.
    taken: dict[Place, Plan] = {}
    at_port: dict[int, list[Plan]] = {}
    everywhere: dict[int, list[Plan]] = {}
    for plan in plans:
        places = plan.local.listens_as if plan.enabled else ()
        port = plan.local.port
        near = [taken[place] for place in places if place in taken]
        if any(host in ANY for host, _ in places):
            near += at_port.get(port, [])
            everywhere.setdefault(port, []).append(plan)
        elif places and not plan.local.path:
            near += everywhere.get(port, [])
        for other in near:
            if plan.local.meets(other.local):
                raise UsageError(
                    f"proxies {other.name!r} and {plan.name!r} both listen at {plan.local};"
                    " give one another port, or 0 for a free one"
                )
        taken.update(dict.fromkeys(places, plan))
        if places and not plan.local.path:
            at_port.setdefault(port, []).append(plan)
