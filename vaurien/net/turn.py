"""How a greenlet that works for long lets others have their turn.

Law: all that is ready gets a turn before the greenlet that gives way goes on.
"""

from __future__ import annotations

import gevent

#: Seconds, as good as none: what counts is that there are some. After ``gevent.sleep(0)`` gevent
#: goes on with up to fifty greenlets, one that gives way fifty times among them, before it asks the
#: system who else is ready; a timer it looks at only then.
_NEXT = 1e-9


def give_way() -> None:
    """Go on in the loop's next turn, once all others that are ready had theirs."""
    gevent.sleep(_NEXT)
