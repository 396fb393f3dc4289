"""A meeting: what becomes of a client that was accepted, before its backend is dialled.

It is what handlers of ``--on-connect`` get, see `vaurien.handlers.connect.Met`.

Law: it ends in one way only: the backend is dialled, or the connection ends.
"""

from __future__ import annotations

from typing import Any

from vaurien.exchange.picks import Picked
from vaurien.net.guard import guarded
from vaurien.net.loop import READ, Watcher


class Meeting:
    """One client, met by the handler `picked`; `added` says how long it held the client up."""

    def __init__(self, connection: Any, picked: Picked) -> None:
        self._connection, self.picked = connection, picked
        self._watcher: Watcher | None = None
        self.puts_off = False  # whether the dial is still to come

    def __repr__(self) -> str:
        return f"<Meeting of {self._connection!r} by {self.picked.name!r}>"

    def open_later(self, seconds: float) -> None:
        """Dial the backend after so many seconds."""
        self._connection.present().added[self.picked] = seconds
        self.puts_off = True
        self._watcher = self._connection.loop.timer(seconds)
        self._watcher.start(self._open_now)

    @guarded
    def _open_now(self) -> None:
        self.over()
        self._connection.open()

    def reset(self) -> None:
        """End it with a RST."""
        self._connection.reset()

    def wait(self) -> None:
        """Never dial; discard what the client sends, until it closes."""
        connection = self._connection
        self._watcher = connection.loop.io(connection.client.fileno(), READ)
        self._watcher.start(self._discard)

    @guarded
    def _discard(self) -> None:
        connection = self._connection
        try:
            if connection.client.recv_into(connection.loop.view):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        connection.first_end = "client"
        connection.close()

    def undialled(self, reason: str) -> None:
        """Go on as if the backend could not be reached."""
        self._connection.end("handler")

    def dismiss(self) -> None:
        """The handler is picked no more: do at once what it put off, or end what it kept."""
        if self.puts_off and self._watcher is not None:
            self._open_now()
        else:
            self._connection.end("dropped")

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours ends this connection, and no other."""
        self._connection.crashed()

    def over(self) -> None:
        """It is over: nothing of it comes later."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
