"""A call of a socket handler: a greenlet of its own, and the flows that it has.

Laws: a call owns the flow that woke it; the other flow goes on until the call reads that side too,
which claims it for the rest of the call. If a running call owns it, the claim waits; a claim that
would wait in a circle raises. Whatever a handler raises ends its connection, and no other. A call
that reads and sends without ever having to wait gives way to others after `TURN` seconds.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

from gevent import Greenlet, getcurrent
from gevent.event import Event
from gevent.hub import get_hub

from vaurien.errors import RAISED, HandlerDeadlock
from vaurien.net.turn import give_way
from vaurien.relay.flow import Flow

log = logging.getLogger("vaurien")

TURN = 0.01  # seconds of reading and sending without waiting until others are let in
STEPS = 16  # uses of its sockets between two looks at the clock; a power of two

_CALL = "vaurien.call"


class Call(Greenlet):  # type: ignore[type-arg]
    """One call of a handler, and the flows that it has."""

    spawning_stack_limit = 0  # where it was made is always the same: spare the looking
    steps = 0  # how often its handler has used its sockets

    def __init__(self, desk: Any) -> None:
        super().__init__()
        self.flow = flow = desk.flow
        self.connection, self.handler, self.exchange = flow.connection, flow.handler, flow.exchange
        self.since: float = self.connection.loop.now()
        self._turn = self.since  # when others were let in last
        self.owned = [desk]
        self.begun = self.over = self.raised = False
        self.wants: Any = None  # what it waits for
        self.granted: Event | None = None  # set when it may have it
        self.read = self.sent = False  # whether it has done so with anything
        self.dismissed = False  # its handler has left the behavior
        self.reported: BaseException | None = None  # raised in a greenlet of its, logged already
        # Greenlets that the handler spawns inherit this.
        self.spawn_tree_locals = {_CALL: self}

    def __repr__(self) -> str:
        name = self.handler.name if self.handler is not None else None
        state = "over" if self.over else "running" if self.begun else "waiting"
        return f"<Call of {name!r}, {state}, by {self.flow!r}>"

    def begin(self) -> None:
        """Run now, up to where it first waits; in the loop's next turn if we are in a greenlet.

        In the next turn, too, if a call has the other flow: it may be about to read this side, and
        what it finds here is its own as long as this call has not begun.
        """
        peer = self.flow.peer.desk
        if getcurrent() is self.connection.loop.hub and (peer is None or peer.owner is None):
            self.switch()
        else:
            self.start()

    def _run(self) -> None:
        connection = self.connection
        if self.over or connection.closed:
            return
        self.begun = True
        result: object = False
        try:
            client, backend = connection.lending.lend()
            result = self.handler.call(client, backend, self.flow.to_backend)
        except BaseException as error:  # an exception of any kind ends this connection only
            if not connection.closed and not self.dismissed:
                if connection.broken and isinstance(error, ConnectionError):
                    result = None  # a reset is nobody's fault; what is to follow is arranged
                else:
                    logged = error is self.reported
                    connection.server.reports.handler_raised(
                        connection, self.handler, error, logged
                    )
                    self.raised = True
        finally:
            self.over = True
            if self.granted is not None:
                self.granted.set()  # a greenlet of its that still waits for a claim
        if self.dismissed:
            return
        try:
            self._returned(result)
        except RAISED:
            connection.crashed()

    def _returned(self, result: object) -> None:
        connection = self.connection
        if connection.closed:
            return
        self.count()
        if result is False:
            if connection.broken:
                connection.reset()
            else:
                connection.end("error" if self.raised else "handler")
            return
        self._give_up()

    def _give_up(self) -> None:
        """What it owned is the pump's again, or another call's."""
        connection = self.connection
        for desk in self.owned:
            desk.owner = None
            desk.look()  # greenlets of its that still wait to read: they see that it is over
        connection.lending.call_over(self)
        for desk in self.owned:
            if not connection.closed:
                desk.go_on(self.read)
        connection.done()

    def dismiss(self) -> bool:
        """Its handler has left the behavior: end it without waiting, as if it had not been called.

        False if it has read or sent, since nobody else knows then what is still to be passed on.
        """
        if self.read or self.sent or self is getcurrent():
            return False
        self.over = self.dismissed = True
        self.count()
        self.kill(block=False)
        if self.wants is not None and self.wants.waiter is self:
            self.wants.waiter = None
        self._give_up()
        return True

    def look(self) -> bool:
        """Let others have their turn if it is time; whether it was, and all may have changed."""
        loop = self.connection.loop
        if loop.now() - self._turn < TURN or getcurrent() is loop.hub:
            return False
        give_way()
        self._turn = loop.now()
        return True

    def count(self) -> None:
        """Its handler did something to the exchange, and took this long."""
        if self.begun and self.exchange is not None:
            added, seconds = self.exchange.added, self.connection.loop.now() - self.since
            added[self.handler] = max(added.get(self.handler, 0.0), seconds)

    def cancel(self) -> None:
        """End it, without waiting for that; called when its connection has ended."""
        self.over = True
        if self is not getcurrent():
            self.kill(block=False)

    # Claims

    def owns(self, desk: Any) -> None:
        """Have the flow of `desk` from now on."""
        desk.own(self)
        self.owned.append(desk)

    def claim(self, desk: Any, timeout: float | None) -> None:
        """Have the flow of `desk` until the call returns; waits for `timeout` seconds at most."""
        while desk.owner is not self:
            other = desk.owner
            if other is None:
                self.owns(desk)
            elif not other.begun:
                other.over = True  # it was woken by bytes that are now ours
                other.owned.clear()
                self.owns(desk)
            elif other.wants is not None and other.wants.owner is self:
                raise HandlerDeadlock(
                    f"handler {self.handler.name!r} reads the"
                    f" {'client' if desk.flow.to_backend else 'backend'}, which a call owns that"
                    " waits for this one: let one direction read both sides, not each the other's"
                )
            else:
                self._wait_for(desk, timeout)
                if self.connection.closed:
                    raise gone()
                if self.over:
                    raise returned()
        self.read = True

    def _wait_for(self, desk: Any, timeout: float | None) -> None:
        self.wants, desk.waiter = desk, self
        if self.granted is None or self.granted.is_set():
            self.granted = Event()
        granted = self.granted
        try:
            if not granted.wait(timeout):
                raise TimeoutError("timed out")
        finally:
            self.wants = None
            if desk.waiter is self:
                desk.waiter = None


def current_call(flow: Flow) -> Call:
    """The call that the running greenlet works for; OSError if none runs on this connection."""
    greenlet = getcurrent()
    if isinstance(greenlet, Call):
        candidates: tuple[Call | None, ...] = (greenlet,)
    else:
        # It was spawned by a call; or it is a worker made elsewhere that serves one which runs now.
        spawner = (getattr(greenlet, "spawn_tree_locals", None) or {}).get(_CALL)
        desks = (flow.desk, flow.peer.desk)
        candidates = (spawner, *(desk.owner for desk in desks if desk is not None))
    for call in candidates:
        if call is not None and call.begun and not call.over and call.connection is flow.connection:
            return call
    raise OSError(
        errno.EBADF, "no call of the handler runs on this connection: sockets are lent for one call"
    )


def returned() -> OSError:
    """For a greenlet that outlives its call."""
    return OSError(errno.EBADF, "the call of the handler has returned: its sockets went with it")


def gone() -> OSError:
    """For code that uses what was lent after the connection has ended."""
    return OSError(errno.EBADF, "the connection has ended")


def report_exceptions() -> None:
    """Log what greenlets raise that nobody waits for, such as those that a handler spawns.

    The hub's own way is to print it to standard error, which may block, and to let a SystemExit end
    the process.
    """
    hub = get_hub()
    hub.print_exception = _report  # type: ignore[assignment, method-assign]
    hub.NOT_ERROR = tuple(kind for kind in hub.NOT_ERROR if kind is not SystemExit)
    hub.SYSTEM_ERROR = (KeyboardInterrupt,)


def _report(
    context: object, kind: type[BaseException], value: BaseException, _traceback: object
) -> None:
    if isinstance(context, tuple):  # a thread of the pool and what it ran: who asked gets it too
        return
    call = (getattr(context, "spawn_tree_locals", None) or {}).get(_CALL)
    if call is not None:
        gone = call.connection.closed and isinstance(value, OSError)
        if gone or (call.connection.broken and isinstance(value, ConnectionError)):
            return  # it found the sockets gone, or reset, as it should
        call.reported = value
    log.error("%r raised %s", context, kind.__name__, exc_info=value)
