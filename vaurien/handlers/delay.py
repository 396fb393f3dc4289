"""The handler that waits."""

from __future__ import annotations

import socket
from typing import Any

import gevent

from vaurien.handlers.base import BaseHandler
from vaurien.options import seconds


class Delay(BaseHandler):
    """Adds a delay before the backend is called.

    It waits before each piece of data (at most 64 KiB) of the request, or of the response if
    ``before`` is no, and before passing on the end of that side. Nothing is lost or reordered.
    """

    name = "delay"
    options: Any = {
        "sleep": ("Delay in seconds", seconds, 1),
        "before": ("If True adds before the backend is called. Otherwise after", bool, True),
    }

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> None:
        before = to_backend and self.options("before")
        after = not to_backend and not self.options("before")
        if before:
            gevent.sleep(self.options("sleep"))
        data = self._get_data(client_sock, backend_sock, to_backend)
        if after:
            gevent.sleep(self.options("sleep"))
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)
