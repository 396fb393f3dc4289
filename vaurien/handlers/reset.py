"""The handler that resets the client."""

from __future__ import annotations

import socket
import struct

from vaurien.handlers.base import BaseHandler

#: ``struct linger {1, 0}``: a close with it sends RST and drops what was not yet sent, socket(7).
ABORT = struct.pack("ii", 1, 0)


class Reset(BaseHandler):
    """Resets the client's connection with a real RST; nothing of the request is passed on.

    On a unix socket, where there is no RST, the client sees the connection close.
    """

    name = "reset"
    options: dict[str, tuple[object, ...]] = {}

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> bool:
        client_sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client_sock.close()
        return False
