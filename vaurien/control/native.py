"""Vaurien's own HTTP API (`docs/api.rst`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import falcon

import vaurien
from vaurien import behavior as behavior_
from vaurien import bodies, registry
from vaurien.address import Address
from vaurien.bodies import bad, dumps, fields, load
from vaurien.control import openapi
from vaurien.control.events import Recent, Streams
from vaurien.control.farm import Farm
from vaurien.errors import ListenError, NotFound, UsageError, VaurienError, nearest
from vaurien.observe.lines import line
from vaurien.options import Option, Raw, told
from vaurien.plan import NOTHING
from vaurien.relay.proxy import Proxy

_LONGEST = 1e9  # seconds of a ttl
_BEHAVIOR: dict[str, tuple[type, ...]] = {
    "behavior": (str,),
    "on_connect": (str,),
    "handlers": (dict,),
    "ttl": (int, float),
}


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
    """The ``ttl`` in a body, in seconds; UsageError if it is no time."""
    ttl = body.get("ttl") if isinstance(body, dict) else None
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 < ttl <= _LONGEST:
        raise UsageError(f"ttl: {told(ttl)} is no time; give seconds, more than 0")
    return float(ttl)


def read(req: falcon.Request, empty: object = None) -> Any:
    """The JSON of a request; `empty` if there is no body and that is allowed."""
    data = req.bounded_stream.read()
    return load(data) if data or empty is None else empty


def read_nothing(req: falcon.Request) -> None:
    """UsageError if a request that needs none has a body that says something."""
    fields(read(req, {}), {})


class _Resource:
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


class Handlers(_Resource):
    """``/handlers``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        catalog = self.farm.catalog
        found = [
            {
                "name": name,
                "kind": registry.kind(cls),
                "summary": registry.summary(cls),
                "options": [_option(option) for option in registry.options_of(cls).values()],
            }
            for name, cls in sorted(catalog.classes.items())
        ]
        presets = [
            {"name": name, "summary": preset.summary}
            for name, preset in sorted(catalog.presets.items())
        ]
        answer(resp, {"handlers": found, "presets": presets})


def _option(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "type": option.type_name,
        "default": bodies.plain(option.get_default()),
        "choices": list(option.choices) or None,
        "description": option.description,
    }


class Handler(_Resource):
    """``/handler``: all exchanges to one."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        proxy = self.proxy(name)
        parts = proxy.plan.behavior.parts
        body: dict[str, Any] = {"proxy": proxy.name, "name": None, "options": None}
        if all(not weight or part == behavior_.DUMMY for weight, part in parts):
            body.update(name=behavior_.DUMMY, options={})
        elif len(parts) == 1 and parts[0][0] == 100 and "+" not in parts[0][1]:
            own = parts[0][1]
            body.update(name=own, options=bodies.handler_bodies(proxy.plan)[own])
        answer(resp, {**body, "behavior": str(proxy.plan.behavior)})

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        own = self.proxy(name).name
        body = read(req)
        if not isinstance(body, dict):
            raise bad("it is not an object")
        handler = body.pop("name", None)
        if handler is not None and not isinstance(handler, str):
            raise bad(f"name is {told(handler)}, not text")
        if not handler:
            raise UsageError("missing required field: name")
        ttl = ttl_of(body)
        body.pop("ttl", None)
        if any(mark in handler for mark in ",:+"):
            raise UsageError(f"name: {handler!r} is not one handler; set a mixture as the behavior")
        behavior = behavior_.parse(f"100:{handler}", "name")
        given = {handler: bodies.options(body, "")} if body else {}
        handlers = self.farm.catalog.choose(behavior, NOTHING, "name", options=given)
        self.farm.set_behavior(own, {"behavior": behavior}, handlers, ttl)
        self.on_get(req, resp, own)


class Behavior(_Resource):
    """``/behavior``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        proxy = self.proxy(name)
        answer(resp, {"proxy": proxy.name, **behavior_body(proxy)})

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        own = self.proxy(name).name
        body = read(req)
        given = fields(body, _BEHAVIOR)
        ttl = ttl_of(given)
        if "behavior" not in given and "on_connect" not in body:
            raise UsageError("missing required field: behavior (or on_connect)")
        behaviors = {
            what: behavior_.parse(text, what)
            for what, text in given.items()
            if what in ("behavior", "on_connect")
        }
        if "on_connect" in body and "on_connect" not in given:
            behaviors["on_connect"] = NOTHING
        options: dict[str, dict[str, Raw]] = {}
        for handler, values in given.get("handlers", {}).items():
            if not isinstance(values, dict):
                raise bad(f"handlers.{handler} is not an object")
            options[handler] = bodies.options(values, f"handlers.{handler}.")
        handlers = self.farm.catalog.choose(
            behaviors.get("behavior", NOTHING),
            behaviors.get("on_connect", NOTHING),
            options=options,
        )
        self.farm.set_behavior(own, behaviors, handlers, ttl)
        self.on_get(req, resp, own)


