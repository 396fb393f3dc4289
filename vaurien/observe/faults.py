"""What the log says of faults: a line for each, and of many in a second one line for the rest.

Law: counts are exact. Each fault has a line, or is in the count of one.
"""

from __future__ import annotations

from typing import Any

import gevent

from vaurien.observe.events import Acted, Began, Event
from vaurien.observe.log import fields, log

SECOND = 1.0  # seconds that are counted together

#: Faults in a second that have a line each, besides the first of each kind. A line costs as much
#: time as an exchange, so that this many take a busy proxy one percent, and more of them scroll by
#: faster than anyone reads. For all of them there is the journal.
LINES = 200

_Kind = tuple[str, str, tuple[str, ...]]  # proxy, what stands before the names, names


class Faults:
    """An observer that logs each exchange that a handler deals with, and is quiet for dummy.

    The line comes when the exchange begins. What toxics did to it is another line, once it is over,
    since they stand by at every exchange and act on some. All events come from one loop.
    """

    wants = (Began, Acted)

    def __init__(self) -> None:
        # How many faults of each kind that came in this second have no line; {}: no second runs.
        self._more: dict[_Kind, list[int]] = {}
        self._left = 0  # how many may still have one
        self._timer: Any = None

    def __call__(self, event: Event) -> None:
        """Take note of a fault."""
        if type(event) is Began:
            names, before = event.handlers, ""
            if not names:
                return
        elif type(event) is Acted:
            names, before = event.toxics, "toxic "
        else:
            return
        kind = (event.proxy, before, names)
        more = self._more.get(kind)
        if more is None:  # even of many kinds each is seen
            if not self._more:
                self._begin()
            self._more[kind] = [0]
        elif self._left:
            self._left -= 1
        else:
            more[0] += 1
            return
        _log_fault(event, before + "+".join(names), "+".join(names))

    def _begin(self) -> None:
        """A second begins, with its first fault."""
        self._left = LINES
        self._timer = gevent.spawn_later(SECOND, self._over)

    def _over(self) -> None:
        try:
            self._timer = None
            self.flush()
        except Exception:
            log.exception("the log of faults: internal error")

    def flush(self) -> None:
        """The second is over, or cut short: say how many had no line."""
        if self._timer is not None:
            self._timer.kill(block=False)
            self._timer = None
        more, self._more = self._more, {}
        for (proxy, before, names), (n,) in more.items():
            if n:
                handler = "+".join(names)
                log.info(
                    "%s: %s%s: %s more like this in this second",
                    proxy,
                    before,
                    handler,
                    f"{n:,}",
                    extra=fields(proxy=proxy, handler=handler, more=n),
                )


def _log_fault(event: Began | Acted, what: str, handler: str) -> None:
    log.info(
        "%s: connection %d, exchange %d: %s",
        event.proxy,
        event.connection,
        event.exchange,
        what,
        extra=fields(
            proxy=event.proxy,
            connection=event.connection,
            exchange=event.exchange,
            handler=handler,
        ),
    )
