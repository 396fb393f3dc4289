"""``vaurien``: reads the command line, runs the proxies, ends them on a signal.

Law: the one border where an error becomes a sentence and an exit code, and the only place that
monkey-patches: here, and before anything else, so that a handler's ``time.sleep`` holds up nobody.
"""

from __future__ import annotations

from importlib import metadata

from gevent import monkey


def _patch() -> None:
    """Patch everything, and let gevent find its plugins in one look.

    It asks for them at some 25 points, and each time `entry_points` reads what every installed
    package says of itself: 0.3 s of each start with 95 packages, 14 ms in this way (2026-11-28,
    CPython 3.11).
    """
    entry_points = metadata.entry_points
    metadata.entry_points = entry_points().select
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = entry_points


_patch()

# ruff: noqa: E402
import os
import signal
import sys
from collections.abc import Sequence

from vaurien.cli.arguments import read
from vaurien.cli.listing import handler_lines
from vaurien.cli.run import Run
from vaurien.cli.signals import take
from vaurien.cli.system import say
from vaurien.control.farm import Farm
from vaurien.errors import VaurienError
from vaurien.observe.log import start
from vaurien.relay.call import report_exceptions
from vaurien.settings import Settings
from vaurien.settings.printed import lines


def _run(arguments: Sequence[str]) -> int:
    flags, settings = read(arguments)
    if flags.list_handlers:
        say("\n".join(handler_lines(settings)))
        return 0
    if flags.check:
        Farm(settings)  # builds the handlers
        for warning in settings.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        say("\n".join(lines(settings)))
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
