"""The command line of ``vaurien``: from its words to flags and settings.

Law: made from the declared settings; nothing is declared twice. Handlers' options are taken out
before argparse sees them, for nobody knows all handlers before the settings are read.
"""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

import vaurien
from vaurien.cli.elsewhere import hint, is_single
from vaurien.cli.system import say
from vaurien.errors import UsageError
from vaurien.options import BOOLEANS, Raw, key, show
from vaurien.settings import SETTINGS, Settings, resolve

METAVARS = {
    "on-connect": "BEHAVIOR",
    "toxics": "TOXICS",
    "protocol": "NAME",
    "http-host": "HOST",
    "http-allowed-host": "NAMES",
    "http-token-file": "FILE",
    "max-held": "BYTES",
    "max-connections": "N",
    "journal": "FILE",
    "replay": "FILE",
    "log-output": "FILE",
    "statsd": "HOST:PORT",
    "timeout": "SECONDS",
    "connect-timeout": "SECONDS",
    "dns-ttl": "SECONDS",
    "keepalive": "SECONDS",
    "drain": "SECONDS",
    "spin": "MICROSECONDS",
    "backlog": "N",
}
_HANDLER_FLAG = "--handlers."
#: A behavior, as it is written without its flag: ``20:delay``, and not ``localhost:8000``.
_BEHAVIOR = re.compile(r"[0-9.]+:[A-Za-z][^:]*(,.*)?")

EPILOG = """\
Options of handlers are given as --handlers.NAME.OPTION VALUE; --list-handlers
shows them. Every setting can stand in the [vaurien] section of the INI file,
and in the environment, as VAURIEN_LOCAL and so on; the command line wins over
the environment, the environment over the file.

examples:
  vaurien --local 127.0.0.1:8000 --distant 127.0.0.1:6379 --behavior 20:delay
  vaurien --distant 127.0.0.1:6379 --behavior 10:delay,5:reset --handlers.delay.sleep 0.5
  vaurien --config vaurien.ini --check
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours, with the nearest flag."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message.removesuffix("\n"))


@cache
def parser() -> argparse.ArgumentParser:
    """The parser of the command line, made from the declared settings; one, for reloads too."""
    made = _Parser(
        prog="vaurien",
        description="A chaos TCP proxy: stands between an application and its backend and\n"
        "injects faults into a chosen share of the exchanges.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--config",
        metavar="FILE",
        action=_Once,
        help="An INI file with settings, proxies and handlers, or a JSON file with proxies",
    )
    for option in SETTINGS:
        default = "" if option.default is None else f" (default: {show(option.default)})"
        if option.type is bool:
            add(f"--{option.name}", metavar="yes|no", help=option.description, action=_Once)
            continue
        choices = f": {', '.join(option.choices)}" if option.choices else ""
        help_text = f"{option.description}{choices}{default}".replace("%", "%%")
        metavar = METAVARS.get(option.name, option.name.rpartition("-")[2].upper())
        add(f"--{option.name}", metavar=metavar, help=help_text, action=_Once)
    add("--handlers.NAME.OPTION", metavar="VALUE", help="An option of a handler")
    add("--check", action="store_true", help="Validate and print the settings, listen to nothing")
    add("--list-handlers", action="store_true", help="Print all handlers with their options")
    add("--demo", action="store_true", help="Show what it does, with a backend and client inside")
    add("--parent-fd", type=int, help=argparse.SUPPRESS)  # see vaurien.kit.process
    add("--version", action="version", version=f"vaurien {vaurien.__version__}")
    return made


class _Once(argparse.Action):
    """Stores a value; a second one is refused rather than dropped."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice; give it once")
        setattr(namespace, self.dest, values)


def _known() -> list[str]:
    """The flags that there are, but for those that nobody types."""
    shown = [action for action in parser()._actions if action.help != argparse.SUPPRESS]
    return [name for action in shown for name in action.option_strings]


def split(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, Raw]]]:
    """The arguments without the handlers' options, each value joined to its flag, and those."""
    takes_value = {f"--{option.name}" for option in SETTINGS} | {"--config"}
    switches = {f"--{option.name}" for option in SETTINGS if option.type is bool}
    rest: list[str] = []
    handlers: list[tuple[str, Raw]] = []
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        flag, equals, value = argument.partition("=")
        if is_single(argument):  # which argparse would take apart: -host is -h, then -o
            raise UsageError(
                f"unknown argument {argument!r}; {hint(argument, arguments, _known())}"
            )
        flag = "--" + key(flag[2:]) if flag.startswith("--") and "." not in flag else flag
        wanted = flag in takes_value or flag.startswith(_HANDLER_FLAG)
        if flag in switches and not equals:
            value = waiting.popleft() if waiting and waiting[0].lower() in BOOLEANS else "yes"
        elif wanted and not equals:
            if not waiting:
                raise UsageError(f"{flag} needs a value; write {flag} VALUE")
            value = waiting.popleft()
        if flag.startswith(_HANDLER_FLAG):
            path = flag[len(_HANDLER_FLAG) :]
            if not all(path.rpartition(".")[::2]):
                raise UsageError(f"{flag}: write --handlers.NAME.OPTION VALUE")
            if any(key(path) == key(other) for other, _ in handlers):
                raise UsageError(f"{flag} is given twice; give it once")
            handlers.append((path, Raw(value, flag)))
        else:
            rest.append(f"{flag}={value}" if wanted else argument)
    return rest, handlers


def read(
    arguments: Sequence[str], running: Settings | None = None
) -> tuple[argparse.Namespace, Settings]:
    """The command line's flags, and the settings; see `resolve` for those that are `running`."""
    rest, handlers = split(arguments)
    made = parser()
    flags, unknown = made.parse_known_args(rest)
    if unknown:
        word = unknown[0]
        way = (
            f"write --behavior {word}"
            if _BEHAVIOR.fullmatch(word)
            else hint(word, arguments, _known())
        )
        raise UsageError(f"unknown argument {word!r}; {way}")
    modes = ("check", "list_handlers", "demo")
    chosen = [f"--{key(mode)}" for mode in modes if getattr(flags, mode)]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} exclude each other; leave one of them out")
    given = {
        name: Raw(value, f"--{name}")
        for name in ("config", *(option.key for option in SETTINGS))
        if (value := getattr(flags, name.replace("-", "_"))) is not None
    }
    # The program that starts a Vaurien for itself asks it for its port.
    defaults = {} if flags.parent_fd is None else {"http-port": 0}
    settings = resolve(given, handlers, running=running, defaults=defaults)
    if flags.demo and settings.has_api:
        raise UsageError("--demo has no control API; leave out --http and --toxiproxy")
    return flags, settings
