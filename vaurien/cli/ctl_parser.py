"""The command line of ``vaurienctl``: its commands, their arguments, and what completes these.

Law: wrong usage is refused here, with the nearest right word, before anybody is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import vaurien
from vaurien.cli import completion
from vaurien.cli import ctl_commands as do
from vaurien.cli.completion import kind
from vaurien.cli.ctl_commands import WAIT, Ask
from vaurien.client import FILE_VARIABLE, HOST_VARIABLE, TIMEOUT, TOKEN_VARIABLE
from vaurien.errors import UsageError, nearest
from vaurien.settings.table import ELSEWHERE

DONE, REFUSED, USAGE, UNREACHABLE, MISSING = 0, 1, 2, 3, 4

EPILOG = f"""\
Options of handlers are words NAME=VALUE. On a terminal there are tables; in a
pipe each row is a line with tabs between its cells; with --json it is what the
API says.

exit codes:
  {DONE}  done
  {REFUSED}  the API refused
  {USAGE}  wrong usage
  {UNREACHABLE}  the API cannot be reached, or `wait` ran out of time
  {MISSING}  there is no such proxy, toxic or connection

environment:
  {HOST_VARIABLE}        where the API is, as --host
  {TOKEN_VARIABLE}  its token, as --token; or {FILE_VARIABLE}, the file that has it

examples:
  vaurienctl create redis --distant 127.0.0.1:6379 --behavior 20:delay
  vaurienctl set-handler delay sleep=2 --proxy redis --ttl 30
  vaurienctl toxic add redis latency latency=100 jitter=10 --toxicity 0.5
  vaurienctl connections redis --drop all
  source <(vaurienctl completion bash)
"""

Run = Callable[[Ask], None]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        sentence = message.removeprefix("argument ")
        raise UsageError(f"{command}: {sentence}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stdout).write(message)  # argparse's own swallows what goes wrong


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < 1e9:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a time; give seconds, more than 0")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (number := float(text)) <= 1:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a share; give a number from 0 to 1")


def _number_or_all(text: str) -> int | str:
    return text if text == "all" else _count(text)


def _common() -> _Parser:
    """The flags that every command takes."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("where and how")
    group.add_argument(
        "--host",
        metavar="ADDRESS",
        help="Where the API is: HOST, HOST:PORT or unix:PATH (default: the environment's"
        f" {HOST_VARIABLE}, else localhost:8080)",
    )
    group.add_argument(
        "--token",
        metavar="TOKEN",
        help=f"The API's token (default: the environment's {TOKEN_VARIABLE}, which is not for all"
        " to see)",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help=f"How long to wait for an answer (default: {TIMEOUT:g}); `wait`: until Vaurien is"
        f" ready (default: {WAIT:g})",
    )
    group.add_argument("--json", action="store_true", help="Print JSON")
    return common


