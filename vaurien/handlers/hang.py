"""The handler that never answers."""

from __future__ import annotations

import socket

from gevent.event import Event

from vaurien.handlers.base import BaseHandler


class Hang(BaseHandler):
    """Reads what the client sends and never answers.

    Nothing of it reaches the backend, and nothing of the backend reaches the client. The connection
    stays open until the client closes its side, or ``--timeout`` ends it.
    """

    name = "hang"
    options: dict[str, tuple[object, ...]] = {}

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> bool:
        if not to_backend:
            Event().wait()  # until the connection ends, and with it this call
        while self._get_data(client_sock, backend_sock, to_backend):
            pass
        return False
