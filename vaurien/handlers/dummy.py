"""The handler that does nothing; what no other behavior picks goes to it."""

from __future__ import annotations

import socket

from vaurien.behavior import DUMMY
from vaurien.handlers.base import BaseHandler


class Dummy(BaseHandler):
    """Passes everything on, unchanged.

    What the weights leave of 100 goes to it. The data path recognises it and pumps the bytes
    without calling any handler.
    """

    name = DUMMY
    options: dict[str, tuple[object, ...]] = {}

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> None:
        self._pass(client_sock, backend_sock, to_backend)
