"""What each command of ``vaurienctl`` does: ask a `vaurien.Client`, and tell the answer.

Law: no command ends the program or knows an exit code; errors pass through.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vaurien.cli import watch as screen
from vaurien.cli.ctl_rows import (
    BEHAVIOR,
    CONNECTION,
    JOURNAL,
    PROXY,
    TOXIC,
    behavior_row,
    connection_row,
    proxy_row,
    state_rows,
    toxic_row,
)
from vaurien.cli.system import end_with_reader
from vaurien.cli.tables import Output, words
from vaurien.client import Client, Json
from vaurien.errors import ClientError, Unreachable, UsageError, nearest

WAIT = 10.0  # seconds


@dataclass(frozen=True)
class Ask:
    """What was asked for, of whom, and where the answer goes."""

    client: Client
    args: argparse.Namespace
    output: Output


# The commands


def list_(ask: Ask) -> None:
    states = ask.client.proxies()
    _tell(ask.output, states, PROXY, map(proxy_row, states))


def show(ask: Ask) -> None:
    state = ask.client.proxy(ask.args.name)
    if ask.output.as_json:
        ask.output.json(state)
    else:
        ask.output.pairs(state_rows(state))


def create(ask: Ask) -> None:
    state = ask.client.create(
        ask.args.name,
        ask.args.local,
        ask.args.distant,
        behavior=ask.args.behavior,
        on_connect=ask.args.on_connect,
        enabled=not ask.args.disabled,
        protocol=ask.args.protocol,
        seed=ask.args.seed,
        ttl=ask.args.ttl,
    )
    _tell(ask.output, state, PROXY, [proxy_row(state)])


def change(ask: Ask) -> None:
    if ask.args.local is None and ask.args.distant is None:
        raise UsageError("change: nothing to change; give --local or --distant")
    state = ask.client.change(ask.args.name, local=ask.args.local, distant=ask.args.distant)
    _tell(ask.output, state, PROXY, [proxy_row(state)])


def delete(ask: Ask) -> None:
    for name in _there(ask):
        ask.client.delete(name)


def enable(ask: Ask) -> None:
    states = [ask.client.enable(name, ask.args.ttl) for name in _there(ask)]
    _tell(ask.output, states, PROXY, map(proxy_row, states))


def disable(ask: Ask) -> None:
    states = [ask.client.disable(name, ask.args.ttl) for name in _there(ask)]
    _tell(ask.output, states, PROXY, map(proxy_row, states))


def _there(ask: Ask) -> list[str]:
    """The proxies that are named, each once; ClientError before anything is done if one is none."""
    for name in ask.args.names:
        ask.client.proxy(name)  # all of them, or none
    return list(dict.fromkeys(ask.args.names))


def set_handler(ask: Ask) -> None:
    options = _options(ask.args.options)
    for reserved in {"name", "proxy", "ttl"} & set(options):
        raise UsageError(f"{reserved}={options[reserved]}: no option; write --{reserved}")
    answer = ask.client.set_handler(
        ask.args.handler, proxy=ask.args.proxy, ttl=ask.args.ttl, **options
    )
    _tell_handler(ask.output, answer)


def get_handler(ask: Ask) -> None:
    _tell_handler(ask.output, ask.client.get_handler(ask.args.proxy))


def _plain(text: str) -> str:
    """A text of the docs without their marks."""
    return text.replace("``", "")


def _tell_handler(output: Output, answer: Json) -> None:
    options = answer["options"] if isinstance(answer["options"], dict) else {}  # of a preset: none
    row = (answer["proxy"], answer["name"], words(options), answer["behavior"])
    _tell(output, answer, ("proxy", "handler", "options", "behavior"), [row])


def list_handlers(ask: Ask) -> None:
    handlers = ask.client.list_handlers()
    if ask.args.handler is not None:
        found = [handler for handler in handlers if handler["name"] == ask.args.handler]
        if not found:
            hint = nearest(ask.args.handler, [one["name"] for one in handlers], "handlers")
            raise UsageError(f"there is no handler {ask.args.handler!r}; {hint}")
        header = ("option", "type", "default", "choices", "description")
        rows = [
            (
                o["name"],
                o["type"],
                o["default"],
                " ".join(map(str, o["choices"] or ())),
                o["description"],
            )
            for o in found[0]["options"]
        ]
        _tell(ask.output, found[0], header, rows, prose=True)
        return
    summaries = [(one["name"], one["kind"], _plain(one["summary"])) for one in handlers]
    if not ask.output.as_json:
        presets = ask.client.list_presets()
        summaries += [(one["name"], "preset", _plain(one["summary"])) for one in presets]
    _tell(ask.output, handlers, ("name", "kind", "summary"), summaries, prose=True)


def behavior(ask: Ask) -> None:
    weighted = [word for word in ask.args.words if "=" not in word]
    if len(weighted) > 1:
        raise UsageError(f"behavior: {weighted[1]!r} is a second one; join them: 20:delay,5:error")
    handlers: dict[str, dict[str, Any]] = {}
    for path, value in _options(word for word in ask.args.words if "=" in word).items():
        handler, dot, name = path.rpartition(".")
        if not dot or not handler or not name:
            raise UsageError(f"{path}={value}: write HANDLER.OPTION=VALUE, such as delay.sleep=2")
        handlers.setdefault(handler, {})[name] = value
    if not weighted and ask.args.on_connect is None:
        if handlers or ask.args.ttl is not None:
            raise UsageError("behavior: there is no behavior to set; write for instance 100:delay")
        answer = ask.client.get_behavior(ask.args.proxy)
    else:
        on_connect = {None: ..., "none": None}.get(ask.args.on_connect, ask.args.on_connect)
        answer = ask.client.set_behavior(
            weighted[0] if weighted else None,
            on_connect,
            handlers or None,
            ask.args.proxy,
            ask.args.ttl,
        )
    _tell(ask.output, answer, BEHAVIOR, [behavior_row(answer)])


def toxic_list(ask: Ask) -> None:
    toxics = ask.client.toxics(ask.args.proxy)
    _tell(ask.output, toxics, TOXIC, map(toxic_row, toxics))


def toxic_add(ask: Ask) -> None:
    toxic = ask.client.add_toxic(
        ask.args.proxy,
        ask.args.type,
        name=ask.args.name,
        stream=ask.args.stream,
        toxicity=ask.args.toxicity,
        ttl=ask.args.ttl,
        **_attributes(ask.args.options),
    )
    _tell(ask.output, toxic, TOXIC, [toxic_row(toxic)])


def toxic_update(ask: Ask) -> None:
    attributes = _attributes(ask.args.options)
    if not attributes and ask.args.toxicity is None:
        raise UsageError("toxic update: nothing to change; give ATTRIBUTE=VALUE or --toxicity")
    toxic = ask.client.update_toxic(
        ask.args.proxy, ask.args.toxic, toxicity=ask.args.toxicity, ttl=ask.args.ttl, **attributes
    )
    _tell(ask.output, toxic, TOXIC, [toxic_row(toxic)])


def toxic_remove(ask: Ask) -> None:
    there = [toxic["name"] for toxic in ask.client.toxics(ask.args.proxy)]
    for name in ask.args.toxics:
        if name not in there:
            raise ClientError("toxic not found", 404)
    for name in dict.fromkeys(ask.args.toxics):
        ask.client.remove_toxic(ask.args.proxy, name)


def _attributes(given: Sequence[str]) -> dict[str, Any]:
    attributes = _options(given)
    for reserved in {"name", "stream", "toxicity", "ttl"} & set(attributes):
        raise UsageError(f"{reserved}={attributes[reserved]}: no attribute; write --{reserved}")
    return attributes


def reset(ask: Ask) -> None:
    ask.client.reset(ask.args.proxy)


def connections(ask: Ask) -> None:
    if ask.args.how is not None and ask.args.drop is None:
        raise UsageError(f"--how={ask.args.how}: it says how to drop; give --drop too")
    number = None if ask.args.drop == "all" else ask.args.drop
    names = [ask.args.proxy]
    if ask.args.proxy is None:
        if number is not None:
            raise UsageError(f"--drop={number}: each proxy counts its own; name the proxy too")
        names = [state["name"] for state in ask.client.proxies()]
    if ask.args.drop is None:
        rows = [{"proxy": name, **one} for name in names for one in ask.client.connections(name)]
        _tell(ask.output, rows, CONNECTION, map(connection_row, rows))
        return
    dropped = sum(ask.client.drop(name, number, ask.args.how or "fin") for name in names)
    if ask.output.as_json:
        ask.output.json({"dropped": dropped})
    else:
        ask.output.line(f"{dropped} dropped")


def watch(ask: Ask) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        screen.show(ask.client, ask.output, ask.args.proxy, ask.args.interval, ask.args.count)


def events(ask: Ask) -> None:
    left = ask.args.count
    threading.Thread(target=end_with_reader, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt), ask.client.events(ask.args.proxy) as events:
        for event in events:
            if ask.output.as_json:
                ask.output.json_line({"event": event.kind, **event.data})
            else:
                ask.output.pairs([(event.kind, words(event.data))])
                ask.output.flush()
            left = None if left is None else left - 1
            if left == 0:
                return
        raise Unreachable(f"Vaurien at {ask.client.address} stops; there are no more events")


def journal(ask: Ask) -> None:
    lines = ask.client.journal(ask.args.proxy, ask.args.limit)
    if ask.output.as_json:  # so that it can be replayed
        for line in lines:
            ask.output.json_line(line)
        return
    rows = [[" ".join(v) if isinstance(v := e[n], list) else v for n in JOURNAL] for e in lines]
    ask.output.table(JOURNAL, rows)


def reload(ask: Ask) -> None:
    answer = ask.client.reload()
    if ask.output.as_json:
        ask.output.json(answer)
        return
    ask.output.pairs(
        [(what.replace("_", " "), name) for what, names in answer.items() for name in names]
    )


def wait(ask: Ask) -> None:
    health = ask.client.wait(WAIT if ask.args.timeout is None else ask.args.timeout)
    row = (health["status"], health["version"], health["proxies"])
    _tell(ask.output, health, ("status", "version", "proxies"), [row])


def _tell(
    output: Output, answer: Any, header: Sequence[str], rows: Iterable[Any], prose: bool = False
) -> None:
    """What a command has to tell: the API's answer, or rows made of it, `prose` last."""
    if output.as_json:
        output.json(answer)
    else:
        output.table(header, rows, prose)


def _options(given: Iterable[str]) -> dict[str, Any]:
    """Words ``NAME=VALUE`` as JSON has them."""
    found: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is not an option; write NAME=VALUE, such as sleep=2")
        if name in found:
            raise UsageError(f"{name} is given twice; give it once")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """A value as JSON has it; a number only if it is written as a number is, so that text stays."""
    if text in ("true", "false"):
        return text == "true"
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            number = convert(text)
            if str(number) == text and text not in ("inf", "-inf", "nan"):
                return number
    return text
