"""What of the differences from the real server can be told from its answer alone.

By their names in `tests.rivals.differences`, each with a function that makes what Vaurien has to
answer of what the real server answered. What differs in one place only stands with its step in
`tests.wire.scripts`. In an expected answer ``{any}`` at the end of a text stands for any further
text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.wire.player import Json

ANY = "{any}"
JSON = "application/json"


def _errors_are_json(answer: Json) -> None:
    if answer.get("status", 0) < 400:
        return
    answer["content_type"] = JSON
    if "json" not in answer:  # an unknown path, a wrong method, a browser
        answer.pop("text", None)
        answer["json"] = {"error": ANY, "status": answer["status"]}


def _what_is_wrong_with_a_body(answer: Json) -> None:
    prefix = "bad request body: "
    body = answer.get("json")
    if isinstance(body, dict) and str(body.get("error")).startswith(prefix):
        body["error"] = prefix + ANY


def _which_type(answer: Json) -> None:
    body = answer.get("json")
    if isinstance(body, dict) and body.get("error") == "invalid toxic type":
        body["error"] += ANY


def _no_logger(answer: Json) -> None:
    def drop(value: Any) -> None:
        if isinstance(value, dict):
            if "upstream" in value:
                value.pop("Logger", None)
            for one in value.values():
                drop(one)
        elif isinstance(value, list):
            for one in value:
                drop(one)

    drop(answer.get("json"))


def _null_for_proxies(answer: Json) -> Json | None:
    """The body of a populate that made nothing."""
    body = answer.get("json")
    return body if isinstance(body, dict) and body.get("proxies", "") is None else None


def _no_proxies_are_a_list(answer: Json) -> None:
    body = _null_for_proxies(answer)
    if body is not None and answer["status"] != 400:
        body["proxies"] = []


def _refused_has_no_proxies(answer: Json) -> None:
    body = _null_for_proxies(answer)
    if body is not None and answer["status"] == 400:
        del body["proxies"]


DIFFERENCES: dict[str, Callable[[Json], None]] = {
    "errors-json": _errors_are_json,
    "body-words": _what_is_wrong_with_a_body,
    "type-hint": _which_type,
    "logger": _no_logger,
    "populate-empty": _no_proxies_are_a_list,
    "populate-refused": _refused_has_no_proxies,
}


def expected(answer: Json) -> tuple[Json, list[str]]:
    """What Vaurien has to answer where the real server gave `answer`; the differences between."""
    made, names = copy.deepcopy(answer), []
    for name, change in DIFFERENCES.items():
        before = copy.deepcopy(made)
        change(made)
        if made != before:
            names.append(name)
    return made, names


def same(wanted: Any, got: Any) -> bool:
    """Whether `got` is what is wanted: 1, 1.0 and true are three things."""
    if isinstance(wanted, dict):
        return (
            isinstance(got, dict)
            and wanted.keys() == got.keys()
            and all(same(value, got[key]) for key, value in wanted.items())
        )
    if isinstance(wanted, list):
        return isinstance(got, list) and len(wanted) == len(got) and all(map(same, wanted, got))
    if isinstance(wanted, str) and wanted.endswith(ANY):
        start = wanted.removesuffix(ANY)
        return isinstance(got, str) and got.startswith(start) and len(got) > len(start)
    return type(wanted) is type(got) and bool(wanted == got)
