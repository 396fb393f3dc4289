"""The signals of the two programs: how they are taken, and which there are.

Law: the one place that knows that Windows has neither SIGHUP nor SIGUSR1: there nothing is reloaded
by a signal (``POST /reload`` does it), and there is no table on demand. What the parent process
ignores of SIGINT and SIGHUP (``nohup``, ``vaurien &`` in a script) stays ignored. Nothing heavy is
imported here: this comes before all else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

#: Their numbers; None where there is no such signal.
SIGHUP: int | None = getattr(signal, "SIGHUP", None)
SIGUSR1: int | None = getattr(signal, "SIGUSR1", None)

INTERRUPTED = 130  # as the shells have it for SIGINT
TERMINATED = 143  # and for SIGTERM

#: Something for each SIGHUP that has come before there was anything to read again.
HANGUPS: list[int] = []


def take(
    number: int | None,
    handler: Callable[..., object] | int,
    how: Callable[..., object] = signal.signal,
) -> None:
    """Have `handler` deal with a signal, set by `how`; not if it is one to stay ignored.

    Nothing is done for None, a signal that there is not.
    """
    always = number in (signal.SIGTERM, SIGUSR1)
    if number is not None and (always or signal.getsignal(number) is not signal.SIG_IGN):
        how(number, handler)
