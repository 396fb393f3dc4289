"""Where Vaurien differs from the real server on purpose, or because the text on the API says so.

Each difference has a sentence, which stands at the head of the recordings that it touches, and a
function that makes what Vaurien has to answer of what the real server answered. What differs in
one place only stands with its step in `tests.wire.scripts`. In an expected answer ``{any}`` at the
end of a text stands for any further text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.wire.player import Json

ANY = "{any}"
JSON = "application/json"


def _errors_are_json(answer: Json) -> None:
    if answer.get("status", 0) >= 400:
        answer["content_type"] = JSON


def _all_errors_have_a_body(answer: Json) -> None:
    if answer.get("status", 0) >= 400 and "json" not in answer:
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


def _zeros_are_ipv4(answer: Json) -> None:
    def change(value: Any) -> None:
        if isinstance(value, dict):
            listen = value.get("listen")
            if isinstance(listen, str) and listen.startswith("[::]:"):
                value["listen"] = f"0.0.0.0:{listen.removeprefix('[::]:')}"
            for one in value.values():
                change(one)
        elif isinstance(value, list):
            for one in value:
                change(one)

    change(answer.get("json"))


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


def _proxies_are_a_list(answer: Json) -> None:
    body = answer.get("json")
    if isinstance(body, dict) and "proxies" in body and body["proxies"] is None:
        if answer["status"] == 400:
            del body["proxies"]
        else:
            body["proxies"] = []


DIFFERENCES: dict[str, Callable[[Json], None]] = {
    "errors are application/json; the real server says text/plain, though they are JSON": (
        _errors_are_json
    ),
    "an unknown path, a wrong method and a browser get an error as all others; the real server"
    " has a text or nothing for them": _all_errors_have_a_body,
    "what is wrong with a body is said in our own words, after the prefix": (
        _what_is_wrong_with_a_body
    ),
    "an invalid toxic type is named, with the nearest that there is": _which_type,
    "a proxy has no field Logger; the real server shows one, which the text does not know": (
        _no_logger
    ),
    "a proxy at 0.0.0.0 has the IPv4 addresses of the machine, and says so; in the real server it"
    " has those of both kinds, and is shown as [::]": _zeros_are_ipv4,
    "populate answers an empty list if there are no proxies, and none at all with status 400, when"
    " nothing was tried; the real server answers null": _proxies_are_a_list,
}


def expected(answer: Json) -> tuple[Json, list[str]]:
    """What Vaurien has to answer where the real server gave `answer`, and why."""
    made, why = copy.deepcopy(answer), []
    for sentence, change in DIFFERENCES.items():
        before = copy.deepcopy(made)
        change(made)
        if made != before:
            why.append(sentence)
    return made, why


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
