"""A backend that streams: `python -m benchmarks.streamer HOST PORT`.

A client says how many bytes it wants, in 8 bytes (see `ask`), and gets them as fast as it takes
them, then the end of the stream. Each connection has a thread, so that a stalled one holds up none.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from contextlib import suppress

ENDLESS = 2**62
"""More bytes than anybody waits for."""

_WANTED = struct.Struct("!Q")
_PIECE = memoryview(bytes(1 << 20))


def ask(sock: socket.socket, count: int) -> None:
    """Ask the streamer at the other end for so many bytes."""
    sock.sendall(_WANTED.pack(count))


def serve(listener: socket.socket) -> None:
    """Accept and serve for ever."""
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_stream, args=(sock,), daemon=True).start()


def _stream(sock: socket.socket) -> None:
    # The client may leave in the midst of it: those of endless streams all do.
    with sock, suppress(OSError):
        said = sock.recv(_WANTED.size, socket.MSG_WAITALL)
        left = _WANTED.unpack(said)[0] if len(said) == _WANTED.size else 0
        while left:
            left -= sock.send(_PIECE[:left])


if __name__ == "__main__":
    serve(socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024))
