"""How long an operation takes over the control API, and what an idle proxy costs.

The API is Toxiproxy's, which both peers speak, over one connection that is kept; `PROXIES` proxies
stand before the backend, with `EACH` connections open through each of them. Operations that end
connections come last.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from .measures import Effort, Measure, Metric, Values, hold, quantile
from .peers import Subject
from .processes import Address, RunError, memory

PROXIES = 100
EACH = 10  # connections open through each proxy

#: What is timed, in this order: words for the table, method, path, body.
OPERATIONS: dict[str, tuple[str, str, str, object]] = {
    "get": ("get a proxy", "GET", "/proxies/{0}", None),
    "list": (f"list {PROXIES} proxies", "GET", "/proxies", None),
    "add": (
        "add a toxic", "POST", "/proxies/{0}/toxics",
        {"type": "latency", "attributes": {"latency": 10}},
    ),
    "update": (
        "update a toxic", "POST", "/proxies/{0}/toxics/latency_downstream",
        {"attributes": {"latency": 20}},
    ),
    "remove": ("remove a toxic", "DELETE", "/proxies/{0}/toxics/latency_downstream", None),
    "create": (
        "create a proxy", "POST", "/proxies",
        {"name": "new{0}", "listen": "127.0.0.1:0", "upstream": "{1}"},
    ),
    "disable": ("disable a proxy", "POST", "/proxies/{0}", {"enabled": False}),
    "enable": ("enable a proxy", "POST", "/proxies/{0}", {"enabled": True}),
    "delete": ("delete a proxy", "DELETE", "/proxies/new{0}", None),
}  # fmt: skip


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


def control(subjects: Sequence[Subject], effort: Effort) -> Values:
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
        for key, (_, method, path, body) in OPERATIONS.items():
            text = None if body is None else json.dumps(body)
            taken = []
            for number in range(effort.operations):
                name = f"proxy{number % PROXIES}"
                own = text and text.replace("{0}", name).replace("{1}", ends["upstream"])
                taken.append(api.ask(method, path.replace("{0}", name), own)[0])
            values[f"control-{key}-p50"] = quantile(taken, 0.5)
            values[f"control-{key}-p99"] = quantile(taken, 0.99)
    return values


CONTROL = {
    "control": Measure(
        "control",
        "redis",
        control,
        (
            Metric("control-idle", "an idle proxy", "KiB", higher=False),
            *(
                Metric(f"control-{key}-{share}", f"{words}, {share}", "ms", higher=False)
                for key, (words, *_) in OPERATIONS.items()
                for share in ("p50", "p99")
            ),
        ),
        controlled=True,
    )
}
