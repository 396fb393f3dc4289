"""What a flow may do, by the state that it is in: all of it in one table.

A flow is in several states at once, each a bit. What it may do is told by those that forbid it:

======== ==================================================== ==== ====== =====
state    is when                                              read finish round
======== ==================================================== ==== ====== =====
OVER     its source has come to its end                        no
SHUT     its sink was told so, or is gone                             no
DEAF     SHUT, and nobody takes what would be read             no
FULL     as much waits for its way on as may                   no
OPEN     the end has not come through to the sink yet                 no
HELD     the sink holds something                                     no    no
OWNED    a call of a socket handler has it                            no    no
BUSY     something is on its way through the chain, or a
         stage waits for its alarm                                          no
PINNED   a toxic is at work in the chain                                    no
CUT      a flow handler has ended it: the rest is dropped                   no
======== ==================================================== ==== ====== =====

*Read*: the loop watches the source. *Finish*: the sink gets its FIN. *Round*: what is read goes
past the chain, straight to the sink, and so costs what it costs where there never was a chain.

DEAF is not SHUT: what comes after a cut is read and dropped, so that its sender can go on and end,
and a handler that has shut down one side may read the other.
FULL is one thing for each way that what was read goes: where nobody acts it is HELD, in a chain
``--max-held``, and where it waits for a call `WAITING` bytes; and upstream, where messages are told
apart, as many exchanges as may be open (`vaurien.relay.turns`).

Law: no other place decides any of the three.
"""

from __future__ import annotations

from typing import Any

OVER, SHUT, DEAF, FULL, OPEN, HELD, OWNED, BUSY, PINNED, CUT = (1 << bit for bit in range(10))

#: What stands against each.
READ = OVER | DEAF | FULL
FINISH = OPEN | HELD | SHUT | OWNED
ROUND = HELD | OWNED | BUSY | PINNED | CUT

#: Bytes that wait for a call of a socket handler at most; as many as it reads at a time.
WAITING = 65536


def state(flow: Any) -> int:
    """The states that `flow` is in."""
    shaping, desk = flow.shaping, flow.desk
    full = flow.sink.held is not None
    found = HELD if full else 0
    if flow.over:
        found |= OVER
    if not flow.ended:
        found |= OPEN
    if flow.finished:
        found |= SHUT | DEAF
    if desk is not None and desk.owner is not None:
        found = (found | OWNED) & ~DEAF
        full = len(desk.unread) >= WAITING
    if shaping is not None:
        chain = shaping.chain
        if chain.busy:
            found |= BUSY
        if chain.ended:
            found = (found | CUT) & ~DEAF
        if any(place.pinned for place in chain.staged):
            found |= PINNED
        if shaping.engaged:
            full = chain.held >= shaping.max_held
    messages = flow.connection.messages
    if messages is not None and flow.to_backend and messages.full:
        full = True
    return found | FULL if full else found


def forbidden(flow: Any, what: int) -> int:
    """Which of the states that stand against `what` the flow is in; 0 if it may."""
    return state(flow) & what
