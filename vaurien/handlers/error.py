"""The handler that answers with garbage."""

from __future__ import annotations

import socket
from typing import Any

from vaurien.behavior import Exchange
from vaurien.handlers.base import BaseHandler
from vaurien.options import count

INJECTED = 100  # bytes put inside a response


class Error(BaseHandler):
    """Answers with random bytes instead of the response.

    The request reaches the backend, which does its work; each piece of the response is replaced by
    as many random bytes, or with ``inject`` passed on with 100 random bytes in its middle. The
    bytes follow from the seed.
    """

    name = "error"
    options: dict[str, tuple[Any, ...]] = {
        "inject": ("Put random bytes inside the response instead of replacing it", bool, False),
        "warmup": ("Exchanges that pass untouched first; another name for after", count, 0),
    }
    points = {"after": "warmup"}

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> None:
        if to_backend:
            return self._pass(client_sock, backend_sock, to_backend)
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data:
            client_sock.sendall(self._spoil(data, self.exchange(client_sock)))
        return None

    def _spoil(self, data: bytes, exchange: Exchange) -> bytes:
        if not self.options.get("inject"):
            return exchange.noise(len(data))
        middle = len(data) // 2
        return data[:middle] + exchange.noise(INJECTED) + data[middle:]
