"""Toxiproxy's HTTP API, version 2, to the letter of its clients (`docs/toxiproxy.rst`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import falcon

import vaurien
from vaurien import bodies, services
from vaurien.control.context import Context, answer, ttl_of
from vaurien.control.operations import AddToxic, Change, RemoveToxic, UpdateToxic
from vaurien.control.populate import Entry
from vaurien.errors import UsageError, VaurienError
from vaurien.gojson import load
from vaurien.net.turn import give_way
from vaurien.plan import Plan
from vaurien.relay.proxy import Proxy
from vaurien.strictjson import bad, dumps


class _Resource:
    """One path; a browser gets 403, and each answer has an id, as Toxiproxy has it."""

    refuses_browsers = numbered = True

    def __init__(self, context: Context) -> None:
        self.context, self.farm = context, context.farm

    def read_proxy(self, body: object, where: str = "") -> Plan:
        farm = self.farm
        return bodies.read_proxy(body, farm.catalog, farm.seed, farm.common, where)


def body_of(proxy: Proxy) -> dict[str, Any]:
    """A proxy in Toxiproxy's words."""
    return bodies.proxy_body(proxy.plan, proxy.address, proxy.plan.enabled)


class Proxies(_Resource):
    """``/proxies``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, {proxy.name: body_of(proxy) for proxy in self.farm})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = load(req.bounded_stream.read())
        proxy = self.farm.create(self.read_proxy(body), ttl_of(body))
        answer(resp, body_of(proxy), 201)


class One(_Resource):
    """``/proxies/{name}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        answer(resp, body_of(self.farm.get(name)))

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.farm.get(name)
        given = bodies.given_in(load(req.bounded_stream.read()), bodies.PROXY)
        for word in ("behavior", "on_connect"):
            if word in given:
                raise bad(f"{word} is not changed here; use /proxies/{name}/behavior")
        for word in ("seed", "protocol", "ttl"):
            if word in given:
                raise bad(f"{word} cannot be changed; make another proxy")
        for word in ("listen", "upstream"):
            if given.get(word) == "":
                raise bad(f"{word} is empty; leave it away if it is to stay as it is")
        # Toxiproxy's clients send the toxics that they know of, too: here they say nothing.
        local = distant = None
        if given.get("listen"):
            local = bodies.read_listen(given["listen"], "listen")
        if given.get("upstream"):
            distant = services.parse(given["upstream"], "upstream", port_zero=False, any_host=True)

        bodies.refuse_paths(local, distant)

        fields_ = {"local": local, "distant": distant, "enabled": given.get("enabled")}
        change = Change({name: value for name, value in fields_.items() if value is not None})
        answer(resp, body_of(self.farm.apply(name, change)))

    on_patch = on_post

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.farm.delete(name)
        resp.status = falcon.HTTP_204


class Populate(_Resource):
    """``/populate``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        found = load(req.bounded_stream.read())
        if found is None:
            found = []
        if not isinstance(found, list):
            raise bad("it is not a list of proxies")
        if len(found) > bodies.PROXIES:
            raise bad(f"it has {len(found):,} proxies; give {bodies.PROXIES:,} at a time at most")
        wanted: list[Entry] = []
        names: set[str] = set()
        for number, body in enumerate(found, 1):
            give_way()  # others go on while a long list is read
            place = f"proxy {number}"
            try:
                plan = self.read_proxy(body, place)
            except UsageError as error:
                raise error if place in str(error) else UsageError(f"{error} at {place}") from None
            if plan.name in names:
                raise bad(f"proxy {number} has the name of another, {plan.name!r}")
            names.add(plan.name)
            wanted.append(Entry(plan, [*bodies.given_in(body, bodies.PROXY)], ttl_of(body)))
        made: list[Proxy] = []
        try:
            for proxy in self.farm.populate(wanted):
                made.append(proxy)
                give_way()  # each is an operation of its own
        except VaurienError as error:
            if isinstance(error, UsageError) and not made:
                raise
            message = self.context.message(error)
            body = {"error": message, "status": 500, "proxies": [body_of(one) for one in made]}
            return answer(resp, body, 500)
        return answer(resp, {"proxies": [body_of(proxy) for proxy in made]}, 201)


class Toxics(_Resource):
    """``/proxies/{name}/toxics``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        toxics = bodies.in_order(self.farm.get(name).plan.toxics)
        answer(resp, [bodies.toxic_body(toxic) for toxic in toxics])

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        proxy = self.farm.get(name)
        body = load(req.bounded_stream.read())
        others = {toxic.name for toxic in proxy.plan.toxics}
        toxic = bodies.read_toxic(body, self.farm.catalog, others)
        self.farm.apply(name, AddToxic(toxic), ttl=ttl_of(body))
        answer(resp, bodies.toxic_body(toxic))


class Toxic(_Resource):
    """``/proxies/{name}/toxics/{toxic}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str, toxic: str) -> None:
        answer(resp, bodies.toxic_body(self.farm.toxic(name, toxic)))

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str, toxic: str) -> None:
        before = self.farm.toxic(name, toxic)
        body = load(req.bounded_stream.read())
        after = bodies.changed_toxic(body, self.farm.catalog, before)
        self.farm.apply(name, UpdateToxic(after), ttl=ttl_of(body))
        answer(resp, bodies.toxic_body(after))

    on_patch = on_post

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str, toxic: str) -> None:
        self.farm.apply(name, RemoveToxic(toxic))
        resp.status = falcon.HTTP_204


class Reset(_Resource):
    """``/reset``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self.farm.reset()
        resp.status = falcon.HTTP_204


#: Its numbers only: clients read it with parsers of versions that know no ``.dev0``.
_VERSION = re.match(r"\d+\.\d+\.\d+", vaurien.__version__)


class Version(_Resource):
    """``/version``; the header ``Vaurien`` has the whole of it."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "application/json;charset=utf-8"
        resp.data = dumps({"version": _VERSION[0] if _VERSION else vaurien.__version__}) + b"\n"


def routes(context: Context) -> Iterator[tuple[str, object]]:
    """The paths, with what answers there."""
    yield "/proxies", Proxies(context)
    yield "/proxies/{name}", One(context)
    yield "/proxies/{name}/toxics", Toxics(context)
    yield "/proxies/{name}/toxics/{toxic}", Toxic(context)
    yield "/populate", Populate(context)
    yield "/reset", Reset(context)
    yield "/version", Version(context)
