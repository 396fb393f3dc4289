"""What is seen of a connection from outside, at one moment."""

from __future__ import annotations

import _socket
from typing import NamedTuple

from vaurien.counts import Directions
from vaurien.observe.notifier import client_name
from vaurien.relay.connection import Connection


class Look(NamedTuple):
    """A connection at one moment; bytes are those upstream and those downstream."""

    number: int
    client: str
    exchange: int
    handlers: tuple[str, ...]
    received: Directions
    sent: Directions
    held: int


def look(connection: Connection) -> Look:
    """What there is to say of a connection."""
    flows = connection.flows
    exchange = connection.ledger.up if connection.ledger is not None else None
    handlers = exchange.handlers if exchange is not None else ()
    return Look(
        connection.number,
        client_name(connection.address),
        connection.number_of_exchange,
        tuple(dict.fromkeys(one.name for one in handlers)),
        Directions(*([flow.received for flow in flows] or [0, 0])),
        Directions(*([flow.sent for flow in flows] or [0, 0])),
        sum(flow.waiting for flow in flows),
    )


def is_idle(connection: Connection) -> bool:
    """Whether nothing is under way: nothing waits, no handler runs, the backend spoke last.

    What a client has sent waits in the system until the loop comes to read it, so it is asked, too.
    """
    flows = connection.flows
    if not flows:
        meeting = connection.meeting
        will_dial = connection.dials or (meeting is not None and meeting.puts_off)
        return not (will_dial and _has_sent(connection.client))
    messages = connection.messages
    answered = connection.framer.answered if messages is None else messages.answered
    waiting = any(flow.waiting or flow.unread for flow in flows)
    return answered and not (waiting or connection.calls or _has_sent(connection.client))


def _has_sent(client: _socket.socket) -> bool:
    """Whether a client has sent something that nobody has read yet."""
    try:
        return bool(client.recv(1, _socket.MSG_PEEK))
    except OSError:
        return False
