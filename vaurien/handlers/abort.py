"""The handler that cuts the backend before it can answer."""

from __future__ import annotations

import socket

from vaurien.handlers.base import BaseHandler


class Abort(BaseHandler):
    """Cuts the connection to the backend before the response.

    The request reaches the backend, which does its work; when the response comes it is thrown away
    and both sides are closed with a polite end (FIN): done, but not acknowledged.
    """

    name = "abort"
    options: dict[str, tuple[object, ...]] = {}

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> bool | None:
        if not to_backend:
            return False
        self._pass(client_sock, backend_sock, to_backend)
        return None
