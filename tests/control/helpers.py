"""A Vaurien with its API, and calls of that API that have to be prompt."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote

from tests.support import PATIENCE, Backend, Program, dial, kept_waiting, parse_address

PROMPT = 1.0  # seconds within which each call has to be answered, whatever the clients do
_LISTENING = re.compile(r"^(http|toxiproxy) listening on (\S+)$")


class Answer:
    """What a call brought: `status`, `headers`, `body`, and `json` if there is any."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.body.decode(errors='replace')}"


class Api(Program):
    """A Vaurien with its API on a free port; `http` and `toxiproxy` are its addresses.

    It has ``--http``, unless it is given ``--toxiproxy`` alone. Each call takes a connection of its
    own, and fails if it takes longer than `PROMPT`, without what the machine kept it waiting.
    """

    http = toxiproxy = ""

    def __init__(self, *arguments: object, **kwargs: Any) -> None:
        given = [str(argument) for argument in arguments]
        wanted = [flag for flag in ("--http", "--toxiproxy") if flag in given] or ["--http"]
        ports = [f"{flag}-port=0" for flag in wanted]
        self._wanted = {flag.removeprefix("--") for flag in wanted}
        missing = [flag for flag in wanted if flag not in given]
        super().__init__(*given, *missing, *ports, **kwargs)

    def start(self) -> Api:
        """Start it, and wait until its APIs listen."""
        self.spawn()
        wanted = set(self._wanted)
        while wanted:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, f"it ended before it listened: {self.text}"
            if match := _LISTENING.match(line.rstrip("\n")):
                setattr(self, match[1], match[2])
                wanted.discard(match[1])
        return self

    def __enter__(self) -> Api:
        super().__enter__()
        return self

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        address: str = "",
        prompt: float = PROMPT,
    ) -> Answer:
        """Any call; `body` is sent as JSON, or as it is if it is bytes."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        host, port = parse_address(address or self.http or self.toxiproxy)
        waited = kept_waiting() + kept_waiting(self.pid)
        start = time.monotonic()
        with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as connection:
            connection.request(method, path, data, dict(headers or {}))
            answer = Answer(connection.getresponse())
        took = time.monotonic() - start - (kept_waiting() + kept_waiting(self.pid) - waited)
        assert took < prompt, f"{method} {path} took {took:.2f} s"
        return answer

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """A call that answers with `status`; what it answers."""
        answer = self.call(method, path, body)
        assert answer.status == status, f"{method} {path} {body}: {answer}"
        return answer.json if answer.body else None

    def refused(self, method: str, path: str, body: Any = None, status: int = 400) -> str:
        """A call that is refused with `status`; the sentence."""
        answer = self.call(method, path, body)
        assert answer.status == status, f"{method} {path} {body}: {answer}"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["status"] == status
        return str(answer.json["error"])

    def clear(self) -> None:
        """Delete all proxies."""
        for name in self.ask("GET", "/proxies"):
            self.ask("DELETE", f"/proxies/{quote(name, safe='')}", status=204)

    def proxy(self, backend: Backend | str, name: str = "p", **more: Any) -> Remote:
        """A new proxy before `backend`."""
        upstream = backend.address if isinstance(backend, Backend) else backend
        body = {"name": name, "listen": "127.0.0.1:0", "upstream": upstream, **more}
        return Remote(self, self.ask("POST", "/proxies", body, 201))


class Remote:
    """A proxy, driven through the API. As a context manager it is deleted at the end."""

    def __init__(self, api: Api, made: Any) -> None:
        self.api, self.name, self.address = api, made["name"], made["listen"]
        self.path = f"/proxies/{quote(self.name, safe='')}"

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        if self.api.call("DELETE", self.path).status != 204:
            assert self.api.call("GET", self.path).status == 404

    def dial(self, timeout: float = PATIENCE) -> Any:
        """A new client of it."""
        return dial(self.address, timeout)

    def show(self) -> Any:
        """As Toxiproxy shows it."""
        return self.api.ask("GET", self.path)

    def state(self) -> Any:
        """As Vaurien shows it."""
        return self.api.ask("GET", f"{self.path}/state")

    def change(self, **fields: Any) -> Any:
        """Change it."""
        return self.api.ask("POST", self.path, fields)

    def add(
        self,
        kind: str,
        name: str = "",
        stream: str = "",
        toxicity: float | None = None,
        ttl: float | None = None,
        **attributes: Any,
    ) -> str:
        """Add a toxic; its name."""
        body: dict[str, Any] = {"type": kind, "attributes": attributes}
        given = {"name": name, "stream": stream, "toxicity": toxicity, "ttl": ttl}
        body |= {key: value for key, value in given.items() if value not in ("", None)}
        return str(self.api.ask("POST", f"{self.path}/toxics", body)["name"])

    def update(self, name: str, toxicity: float | None = None, **attributes: Any) -> Any:
        """Change a toxic."""
        body: dict[str, Any] = {"toxicity": toxicity, "attributes": attributes}
        return self.api.ask("PATCH", f"{self.path}/toxics/{name}", body)

    def remove(self, name: str) -> None:
        """Take a toxic away."""
        self.api.ask("DELETE", f"{self.path}/toxics/{name}", status=204)

    def toxics(self) -> Any:
        """All of them."""
        return self.api.ask("GET", f"{self.path}/toxics")
