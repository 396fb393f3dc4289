"""Plays a script of HTTP requests and TCP talk against a Toxiproxy API, and tells what happened.

Recorder and replay share it, so what they compare was made alike. A step is a request or a talk:

- a *request*: method, path, body and headers, byte for byte as a client would send them;
- a *talk*: bytes sent through a proxy, on a connection that stays open under its name.

Addresses differ from run to run. In steps and in what is told they are placeholders: ``{A}`` and
``{B}`` are backends, ``{taken}`` an address that is in use, ``{free1}``,
``{free2}`` ports that are kept free; ``{port1}``, ``{port2}`` ... are the ports that answers
brought, in the order in which they first came. ``{shown}`` is the ``listen`` of the last answer,
for clients that send it back as it was shown.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import PATIENCE, Backend, dial, wait_for

_PORT = re.compile(r"(?<=[\w.\] ]:)(\d{4,5})\b")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
#: The metrics that Toxiproxy has.
METRIC = re.compile(r"^(toxiproxy_proxy_\w+)\{(.*)\} (\S+)$", re.MULTILINE)

LONG_ENOUGH = 0.5  # seconds after which an answer through a cut connection would have come

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A request: `body` is sent as JSON, or as it is if it is text; None sends none."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    sized: bool = True  # whether a POST without a body says that it has none
    differs: str = ""  # the difference, of `tests.rivals.differences`, if Vaurien answers otherwise
    vaurien: Json | None = None  # and what it answers

    def asked(self) -> Json:
        """The request, as a recording has it."""
        asked: Json = {"method": self.method, "path": self.path}
        if self.body is not None:
            asked["body"] = self.body
        if self.headers:
            asked["headers"] = dict(self.headers)
        if self.chunked:
            asked["chunked"] = True
        if not self.sized:
            asked["sized"] = False
        return asked


@dataclass(frozen=True)
class Talk:
    """Five bytes through the proxy at `to`, on the connection `name`, which opens if it is new.

    It ends in ``A`` or ``B``, the backend that answered; ``closed``; ``refused``; or ``nothing``,
    if it is `cut` and waits in vain. With `end`, the connection is then closed, and has come to its
    end when the step is over.
    """

    name: str
    to: str
    end: bool = False
    cut: bool = False
    differs: str = ""
    vaurien: Json | None = None

    def asked(self) -> Json:
        """The talk, as a recording has it."""
        more = {name: True for name in ("end", "cut") if getattr(self, name)}
        return {"talk": self.name, "to": self.to} | more


def refuses(differs: str, error: str, status: int = 400) -> dict[str, Any]:
    """What is refused here, and in Toxiproxy is not, or in other words."""
    body = {"error": error, "status": status}
    told = {"status": status, "content_type": "application/json", "json": body}
    return {"differs": differs, "vaurien": told}


def makes(differs: str, body: Json, status: int = 201) -> dict[str, Any]:
    """What is made here, and in Toxiproxy is not, or otherwise."""
    told = {"status": status, "content_type": "application/json", "json": body}
    return {"differs": differs, "vaurien": told}


def shown(name: str, listen: str, upstream: str = "{A}", toxics: Sequence[Json] = ()) -> Json:
    """A proxy as it is answered."""
    return {
        "name": name,
        "listen": listen,
        "upstream": upstream,
        "enabled": True,
        "toxics": [*toxics],
    }


def step_of(asked: Json) -> Step | Talk:
    """A recorded step."""
    if "talk" in asked:
        return Talk(asked["talk"], asked["to"], asked.get("end", False), asked.get("cut", False))
    return Step(
        asked["method"],
        asked["path"],
        asked.get("body"),
        asked.get("headers", {}),
        asked.get("chunked", False),
        asked.get("sized", True),
    )


def _says(letter: bytes) -> Any:
    def script(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            sock.sendall(letter * len(data))

    return script


class Player:
    """Has the backends and the ports of one script; `play` does a step at the API's address."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._stack = contextlib.ExitStack()
        self._known: dict[str, str] = {}  # placeholder: what it stands for
        self._shown = ""
        self._connections: dict[str, socket.socket] = {}

    def __enter__(self) -> Player:
        for name in "AB":
            backend = self._stack.enter_context(Backend(_says(name.encode())))
            self._known[name] = backend.address
        taken = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._known["taken"] = f"127.0.0.1:{taken.getsockname()[1]}"
        for number in (1, 2):
            # Bound, and not listening: the kernel gives it to nobody who does not ask for it.
            kept = self._stack.enter_context(socket.socket())
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind(("127.0.0.1", 0))
            self._known[f"free{number}"] = str(kept.getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._connections.values():
            sock.close()
        self._stack.close()

    def _filled(self, text: str) -> str:
        """`text` with what its placeholders stand for."""
        text = text.replace("{shown}", self._shown)
        return _PLACEHOLDER.sub(lambda match: self._known.get(match[1], match[0]), text)

    def _ports(self) -> Iterator[str]:
        """The ports that have been seen."""
        return (value.rpartition(":")[2] for value in self._known.values())

    def _told(self, text: str) -> str:
        """`text` with placeholders for what differs from run to run."""
        for name, value in self._known.items():
            if ":" in value:
                text = text.replace(value, f"{{{name}}}")

        def placeholder(match: re.Match[str]) -> str:
            names = [name for name, value in self._known.items() if value == match[1]]
            if not names:
                names = [f"port{sum(name.startswith('port') for name in self._known) + 1}"]
                self._known[names[0]] = match[1]
            return f"{{{names[0]}}}"

        return _PORT.sub(placeholder, text)

    def play(self, step: Step | Talk) -> Json:
        """Do a step; what came of it."""
        return self._talk(step) if isinstance(step, Talk) else self._request(step)

    def _request(self, step: Step) -> Json:
        text = step.body if isinstance(step.body, str | None) else json.dumps(step.body)
        body = None if text is None else self._filled(text).encode()
        host, _, port = self._api.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        with contextlib.closing(connection):
            if step.sized:
                connection.request(
                    step.method,
                    self._filled(step.path),
                    iter([body[:7], body[7:]]) if step.chunked and body else body,
                    dict(step.headers),
                    encode_chunked=step.chunked,
                )
            else:
                connection.putrequest(step.method, self._filled(step.path))
                for header, value in step.headers.items():
                    connection.putheader(header, value)
                connection.endheaders()
            response = connection.getresponse()
            answer = response.read().decode()
        told: Json = {"status": response.status}
        if kind := response.getheader("Content-Type"):
            told["content_type"] = kind
        if step.path == "/metrics":  # those of listeners that this script knows of
            told["metrics"] = sorted(
                f"{name} {' '.join(sorted(self._told(labels).split(',')))} {float(value):g}"
                for name, labels, value in METRIC.findall(answer)
                if set(_PORT.findall(labels)) <= {*self._ports()}
            )
            return told
        if shown := re.search(r'"listen": ?"([^"]+)"', answer):
            self._shown = shown[1]
        answer = self._told(answer)
        try:
            told["json"] = json.loads(answer)
        except ValueError:
            told["text"] = answer
        if step.path == "/version" and "version" in told.get("json", {}):
            told["ends"] = answer[-1:]
            told["json"]["version"] = "{version}"
        return told

    def _talk(self, talk: Talk) -> Json:
        try:
            sock = self._connections.get(talk.name) or dial(self._filled(talk.to))
        except ConnectionRefusedError:
            return {"result": "refused"}
        self._connections[talk.name] = sock
        try:
            sock.sendall(b"bytes")
            if talk.cut and not select.select([sock], [], [], LONG_ENOUGH)[0]:
                return {"result": "nothing"}
            data = sock.recv(5)
        except ConnectionError:
            data = b""
        if talk.end:
            sock.shutdown(socket.SHUT_WR)
            wait_for(lambda: select.select([sock], [], [], 0)[0] and not sock.recv(5), "its end")
        return {"result": data[:1].decode() or "closed"}
