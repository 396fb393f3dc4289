"""What a handler class works on, told without importing the class's base.

Law: ground. Plans, the catalog and the registry ask here, so that no arrow runs from what is
configured up to those who carry it out. Classes of users need not inherit from ours: one that says
nothing works on sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

Kind = Literal["socket", "flow", "connect", "message"]

#: The directions in which a flow handler may act, as users write them.
STREAMS = ("downstream", "upstream", "both")

F = TypeVar("F", bound=Callable[..., Any])


def kind_of(cls: type) -> Kind:
    """What `cls` works on; its base class says so in `works_on`."""
    found: Kind = getattr(cls, "works_on", "socket")
    return found


def is_flow(cls: type) -> bool:
    """Whether `cls` works on the events of a flow."""
    return kind_of(cls) == "flow"


def is_connect(cls: type) -> bool:
    """Whether `cls` meets clients."""
    return kind_of(cls) == "connect"


def is_message(cls: type) -> bool:
    """Whether `cls` decides what becomes of requests."""
    return kind_of(cls) == "message"


def closes_listener(cls: type) -> bool:
    """Whether `cls` meets clients by having nobody listen for them, as ``down`` does."""
    return bool(getattr(cls, "closes_listener", False))


def left_open(method: F) -> F:
    """Mark a method of a base class that a subclass has to write."""
    method.left_open = True  # type: ignore[attr-defined]
    return method


def is_left_open(method: object) -> bool:
    """Whether nobody has written that method yet."""
    return bool(getattr(method, "left_open", False))
