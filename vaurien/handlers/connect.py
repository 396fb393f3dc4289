"""The handlers that deal with a connection before its first byte, picked by ``--on-connect``.

The system completes a handshake before a proxy sees the client, so a client's ``connect`` succeeds
with all of them but ``down``, for which nothing listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from vaurien import options as options_
from vaurien.kinds import Kind
from vaurien.options import Values, milliseconds


class Met(Protocol):
    """A connection that was accepted and is not yet open, as these handlers see it."""

    def open_later(self, seconds: float) -> None:
        """Dial the backend after this many `seconds`."""

    def reset(self) -> None:
        """End it with a RST."""

    def wait(self) -> None:
        """Never dial; discard what the client sends, until it closes."""

    def undialled(self, reason: str) -> None:
        """Go on as if the backend could not be reached."""


class ConnectHandler:
    """A handler that meets a client; subclasses set `name` and `options` and implement `meet`."""

    works_on: ClassVar[Kind] = "connect"
    name: ClassVar[str] = ""
    options: Any = {}
    points: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Any = None, _proxy: Any = None) -> None:
        given = {} if options is None else options
        if not isinstance(given, Values):
            given = options_.fill(type(self).options, given, self.name)
        self.options = given

    def meet(self, connection: Met) -> None:
        """Deal with a connection that was just accepted."""
        raise TypeError(f"handler {self.name!r} does not implement meet()")


class Refuse(ConnectHandler):
    """Resets the client's connection as soon as it is accepted (RST); the backend is not dialled.

    A client sees its connection break at the first use, or while it connects if it is slow; to have
    the connect itself refused, use ``down``.
    """

    name = "refuse"
    refuses: ClassVar[bool] = True

    def meet(self, connection: Met) -> None:
        connection.reset()


class Down(Refuse):
    """Closes the listener, so that the system refuses all clients; only as ``100:down``.

    With ``since`` and ``until`` it is down for a while only. Connections that are open stay.
    """

    closes_listener = True
    name = "down"


class SlowAccept(ConnectHandler):
    """Dials the backend only after a delay; what the client sends meanwhile waits."""

    name = "slow_accept"
    options: Any = {"delay": ("Time in ms until the backend is dialled", milliseconds, 1000)}

    def meet(self, connection: Met) -> None:
        connection.open_later(self.options("delay") / 1000)


class Unanswered(ConnectHandler):
    """Accepts, never dials the backend and never answers.

    The connection stays open until the client closes it, or ``--timeout`` ends it.
    """

    name = "unanswered"

    def meet(self, connection: Met) -> None:
        connection.wait()


class DialFail(ConnectHandler):
    """Goes on as if the backend were down: the client's connection is closed with a FIN."""

    name = "dial_fail"

    def meet(self, connection: Met) -> None:
        connection.undialled("dial_fail")
