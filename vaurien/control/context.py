"""What both APIs have in common: what they work on, how a body is read, how an answer is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import falcon

from vaurien.address import Address
from vaurien.control.events import Recent, Streams
from vaurien.control.farm import Farm
from vaurien.errors import ListenError, NotFound, UsageError, VaurienError, nearest
from vaurien.gojson import named
from vaurien.options import told
from vaurien.relay.proxy import Proxy
from vaurien.strictjson import dumps, fields, load

_LONGEST = 1e9  # seconds of a ttl


@dataclass
class Context:
    """What the API works on.

    `metrics` gives Prometheus' text and its content type; `reload` reads the files again.
    """

    farm: Farm
    recent: Recent
    streams: Streams
    metrics: Callable[[], tuple[bytes, str]]
    reload: Callable[[], dict[str, list[str]]]
    stopping: bool = False

    def message(self, error: VaurienError) -> str:
        """What an error says, as Toxiproxy's clients know it where they do."""
        if not isinstance(error, ListenError) or not error.reason:
            return str(error)
        network = "unix" if str(error.address).startswith("unix:") else "tcp"
        place = ":" if error.reason.startswith("lookup") else f" {error.address}:"
        return f"listen {network}{place} {error.reason}{self._holder(error)}"

    def _holder(self, error: ListenError) -> str:
        """Which of our own proxies is in the way, if one is."""
        if isinstance(error.address, Address) and error.reason.endswith("already in use"):
            for proxy in self.farm:
                if proxy.enabled and proxy.address.meets(error.address):
                    return f" (by proxy {proxy.name!r})"
        return ""


def answer(resp: falcon.Response, body: object, status: int = 200) -> None:
    """Answer with JSON."""
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = "application/json"
    resp.data = dumps(body)


def ttl_of(body: object) -> float | None:
    """The ``ttl`` in a body, in seconds; UsageError if it is not a time."""
    ttl = named(body, ("ttl",)).get("ttl") if isinstance(body, dict) else None
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 < ttl <= _LONGEST:
        raise UsageError(f"ttl: {told(ttl)} is not a time; give seconds, more than 0")
    return float(ttl)


def read(req: falcon.Request, empty: object = None) -> Any:
    """The JSON of a request; `empty` if there is no body and that is allowed."""
    data = req.bounded_stream.read()
    return load(data) if data or empty is None else empty


def read_nothing(req: falcon.Request) -> None:
    """UsageError if a request that needs none has a body that says something."""
    fields(read(req, {}), {})


class Resource:
    """One path. A path without a proxy's name means the first proxy."""

    queries: Mapping[str, tuple[str, ...]] = {}  # what may stand behind the ?, by method

    def __init__(self, context: Context) -> None:
        self.context, self.farm = context, context.farm

    def proxy(self, name: str | None) -> Proxy:
        if name is None:
            return self.farm.first()
        if name not in self.farm.proxies:
            hint = nearest(name, self.farm.proxies, "proxies")
            raise NotFound(f"there is no proxy {name!r}; {hint}")
        return self.farm.get(name)
