"""What clients of Toxiproxy send that no registry of a CI machine has, as scripts.

Each client talks in its own way: its headers, the fields of its bodies and how it writes them, what
it asks before it does a thing. That is data here, read from the clients' public sources, a `Client`
each; and each of them has the same conversation, as far as it has words for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.wire.player import Json, Step, Talk

Script = Sequence[Step | Talk]
AT = "127.0.0.1:{free1}"

#: The toxics, with attributes before and after a change.
TOXICS: Mapping[str, tuple[Json, Json]] = {
    "latency": ({"latency": 1000, "jitter": 10}, {"latency": 2000, "jitter": 20}),
    "bandwidth": ({"rate": 1000}, {"rate": 2000}),
    "slow_close": ({"delay": 100}, {"delay": 200}),
    "timeout": ({"timeout": 1000}, {"timeout": 2000}),
    "reset_peer": ({"timeout": 1000}, {"timeout": 2000}),
    "slicer": (
        {"average_size": 64, "size_variation": 8, "delay": 10},
        {"average_size": 32, "size_variation": 4, "delay": 20},
    ),
    "limit_data": ({"bytes": 1000}, {"bytes": 2000}),
}


def whole(**given: Any) -> Json:
    """A proxy or a toxic with the fields that it has, as they are called in the text on the API."""
    return given


def only(*names: str) -> Callable[..., Json]:
    """These of the fields."""
    return lambda **given: {name: given[name] for name in names}


def pascal(name: str) -> str:
    """``Latency``, as .NET writes it; two names are written as the text has them."""
    return name if "_" in name else name.capitalize()


def dotnet(**given: Any) -> Json:
    """As Newtonsoft.Json writes .NET's properties."""
    body = {pascal(name): value for name, value in given.items()}
    if "Attributes" in body:
        body["Attributes"] = {pascal(name): value for name, value in body["Attributes"].items()}
        body["Stream"] = {"upstream": "UpStream", "downstream": "DownStream"}[body["Stream"]]
    return body


def aspire(**given: Any) -> Json:
    """A toxic as .NET Aspire sends it: with all attributes that it knows, null if not given."""
    attributes = dict.fromkeys(("latency", "jitter", "rate")) | given["attributes"]
    return given | {"attributes": attributes}


def node(**given: Any) -> Json:
    """A toxic as Node's client before version 4 sends it: with its proxy, and all that this has."""
    proxy = {"name": "p", "listen": AT, "upstream": "{A}", "enabled": True, "toxics": []}
    return given | {
        "proxy": {"toxics": [], "toxiproxy": {"host": "http://localhost:8474"}, **proxy}
    }


switch = only("enabled")


