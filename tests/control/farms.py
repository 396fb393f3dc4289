"""A farm of proxies in one process: where each listens, and its API on one kept connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import PATIENCE, READY, Backend, Program, dial, exchange, parse_address

PROMPT = 1.0  # seconds within which each request has to be answered, whatever happens meanwhile
_API = re.compile(r"^(http|toxiproxy) listening on (\S+)$")


class Answer(NamedTuple):
    """What a request brought."""

    status: int
    body: bytes
    headers: Message

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Http(http.client.HTTPConnection):
    """A connection to an address as Vaurien prints it, a unix socket too."""

    def __init__(self, address: str) -> None:
        self.address = address
        target = parse_address(address)
        host, port = ("localhost", None) if isinstance(target, str) else target
        super().__init__(host, port, timeout=PATIENCE)

    def connect(self) -> None:
        """Connect."""
        self.sock = dial(self.address)
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Api:
    """A client of the API, with one connection that is kept."""

    def __init__(self, address: str) -> None:
        self.connection = Http(address)

    def call(self, method: str, path: str, body: Any = None, tries: int = 1) -> Answer:
        """One request; `body` as bytes, or what becomes JSON.

        One that changes nothing may be made several times, since the machine may be slow at one of
        them: the quickest counts.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        start = time.monotonic()
        try:
            self.connection.request(method, path, data)
            response = self.connection.getresponse()
            found = Answer(response.status, response.read(), response.headers)
        except BaseException:
            self.connection.close()
            raise
        took = time.monotonic() - start
        if took >= PROMPT and tries > 1:
            return self.call(method, path, body, tries - 1)
        assert took < PROMPT, f"{method} {path} took {took:.2f} s"
        return found

    def ask(
        self, method: str, path: str, body: Any = None, status: int = 200, tries: int = 1
    ) -> Any:
        """A request that is answered with `status`; what the answer says."""
        found = self.call(method, path, body, tries)
        assert found.status == status, (method, path, body, found)
        if not found.body:
            return None
        assert found.headers["Content-Type"].startswith("application/json")
        return found.json

    def get(self, path: str) -> Any:
        """What is at `path`."""
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """Post `body`, which has to be taken with 200."""
        return self.ask("POST", path, body)

    def delete(self, path: str) -> None:
        """Delete what is at `path`, which has to be answered with 204 and nothing."""
        assert self.ask("DELETE", path, status=204) is None

    def refused(self, method: str, path: str, body: Any = None, status: int = 400) -> str:
        """A request that is refused with `status`; the sentence."""
        found = self.ask(method, path, body, status, tries=3)
        assert set(found) == {"error", "status"}, found
        assert found["status"] == status
        assert isinstance(found["error"], str)
        assert found["error"] and "\n" not in found["error"]
        return found["error"]

    def create(self, name: str, backend: Backend | str, **more: Any) -> str:
        """Make a proxy; where it listens."""
        upstream = backend.address if isinstance(backend, Backend) else backend
        body = {"name": name, "listen": "127.0.0.1:0", "upstream": upstream, **more}
        return str(self.ask("POST", "/proxies", body, 201)["listen"])

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class Farm(Program):
    """A Vaurien with several proxies; with `api` also an API, on a free port.

    It is ready when as many proxies as `ready` say listen, and the API. `proxies` and `seeds` are
    by name, in the order in which they were told.
    """

    def __init__(
        self, *arguments: object, ready: int = 0, has_api: bool = True, **kwargs: Any
    ) -> None:
        port = [] if "--http-host" in arguments else ["--http-port", 0]
        extra = ["--http", *port] if has_api else []
        drain = [] if "--drain" in arguments else ["--drain", 0]
        super().__init__(*arguments, *extra, *drain, **kwargs)
        self.ready, self.has_api = ready, has_api
        self.proxies: dict[str, str] = {}
        self.seeds: dict[str, int] = {}
        self.backends: dict[str, str] = {}
        self.apis: dict[str, str] = {}

    def start(self) -> Farm:
        """Start it, and wait until all listen."""
        self.spawn()
        while len(self.proxies) < self.ready or (self.has_api and "http" not in self.apis):
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, f"it ended before it listened: {self.text}"
            if match := READY.match(line.rstrip("\n")):
                name, self.proxies[name], self.backends[name] = match[1], match[2], match[3]
                self.seeds[name] = int(match[4])
            elif match := _API.match(line.rstrip("\n")):
                self.apis[match[1]] = match[2]
        if self.has_api:
            self.api = Api(self.apis["http"])
        return self

    def __enter__(self) -> Farm:
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if hasattr(self, "api"):
            self.api.close()
        super().__exit__(*error)
        if error[:1] == (None,):
            for sign in ("Traceback", "internal error"):
                assert sign not in self.text, self.text

    def echoes(self, name: str, data: bytes = b"hello") -> bool:
        """Whether a new client of the proxy `name` gets back what it sends."""
        with dial(self.proxies[name]) as client:
            return exchange(client, data) == data


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_open(address: str) -> bool:
    """Whether something listens there."""
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return False
    return True


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """A client that has had an answer of an echoing backend."""
    with dial(address) as client:
        assert exchange(client, b"x") == b"x"
        yield client


def write(path: Path, text: str) -> str:
    """Write a file, in one step; its path."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)
    return str(path)
