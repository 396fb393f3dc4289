"""A protocol and a message handler of one's own: lines of text, and a backend that is too busy.

Run from the root of a checkout, for instance
``vaurien --distant 127.0.0.1:8001 --protocol examples.message_handlers.Lines
--behavior 20:examples.message_handlers.Busy``.
"""

from vaurien import MessageHandler
from vaurien.protocols.framer import Piece


class Busy(MessageHandler):
    """Answers in place of the backend, which does not see the request."""

    name = "busy"
    options = {"text": ("What the client is told", str, "busy")}

    def on_request(self, request):
        if request.summary == "quit":
            return None  # passed on, and answered by the backend
        return self.answer(self.options("text").encode() + b"\n")


class Lines:
    """A request is a line, and so is its answer."""

    def __init__(self):
        self._rest = {True: b"", False: b""}  # the beginning of a line, by direction
        self._count = {True: 0, False: 0}  # lines so far
        self._silent = set()  # exchanges that the backend does not answer

    def feed(self, to_backend, data):
        *lines, self._rest[to_backend] = (self._rest[to_backend] + data).split(b"\n")
        for line in lines:
            self._count[to_backend] += 1
            while not to_backend and self._count[False] in self._silent:
                self._count[False] += 1
            yield Piece(line + b"\n", self._count[to_backend], summary=line.decode("latin-1"))

    def instead(self, exchange, data):
        if not data:
            self._silent.add(exchange)
