"""Where the two programs begin.

Law: nothing heavy is imported before the signals are taken, for the imports are most of what a
short command does; and to import this does nothing yet. What whoever started us ignores of SIGINT
and SIGHUP (``nohup``, ``vaurien &`` in a script) stays ignored.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

INTERRUPTED = 130  # as the shells have it for SIGINT
TERMINATED = 143  # and for SIGTERM

#: The SIGHUPs that have come before there was anything to read again.
HANGUPS: list[int] = []


def vaurien() -> int:
    """``vaurien``; its exit code."""
    take(signal.SIGINT, _leave)
    take(signal.SIGTERM, _leave)  # which the first process of a container would never see else
    take(signal.SIGHUP, lambda number, _: HANGUPS.append(number))
    take(signal.SIGUSR1, signal.SIG_IGN)  # there is no table yet
    from vaurien.cli.main import main

    return main()


def vaurienctl() -> int:
    """``vaurienctl``; its exit code."""
    take(signal.SIGINT, _leave)
    from vaurien.cli.ctl import main

    return main()


def take(
    number: int,
    handler: Callable[..., object] | int,
    how: Callable[..., object] = signal.signal,
) -> None:
    """Have `handler` deal with a signal, set by `how`; not if it is one to stay ignored."""
    always = number in (signal.SIGTERM, signal.SIGUSR1)
    if always or signal.getsignal(number) is not signal.SIG_IGN:
        how(number, handler)


def _leave(number: int, _: object) -> None:
    """End at once, without a word."""
    os._exit(128 + number)
