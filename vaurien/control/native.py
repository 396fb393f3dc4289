"""Vaurien's own HTTP API (`docs/api.rst`): what changes something, and its paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import falcon

from vaurien import behavior as behavior_
from vaurien import bodies
from vaurien.control import looks
from vaurien.control.context import Context, Resource, answer, read, read_nothing, ttl_of
from vaurien.control.looks import behavior_body, state
from vaurien.control.operations import Disable as Off
from vaurien.control.operations import Edit
from vaurien.control.operations import Enable as On
from vaurien.errors import UsageError
from vaurien.options import Raw, told
from vaurien.plan import NOTHING
from vaurien.strictjson import bad, fields

_BEHAVIOR: dict[str, tuple[type, ...]] = {
    "behavior": (str,),
    "on_connect": (str,),
    "handlers": (dict,),
    "ttl": (int, float),
}


class Handler(Resource):
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


class Behavior(Resource):
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


class _Switch(Resource):
    """``/proxies/{name}/enable`` and ``disable``."""

    operation: Edit

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.proxy(name)
        ttl = ttl_of(fields(read(req, {}), {"ttl": (int, float)}))
        answer(resp, state(self.farm, self.farm.apply(name, self.operation, ttl=ttl)))


class Enable(_Switch):
    """``/proxies/{name}/enable``."""

    operation = On()


class Disable(_Switch):
    """``/proxies/{name}/disable``."""

    operation = Off()


class ResetOne(Resource):
    """``/proxies/{name}/reset``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.proxy(name)
        read_nothing(req)
        self.farm.reset(name)
        resp.status = falcon.HTTP_204


class Reload(Resource):
    """``/reload``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        read_nothing(req)
        answer(resp, self.context.reload())


def routes(context: Context) -> Iterator[tuple[str, object]]:
    """The paths, with what answers there."""
    yield "/", looks.Root(context)
    yield "/handlers", looks.Handlers(context)
    for path, resource in (
        ("handler", Handler(context)),
        ("behavior", Behavior(context)),
        ("connections", looks.Connections(context)),
        ("events", looks.Events(context)),
        ("journal", looks.JournalOf(context)),
        ("state", looks.State(context)),
    ):
        yield f"/{path}", resource
        yield f"/proxies/{{name}}/{path}", resource
    yield "/proxies/{name}/enable", Enable(context)
    yield "/proxies/{name}/disable", Disable(context)
    yield "/proxies/{name}/reset", ResetOne(context)
    yield "/proxies/{name}/connections/{number:int}", looks.OneConnection(context)
    yield "/health", looks.Health(context)
    yield "/metrics", looks.Metrics(context)
    yield "/reload", Reload(context)
    yield "/openapi.json", looks.OpenApi(context)
