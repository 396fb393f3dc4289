"""Where the two programs begin.

Law: nothing heavy is imported before Ctrl-C is quiet, for the imports are most of what a short
command does; and to import this does nothing yet.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130  # as the shells have it for SIGINT


def vaurien() -> int:
    """``vaurien``; its exit code."""
    _quiet()
    from vaurien.cli.main import main

    return main()


def vaurienctl() -> int:
    """``vaurienctl``; its exit code."""
    _quiet()
    from vaurien.cli.ctl import main

    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    except KeyboardInterrupt:
        return INTERRUPTED


def _quiet() -> None:
    """Let Ctrl-C end the program at once, without a word; not if whoever started it ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
