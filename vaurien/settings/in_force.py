"""The settings in force: every value, where it came from, and what becomes of them all.

Law: a value never travels without its source, so that each message can name what to change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaurien.access import Access
from vaurien.address import Address
from vaurien.catalog import Catalog
from vaurien.control.replayed import Timed
from vaurien.options import key
from vaurien.plan import Plan


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
        names = (
            *("max-held", "timeout", "connect-timeout", "dns-ttl", "max-connections"),
            *("keepalive", "backlog"),
        )
        return {name.replace("-", "_"): self.values[name] for name in names}
