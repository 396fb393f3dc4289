"""A connection whose messages cannot be told apart any more goes on as plain tcp, for good.

Law: no byte is lost by that, nor an end, and none is told twice.
"""

from __future__ import annotations

from typing import Any

from vaurien.exchange.picks import Choice
from vaurien.relay.flow import Flow


def unframe(connection: Any, begun: int) -> None:
    """Go on as tcp, after `begun` exchanges: both directions are in the last of them."""
    connection.messages, framer = None, connection.framer
    up, down = connection.flows
    ledger, exchanges = connection.ledger, connection.exchanges
    while ledger.leaving:
        exchanges.account_for(connection, ledger.end(), "answered")
    while len(ledger.open) > 1:
        exchanges.account_for(connection, ledger.end(), "next")
    framer.exchange, framer.answered = begun, not ledger.open
    present = ledger.down
    if present is not None:
        present.from_client -= up.received
        present.from_backend -= down.received
        picked = Choice(present.handlers).downstream
        exchanges.enter(down, present, [one for one in picked if not one.gone])
    for flow, callback in ((up, up.from_client), (down, down.from_backend)):
        if flow.desk is not None and flow.desk.stands_in:
            flow.desk.give_back_to(callback)
        else:
            flow.callback = flow.source.reader.callback = callback


def read_anew(connection: Any, flow: Flow, data: bytes, ends: bool) -> None:
    """What messages could not make out goes on as tcp; `ends`: so does the end behind it."""
    desk = flow.desk
    if desk is not None and desk.owner is not None and not desk.chained:
        desk.put_back(data)  # the call sees the end by itself
        return
    connection.read(flow, data)
    if connection.closed:
        return
    if ends:
        flow.pass_end()
    else:
        flow.resume()
