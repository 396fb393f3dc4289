"""The real program with its control API, and a client that measures every call.

The client is deliberately not Vaurien's own: what it sends may be nonsense.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.support import PATIENCE, READY, Program, dial, receive_all

PROMPT = 1.0  # seconds within which each call has to be answered, whatever happens meanwhile
_HTTP = re.compile(r"^http listening on (\S+)$")


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence with which it was refused; fails if it was not, as the API does it."""
        found = self.json
        assert set(found) >= {"error", "status"}, found
        assert found["status"] == self.status
        assert isinstance(found["error"], str) and found["error"]
        return str(found["error"])


class Unix(http.client.HTTPConnection):
    """HTTP through a unix socket."""

    def __init__(self, path: str, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = dial(f"unix:{self._path}")


class Api:
    """A client of the API at `address`; each call takes less than `PROMPT`, on one connection.

    Threads have one connection each.
    """

    prompt = PROMPT

    def __init__(self, address: str, headers: Mapping[str, str] | None = None) -> None:
        self.address, self.headers = address, dict(headers or {})
        self._mine = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def _connection(self) -> http.client.HTTPConnection:
        found = getattr(self._mine, "connection", None)
        if found is None:
            if self.address.startswith("unix:"):
                found = Unix(self.address[len("unix:") :])
            else:
                found = http.client.HTTPConnection(self.address, timeout=PATIENCE)
            self._mine.connection = found
            self._all.append(found)
        return found

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `body` as bytes, or what becomes JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = self._connection()
        start = time.monotonic()
        try:
            connection.request(method, path, data, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(response.status, response.read(), found)
        except BaseException:
            connection.close()
            raise
        took = time.monotonic() - start
        assert took < self.prompt, f"{method} {path} took {took:.2f} s"
        assert b"internal error" not in answer.body, (method, path, body, answer)
        return answer

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """One request that succeeds; the JSON of its answer, None if there is none."""
        answer = self.call(method, path, body)
        assert 200 <= answer.status < 300, (method, path, body, answer)
        return answer.json if answer.body else None

    def get(self, path: str) -> Any:
        """What is at `path`."""
        return self.ok("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """Post `body`, which has to be taken."""
        return self.ok("POST", path, body)

    def delete(self, path: str) -> Any:
        """Delete what is at `path`."""
        return self.ok("DELETE", path)

    def all(self) -> dict[str, Any]:
        """All that requests can change: proxies, toxics, behaviors."""
        proxies = self.get("/proxies")
        return {
            name: {**proxy, **self.get(f"/proxies/{name}/behavior")}
            for name, proxy in proxies.items()
        }

    def talk(self, data: bytes, finish: bool = True) -> bytes:
        """Send bytes on a connection of their own, and give all that comes back until EOF."""
        with dial(self.address) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
                if finish:
                    sock.shutdown(socket.SHUT_WR)
            return whatever(sock)


def whatever(sock: socket.socket) -> bytes:
    """All there is until EOF or a reset."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            data += chunk
    return bytes(data)


def statuses(data: bytes) -> list[int]:
    """The statuses in what came back from `Api.talk`."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", data)]


class Served(Program):
    """A Vaurien with its API on a free port; its arguments may make proxies, too."""

    def __init__(self, *arguments: object, headers: Mapping[str, str] | None = None, **kwargs: Any):
        given = [str(argument) for argument in arguments]
        extra: list[object] = []
        unix = any(argument.startswith("unix:") for argument in given)
        if not unix and "--http-port" not in given:
            extra += ["--http-port", 0]
        if "--distant" in given and "--local" not in given:
            extra += ["--local", "127.0.0.1:0"]
        super().__init__("--http", "--drain", 0, *extra, *given, **kwargs)
        self._headers = headers
        self.proxies: dict[str, str] = {}

    def start(self) -> Served:
        """Start it, and wait until its API listens."""
        self.spawn()
        while True:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, f"it ended before it listened: {''.join(self.log)}"
            if match := READY.match(line.rstrip("\n")):
                self.proxies[match[1]] = match[2]
                if not self.address:
                    self.name, self.address, self.backend = match.group(1, 2, 3)
                    self.seed = int(match[4])
            elif match := _HTTP.match(line.rstrip("\n")):
                self.api = Api(match[1], self._headers)
                return self

    def __enter__(self) -> Served:
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if hasattr(self, "api"):
            self.api.close()
        super().__exit__(*error)
        if error[:1] == (None,):
            assert_quiet(self)

    def create(self, name: str, upstream: str, **more: Any) -> str:
        """Make a proxy; where it listens."""
        body = {"name": name, "listen": "127.0.0.1:0", "upstream": upstream, **more}
        return str(self.api.post("/proxies", body)["listen"])


def assert_quiet(vaurien: Program) -> None:
    """Nothing in the log is a fault of the program itself."""
    for sign in ("Traceback", "internal error", "Exception"):
        before, found, after = vaurien.text.partition(sign)
        assert not found, before[-300:] + found + after[:3000]


@contextlib.contextmanager
def connected(address: str, n: int = 1) -> Iterator[list[socket.socket]]:
    """`n` clients that have had an answer of an echoing backend."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(dial(address)) for _ in range(n)]
        for sock in socks:
            sock.sendall(b"x")
        for sock in socks:
            assert sock.recv(1) == b"x"
        yield socks


def rest(sock: socket.socket) -> bytes:
    """End our side; what the other one still says."""
    sock.shutdown(socket.SHUT_WR)
    return receive_all(sock)
