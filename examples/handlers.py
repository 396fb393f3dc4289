"""Handlers of one's own: a delay, an answer that is changed, an answer without the backend.

Run from the root of a checkout, for instance
``vaurien --distant 127.0.0.1:8001 --behavior 20:examples.handlers.Unavailable``.
"""

import gevent

from vaurien.handlers import BaseHandler

class Delay(BaseHandler):
    """Adds a delay before the backend is called.
    """
    name = 'delay'
    options = {'sleep': ("Delay in seconds", int, 1),
            'before':
                    ("If True adds before the backend is called. Otherwise"
                    " after", bool, True)}

    def __call__(self, client_sock, backend_sock, to_backend):
        before = to_backend and self.options('before')
        after = not to_backend and not self.options('before')

        if before:
            gevent.sleep(self.options('sleep'))

        data = self._get_data(client_sock, backend_sock, to_backend)

        if after:
            gevent.sleep(self.options('sleep'))

        if data:
            dest = to_backend and backend_sock or client_sock
            dest.sendall(data)


class Unavailable(BaseHandler):
    """Lets an HTTP backend do its work, and tells the client that it did not.

    The whole exchange in one call: send the request on, read the answer, change it, send it back.
    It takes the request and the head of the answer to be one piece each.
    """

    name = "unavailable"
    options = {"status": ("What the status line says", str, "503 Service Unavailable")}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if not data:
            return  # the end of this side, which is passed on when we return
        if not to_backend:
            client_sock.sendall(data)  # the rest of a long answer
            return
        backend_sock.sendall(data)
        answer = backend_sock.recv(65536)  # claims the backend's side until we return
        if answer:
            version, _, rest = answer.partition(b" ")
            _, _, rest = rest.partition(b"\r\n")
            status = self.options("status").encode()
            client_sock.sendall(version + b" " + status + b"\r\n" + rest)


class Maintenance(BaseHandler):
    """Answers an HTTP request itself; the backend hears nothing of it."""

    name = "maintenance"
    options = {
        "text": ("What the page says", str, "Closed for maintenance.\n"),
        "retry_after": ("When to come again, in seconds", int, 30),
    }

    def __call__(self, client_sock, backend_sock, to_backend):
        if not to_backend:
            return False  # the backend has nothing to say here, unless that it is gone
        request = b""
        while b"\r\n\r\n" not in request:
            data = client_sock.recv(65536)
            if not data:
                return False
            request += data
        page = self.options("text").encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\n"
            f"Retry-After: {self.options('retry_after')}\r\n"
            f"Content-Length: {len(page)}\r\n"
            "Connection: close\r\n\r\n"
        )
        client_sock.sendall(head.encode() + page)
        return False  # a polite end: all of the above arrives first
