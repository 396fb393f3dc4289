"""A plan: all that one proxy is told to do, checked and frozen.

Law: immutable. Changing a proxy means swapping its plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vaurien import behavior as behavior_
from vaurien.address import Address
from vaurien.behavior import ALWAYS, Behavior, Points
from vaurien.options import Values, fill, show


@dataclass(frozen=True)
class Specification:
    """One handler as configured: its name here, its class and its options.

    A plain mapping of options is converted and completed with the defaults; UsageError if it has a
    name that the class does not declare, or a value that does not convert.
    """

    name: str
    cls: type
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Values):
            values = fill(self.cls.options, self.options, self.name)  # type: ignore[attr-defined]
            object.__setattr__(self, "options", values)

    @property
    def points(self) -> Points:
        """The exact points that the class's options stand for."""
        words: Mapping[str, str] = getattr(self.cls, "points", {})
        if not words:
            return ALWAYS

        def value(word: str, default: Any) -> Any:
            return self.options[words[word]] if word in words else default

        return Points(
            value("after", 0), value("times", None), value("scope", "connection") == "proxy"
        )

    def __str__(self) -> str:
        values = " ".join(f"{name}={show(value)}" for name, value in self.options.items())
        return f"{self.name} {values}".rstrip()


@dataclass(frozen=True)
class Plan:
    """What one proxy does. Times are in seconds.

    `timeout` 0 and `max_connections` 0 mean none. `handlers` has a specification for each name in
    `behavior` but dummy.
    """

    local: Address
    distant: Address
    behavior: Behavior
    handlers: Mapping[str, Specification]
    seed: int
    name: str = "default"
    timeout: float = 0.0
    connect_timeout: float = 10.0
    max_connections: int = 0
    backlog: int = 1024
    spin: int = 0

    @property
    def choices(self) -> tuple[Specification | None, ...]:
        """What each part of the behavior picks, None for dummy; one more for what is left."""
        return (*(self.handlers.get(name) for _, name in self.behavior.parts), None)

    @property
    def is_quiet(self) -> bool:
        """True when nothing but dummy can ever be picked, so that no draw is needed."""
        return not any(weight and name in self.handlers for weight, name in self.behavior.parts)

    @property
    def cuts(self) -> list[bytes]:
        """See `vaurien.behavior.cuts`."""
        return behavior_.cuts(self.behavior)
