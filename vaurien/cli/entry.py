"""Where the two programs begin.

Law: nothing heavy is imported before the signals are taken, for the imports are most of what a
short command does; and to import this does nothing yet.
"""

from __future__ import annotations

import os
import signal

from vaurien.cli.signals import HANGUPS, SIGHUP, SIGUSR1, take


def fill_standard() -> None:
    """Have something at 0, 1 and 2, where the parent process has closed them (``>&-``).

    Else the next sockets would get these numbers, and what is printed would go to clients.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one


def vaurien() -> int:
    """``vaurien``; its exit code."""
    fill_standard()
    take(signal.SIGINT, _leave)
    take(signal.SIGTERM, _leave)  # which the first process of a container would never see else
    take(SIGHUP, lambda number, _: HANGUPS.append(number))
    take(SIGUSR1, signal.SIG_IGN)  # there is no table yet
    from vaurien.cli.main import main

    return main()


def vaurienctl() -> int:
    """``vaurienctl``; its exit code."""
    fill_standard()
    take(signal.SIGINT, _leave)
    from vaurien.cli.ctl import main

    return main()


def _leave(number: int, _: object) -> None:
    """End at once, without a word."""
    os._exit(128 + number)
