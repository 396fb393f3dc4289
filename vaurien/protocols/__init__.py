"""Framers: which exchange a byte belongs to. One module or package each; all are pure."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from vaurien.errors import RAISED, UsageError
from vaurien.protocols.framer import Framer

#: The protocol that tells nothing apart; the pump does for itself what its framer says.
TCP = "tcp"


def named(text: str) -> str:
    """The name of a protocol, as a setting: ``tcp``, or a dotted path; ValueError if neither."""
    if text != TCP and "." not in text:
        raise ValueError(f"there is {TCP!r}; for one of your own, write package.module.Class")
    return text


def find(name: str, where: str = "protocol") -> Callable[[], Framer] | None:
    """What makes a framer of the protocol `name`, None for ``tcp``.

    A name with points in it is the dotted path of a class. UsageError, which begins with `where`,
    if there is none.
    """
    if name == TCP:
        return None
    module, _, cls = name.rpartition(".")
    try:
        found: Callable[[], Framer] = getattr(importlib.import_module(module), cls)
        made = found()
    except RAISED as error:  # a user's module may raise anything
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"{where}: {name!r} makes no framer ({said}); {_WANTED}") from error
    if not all(callable(getattr(made, method, None)) for method in ("feed", "instead")):
        raise UsageError(f"{where}: {name!r} is no framer, with feed() and instead(); {_WANTED}")
    return found


_WANTED = f"give the dotted path of a framer's class, or {TCP}"