def behavior_body(proxy: Proxy) -> dict[str, Any]:
    """Who deals with a proxy's exchanges and meets its clients."""
    plan = proxy.plan
    return {
        "behavior": str(plan.behavior),
        "on_connect": str(plan.on_connect) if plan.on_connect.parts else None,
        "handlers": bodies.handler_bodies(plan),
    }


class _Switch(_Resource):
    """``/proxies/{name}/enable`` and ``disable``."""

    enabled: bool

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.proxy(name)
        ttl = ttl_of(fields(read(req, {}), {"ttl": (int, float)}))
        do = self.farm.enable if self.enabled else self.farm.disable
        answer(resp, state(self.farm, do(name, ttl)))


class Enable(_Switch):
    """``/proxies/{name}/enable``."""

    enabled = True


class Disable(_Switch):
    """``/proxies/{name}/disable``."""

    enabled = False


class ResetOne(_Resource):
    """``/proxies/{name}/reset``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.proxy(name)
        read_nothing(req)
        self.farm.reset(name)
        resp.status = falcon.HTTP_204


class State(_Resource):
    """``/state`` and ``/proxies/{name}/state``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        if name is not None:
            return answer(resp, state(self.farm, self.proxy(name)))
        proxies = [state(self.farm, proxy) for proxy in self.farm]
        return answer(resp, {"version": vaurien.__version__, "proxies": proxies})


def state(farm: Farm, proxy: Proxy) -> dict[str, Any]:
    """All there is to say of a proxy."""
    plan, counters, totals = proxy.plan, proxy.counters, proxy.totals()
    return {
        "name": plan.name,
        "local": str(proxy.address),
        "distant": str(plan.distant),
        "enabled": plan.enabled,
        "protocol": plan.protocol,
        "seed": plan.seed,
        **behavior_body(proxy),
        "toxics": [bodies.toxic_body(toxic) for toxic in bodies.in_order(plan.toxics)],
        "connections": proxy.connections,
        "counters": {
            "connections": counters.connections,
            "refused": totals.refused,
            "failed_dials": counters.failed_dials,
            "handler_errors": counters.handler_errors,
            "internal_errors": counters.crashes,
            "accept_errors": counters.accept_errors,
            "exchanges": totals.exchanges,
            "received": _ways(totals.received),
            "sent": _ways(totals.sent),
        },
        "stats": {
            name: {
                "picked": stats.picked,
                "fired": stats.fired,
                "bytes": stats.bytes,
                "added_p50": stats.added.quantile(0.5),
                "added_p99": stats.added.quantile(0.99),
            }
            for name, stats in proxy.stats.items()
        },
        "ttl": farm.ttls.left(plan.name),
    }


def _ways(both: tuple[int, int]) -> dict[str, int]:
    return {"upstream": both[0], "downstream": both[1]}


