"""What a handler forks is not another Vaurien: its listeners are closed in the child.

Else the child would have the address after we have gone, and clients in its backlog that nobody
serves. What it has of open connections is its own affair, as with every program that forks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

_listeners: WeakSet[Any] = WeakSet()


def close_in_child(listener: Any) -> None:
    """Call ``listener.forked()`` in each process that is forked while it is there."""
    _listeners.add(listener)


def _in_child() -> None:
    for listener in list(_listeners):
        with contextlib.suppress(Exception):  # it is half made, or half closed
            listener.forked()


_register: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_in_child)
