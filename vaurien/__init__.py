"""Vaurien, a chaos TCP proxy. Importing it patches nothing; only the command line does.

Law: what a name needs is imported when it is first asked for, so that a program that only steers a
Vaurien, as ``vaurienctl`` does, needs no gevent and starts in no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaurien.client import Client
    from vaurien.errors import (
        ClientError,
        HandlerDeadlock,
        ListenError,
        Unreachable,
        UsageError,
        VaurienError,
    )
    from vaurien.handlers.message import MessageHandler
    from vaurien.kit.process import start_proxy, stop_proxy
    from vaurien.plan import Plan, Specification, Toxic
    from vaurien.relay.proxy import Proxy

__all__ = [
    "Client",
    "ClientError",
    "HandlerDeadlock",
    "ListenError",
    "MessageHandler",
    "Plan",
    "Proxy",
    "Specification",
    "Toxic",
    "Unreachable",
    "UsageError",
    "VaurienError",
    "__version__",
    "start_proxy",
    "stop_proxy",
]

__version__ = "2.0.0.dev0"

_MODULES = {
    "Client": "client",
    "MessageHandler": "handlers.message",
    "Plan": "plan",
    "Proxy": "relay.proxy",
    "Specification": "plan",
    "Toxic": "plan",
    "start_proxy": "kit.process",
    "stop_proxy": "kit.process",
}


def __getattr__(name: str) -> Any:
    """A public name, imported now; `errors` has those that are not in the table."""
    if name.startswith("__") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
