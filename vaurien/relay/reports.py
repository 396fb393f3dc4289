"""What goes wrong with connections: counted, and said once in the log."""

from __future__ import annotations

import _thread
import logging
import signal
import threading
from typing import Any

from vaurien.errors import many
from vaurien.exchange.picks import Picked
from vaurien.net.accept import PAUSE
from vaurien.observe.log import fields
from vaurien.relay.counters import Counters

log = logging.getLogger("vaurien")

TELL = 10.0  # seconds until it is said again that accepting pauses


class Reports:
    """The reports of one proxy's connections."""

    def __init__(self, name: str, counters: Counters) -> None:
        self._name, self._counters = name, counters
        self._next = 0.0  # pauses of accepting are said again then, in seconds

    def __repr__(self) -> str:
        return f"<Reports of {self._name!r}>"

    def pauses(self, error: OSError, connections: int, now: float) -> None:
        """Accepting pauses, with so many `connections` open; `now` is in seconds."""
        if now < self._next:
            return
        self._next = now + TELL
        log.warning(
            "%s: accepting pauses for %g s, again and again while it lasts: %s (%s open; raise the"
            " limit of open files, or set --max-connections)",
            self._name,
            PAUSE,
            error.strerror,
            many(connections, "connection", "is", "are"),
        )

    def dial_failed(self, connection: Any, error: OSError | None) -> None:
        """The backend of `connection` could not be reached."""
        self._counters.failed_dials += 1
        log.warning(
            "%s: connection %d: backend %s: %s",
            self._name,
            connection.number,
            connection.server.plan.distant,
            (error and error.strerror) or error,
            extra=fields(proxy=self._name, connection=connection.number),
        )

    def handler_raised(
        self, connection: Any, picked: Picked | None, error: BaseException | None, logged: bool
    ) -> None:
        """A handler raised: counted, and logged once, with its traceback unless it was `logged`."""
        self._counters.handler_errors += 1
        if isinstance(error, KeyboardInterrupt) and _is_ours():
            _thread.interrupt_main()
        log.error(
            "%s: connection %d, exchange %d: handler %r raised %s; the connection ends",
            self._name,
            connection.number,
            connection.number_of_exchange,
            picked and picked.name,
            type(error).__name__,
            exc_info=None if logged else error,
            extra=fields(
                proxy=self._name,
                connection=connection.number,
                exchange=connection.number_of_exchange,
                handler=picked and picked.name,
            ),
        )

    def crashed(self, connection: Any) -> None:
        """A callback of ours raised: a bug, which costs this connection only."""
        self._counters.crashes += 1
        told = fields(proxy=self._name, connection=connection.number)
        log.exception(
            "%s: connection %d ends: internal error", self._name, connection.number, extra=told
        )

    def idle(self, connection: Any) -> None:
        """Nothing has passed through `connection` for as long as ``--timeout`` allows."""
        told = fields(proxy=self._name, connection=connection.number)
        log.info("%s: connection %d ends: idle", self._name, connection.number, extra=told)


def _is_ours() -> bool:
    """Whether a KeyboardInterrupt may be a Ctrl-C that has met a handler by chance.

    Never in ``vaurien``, which takes the signal in another way; but a loop may run in the main
    thread of a program that embeds it, which is to end then.
    """
    python_takes_it = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return python_takes_it and threading.current_thread() is threading.main_thread()
