"""A proxy: a plan, a listener, and the operations on it.

Law: an operation is done when its call returns, and none waits for the data path.
"""

from __future__ import annotations

from collections.abc import Callable

from vaurien.address import Address
from vaurien.net.server import Counters, Server
from vaurien.observe.events import Event
from vaurien.plan import Plan


class Proxy:
    """Runs one plan in the present greenlet's loop.

    Building it builds its handlers; `start` listens, and a connect succeeds once it has returned.
    """

    def __init__(self, plan: Plan, observers: tuple[Callable[[Event], None], ...] = ()) -> None:
        self.plan = plan
        self._server = Server(plan, self, observers)

    def __repr__(self) -> str:
        return f"<Proxy {self._server!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.plan.name

    @property
    def address(self) -> Address:
        """Where it listens, with the real port once started."""
        return self._server.bound

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._server.counters

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._server.connections)

    def start(self) -> None:
        """Listen; ListenError if the address cannot be had."""
        self._server.listen()

    def stop(self, drain: float = 0.0) -> int:
        """Stop accepting, let connections end for `drain` seconds; how many had to be ended."""
        self._server.stop_listening()
        return self._server.drain(drain)
