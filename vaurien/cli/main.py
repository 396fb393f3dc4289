"""``vaurien``: reads the command line, runs the proxies, ends them on a signal.

Law: the one border where an error becomes a sentence and an exit code, and the only place that
monkey-patches: here, and before anything else, so that a handler's ``time.sleep`` holds up nobody.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402
import argparse
import contextlib
import gc
import json
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from socket import SO_PEERCRED
from typing import TYPE_CHECKING, Any, NoReturn

import gevent
from gevent.event import Event as Event_

import vaurien
from vaurien import registry
from vaurien.cli.entry import HANGUPS, take
from vaurien.control.farm import Farm
from vaurien.counts import table
from vaurien.errors import UsageError, VaurienError, many, nearest
from vaurien.net.spin import Spin
from vaurien.observe.events import Event
from vaurien.observe.faults import Faults
from vaurien.observe.journal import Journal
from vaurien.observe.log import QueueWriter, start
from vaurien.observe.watchdog import Watchdog
from vaurien.options import BOOLEANS, Option, Raw, key, show
from vaurien.plan import POINTS, STREAM
from vaurien.relay.handoff import report_exceptions
from vaurien.relay.proxy import Proxy
from vaurien.settings import SETTINGS, Settings, resolve

if TYPE_CHECKING:
    from vaurien.control.service import Service
    from vaurien.observe.statsd import Statsd

log = logging.getLogger("vaurien")

#: The collector's thresholds: what the data path makes has no circles, and goes by itself.
GARBAGE = (20_000, 20, 20)
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
    "drain": "SECONDS",
    "spin": "MICROSECONDS",
    "backlog": "N",
}
_NAMES = ("http", "toxiproxy")  # of the API's addresses
_LIVE = ("local", "distant", "behavior", "on_connect", "protocol", "toxics", "seed", "drain",
         "strict", "log_level")  # settings that a reload puts in force  # fmt: skip
NEVER_FIRED = 3  # the exit code of --strict
_HANDLER_FLAG = "--handlers."

EPILOG = """\
Options of handlers are given as --handlers.NAME.OPTION VALUE; --list-handlers
shows them. Every setting can stand in the [vaurien] section of the INI file,
and in the environment, as VAURIEN_LOCAL and so on; the command line wins over
the environment, that over the file.

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
        "does harm to a chosen share of the exchanges.",
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
    add("--parent-fd", type=int, help=argparse.SUPPRESS)  # see vaurien.client.start_proxy
    add("--version", action="version", version=f"vaurien {vaurien.__version__}")
    return made


