"""How long an operation takes over the control API, and what an idle proxy costs.

The API is Toxiproxy's where that can say it, over one connection that is kept; `PROXIES` proxies
stand before the backend, with `EACH` connections open through each of them. Operations that end
connections come last.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from .measures import Effort, Measure, Metric, Values, hold, quantile
from .peers import Subject
from .processes import Address, RunError, memory

PROXIES = 100
EACH = 10  # connections open through each proxy


class Operation(NamedTuple):
    """A request that is timed: words for the table, method, path, body.

    In path and body {0} stands for a proxy and {1} for the backend.
    """

    words: str
    method: str
    path: str
    body: object = None


#: Toxiproxy's API, in the order in which they are timed: those that end connections come last.
SHARED = {
    "get": Operation("get a proxy", "GET", "/proxies/{0}"),
    "list": Operation(f"list {PROXIES} proxies", "GET", "/proxies"),
    "add": Operation(
        "add a toxic", "POST", "/proxies/{0}/toxics",
        {"type": "latency", "attributes": {"latency": 10}},
    ),
    "update": Operation(
        "update a toxic", "POST", "/proxies/{0}/toxics/latency_downstream",
        {"attributes": {"latency": 20}},
    ),
    "remove": Operation("remove a toxic", "DELETE", "/proxies/{0}/toxics/latency_downstream"),
    "reset": Operation(f"reset {PROXIES} proxies", "POST", "/reset"),
    "create": Operation(
        "create a proxy", "POST", "/proxies",
        {"name": "new{0}", "listen": "127.0.0.1:0", "upstream": "{1}"},
    ),
    "disable": Operation("disable a proxy", "POST", "/proxies/{0}", {"enabled": False}),
    "enable": Operation("enable a proxy", "POST", "/proxies/{0}", {"enabled": True}),
    "delete": Operation("delete a proxy", "DELETE", "/proxies/new{0}"),
}  # fmt: skip

#: What only Vaurien's own API has.
NATIVE = {
    "behavior": Operation(
        "set the behavior", "POST", "/proxies/{0}/behavior", {"behavior": "20:latency,5:error"}
    ),
    "handler": Operation(
        "set a handler", "POST", "/proxies/{0}/handler", {"name": "delay", "sleep": 0.1}
    ),
    "connections": Operation(f"list {EACH} connections", "GET", "/proxies/{0}/connections"),
    "reload": Operation("reload", "POST", "/reload"),
    "drop": Operation(f"drop {EACH} connections", "DELETE", "/proxies/{0}/connections"),
}


class Api:
    """One connection to a control API."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[float, Any]:
        """The milliseconds that a request took, and the JSON of the answer."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        begun = time.perf_counter()
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        taken = (time.perf_counter() - begun) * 1000
        if answer.status >= 300:
            raise RunError(f"{method} {path} was answered with {answer.status} {data!r}")
        return taken, json.loads(data) if data else None


def control(
    operations: Mapping[str, Operation], subjects: Sequence[Subject], effort: Effort
) -> Values:
    """Milliseconds for each operation, p50 and p99, and KiB of an idle proxy (Pss)."""
    (subject,) = subjects
    assert subject.pid is not None and subject.api is not None
    values: Values = {}
    with ExitStack() as stack:
        api = stack.enter_context(Api(subject.api))
        ends = {"listen": "127.0.0.1:0", "upstream": str(subject.backend)}
        wanted = [{"name": f"proxy{number}", **ends} for number in range(PROXIES)]
        before = memory(subject.pid)
        _, made = api.ask("POST", "/populate", json.dumps(wanted))
        values["control-idle"] = (memory(subject.pid) - before) / PROXIES / 1024
        for proxy in made["proxies"]:
            host, _, port = proxy["listen"].rpartition(":")
            stack.enter_context(hold(Address(host, int(port)), EACH))
        for key, (_, method, path, body) in operations.items():
            text = None if body is None else json.dumps(body)
            taken = []
            for number in range(effort.operations):
                name = f"proxy{number % PROXIES}"
                own = text and text.replace("{0}", name).replace("{1}", ends["upstream"])
                taken.append(api.ask(method, path.replace("{0}", name), own)[0])
            values[f"control-{key}-p50"] = quantile(taken, 0.5)
            values[f"control-{key}-p99"] = quantile(taken, 0.99)
    return values


def _measure(name: str, operations: Mapping[str, Operation], *more: Metric) -> Measure:
    times = (
        Metric(f"control-{key}-{share}", f"{operation.words}, {share}", "ms", higher=False)
        for key, operation in operations.items()
        for share in ("p50", "p99")
    )
    take = partial(control, operations)
    return Measure(name, "redis", take, (*more, *times), rounds=2, controlled=True, fresh=True)


IDLE = Metric("control-idle", "an idle proxy", "KiB", higher=False)

CONTROL = {
    "control": _measure("control", SHARED, IDLE),
    "native": _measure("native", NATIVE),
}
