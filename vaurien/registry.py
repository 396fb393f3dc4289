"""Which class a handler name stands for: built-ins, entry points, dotted paths; and its checks.

Law: what is wrong with a class is found here, before anything listens, and said with its name.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from vaurien import options as options_
from vaurien.errors import UsageError, nearest
from vaurien.kinds import Kind, is_flow, is_left_open, is_message, kind_of
from vaurien.options import Option

GROUP = "vaurien.handlers"
TCP = "tcp"


@cache
def builtins() -> Mapping[str, type]:
    """The built-in handlers by name, in alphabetical order: those in the modules beside this."""
    package = importlib.import_module("vaurien.handlers")
    found: dict[str, type] = {}
    for module_info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"vaurien.handlers.{module_info.name}")
        for cls in vars(module).values():
            if (
                isinstance(cls, type)
                and hasattr(cls, "works_on")
                and cls.__module__ == module.__name__
                and (name := getattr(cls, "name", ""))
            ):
                found[name] = cls
    return dict(sorted(found.items()))


@cache
def installed() -> Mapping[str, Any]:
    """The entry points of other packages in the group ``vaurien.handlers``, not yet loaded."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def known() -> list[str]:
    """Every name that stands for a handler without being configured."""
    return sorted({*builtins(), *installed()})


def find(name: str, where: str) -> type:
    """The class that `name` stands for: a built-in, an entry point, or a dotted path."""
    if name in builtins():
        return builtins()[name]
    if name in installed():
        try:
            return check(installed()[name].load(), where, name)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{where}: the installed handler {name!r} does not load: {_said(error)}"
            ) from error
    if "." in name:
        return load(name, where)
    raise UsageError(f"{where}: there is no handler {name!r}; {nearest(name, known(), 'handlers')}")


def load(path: str, where: str) -> type:
    """The handler class at the dotted `path`, such as ``package.module.Class``."""
    module_name, _, class_name = path.rpartition(".")
    if not module_name or not all(piece.isidentifier() for piece in path.split(".")):
        raise UsageError(f"{where}: {path!r} is not a dotted path; write package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        own = module_name == missing or module_name.startswith(missing + ".")
        hint = (
            "it is looked for in the working directory and on PYTHONPATH"
            if own
            else f"{module_name!r} imports it"
        )
        raise UsageError(
            f"{where}: {path!r} does not import: no module {missing!r}; {hint}"
        ) from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where}: {path!r} does not import: {_said(error)}") from error
    try:
        found = getattr(module, class_name)
    except AttributeError:
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and hasattr(v, "name")]
        raise UsageError(
            f"{where}: module {module_name!r} has no {class_name!r};"
            f" {nearest(class_name, classes, 'handlers in it')}"
        ) from None
    return check(found, where, path)


def protocol(text: str) -> str:
    """The name of a protocol, as a setting: ``tcp``, or a dotted path; ValueError if neither."""
    if text != TCP and "." not in text:
        raise ValueError(f"there is {TCP!r}; for one of your own, write package.module.Class")
    return text


def framer(name: str, where: str) -> Callable[[], Any] | None:
    """What makes a framer of the protocol `name`, None for ``tcp``, which the pump itself does.

    A name with points in it is the dotted path of a class, see `vaurien.protocols.framer`.
    UsageError, which begins with `where`, if there is none.
    """
    if name == TCP:
        return None
    module, _, cls = name.rpartition(".")
    wanted = f"give the dotted path of a framer's class, or {TCP}"
    try:
        found: Callable[[], Any] = getattr(importlib.import_module(module), cls)
        made = found()
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UsageError(f"{where}: {name!r} makes no framer ({_said(error)}); {wanted}") from error
    if not all(callable(getattr(made, method, None)) for method in ("feed", "instead")):
        raise UsageError(f"{where}: {name!r} is not a framer, with feed() and instead(); {wanted}")
    return found


def check(found: object, where: str, name: str) -> type:
    """`found` if it is a handler class: ``name``, ``options``, ``__call__``, (settings, proxy)."""
    if not isinstance(found, type):
        kind = "a function" if inspect.isfunction(found) else f"of type {type(found).__name__}"
        raise UsageError(f"{where}: {name!r} is {kind}; a handler is a class")
    own_name = getattr(found, "name", None)
    if not isinstance(own_name, str) or not own_name:
        raise UsageError(f"{where}: {name!r} is not a handler: give the class a `name`")
    if not isinstance(getattr(found, "options", None), Mapping):
        raise UsageError(
            f"{where}: {name!r} is not a handler: give the class a mapping `options` (it may be"
            " empty)"
        )
    if is_flow(found):
        if is_left_open(getattr(found, "on", None)):
            raise UsageError(
                f"{where}: {name!r} is not a flow handler: give the class on(self, event, now)"
            )
        options_of(found, where)
        return found
    if is_message(found):
        if is_left_open(getattr(found, "on_request", None)):
            raise UsageError(
                f"{where}: {name!r} is not a message handler: give the class"
                " on_request(self, request)"
            )
        if not _takes(found, 2):
            raise UsageError(
                f"{where}: {name!r} is not a handler: its __init__ has to take (options, proxy)"
            )
        options_of(found, where)
        return found
    # not by getattr, which would find the metaclass's
    call = next(
        (vars(base)["__call__"] for base in found.__mro__ if "__call__" in vars(base)), None
    )
    if is_left_open(call) or not _takes(call, 4):
        raise UsageError(
            f"{where}: {name!r} is not a handler:"
            " give the class __call__(self, client_sock, backend_sock, to_backend)"
            + (", or let it inherit from FlowHandler" if hasattr(found, "on") else "")
        )
    if not _takes(found, 2):
        raise UsageError(
            f"{where}: {name!r} is not a handler: its __init__ has to take (settings, proxy)"
        )
    options_of(found, where)
    return found


def options_of(cls: type, where: str = "") -> dict[str, Option]:
    """The declared options of a handler class, by key."""
    try:
        return options_.declared(cls.options)  # type: ignore[attr-defined]
    except ValueError as error:
        raise UsageError(f"{where or cls.__name__}: {cls.__name__!r}: {error}") from None


def kind(cls: type) -> Kind:
    """What a handler class works on."""
    return kind_of(cls)


def summary(cls: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _takes(function: Any, n: int) -> bool:
    """Whether `function` can be called with `n` positional arguments."""
    if function is None or not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[None] * n)
    except TypeError:
        return False
    except ValueError:  # no signature to be had (written in C)
        return True
    return True


def _said(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
