"""The framer of plain TCP, which knows nothing of messages.

Laws: pure. An exchange begins with the first client bytes after the connection opens, and again
with the first client bytes after backend bytes, judged on bytes as they are read. EOF begins none.
What the backend sends before the client has spoken belongs to exchange 0. Nothing is ever cut, and
nothing kept.
"""

from __future__ import annotations

from vaurien.protocols.framer import Piece


class Tcp:
    """Counts the exchanges of one connection.

    `answered` is True while the last bytes came from the backend, or none came yet: the next bytes
    of the client begin an exchange. `exchange` is the number of the present one. The pump looks at
    `answered` itself, once for each chunk, and calls only when there is something to change; what
    it does so is what `feed` says.
    """

    __slots__ = ("answered", "exchange")

    def __init__(self) -> None:
        self.answered = True
        self.exchange = 0

    def __repr__(self) -> str:
        return f"<Tcp exchange {self.exchange}{', answered' if self.answered else ''}>"

    def feed(self, to_backend: bool, data: bytes) -> tuple[Piece]:
        """All of `data` as one piece; the first of its exchange if that begins with it.

        Where a message ends, nobody knows.
        """
        if not to_backend:
            first = not self.answered
            self.backend_bytes()
            return (Piece(data, self.exchange, first, False),)
        return (Piece(data, self.exchange + self.answered, self.client_bytes(), False),)

    def instead(self, exchange: int, data: bytes) -> None:
        """Nothing to do: whatever the backend sends next counts as an answer."""

    def client_bytes(self) -> bool:
        """Note that client bytes were read; True if they begin an exchange."""
        if not self.answered:
            return False
        self.answered = False
        self.exchange += 1
        return True

    def backend_bytes(self) -> None:
        """Note that backend bytes were read."""
        self.answered = True