class Connections(_Resource):
    """``/connections`` and ``/proxies/{name}/connections``."""

    queries = {"DELETE": ("how",)}

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        found = [
            {
                "number": one.number,
                "client": one.client,
                "exchange": one.exchange,
                "handlers": list(one.handlers),
                "received": _ways(one.received),
                "sent": _ways(one.sent),
                "held": one.held,
            }
            for one in self.proxy(name).look()
        ]
        answer(resp, {"connections": found})

    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, name: str | None = None
    ) -> None:
        proxy = self.proxy(name)
        read_nothing(req)
        dropped = self.farm.drop(proxy.name, None, _how(req))
        answer(resp, {"dropped": dropped})


class OneConnection(_Resource):
    """``/proxies/{name}/connections/{number}``."""

    queries = {"DELETE": ("how",)}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str, number: int) -> None:
        proxy = self.proxy(name)
        read_nothing(req)
        how = _how(req)
        try:
            self.farm.drop(name, number, how)
        except NotFound:
            there = [str(one.number) for one in proxy.look()]
            hint = f"connections: {', '.join(there[:10])}" if there else "it has none"
            raise NotFound(f"{name} has no open connection {number}; {hint}") from None
        resp.status = falcon.HTTP_204


def _how(req: falcon.Request) -> str:
    how = req.get_param("how", default="fin")
    if how not in ("fin", "reset"):
        raise UsageError(f"how: {how!r} is no way to end a connection; give fin or reset")
    return how


class Events(_Resource):
    """``/events`` and ``/proxies/{name}/events``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        if name is not None:
            self.proxy(name)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.stream = self.context.streams.open(name)


class JournalOf(_Resource):
    """``/journal`` and ``/proxies/{name}/journal``."""

    queries = {"GET": ("limit",)}

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        if name is not None:
            self.proxy(name)
        text = req.get_param("limit")
        if text is not None and not (text.isascii() and text.isdigit()):
            raise UsageError(f"limit: {text!r} is no whole number")
        events = [one for one in self.context.recent.events if name in (None, one.proxy)]
        limit = (
            len(events)
            if text is None
            else min(int(text) if len(text) < 10 else len(events), len(events))
        )
        resp.content_type = "application/x-ndjson"
        resp.data = "".join(f"{line(one)}\n" for one in events[len(events) - limit :]).encode()


class Health(_Resource):
    """``/health``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        stopping = self.context.stopping
        body = {
            "status": "stopping" if stopping else "ok",
            "version": vaurien.__version__,
            "proxies": len(self.farm.proxies),
        }
        answer(resp, body, 503 if stopping else 200)

    on_head = on_get  # as some probes ask


class Metrics(_Resource):
    """``/metrics``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data, resp.content_type = self.context.metrics()


class Reload(_Resource):
    """``/reload``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        read_nothing(req)
        answer(resp, self.context.reload())


class Root(_Resource):
    """``/``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, {"name": "vaurien", "version": vaurien.__version__, "api": "/openapi.json"})


class OpenApi(_Resource):
    """``/openapi.json``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, openapi.document())


def routes(context: Context) -> Iterator[tuple[str, object]]:
    """The paths, with what answers there."""
    yield "/", Root(context)
    yield "/handlers", Handlers(context)
    for path, resource in (
        ("handler", Handler(context)),
        ("behavior", Behavior(context)),
        ("connections", Connections(context)),
        ("events", Events(context)),
        ("journal", JournalOf(context)),
        ("state", State(context)),
    ):
        yield f"/{path}", resource
        yield f"/proxies/{{name}}/{path}", resource
    yield "/proxies/{name}/enable", Enable(context)
    yield "/proxies/{name}/disable", Disable(context)
    yield "/proxies/{name}/reset", ResetOne(context)
    yield "/proxies/{name}/connections/{number:int}", OneConnection(context)
    yield "/health", Health(context)
    yield "/metrics", Metrics(context)
    yield "/reload", Reload(context)
    yield "/openapi.json", OpenApi(context)
