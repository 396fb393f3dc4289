"""Framers: which exchange a byte belongs to. One module or package each; all are pure."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from vaurien.errors import UsageError
from vaurien.protocols.framer import Framer

#: The protocol that tells nothing apart; the pump does for itself what its framer says.
TCP = "tcp"


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
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{where}: {name!r} is not a protocol ({error}); there is {TCP}, or write the dotted"
            " path of a framer's class"
        ) from None
    return found