@dataclass(frozen=True)
class Client:
    """How a client talks. What is None it has no word for."""

    headers: Mapping[str, str]  # of all requests
    typed: Mapping[str, str]  # of those with a body, beside
    proxy: Callable[..., Json] | None = whole  # one that is to be made, as listed by `populate`
    toxic: Callable[..., Json] = whole
    alter: Callable[..., Json] | None = switch  # a proxy that is to be changed
    retouch: Callable[..., Json] | None = whole  # a toxic that is to be changed
    alters: Sequence[str] = ("POST",)  # with which method, or methods, by the server's version
    retouches: Sequence[str] = ("POST",)
    toxics: Sequence[str] = tuple(TOXICS)
    toxicity: Any = 1.0
    populate: bool = True
    shows_one: bool = True  # whether it asks for one proxy, and one toxic
    looks_first: bool = False  # whether it asks for the proxy before it adds a toxic
    chunked: bool = False
    reset: Mapping[str, Any] = field(default_factory=dict)  # of the request for a reset

    def get(self, path: str) -> Step:
        """A request."""
        return Step("GET", path, headers=self.headers)

    def delete(self, path: str) -> Step:
        """A request."""
        return Step("DELETE", path, headers=self.headers)

    def send(self, verb: str, path: str, body: Any) -> Step:
        """A request with a body."""
        return Step(verb, path, body, {**self.headers, **self.typed}, chunked=self.chunked)

    def resets(self) -> Step:
        """The request for a reset."""
        return Step("POST", "/reset", **{"headers": self.headers, **self.reset})

    def add(self, path: str, kind: str, stream: str, attributes: Json) -> Iterator[Step]:
        """A new toxic, under the name that it has by itself."""
        if self.looks_first:
            yield self.get(path)
        name = f"{kind}_{stream}"
        given = {"name": name, "type": kind, "stream": stream}
        body = self.toxic(**given, toxicity=self.toxicity, attributes=attributes)
        yield self.send("POST", f"{path}/toxics", body)

    def script(self) -> Script:
        """The conversation."""
        return [*self._proxies(), *self._toxics(), *self._changes(), *self._end()]

    def _proxies(self) -> Iterator[Step | Talk]:
        yield self.get("/version")
        yield self.get("/proxies")
        p = {"name": "p", "listen": AT, "upstream": "{A}", "enabled": True, "toxics": []}
        if self.proxy:
            yield self.send("POST", "/proxies", self.proxy(**p))
            yield self.send("POST", "/proxies", self.proxy(**p))
        else:
            yield self.send("POST", "/populate", [p])
        yield Talk("one", AT)
        yield self.get("/proxies")
        if self.shows_one:
            yield self.get("/proxies/p")
            yield self.get("/proxies/nobody")

    def _toxics(self) -> Iterator[Step | Talk]:
        for kind in self.toxics:
            before, after = TOXICS[kind]
            name = f"{kind}_downstream"
            path = f"/proxies/p/toxics/{name}"
            yield from self.add("/proxies/p", kind, "downstream", before)
            if self.shows_one:
                yield self.get(path)
            if self.retouch:
                given = {"name": name, "type": kind, "stream": "downstream", "toxicity": 0.5}
                body = self.retouch(**given, attributes=after)
                yield from (self.send(verb, path, body) for verb in self.retouches)
            yield self.get("/proxies/p/toxics")
            yield self.delete(path)
        yield from self.add("/proxies/p", "latency", "upstream", TOXICS["latency"][0])
        yield from self.add("/proxies/p", "latency", "upstream", TOXICS["latency"][0])
        yield from self.add("/proxies/p", "chaos", "upstream", {})
        yield from self.add("/proxies/nobody", "latency", "upstream", TOXICS["latency"][0])
        yield self.get("/proxies/p/toxics")
        yield self.delete("/proxies/p/toxics/latency_upstream")
        yield self.delete("/proxies/p/toxics/latency_upstream")

    def _changes(self) -> Iterator[Step | Talk]:
        p = {"name": "p", "listen": AT, "upstream": "{A}", "toxics": []}
        for verb in self.alters if self.alter else ():
            assert self.alter is not None
            yield self.send(verb, "/proxies/p", self.alter(**p, enabled=False))
            yield Talk(f"off, by {verb}", AT)
            yield self.get("/proxies")
            yield self.send(verb, "/proxies/p", self.alter(**p, enabled=True))
            yield Talk(f"on, by {verb}", AT)
            yield self.send(verb, "/proxies/nobody", self.alter(**p, enabled=True))
        yield from self.add("/proxies/p", "bandwidth", "upstream", TOXICS["bandwidth"][0])
        yield self.resets()
        yield self.get("/proxies/p/toxics")
        yield Talk("reset", AT)

    def _end(self) -> Iterator[Step | Talk]:
        if self.populate:
            make = self.proxy or whole
            other = {"name": "q", "listen": "127.0.0.1:0", "upstream": "{B}", "enabled": False}
            same = {"name": "p", "listen": AT, "upstream": "{B}", "enabled": True}
            listed = [make(**one, toxics=[]) for one in (same, other)]
            yield self.send("POST", "/populate", listed)
            yield Talk("populated", AT)
            yield self.get("/proxies")
        yield self.delete("/proxies/p")
        yield Talk("deleted", AT)
        yield self.delete("/proxies/p")


JSON = {"Content-Type": "application/json"}
UTF8 = {"Content-Type": "application/json; charset=utf-8"}
CREATED = ("name", "listen", "upstream")
ENABLED = (*CREATED, "enabled")
#: All but reset_peer, which came later than some clients.
OLD = tuple(kind for kind in TOXICS if kind != "reset_peer")
GO = {"User-Agent": "toxiproxy-cli", **JSON, "Accept-Encoding": "gzip"}
JAVA = {
    "User-Agent": "Java/17.0.15",
    "Accept": "text/html, image/gif, image/jpeg, */*; q=0.2",
    "Connection": "keep-alive",
}
RUBY = {
    "Accept-Encoding": "gzip;q=1.0,deflate;q=0.6,identity;q=0.3",
    "Accept": "*/*",
    "User-Agent": "Ruby",
    "Connection": "close",
}

