"""What Vaurien's own HTTP API shows: states, connections, exchanges, metrics (`docs/api.rst`).

Law: nothing here changes a plan; the one thing that is done is to end connections.
"""

from __future__ import annotations

from typing import Any

import falcon

import vaurien
from vaurien import bodies, registry
from vaurien.control import openapi
from vaurien.control.context import Resource, answer, read_nothing
from vaurien.control.farm import Farm
from vaurien.errors import NotFound, UsageError
from vaurien.observe.lines import line
from vaurien.options import Option
from vaurien.relay.proxy import Proxy


def behavior_body(proxy: Proxy) -> dict[str, Any]:
    """Who deals with a proxy's exchanges and meets its clients."""
    plan = proxy.plan
    return {
        "behavior": str(plan.behavior),
        "on_connect": str(plan.on_connect) if plan.on_connect.parts else None,
        "handlers": bodies.handler_bodies(plan),
    }


class Handlers(Resource):
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


class State(Resource):
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


class Connections(Resource):
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


class OneConnection(Resource):
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
        raise UsageError(f"how: {how!r} is not a way to end a connection; give fin or reset")
    return how


class Events(Resource):
    """``/events`` and ``/proxies/{name}/events``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        if name is not None:
            self.proxy(name)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.stream = self.context.streams.open(name)


class JournalOf(Resource):
    """``/journal`` and ``/proxies/{name}/journal``."""

    queries = {"GET": ("limit",)}

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str | None = None) -> None:
        if name is not None:
            self.proxy(name)
        text = req.get_param("limit")
        if text is not None and not (text.isascii() and text.isdigit()):
            raise UsageError(f"limit: {text!r} is not a whole number")
        events = [one for one in self.context.recent.events if name in (None, one.proxy)]
        limit = (
            len(events)
            if text is None
            else min(int(text) if len(text) < 10 else len(events), len(events))
        )
        resp.content_type = "application/x-ndjson"
        resp.data = "".join(f"{line(one)}\n" for one in events[len(events) - limit :]).encode()


class Health(Resource):
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


class Metrics(Resource):
    """``/metrics``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data, resp.content_type = self.context.metrics()


class Root(Resource):
    """``/``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, {"name": "vaurien", "version": vaurien.__version__, "api": "/openapi.json"})


class OpenApi(Resource):
    """``/openapi.json``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, openapi.document())
