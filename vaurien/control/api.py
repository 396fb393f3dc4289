"""The control API as a WSGI application: the native one and Toxiproxy's, side by side.

Law: a translator. It keeps no state, turns requests into operations of the `Farm`, and is the one
border where a `VaurienError` becomes an HTTP status.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import falcon

from vaurien.access import Access
from vaurien.control import native, toxiproxy
from vaurien.control.context import Context
from vaurien.errors import UsageError, VaurienError, nearest
from vaurien.strictjson import dumps

log = logging.getLogger("vaurien")

#: What answers to everybody: who asks whether it lives, and who collects figures.
OPEN = ("/health", "/metrics")
_WORD = 64  # characters of a word of a path at most that may be a misspelt one
#: Programs of these versions name no host, and no browser is one.
_HOSTLESS = ("HTTP/0.9", "HTTP/1.0")


class _Guard:
    """Lets in whom `access` lets in."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        header = req.get_header
        if header("Host") is None and req.env["SERVER_PROTOCOL"] not in _HOSTLESS:
            raise falcon.HTTPBadRequest(description="a Host header is missing")
        refusal = self._access.refusal(
            header("Host"),
            header("Origin"),
            header("Sec-Fetch-Site"),
            header("Authorization"),
            req.path in OPEN,
        )
        if refusal is not None:
            headers = {"WWW-Authenticate": "Bearer"} if refusal[0] == 401 else None
            raise falcon.HTTPError(refusal[0], description=refusal[1], headers=headers)

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: object
    ) -> None:
        methods = [name[3:].upper() for name in dir(resource) if name.startswith("on_")]
        if req.method not in methods:
            told = f"method not allowed: {req.path} takes {' and '.join(methods)}"
            raise falcon.HTTPMethodNotAllowed(methods, description=told)
        browser = (req.user_agent or "").startswith("Mozilla/")
        if browser and getattr(resource, "refuses_browsers", False):
            raise falcon.HTTPForbidden(description="User agent not allowed")
        queries: Mapping[str, tuple[str, ...]] | None = getattr(resource, "queries", None)
        if queries is None:
            return
        known = queries.get(req.method, ())
        for name in req.params:
            if name not in known:
                hint = nearest(name, known, "parameters")
                raise UsageError(f"?{name}: there is no such parameter; {hint}")

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        if getattr(resource, "numbered", False):
            resp.set_header("X-Toxiproxy-Request-Id", os.urandom(10).hex())


def application(context: Context, access: Access) -> falcon.App[Any, Any]:
    """The application that serves both APIs for a farm."""
    app = falcon.App(middleware=[_Guard(access)])
    app.req_options.auto_parse_form_urlencoded = False
    routes = [*toxiproxy.routes(context), *native.routes(context)]

    def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
        status, told = falcon.http_status_to_code(error.status), error.description
        if status == 404 and not told:
            near = _nearest_path(req.path, [template for template, _ in routes])
            told = f"not found: there is no such path; {near}"
        _answer(resp, status, told or str(error.title))

    def refused(_req: Any, resp: falcon.Response, error: VaurienError, _: Any) -> None:
        _answer(resp, error.http_status, context.message(error))

    app.set_error_serializer(serialize)
    app.add_error_handler(VaurienError, refused)
    app.add_error_handler(Exception, _crashed)
    for template, resource in routes:
        app.add_route(template, resource)
    return app


def _nearest_path(path: str, templates: Iterable[str]) -> str:
    """The closing half of a sentence: the path that was meant, or where all of them are."""
    words = path.strip("/").split("/")
    near = set()
    for template in templates:
        known = template.strip("/").split("/")
        if len(known) == len(words) and all(map(_may_mean, words, known)):
            pairs = zip(words, known, strict=True)
            near.add("/" + "/".join(w if k.startswith("{") else k for w, k in pairs))
    hint = nearest(path, near - {path})
    return hint if hint.startswith("did you mean") else "/openapi.json has all"


def _may_mean(word: str, known: str) -> bool:
    """Whether a word of a path may be a misspelt one that is `known`; each may be a name."""
    if known.startswith("{"):
        return True
    return len(word) <= _WORD and bool(difflib.get_close_matches(word.lower(), [known]))


def _crashed(req: falcon.Request, resp: falcon.Response, error: Exception, _: Any) -> None:
    log.error("http: %s %s: internal error", req.method, req.path, exc_info=error)
    _answer(resp, 500, "internal error; the log has it")


def _answer(resp: falcon.Response, status: int, message: str) -> None:
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = "application/json"
    resp.data = dumps({"error": message, "status": status})
