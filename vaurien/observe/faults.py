"""What the log says of faults: a line for each, and of many in a second one line for the rest.

Law: counts are exact. Each fault has a line, or is in the count of one.
"""

from __future__ import annotations

from typing import Any

import gevent

from vaurien.observe.events import Acted, Began, Event, Tally
from vaurien.observe.log import fields, log

SECOND = 1.0  # seconds that are counted together

#: Faults in a second that have a line each, besides the first of each kind. A line costs as much
#: time as an exchange, so that this many take a busy proxy one percent, and more of them scroll by
#: faster than anyone reads. For all of them there is the journal.
LINES = 200

_KINDS = 1000  # that are known at a time at most; behaviors and toxics come and go for weeks

_Kind = tuple[str, type, tuple[str, ...]]  # proxy, event, names


class Faults:
    """An observer that logs each exchange that a handler deals with, and is quiet for dummy.

    The line comes when the exchange begins. What toxics did to it is another line, once it is over,
    since they stand by at every exchange and act on some. All events come from one loop.
    """

    wants = (Began, Acted)

    def __init__(self) -> None:
        self._tallies: dict[_Kind, Tally] = {}
        self._second: dict[_Kind, Tally] = {}  # of the kinds that came in this second
        self._left = 0  # how many may still have a line
        self._timer: Any = None

    def __call__(self, event: Event) -> None:
        """Take note of a fault."""
        if type(event) is Began:
            names = event.handlers
        elif type(event) is Acted:
            names = event.toxics
        else:
            return
        if not names:
            return
        kind = (event.proxy, type(event), names)
        if kind not in self._second:  # even of many kinds each is seen
            if not self._second:
                self._begin()
            self._second[kind] = self.tally(*kind)
        elif self._left:
            self._left -= 1
        else:
            tally = self._second[kind]
            tally.n += 1
            tally.quiet = True
            return
        _log_fault(event, _before(type(event)) + "+".join(names), "+".join(names))

    def tally(self, proxy: str, event: type, names: tuple[str, ...]) -> Tally:
        """What counts such events while they have no line."""
        kind = (proxy, event, names)
        tally = self._tallies.get(kind)
        if tally is None:
            if len(self._tallies) >= _KINDS:
                self._tallies.clear()
            tally = self._tallies[kind] = Tally()
        return tally

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
        second, self._second = self._second, {}
        for (proxy, event, names), tally in second.items():
            n, tally.n, tally.quiet = tally.n, 0, False
            if n:
                handler = "+".join(names)
                log.info(
                    "%s: %s%s: %s more like this in this second",
                    proxy,
                    _before(event),
                    handler,
                    f"{n:,}",
                    extra=fields(proxy=proxy, handler=handler, more=n),
                )


def _before(event: type) -> str:
    """What stands before the names."""
    return "toxic " if event is Acted else ""


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
