"""Vaurien, a chaos TCP proxy. Importing it patches nothing; only the command line does."""

from vaurien.errors import HandlerDeadlock, ListenError, UsageError, VaurienError
from vaurien.plan import Plan, Specification, Toxic
from vaurien.proxy import Proxy

__all__ = [
    "HandlerDeadlock",
    "ListenError",
    "Plan",
    "Proxy",
    "Specification",
    "Toxic",
    "UsageError",
    "VaurienError",
    "__version__",
]

__version__ = "2.0.0.dev0"
