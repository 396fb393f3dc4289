"""Takes away, in every Python that starts with this on PYTHONPATH, what only Linux has.

So the tests run as on a Mac and, for what they can, as on Windows: the calls are gone before
anything else is imported, in pytest, its workers and every ``vaurien`` that they start. It is done
from outside: Vaurien has no switch for it. ``make test-all`` runs the core of the tests so.
"""

from __future__ import annotations

import _socket
import builtins
import ctypes
import os
import select
import signal
import socket
import sys
from typing import Any

#: Linux has these alone, or Windows lacks them; each module has the names that are taken from it.
NAMES = {
    os: (
        "pidfd_open",
        "sched_yield",
        "sched_getaffinity",
        "sched_setaffinity",
        "timerfd_create",
        "timerfd_settime",
        "timerfd_settime_ns",
        "eventfd",
    ),
    select: ("epoll",),
    signal: ("SIGHUP", "SIGUSR1", "pidfd_send_signal"),
    socket: ("SO_PEERCRED", "SOCK_NONBLOCK", "SOCK_CLOEXEC"),
    _socket: ("SO_PEERCRED", "SOCK_NONBLOCK", "SOCK_CLOEXEC"),
}
#: Functions of the C library.
SYMBOLS = ("timerfd_create", "timerfd_settime", "timerfd_gettime", "sched_yield", "eventfd")
MODULES = ("resource",)  # Windows has none


def hide() -> None:
    """Take all of them away."""
    for module, names in NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
            listed = getattr(module, "__all__", [])
            if name in listed:
                listed.remove(name)
    _hide_symbols()
    if "vaurien" in sys.orig_argv:  # the tests themselves look at processes with these
        _hide_proc()
        for name in MODULES:
            sys.modules[name] = None  # type: ignore[assignment]  # its import is an ImportError


def _hide_symbols() -> None:
    find = ctypes.CDLL.__getitem__

    def found(self: ctypes.CDLL, name: Any) -> Any:
        if name in SYMBOLS:
            raise AttributeError(f"there is no function {name}")
        return find(self, name)

    ctypes.CDLL.__getitem__ = found  # type: ignore[method-assign]


def _hide_proc() -> None:
    def hiding(call: Any) -> Any:
        def checked(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith("/proc"):
                raise FileNotFoundError(2, "there is no /proc", path)
            return call(path, *args, **kwargs)

        return checked

    builtins.open = hiding(builtins.open)
    for name in ("listdir", "stat", "readlink", "scandir"):
        setattr(os, name, hiding(getattr(os, name)))


hide()