def parser() -> argparse.ArgumentParser:
    """The parser of the command line: all commands, with what completes their arguments."""
    common = _common()
    made = _Parser(
        prog="vaurienctl",
        description="Steers a running Vaurien by its HTTP API (vaurien --http).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[common],
    )
    made.add_argument("--version", action="version", version=f"vaurienctl {vaurien.__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, run: Run, summary: str, group: Any = commands
    ) -> Callable[..., argparse.Action]:
        sub = group.add_parser(
            name, help=summary, description=f"{summary}.", parents=[common], allow_abbrev=False
        )
        sub.set_defaults(run=run)

        def argument(*names: str, by: str = "", **how: Any) -> argparse.Action:
            action = sub.add_argument(*names, **how)
            return kind(action, by) if by else action

        return argument

    ttl = {"metavar": "SECONDS", "type": _seconds}
    back = {**ttl, "help": "After this many seconds the former state comes back"}
    first = {"metavar": "NAME", "by": "proxy", "help": "The proxy (default: the first)"}
    optional = {"metavar": "PROXY", "nargs": "?", "by": "proxy", "help": "One only (default: all)"}
    options = {
        "nargs": "*",
        "default": (),  # else argparse names it among what is required
        "metavar": "OPTION=VALUE",
        "help": "Options; others have defaults",
    }
    local = {"metavar": "ADDRESS", "help": "Where clients connect: HOST:PORT"}
    distant = {"metavar": "ADDRESS", "help": "The backend: HOST:PORT"}

    command("list", do.list_, "List the proxies")
    add = command("show", do.show, "Show all about a proxy")
    add("name", metavar="NAME", by="proxy", help="The proxy")

    add = command("create", do.create, "Create a proxy")
    add("name", metavar="NAME", help="Its name")
    add("--distant", required=True, **distant)
    add("--local", default="127.0.0.1:0", **local)
    add("--behavior", metavar="CHOICE", by="weighted", help="Which handlers deal with which share")
    add("--on-connect", metavar="CHOICE", by="weighted_connect", help="Which handlers meet clients")
    add("--protocol", metavar="PROTOCOL", help="Where messages begin (default: tcp)")
    add("--seed", metavar="N", type=_whole, help="The seed of all random decisions")
    add("--disabled", action="store_true", help="Do not listen yet")
    add("--ttl", **{**ttl, "help": "After this many seconds it is removed"})
    add = command("change", do.change, "Change the addresses of a proxy; drops its connections")
    add("name", metavar="NAME", by="proxy", help="The proxy")
    add("--distant", **distant)
    add("--local", **local)
    add = command("delete", do.delete, "Delete proxies")
    add("names", metavar="NAME", nargs="+", by="proxy", help="The proxies")
    add = command("enable", do.enable, "Let proxies listen")
    add("names", metavar="NAME", nargs="+", by="proxy", help="The proxies")
    add("--ttl", **back)
    add = command("disable", do.disable, "Let proxies listen no longer, and drop connections")
    add("names", metavar="NAME", nargs="+", by="proxy", help="The proxies")
    add("--ttl", **back)

    add = command("set-handler", do.set_handler, "Let one handler deal with all exchanges")
    add("handler", metavar="HANDLER", by="handler", help="Its name")
    add("options", by="options", **options)
    add("--proxy", **first)
    add("--ttl", **back)
    add = command("get-handler", do.get_handler, "Show which handler deals with all exchanges")
    add("--proxy", **first)
    add = command("list-handlers", do.list_handlers, "List the handlers, or the options of one")
    add("handler", metavar="HANDLER", nargs="?", by="any_handler", help="Its name")
    add = command(
        "behavior", do.behavior, "Show or set the handlers and their shares of the exchanges"
    )
    add(
        "words",
        metavar="CHOICE|HANDLER.OPTION=VALUE",
        nargs="*",
        by="weighted",
        help="Such as 20:delay,5:error delay.sleep=2; without, it is shown",
    )
    add("--on-connect", metavar="CHOICE", by="weighted_connect", help="The same for clients that"
        " connect, such as 10:refuse; none for none")  # fmt: skip
    add("--proxy", **first)
    add("--ttl", **back)

    group = commands.add_parser(
        "toxic", help="Pin handlers to all connections of a proxy", description="Pin flow handlers"
        " to all connections of a proxy.", parents=[common], allow_abbrev=False,
    )  # fmt: skip
    toxics = group.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    add = command("list", do.toxic_list, "List the toxics of a proxy", toxics)
    add("proxy", metavar="PROXY", by="proxy", help="The proxy")
    add = command("add", do.toxic_add, "Add a toxic", toxics)
    add("proxy", metavar="PROXY", by="proxy", help="The proxy")
    add("type", metavar="HANDLER", by="toxic_type", help="A flow handler, such as latency")
    add("options", by="attributes", **options)
    add("--name", metavar="NAME", help="Its name (default: HANDLER_STREAM)")
    add("--stream", choices=("upstream", "downstream", "both"), help="Default: downstream")
    add("--toxicity", metavar="SHARE", type=_share, help="Of the connections (default: 1)")
    add("--ttl", **{**ttl, "help": "After this many seconds it is removed"})
    add = command(
        "update", do.toxic_update, "Change attributes of a toxic, or its toxicity", toxics
    )
    add("proxy", metavar="PROXY", by="proxy", help="The proxy")
    add("toxic", metavar="TOXIC", by="toxic", help="Its name")
    add("options", by="toxic_attributes", **{**options, "help": "What changes; the others stay"})
    add("--toxicity", metavar="SHARE", type=_share, help="Of the connections")
    add("--ttl", **back)
    add = command("remove", do.toxic_remove, "Remove toxics", toxics)
    add("proxy", metavar="PROXY", by="proxy", help="The proxy")
    add("toxics", metavar="TOXIC", nargs="+", by="toxic", help="Their names")

    add = command("reset", do.reset, "Enable, remove toxics, pass everything on")
    add("proxy", **optional)
    add = command("connections", do.connections, "List open connections, or drop them")
    add("proxy", **optional)
    add("--drop", metavar="N|all", type=_number_or_all, by="connection", help="End it, or them")
    add("--how", choices=("fin", "reset"), help="Politely (default) or not")
    add = command("watch", do.watch, "Show the traffic, again and again")
    add("proxy", **optional)
    add("--interval", metavar="SECONDS", type=_seconds, default=1.0, help="Default: 1")
    add("--count", metavar="N", type=_count, help="How many times (default: until Ctrl-C)")
    add = command("events", do.events, "Show what happens, as it happens")
    add("proxy", **optional)
    add("--count", metavar="N", type=_count, help="How many (default: until Ctrl-C)")
    add = command("journal", do.journal, "Show the last exchanges that a handler touched")
    add("proxy", **optional)
    add("--limit", metavar="N", type=_count, help="The most lines: the last ones")
    command("reload", do.reload, "Read the files again")
    command("wait", do.wait, "Wait until Vaurien is ready")
    shell = commands.add_parser(
        "completion", help="Print a shell's script", allow_abbrev=False,
        description="Print the script that lets a shell complete vaurienctl's words.",
        parents=[common],
    )  # fmt: skip
    shells = sorted(completion.SCRIPTS)
    shell.add_argument("shell", choices=shells, metavar=f"{{{','.join(shells)}}}", help="The shell")
    return made


