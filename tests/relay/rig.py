"""A proxy in a thread of the test's own process, before a backend whose socket the test has.

Nothing is patched: the thread has the loop, the test is plain blocking code, and what it asks of
the proxy runs there, by `Loop.call`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gevent.event import Event as GeventEvent
from gevent.hub import get_hub

from tests.laws.helpers import Acceptor
from tests.support import PATIENCE, dial, receive, receive_all, wait_for
from vaurien import registry
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.counts import Totals
from vaurien.net.loop import Loop
from vaurien.observe.events import Began, Ended
from vaurien.plan import Plan, Specification, Toxic
from vaurien.relay.proxy import Proxy


def specification(cls: type, **options: Any) -> Specification:
    """A handler of that class, by its own name."""
    return Specification(cls.name, cls, options)  # type: ignore[attr-defined]


def builtin(name: str, **options: Any) -> Specification:
    """A built-in handler."""
    return Specification(name, registry.find(name, "test"), options)


class Served:
    """A proxy of `plan`, run in a thread."""

    make_loop: Callable[[], Loop] = Loop

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.began: list[Began] = []
        self.ended: list[Ended] = []
        self.loop: Any = None
        self.proxy: Any = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None

    def _note(self, event: Any) -> None:
        (self.began if isinstance(event, Began) else self.ended).append(event)

    def _run(self) -> None:
        try:
            self.loop = type(self).make_loop()
            self._over = GeventEvent()
            self.proxy = Proxy(self.plan, (self._note,), True, self.loop)
            self.proxy.start()
        except BaseException as error:
            self._error = error
            self._ready.set()
            return
        self._ready.set()
        self._over.wait()
        self.proxy.stop()
        get_hub().destroy(destroy_loop=True)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._error is not None:
            raise self._error
        self.address = str(self.proxy.address)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call(self._over.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def dial(self) -> socket.socket:
        """A new client."""
        return dial(self.address)

    def change(self, text: str, *specifications: Specification) -> None:
        """Put another behavior in force, live."""
        plan = replace(
            self.proxy.plan,
            behavior=behavior(text, "test"),
            handlers={one.name: one for one in specifications},
        )
        self.loop.call(self.proxy.change, plan)

    def toxic(self, kind: str, **options: Any) -> None:
        """Add a toxic, live."""
        self.loop.call(self.proxy.add_toxic, Toxic(builtin(kind, **options)))

    def remove(self, name: str) -> None:
        """Remove a toxic, live."""
        self.loop.call(self.proxy.remove_toxic, name)

    def totals(self) -> Totals:
        """What was counted so far."""
        if not self._thread.is_alive():
            return self.proxy.counters.totals(())  # type: ignore[no-any-return]
        return self.loop.call(self.proxy.totals)  # type: ignore[no-any-return]

    def wait_ended(self, n: int) -> list[Ended]:
        """Wait for the end of `n` exchanges."""
        wait_for(lambda: len(self.ended) >= n, f"{n} exchanges over, of {self.ended}")
        return self.ended


class Wire:
    """A client, the backend's end of its connection, and the proxy between them."""

    def __init__(self, served: Served, backend: Acceptor) -> None:
        self.served, self.backend = served, backend
        self.client = served.dial()
        self.server = backend.accept()

    def send(self, data: bytes) -> None:
        """Have the client send."""
        self.client.sendall(data)

    def answer(self, data: bytes) -> None:
        """Have the backend send."""
        self.server.sendall(data)

    def at_backend(self, data: bytes) -> None:
        """The backend gets this, next."""
        assert receive(self.server, len(data)) == data

    def at_client(self, data: bytes) -> None:
        """The client gets this, next."""
        assert receive(self.client, len(data)) == data

    def wait_received(self, up: int = 0, down: int = 0) -> None:
        """Wait until the proxy has read that many bytes of each side."""

        def has() -> bool:
            received = self.served.totals().received
            return received.upstream >= up and received.downstream >= down

        wait_for(has, f"{up} and {down} bytes read")

    def wait_gone(self) -> None:
        """Wait until the proxy has no connection."""
        served = self.served
        wait_for(lambda: not served.loop.call(lambda: served.proxy.connections))

    def no_more(self) -> None:
        """End it from the client, and neither side gets anything more."""
        self.client.shutdown(socket.SHUT_WR)
        assert receive_all(self.server) == b""
        self.server.close()
        assert receive_all(self.client) == b""

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()


@contextlib.contextmanager
def wire(
    text: str = "100:dummy",
    *specifications: Specification,
    protocol: str = "tests.lines.Lines",
    **settings: Any,
) -> Iterator[Wire]:
    """One connection through a proxy with that behavior."""
    with Acceptor() as backend:
        plan = Plan(
            local=address("127.0.0.1:0", "test"),
            distant=address(backend.address, "test"),
            behavior=behavior(text, "test"),
            handlers={one.name: one for one in specifications},
            seed=1,
            protocol=protocol,
            **settings,
        )
        with Served(plan) as served:
            found = Wire(served, backend)
            try:
                yield found
            finally:
                found.close()