class _Once(argparse.Action):
    """Stores a value; a second one is refused rather than dropped."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice; give it once")
        setattr(namespace, self.dest, values)


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
        shown = [action for action in made._actions if action.help != argparse.SUPPRESS]
        known = [name for action in shown for name in action.option_strings]
        hint = nearest(unknown[0].partition("=")[0], known, "flags")
        raise UsageError(f"unknown argument {unknown[0]!r}; {hint}")
    modes = ("check", "list_handlers", "demo")
    chosen = [f"--{key(mode)}" for mode in modes if getattr(flags, mode)]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} exclude each other; leave one of them away")
    given = {
        name: Raw(value, f"--{name}")
        for name in ("config", *(option.key for option in SETTINGS))
        if (value := getattr(flags, name.replace("-", "_"))) is not None
    }
    # Whoever starts Vaurien for himself asks it for its port.
    defaults = {} if flags.parent_fd is None else {"http-port": 0}
    settings = resolve(given, handlers, running=running, defaults=defaults)
    if flags.demo and settings.has_api:
        raise UsageError("--demo has no control API; leave --http and --toxiproxy away")
    return flags, settings


def handler_lines(settings: Settings) -> list[str]:
    """What ``--list-handlers`` prints: built-in, installed and configured ones, and presets."""
    lines = []
    for name in sorted({*registry.known(), *settings.catalog.specifications}):
        try:
            spec = settings.catalog.specifications.get(name)
            cls = spec.cls if spec is not None else registry.find(name, "--list-handlers")
        except UsageError as error:  # another package's fault
            lines.append(f"{name}: {error}")
            continue
        lines.append(f"{name} ({registry.kind(cls)}): {registry.summary(cls)}")
        lines += map(_option_line, registry.options_of(cls).values())
    lines += ["", "Every flow handler takes too:", *map(_option_line, STREAM.values())]
    lines += ["", "Every handler takes too:", *map(_option_line, POINTS.values())]
    lines += ["", "Presets, for --behavior 100:NAME:"]
    lines += [
        f"    {name}: {preset.summary}" for name, preset in sorted(settings.catalog.presets.items())
    ]
    return lines


def _option_line(option: Option) -> str:
    choices = f", one of {', '.join(map(str, option.choices))}" if option.choices else ""
    return (
        f"    {option.name} ({option.type_name}{choices}, default {show(option.default)}):"
        f" {option.description}"
    )


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        log.debug("the limit of open files stays at %d", soft)


def wait_for_end(parent: socket.socket) -> None:
    """Wait until the process that made this pair of sockets is gone, or its end is closed.

    The other end may be open in what that process has forked off, so that its closing is not all.
    """
    watched: list[Any] = [parent]
    with contextlib.ExitStack() as stack:
        try:
            pid, _, _ = struct.unpack("3i", parent.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, 12))
            watched.append(os.pidfd_open(pid))
            stack.callback(os.close, watched[-1])
        except ProcessLookupError:
            return
        except (OSError, AttributeError):
            pass  # an old system or Python, or a sandbox; then it is left to the socket
        while True:
            ready, _, _ = select.select(watched, [], [])
            if ready != [parent] or not parent.recv(1024):
                return


def say(line: str) -> None:
    """A line on standard output, at once; OSError if it cannot be written."""
    os.write(1, (line + "\n").encode(errors="surrogateescape"))


class Run:
    """One run of the proxies: from the settings to the last line of the log."""

    def __init__(
        self, settings: Settings, writer: QueueWriter, again: Callable[[Settings], Settings]
    ):
        """Build all and bind the API's addresses; `again` reads the settings anew, given these."""
        self.settings, self._writer, self._again = settings, writer, again
        observers: list[Callable[[Event], None]] = []
        self._faults = Faults()
        if log.isEnabledFor(logging.INFO):
            observers.append(self._faults)
        self._journal = None
        if settings["journal"] is not None:
            self._journal = Journal(settings["journal"])
            observers.append(self._journal)
        self.farm = Farm(settings, observers, everything=settings["journal-all"])
        self._watchdog = Watchdog()
        self._stop = Event_()
        self._started = False
        self._readings = 0  # how often the files were read again
        self._in_force = 0  # which of these is in force
        self._statsd: Statsd | None = None
        self._api: Service | None = None
        if settings.statsd is not None or settings.access is not None:
            self._observe_and_control()

    def _observe_and_control(self) -> None:
        """Make what tells the numbers, and what serves the API."""
        # here, since these double the time that a start takes
        from vaurien.control.service import Service
        from vaurien.observe.metrics import Metrics
        from vaurien.observe.statsd import Statsd

        settings = self.settings
        metrics = Metrics(lambda: self.farm, self._watchdog.lag, self._journal, self._writer)
        if settings.statsd is not None:
            self._statsd = Statsd(settings.statsd, metrics, settings.where("statsd"))
            self.farm.leaving.append(self._statsd.leave)
        if settings.access is not None:
            self._api = Service(self.farm, settings.access, metrics.text, self.reload)

    def until_signalled(self, parent: int | None) -> int:
        """Listen until a signal comes, or `parent` closes its end; the exit code."""
        settings, farm = self.settings, self.farm
        for warning in settings.warnings:
            log.warning("%s", warning)
        raise_file_limit()
        for number in (signal.SIGINT, signal.SIGTERM):
            take(number, self._signalled, gevent.signal_handler)
        take(signal.SIGUSR1, self._tell, gevent.signal_handler)
        take(signal.SIGHUP, self._hangup, gevent.signal_handler)
        farm.start()
        if self._api is not None:
            self._api.start()
        self._watchdog.start()
        if self._statsd is not None:
            self._statsd.start()
        spin = Spin(settings["spin"]) if settings["spin"] else None
        if spin is not None:
            spin.start()
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        gc.set_threshold(*GARBAGE)
        try:
            say("\n".join(self._places()))
        except BrokenPipeError:
            pass  # if nobody reads it, so be it
        except OSError as error:
            log.warning("where it listens cannot be written to the output: %s", error.strerror)
        if parent is not None:
            gevent.spawn(self._watch_parent, parent)
        self._started = True
        if HANGUPS:
            gevent.spawn(self._hangup)
        self._stop.wait()
        if self._api is not None:
            self._api.stopping()
        for proxy in farm:
            log.info("%s: stopping, %d open of %s", proxy.name, proxy.connections, proxy.counters)
        for name, cut in farm.stop(settings["drain"]).items():
            if cut:
                log.warning("%s: %s ended after %g s", name, many(cut, "connection", "was", "were"),
                            settings["drain"])  # fmt: skip
        if self._api is not None:
            self._api.stop()
        if spin is not None:
            spin.stop()
        self._watchdog.stop()
        if self._statsd is not None:
            self._statsd.stop()
        self._faults.flush()
        if self._journal is not None:
            self._journal.stop()
        return self._tell_all()

    def _places(self) -> list[str]:
        """What listens where."""
        lines = [
            f"{proxy.name} listening on {proxy.address}, backend {proxy.plan.distant},"
            f" seed {proxy.plan.seed}"
            for proxy in self.farm
            if proxy.enabled
        ]
        addresses = self._api.addresses if self._api is not None else {}
        return [*lines, *(f"{name} listening on {place}" for name, place in addresses.items())]

    def _signalled(self) -> None:
        if self._stop.is_set():
            os._exit(0)  # the second: at once
        self._stop.set()

    def _watch_parent(self, descriptor: int) -> None:
        """Tell the process that started this one that all listens; end when it is gone."""
        addresses = self._api.addresses if self._api is not None else {}
        ready = {
            "pid": os.getpid(),
            "proxies": {p.name: str(p.address) for p in self.farm if p.enabled},
            **{name: str(addresses[name]) if name in addresses else None for name in _NAMES},
            "token": self.settings.access.token if self.settings.access is not None else None,
        }
        try:
            with socket.socket(fileno=descriptor) as parent:
                parent.sendall(json.dumps(ready).encode() + b"\n")
                wait_for_end(parent)
        except OSError:
            pass  # gone as well
        finally:
            self._stop.set()

    def _hangup(self) -> None:
        if not self._started:  # the name of an address may take its time
            HANGUPS.append(signal.SIGHUP)
            log.info("reload: put off until all listen")
            return
        try:
            self.reload()
        except VaurienError as error:
            log.error("reload: nothing is changed: %s", error)
        except BaseException as error:  # of which gevent would make the end of the process
            log.exception("reload: nothing is changed: %r", error)

    def reload(self) -> dict[str, list[str]]:
        """Read the files again, and be as they say; UsageError if that cannot be.

        Others may come between while a name is resolved: if what was read later is in force by
        then, the files are read once more.
        """
        while True:
            self._readings += 1
            number = self._readings
            settings = self._again(self.settings)
            try:
                changed = self.farm.reload(settings, partial(self._refuse_stale, number))
                break
            except VaurienError:
                if number > self._in_force:
                    raise
        self._in_force = number
        before = self.settings
        names = [name for name in settings.values if settings[name] != before[name]]
        live = {*settings.common, *_LIVE}
        late = [name for name in names if name.replace("-", "_") not in live]
        for warning in settings.warnings:
            log.warning("reload: %s", warning)
        if late:
            log.warning("reload: %s: in force after a restart only", ", ".join(late))
        log.setLevel(settings["log-level"].upper())
        before.values.update({name: settings[name] for name in names if name not in late})
        log.info("reload: %s", "; ".join(f"{len(v)} {k}" for k, v in changed.items()))
        return {**changed, "after_restart": late}

    def _refuse_stale(self, number: int) -> None:
        if number < self._in_force:
            raise UsageError("the files were read again meanwhile")

    def _tell(self) -> None:
        """Write the table of what handlers did."""
        several = len(self.farm.proxies) > 1
        for proxy in self.farm:
            if several and proxy.stats:
                self._writer.tell(f"{proxy.name}:")
            if proxy.stats:
                for line in table(proxy.stats):
                    self._writer.tell(line)
        if not any(proxy.stats for proxy in self.farm):
            self._writer.tell("no handler is configured")

    def _tell_all(self) -> int:
        """What happened, at the end; the exit code."""
        if self.settings["replay"] is not None:
            for proxy in self.farm:
                self._tell_unmet(proxy)
        if not any(proxy.stats for proxy in self.farm):
            return 0
        self._tell()
        code = 0
        for proxy in self.farm:
            idle = [name for name, stats in proxy.stats.items() if not stats.fired]
            if idle:
                log.warning("%s: never fired: %s", proxy.name, ", ".join(idle))
                code = NEVER_FIRED if self.settings["strict"] else code
        return code

    @staticmethod
    def _tell_unmet(proxy: Proxy) -> None:
        unmet = [f"{connection}.{exchange}" for connection, exchange in proxy.unmet()]
        if unmet:
            more = f" and {len(unmet) - 20} more" if len(unmet) > 20 else ""
            log.warning(
                "%s: what of the replay did not come to pass: %d, as connection.exchange: %s%s",
                proxy.name, len(unmet), ", ".join(unmet[:20]), more,
            )  # fmt: skip
        else:
            log.info("%s: all decisions of the replay came to pass", proxy.name)


def _run(arguments: Sequence[str]) -> int:
    flags, settings = read(arguments)
    if flags.list_handlers:
        say("\n".join(handler_lines(settings)))
        return 0
    if flags.check:
        Farm(settings)  # builds the handlers
        for warning in settings.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        say("\n".join(settings.lines()))
        return 0
    writer = start(settings["log-level"], settings["log-output"], settings["log-format"])
    report_exceptions()
    try:
        if flags.demo:
            from vaurien.cli import demo

            return demo.run(settings)
        parent = flags.parent_fd

        def again(running: Settings) -> Settings:
            return read(arguments, running)[1]

        return Run(settings, writer, again).until_signalled(parent)
    finally:
        writer.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vaurien``; the exit code: 0, 1 if it cannot run, 2 for wrong usage, `NEVER_FIRED`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Until there is something to drain; what was to print something has not done so.
    unfinished = bool({"--check", "--demo", "--list-handlers"} & {*arguments})
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        take(signal_number, lambda number, _: os._exit(128 + number if unfinished else 0))
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # for handlers by dotted path
    try:
        return _run(arguments)
    except VaurienError as error:
        print(f"vaurien: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone, as in `vaurien --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:  # a full disk behind our output
        print(f"vaurien: cannot write the output: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
