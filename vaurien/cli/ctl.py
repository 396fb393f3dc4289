"""``vaurienctl``: steers a running Vaurien from the command line.

Law: built on `vaurien.Client` only. This is its one border where an error becomes a sentence and an
exit code; a user's mistake is never a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence

from vaurien.cli import completion
from vaurien.cli import ctl_commands as do
from vaurien.cli.completion import HIDDEN
from vaurien.cli.ctl_commands import Ask
from vaurien.cli.ctl_parser import DONE, MISSING, REFUSED, arrange, parser
from vaurien.cli.signals import INTERRUPTED, take
from vaurien.cli.tables import Output, plain
from vaurien.client import TIMEOUT, TOKEN_VARIABLE, Client, api_address
from vaurien.errors import ClientError, Unreachable, UsageError, VaurienError, nearest


def _run(arguments: Sequence[str]) -> None:
    made = parser()
    if arguments[:1] == [HIDDEN]:
        for line in completion.answer(made, arguments[1:]):
            print(line)
        return
    args, more = made.parse_known_args(arrange(made, arguments))
    if more:
        raise UsageError(f"{more[0]!r} is one word too many; see vaurienctl --help")
    if (shell := getattr(args, "shell", None)) is not None:
        print(completion.SCRIPTS[shell], end="")
        return
    defaults = {"host": None, "token": None, "timeout": None, "json": False}
    for name, value in defaults.items():
        setattr(args, name, getattr(args, name, value))
    if args.host is not None:
        api_address(args.host, "--host")
    client = Client(args.host, token=args.token, timeout=args.timeout or TIMEOUT)
    try:
        args.run(Ask(client, args, Output(args.json)))
    except Unreachable:
        raise
    except ClientError as error:
        raise _nearer(client, args, error) from error


#: What the API says in the words of its requests, and how that is said here.
_HERE = (
    (r"^bad request body: ", ""),
    (r"^missing required field: name$", "'' is no name"),
    (r"^name: (?=.* is no name for a toxic)", "--name: "),
    (r"^name: ", ""),
    (
        r"^(missing required field: upstream$|upstream is empty; .*)",
        "--distant: '' is no address; write HOST:PORT",
    ),
    (r"^listen is empty; .*", "--local: '' is no address; write HOST:PORT"),
    (r"^upstream: ", "--distant: "),
    (r"^listen: ", "--local: "),
    (r"^on_connect: ", "--on-connect: "),
    (r"^(protocol|seed|toxicity): ", r"--\1: "),
    (r"^(?:attributes|handlers)\.", ""),
    (r"^invalid toxic type: ", "there is no flow handler "),
    (r"set a mixture as the behavior$", "for a mixture use vaurienctl behavior {choice}"),
    (r"give it to --on-connect$", "use vaurienctl behavior --on-connect {choice}"),
    (r"POST /proxies$", "vaurienctl create NAME --distant ADDRESS"),
    (r"send Authorization: Bearer TOKEN$", f"give --token TOKEN, or set {TOKEN_VARIABLE}"),
)


def _here(args: argparse.Namespace, sentence: str) -> str:
    """A sentence of the API in the words of the command line."""
    handler = getattr(args, "handler", None) or "HANDLER"
    choice = handler if ":" in handler else f"100:{handler}"
    if args.run is do.create:
        sentence = re.sub("^behavior: ", "--behavior: ", sentence)
    for there, here in _HERE:
        made = here.replace("{choice}", choice.replace("\\", r"\\"))
        sentence = re.sub(there, made, sentence)
    return sentence


def _nearer(client: Client, args: argparse.Namespace, error: ClientError) -> ClientError:
    """The API's error; if it is of what is not there, one with the nearest that is."""
    with contextlib.suppress(ClientError):
        if str(error) == "proxy already exists":
            way = "choose another name, or use vaurienctl change"
            return ClientError(f"proxy {args.name!r} already exists; {way}", error.status)
        if str(error) == "toxic already exists":
            way = "give it a --name, or use vaurienctl toxic update"
            name = args.name or f"{args.type}_{args.stream or 'downstream'}"
            return ClientError(f"{args.proxy} has a toxic {name!r} already; {way}", error.status)
        unpicked = re.fullmatch(r"handlers\.(.+): behavior does not pick it; .*", str(error))
        if unpicked is not None:
            picked = re.findall(r"(?<=[:+])[^,:+ ]+", " ".join(args.words))
            hint = nearest(unpicked[1], picked, "it picks")
            return ClientError(f"{unpicked[1]}: the behavior does not pick it; {hint}", 400)
        if error.status != 404:
            return ClientError(_here(args, str(error)), error.status)
        states = {state["name"]: state for state in client.proxies()}
        named = [getattr(args, "proxy", None), *getattr(args, "names", [])]
        if args.run in (do.show, do.change):
            named.append(args.name)
        for name in named:
            if name is not None and name not in states:
                hint = nearest(name, states, "proxies")
                return ClientError(f"there is no proxy {name!r}; {hint}", 404)
        for name in [getattr(args, "toxic", None), *getattr(args, "toxics", [])]:
            toxics = [toxic["name"] for toxic in states[args.proxy]["toxics"]] if name else []
            if name is not None and name not in toxics:
                hint = nearest(name, toxics, "toxics")
                return ClientError(f"{args.proxy} has no toxic {name!r}; {hint}", 404)
    return ClientError(_here(args, str(error)), error.status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vaurienctl``; the exit code, see `vaurien.cli.ctl_parser.EPILOG`."""
    if sys.stdout is None:  # closed by the parent process
        sys.stdout = open(os.devnull, "w")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        take(signal.SIGINT, signal.default_int_handler)
        try:
            _run(sys.argv[1:] if arguments is None else list(arguments))
        except SystemExit:  # argparse has printed its help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except VaurienError as error:
        print(f"vaurienctl: {plain(str(error))}", file=sys.stderr)
        missing = isinstance(error, ClientError) and error.status == 404
        return MISSING if missing else error.exit_code
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left goes there
        if isinstance(error, BrokenPipeError):  # the reader has gone, as in `... | head -1`
            return DONE
        print(f"vaurienctl: cannot write the output: {error.strerror}", file=sys.stderr)
        return REFUSED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
