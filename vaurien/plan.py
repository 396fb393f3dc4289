"""A plan: all that one proxy is to do, checked and frozen.

Law: immutable. To change a proxy is to swap its plan, so that what has begun with one plan ends
with it, and a change is one assignment, of which nothing can see a half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vaurien.address import Address
from vaurien.behavior import DUMMY, Behavior
from vaurien.errors import UsageError
from vaurien.fitting import Handlers, check, check_connect, order, refuse_length, together
from vaurien.kinds import closes_listener
from vaurien.specification import POINTS, STREAM, Specification, framework, specify

__all__ = [  # with what a plan is made of
    "NOTHING",
    "POINTS",
    "STREAM",
    "Decisions",
    "Handlers",
    "Plan",
    "Specification",
    "Toxic",
    "check",
    "check_connect",
    "framework",
    "order",
    "specify",
    "together",
]

#: No handler meets a connection before it is opened.
NOTHING = Behavior(())

#: Which part of a behavior deals with (connection, exchange), in place of a draw; what is not there
#: is dummy.
Decisions = Mapping[tuple[int, int], str]


@dataclass(frozen=True)
class Toxic:
    """A flow handler pinned to a proxy: it acts on all exchanges of the connections that it hits.

    It hits a connection when the draw made for the two is below `toxicity` (0 to 1). The name of
    its specification is its own, and unique in its proxy. `type` is what it was asked by, a
    handler's name; `stream` is as it was written, in any case.
    """

    specification: Specification
    toxicity: float = 1.0
    type: str = ""
    stream: str = ""

    def __post_init__(self) -> None:
        if not self.specification.is_flow:
            raise UsageError(f"toxic {self.name!r}: {self.specification.cls} is not a flow handler")
        for word in sorted(set(self.specification.given) - set(STREAM)):
            raise UsageError(
                f"toxic {self.name!r}: {word} is for what a behavior picks, and a toxic acts on all"
                " exchanges; leave it out"
            )
        refuse_length(self.specification, f"toxic {self.name!r}")
        if not 0 <= self.toxicity <= 1:
            raise UsageError(f"toxic {self.name!r}: toxicity {self.toxicity} is not from 0 to 1")
        spec = self.specification
        if not self.type:
            object.__setattr__(self, "type", spec.cls.name)  # type: ignore[attr-defined]
        if not self.stream:
            both, up = all(map(spec.acts, (True, False))), spec.acts(True)
            stream = "both" if both else "upstream" if up else "downstream"
            object.__setattr__(self, "stream", stream)

    @property
    def name(self) -> str:
        """Its name."""
        return self.specification.name

    def same_kind(self, other: Toxic) -> bool:
        """Whether one can be updated to the other: of one class, and in one stream."""
        mine, its = self.specification, other.specification
        return mine.cls is its.cls and all(
            mine.acts(flow) == its.acts(flow) for flow in (False, True)
        )


@dataclass(frozen=True)
class Plan:
    """What one proxy does. Times are in seconds, sizes in bytes.

    `timeout` 0 and `max_connections` 0 mean none, `dns_ttl` 0 a lookup before each dial,
    `keepalive` 0 no probes. `handlers` has the specifications for each name in `behavior` and in
    `on_connect` but dummy: one, or several for a preset.
    """

    local: Address
    distant: Address
    behavior: Behavior
    handlers: Handlers
    seed: int
    name: str = "default"
    enabled: bool = True
    protocol: str = "tcp"
    timeout: float = 0.0
    connect_timeout: float = 10.0
    dns_ttl: float = 5.0
    keepalive: int = 15
    max_connections: int = 0
    backlog: int = 1024
    max_held: int = 1 << 20
    on_connect: Behavior = NOTHING
    toxics: tuple[Toxic, ...] = ()
    decisions: Decisions | None = None
    connect_decisions: Decisions | None = None

    def specifications(self, combination: str) -> tuple[Specification, ...]:
        """What the handlers joined by ``+`` in `combination` are; nothing for dummy."""
        return together(self.handlers)(combination)

    def __post_init__(self) -> None:
        counted = Counter(toxic.name for toxic in self.toxics)
        if doubled := [name for name, n in counted.items() if n > 1]:
            raise UsageError(f"toxic {doubled[0]!r} is there twice; give one another name")
        check(self.behavior, self.specifications, "behavior", self.protocol)
        replayed = self.connect_decisions is not None
        check_connect(self.on_connect, self.specifications, "on_connect", replayed)

    @property
    def where(self) -> str:
        """The setting that says where it listens, for messages."""
        return "--local" if self.name == "default" else f"proxy {self.name!r}: local"

    @property
    def is_quiet(self) -> bool:
        """True when nothing but dummy can ever be picked, so that no draw is needed."""
        if self.decisions is not None:
            return not self.decisions
        return not any(weight and name != DUMMY for weight, name in self.behavior.parts)

    @property
    def goes_down(self) -> bool:
        """Whether `down` may have it that it does not listen."""
        met = (spec for name in self.on_connect.names for spec in self.specifications(name))
        return any(closes_listener(spec.cls) for spec in met)