CLIENTS: Mapping[str, Client] = {
    # Toxiproxy.Net, and ToxiproxyNetCore, which Testcontainers for .NET is used with.
    "dotnet": Client(
        headers={},
        typed=UTF8,
        proxy=lambda **given: dotnet(**only(*ENABLED)(**given)),
        toxic=dotnet,
        alter=lambda **given: dotnet(**only(*ENABLED)(**given)),
        retouch=dotnet,
        toxics=OLD,
        populate=False,
    ),
    # Toxiproxy.Client: it changes with PATCH if the version is 2.6.0 or later, else with POST.
    "dotnet_client": Client(
        headers={},
        typed=UTF8,
        alter=whole,
        alters=("POST", "PATCH"),
        retouches=("POST", "PATCH"),
        toxicity=1,
        populate=False,
    ),
    # .NET Aspire's Aspire.Hosting.ToxiProxy, which changes nothing that it has made.
    "dotnet_aspire": Client(
        headers={"Accept": "application/json"},
        typed=UTF8,
        proxy=only(*ENABLED),
        toxic=aspire,
        alter=None,
        retouch=None,
        toxics=("latency", "bandwidth"),
        populate=False,
        chunked=True,
    ),
    # ihsw/toxiproxy-php-client, with Guzzle: over PHP's own streams its bodies have an empty type.
    "php": Client(
        headers={"User-Agent": "GuzzleHttp/7", "Connection": "close"},
        typed={"Content-Type": ""},
        proxy=only(*CREATED),
        toxic=lambda **given: given | {"name": None},
        alter=only(*ENABLED),
        toxicity=1,
    ),
    # mpge/toxiproxy-php, which changes with PATCH always.
    "php_mpge": Client(
        headers={"Accept": "application/json", "User-Agent": "toxiproxy-php"},
        typed=JSON,
        proxy=only(*ENABLED),
        retouch=only("toxicity", "attributes"),
        alters=("PATCH",),
        retouches=("PATCH",),
    ),
    # toxiproxy_ex, with Tesla and Mint; it populates by making one proxy after the other.
    "elixir": Client(
        headers={"User-Agent": "mint/1.7.1"},
        typed=JSON,
        proxy=lambda **given: only(*CREATED)(**given) | {"enabled": None},
        retouch=None,
        populate=False,
        shows_one=False,
        reset={"body": {}, "headers": JSON},
    ),
    # toxiproxy (for Elixir), which sends what it is given.
    "elixir_toxiproxy": Client(
        headers={},
        typed=JSON,
        proxy=only(*CREATED),
        alter=only(*ENABLED),
        reset={"body": ""},
    ),
    # toxiproxy-ruby: PATCH for a proxy if the version is 2.6.0 or later, else POST.
    "ruby": Client(
        headers=RUBY,
        typed=JSON,
        proxy=lambda **given: only(*CREATED)(**given) | {"enabled": None},
        retouch=None,
        alters=("POST", "PATCH"),
        shows_one=False,
        reset={"headers": RUBY | JSON},
    ),
    # toxiproxy-java: its bodies go by as those of a form, and its reset does not say its length.
    "java": Client(
        headers=JAVA,
        typed={"Content-type": "application/x-www-form-urlencoded"},
        proxy=only(*CREATED),
        retouch=only("attributes"),
        populate=False,
        reset={"sized": False},
    ),
    # toxiproxy_rust, with reqwest: it makes proxies by populating only.
    "rust": Client(headers={"Accept": "*/*", **JSON}, typed={}, proxy=None, retouch=None),
    # Toxiproxy's own, for Go; toxiproxy-cli and Testcontainers for Go use it.
    "go": Client(
        headers=GO,
        typed={},
        proxy=lambda **given: given | {"toxics": None},
        alter=whole,
        retouch=only("toxicity", "attributes"),
        retouches=("PATCH",),
        toxicity=1,
        looks_first=True,
        reset={"body": ""},
    ),
    # toxiproxy-node-client 2 and 3, with axios.
    "node_3": Client(
        headers={"Accept": "application/json, text/plain, */*", "User-Agent": "axios/1.7.2"},
        typed=JSON,
        proxy=only(*ENABLED),
        toxic=node,
        alter=only("enabled", "listen", "upstream"),
    ),
    # toxiproxy-crystal.
    "crystal": Client(
        headers={"User-Agent": "Crystal", "Accept-Encoding": "gzip, deflate"},
        typed=JSON,
        proxy=lambda **given: only(*CREATED)(**given) | {"enabled": None},
        retouch=None,
        shows_one=False,
    ),
    # toxiproxy-haskell: it changes a toxic by a GET with a body, which changes nothing.
    "haskell": Client(
        headers={"Accept": "application/json;charset=utf-8,application/json"},
        typed={"Content-Type": "application/json;charset=utf-8"},
        alter=whole,
        retouches=("GET",),
        toxics=OLD,
        toxicity=1,
    ),
}
