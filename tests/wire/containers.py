"""What the Toxiproxy modules of Testcontainers send, as scripts.

In their containers the API is at port 8474, and proxies listen at 0.0.0.0, at ports from 8666 on;
here ``{free1}`` and ``{free2}`` stand for those. A module waits until ``/version`` answers, and
leaves the rest to the client of its language: `tests.wire.clients` has how these talk.
Testcontainers for Python has no such module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.wire.clients import CLIENTS, Script
from tests.wire.player import Step, Talk, makes, shown

FIRST, SECOND = "127.0.0.1:{free1}", "127.0.0.1:{free2}"


def cuts(client: str, path: str) -> Script:
    """Cut a connection as the docs of the Java module say: with no bandwidth in both streams."""
    streams = ("downstream", "upstream")
    names = {stream: f"CUT_CONNECTION_{stream.upper()}" for stream in streams}
    say = CLIENTS[client]
    toxic = {"type": "bandwidth", "toxicity": 1.0, "attributes": {"rate": 0}}
    return [
        Talk(f"cut {path}", FIRST),
        *[
            say.send("POST", f"{path}/toxics", {"name": names[stream], "stream": stream, **toxic})
            for stream in streams
        ],
        Talk(f"cut {path}", FIRST, cut=True),
        *[
            step
            for stream in streams
            for step in (
                say.get(f"{path}/toxics/{names[stream]}"),
                say.delete(f"{path}/toxics/{names[stream]}"),
            )
        ],
        Talk(f"mended {path}", FIRST),
    ]


def java() -> Script:
    """``ToxiproxyContainer`` as it is, and before 1.18, where it made its proxies by itself."""
    say, made = CLIENTS["java"], {"listen": "0.0.0.0:{free1}", "upstream": "{A}"}
    other = {"name": "{B}", "listen": "0.0.0.0:{free2}", "upstream": "{B}"}
    toxic = {"name": "latency", "stream": "downstream", "toxicity": 1.0, "type": "latency"}
    return [
        say.get("/version"),
        say.send("POST", "/proxies", {"name": "redis", **made}),
        Talk("one", FIRST),
        say.send(
            "POST",
            "/proxies/redis/toxics",
            {**toxic, "attributes": {"latency": 1100, "jitter": 0}},
        ),
        say.send("POST", "/proxies/redis/toxics/latency", {"attributes": {"jitter": 100}}),
        say.get("/proxies/redis/toxics"),
        say.delete("/proxies/redis/toxics/latency"),
        *cuts("java", "/proxies/redis"),
        say.resets(),
        say.get("/proxies/redis"),
        say.delete("/proxies/redis"),
        # Its own proxies were called as their upstream.
        say.send("POST", "/proxies", {"name": "{A}", **made}),
        *cuts("java", "/proxies/{A}"),
        say.send("POST", "/proxies", other),
        Talk("other", SECOND),
        say.get("/proxies"),
    ]


def go() -> Script:
    """The container's proxies come from a file, or from Go's client."""
    say = CLIENTS["go"]
    made = {"name": "redis", "listen": "0.0.0.0:{free1}", "upstream": "{A}"}
    shown = {**made, "listen": "{shown}", "toxics": []}
    toxic = {"name": "latency_down", "type": "latency", "stream": "downstream", "toxicity": 1}
    return [
        say.get("/version"),
        say.send("POST", "/proxies", {**made, "enabled": True, "toxics": None}),
        Talk("one", FIRST),
        say.get("/proxies/redis"),
        say.send(
            "POST",
            "/proxies/redis/toxics",
            {**toxic, "attributes": {"latency": 1000, "jitter": 200}},
        ),
        say.delete("/proxies/redis/toxics/latency_down"),
        say.send("POST", "/proxies/redis", {**shown, "enabled": False}),
        Talk("off", FIRST),
        say.send("POST", "/proxies/redis", {**shown, "enabled": True}),
        Talk("on", FIRST),
    ]


def node() -> Script:
    """``ToxiProxyContainer``: it looks for the first port that no proxy has."""
    headers = {"Accept": "*/*", "User-Agent": "node", "Sec-Fetch-Mode": "cors"}
    typed = {**headers, "Content-Type": "application/json"}

    def post(path: str, body: object, **otherwise: Any) -> Step:
        return Step("POST", path, body, typed, **otherwise)

    def get(path: str) -> Step:
        return Step("GET", path, headers=headers)

    app = {"name": "app", "upstream": "{A}", "listen": "0.0.0.0:{free1}"}
    switch = {"listen": "0.0.0.0:{free1}", "upstream": "{A}"}
    toxic = {"name": "upstream-latency", "type": "latency", "stream": "upstream", "toxicity": 1}
    return [
        get("/version"),
        get("/proxies"),
        post("/proxies", app),
        Talk("one", FIRST),
        get("/proxies"),
        post("/proxies", {"name": "app2", "upstream": "{B}", "listen": "0.0.0.0:{free2}"}),
        Talk("two", SECOND),
        post(
            "/proxies/app",
            {"enabled": False, **switch},
            **makes("disabled-listen", {**shown("app", "[::]:{free1}"), "enabled": False}, 200),
        ),
        Talk("off", FIRST),
        post("/proxies/app", {"enabled": True, **switch}),
        Talk("on", FIRST),
        post("/proxies/app/toxics", {"attributes": {"jitter": 50, "latency": 1500}, **toxic}),
        Step("DELETE", "/proxies/app/toxics/upstream-latency", headers=headers),
        get("/proxies"),
    ]


def dotnet() -> Script:
    """``ToxiproxyBuilder``, with ToxiproxyNetCore."""
    say = CLIENTS["dotnet"]
    assert say.proxy is not None
    made = {"name": "redis", "listen": "0.0.0.0:{free1}", "upstream": "{A}", "enabled": True}
    return [
        say.get("/version"),
        say.send("POST", "/proxies", say.proxy(**made)),
        Talk("one", FIRST),
        *say.add("/proxies/redis", "latency", "downstream", {"latency": 1100, "jitter": 100}),
        say.get("/proxies/redis"),
    ]


CONTAINERS: Mapping[str, Script] = {
    "testcontainers_java": java(),
    "testcontainers_go": go(),
    "testcontainers_node": node(),
    "testcontainers_dotnet": dotnet(),
}