def arrange(made: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The arguments as argparse understands all of them: commands, flags, then the rest.

    Values are joined to their flags, for they may begin with ``-``. UsageError for a command that
    is none and for a flag that is given twice or lacks its value.
    """
    takes_value = set(_flags_with_value(made))
    flags: dict[str, str] = {}
    rest: list[str] = []
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        if argument == "--":
            rest += waiting
            break
        if not argument.startswith("-") or argument == "-":
            rest.append(argument)
            continue
        flag, equals, _ = argument.partition("=")
        if flag in flags:
            raise UsageError(f"{flag} is given twice; give it once")
        if flag in takes_value and not equals:
            if not waiting:
                raise UsageError(f"{flag} needs a value; write {flag} VALUE")
            argument = f"{flag}={waiting.popleft()}"
        flags[flag] = argument
    place, commands = made, list[str]()
    while (inner := completion._subparsers(place)) is not None and rest:
        word = rest.pop(0)
        if word not in inner.choices:
            hint = nearest(word, inner.choices, "commands")
            before = "".join(f"{command}: " for command in commands)
            raise UsageError(f"{before}there is no command {word!r}; {hint}")
        commands.append(word)
        place = inner.choices[word]
    if inner is not None and not {"--help", "-h", "--version"} & set(flags):
        where = " ".join(["vaurienctl", *commands])
        before = "".join(f"{command}: " for command in commands)
        names = ", ".join(inner.choices)
        raise UsageError(f"{before}no command is given; commands: {names}; see {where} --help")
    known = {name for parser in (place, made) for a in parser._actions for name in a.option_strings}
    for flag in flags:
        if flag not in known:
            before = f"{' '.join(commands)}: " if commands else ""
            raise UsageError(f"{before}there is no {flag}; {_instead(flag, place)}")
    positionals = [action for action in place._actions if not action.option_strings]
    if inner is None and not any(action.nargs in ("*", "+") for action in positionals):
        for word in rest[len(positionals) :]:
            raise UsageError(
                f"{' '.join(commands)}: {word!r} is one word too many; see {place.prog} --help"
            )
    dashes = ["--"] if any(word.startswith("-") for word in rest) else []
    return [*commands, *flags.values(), *dashes, *rest]


#: What a flag is called elsewhere: in the API, in Toxiproxy.
_ELSEWHERE = {
    **{f"--{word}": f"--{own}" for word, own in ELSEWHERE.items()},
    "--on_connect": "--on-connect",
}


def _instead(flag: str, place: argparse.ArgumentParser) -> str:
    """What to write in place of a flag that a command does not have."""
    taken = [name for a in place._actions for name in a.option_strings if name != "-h"]
    words = {action.metavar for action in place._actions if action.nargs == "*"}
    if (own := _ELSEWHERE.get(flag)) in taken:
        return f"did you mean {own!r}?"
    name = flag.lstrip("-").replace("-", "_")
    if "OPTION=VALUE" in words:
        option = f"{name}=VALUE"
    elif "CHOICE|HANDLER.OPTION=VALUE" in words:
        option = f"HANDLER.{name}=VALUE"
    else:
        return nearest(flag, taken, "flags")
    hint = nearest(flag, [name for name in taken if name not in ("--help", "--token")], "flags")
    return hint if hint.startswith("did") else f"an option of a handler is a word: write {option}"


def _flags_with_value(made: argparse.ArgumentParser) -> Iterator[str]:
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _flags_with_value(inner)
        elif action.nargs != 0:
            yield from action.option_strings
