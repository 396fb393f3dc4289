"""A socket handler as users write one, which passes everything on.

It is found by its dotted path, `passing_on.PassingOn`, with this directory on PYTHONPATH. The
directory is its own, so that no other module of the benchmarks gets onto the path of a proxy.
"""

from __future__ import annotations

import socket

from vaurien.handlers import BaseHandler


class PassingOn(BaseHandler):
    """Sends each piece on as it comes."""

    name = "passing_on"

    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> None:
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)
