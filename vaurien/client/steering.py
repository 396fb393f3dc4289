"""`Client`: all that the API can do, a method for each.

Law: here are the methods for what there is one of, the program and what passes through it; those
for proxies, behaviors and toxics are beside this.
"""

from __future__ import annotations

import json
import time

from vaurien.client.asked import check, given, path_of, time_of
from vaurien.client.behaviors import Behaviors
from vaurien.client.proxies import Proxies
from vaurien.client.stream import Events
from vaurien.client.toxics import Toxics
from vaurien.client.wire import Json
from vaurien.errors import ClientError, Unreachable

_PAUSE = 0.05  # seconds between two tries of `Client.wait`


class Client(Behaviors, Proxies, Toxics):
    """Controls a running Vaurien over its HTTP API.

    It may be shared by threads. When a method returns, the change is in force. With ``proxy=None``
    a method means the first proxy, or all of them, where it says so. A `ttl` is in seconds, more
    than 0; without one, the default, a change is permanent.

    All methods raise `ClientError` if the API refuses, `Unreachable` if it cannot be reached, and
    `UsageError` for an argument that no request can carry. They return the API's JSON as Python
    objects.
    """

    def connections(self, proxy: str | None = None) -> list[Json]:
        """The open connections of a proxy, by default of the first."""
        return list(self._call("GET", path_of(proxy, "connections"))["connections"])

    def drop(self, proxy: str, number: int | None = None, how: str = "fin") -> int:
        """End a connection of a proxy, or all of them, politely or with ``how="reset"``; how many.

        ClientError (404) if there is no connection with that number.
        """
        check("number", number, (int,), "the number of a connection, or None for all")
        if number is None:
            return int(self._call("DELETE", path_of(proxy, "connections"), how=how)["dropped"])
        self._call("DELETE", path_of(proxy, "connections", str(number)), how=how)
        return 1

    def events(self, proxy: str | None = None) -> Events:
        """What happens from now on at a proxy, by default at all, as it happens.

        The answer is an iterator of `Event` that waits for the next one; it ends when Vaurien says
        that it stops, or when it is closed, by `Events.close` or by a ``with``. `Unreachable` if
        it breaks off.
        """
        return Events(self, path_of(proxy, "events"))

    def journal(self, proxy: str | None = None, limit: int | None = None) -> list[Json]:
        """The last exchanges that a handler touched, oldest first, as lines of a journal.

        At most `limit` lines, by default all that there are: 1,000 at most.
        """
        text = self._text("GET", path_of(proxy, "journal"), **given(limit=limit))
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def health(self) -> Json:
        """``status``, ``version``, and ``proxies``: how many. ClientError (503) while it ends."""
        return self._get("/health")

    def metrics(self) -> str:
        """What Prometheus gets, as text."""
        return self._text("GET", "/metrics")

    def reload(self) -> dict[str, list[str]]:
        """Let Vaurien read its files again. Returns the names of proxies that were ``created``,
        ``changed``, ``deleted`` and ``unchanged``, and in ``after_restart`` the settings that need
        a restart.

        ClientError (400) if the files are wrong, and then nothing has changed.
        """
        return self._post("/reload", {})

    def wait(self, timeout: float = 10.0) -> Json:
        """Wait until Vaurien is ready, for `timeout` seconds at most (10 by default); its health.

        `Unreachable`, with the reason, if it is not ready by then.
        """
        until = time.monotonic() + time_of(timeout)
        while True:
            left = until - time.monotonic()
            try:
                return dict(self._call("GET", "/health", timeout=max(left, _PAUSE)))
            except ClientError as error:
                if error.status not in (0, 503):
                    raise
                if time.monotonic() + _PAUSE > until:
                    raise Unreachable(f"not ready after {timeout:g} s: {error}") from None
            time.sleep(_PAUSE)
