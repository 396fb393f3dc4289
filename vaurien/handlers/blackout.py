"""The handler that closes the client at once."""

from __future__ import annotations

import socket

from vaurien.handlers.base import BaseHandler


class Blackout(BaseHandler):
    """Closes the client at once, with a polite end (FIN); nothing of the request is passed on."""

    name = "blackout"
    options: dict[str, tuple[object, ...]] = {}

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> bool:
        return False
