"""``vaurienctl watch``: what the proxies do, again and again.

Law: it only looks; rates are differences of the API's counters between two looks.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from vaurien.cli.tables import Output, aligned, cell, columns, cut, tabs
from vaurien.client import Client

HEADER = ("proxy", "connections", "exchanges/s", "up/s", "down/s", "fired")
_HOME, _REST_OF_LINE, _REST_OF_SCREEN, _CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor


def show(
    client: Client, output: Output, proxy: str | None, interval: float, count: int | None
) -> None:
    """Tell what passes, each `interval` seconds, `count` times or until Ctrl-C."""
    screen = output.terminal and not output.as_json and os.environ.get("TERM") != "dumb"
    before, then = _look(client, proxy), time.monotonic()
    if screen:
        sys.stdout.write(_HIDE + _CLEAR)
    try:
        if screen:
            _draw(client, [_rates(state, None, 0.0) for state in before.values()], interval)
        while count is None or count > 0:
            count = None if count is None else count - 1
            time.sleep(max(0.0, then + interval - time.monotonic()))
            after, now = _look(client, proxy), time.monotonic()
            rates = [_rates(s, before.get(name), now - then) for name, s in after.items()]
            stamp = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            if screen:
                _draw(client, rates, interval)
            elif output.as_json:
                output.json_line({"time": stamp, "proxies": rates})
            elif output.terminal:
                output.table(HEADER, map(_row, rates))
            else:
                for one in rates:
                    output.line(tabs((stamp, *_row(one))))
            output.flush()
            before, then = after, now
    finally:
        if screen:
            sys.stdout.write(_SHOW)
            output.flush()


def _look(client: Client, proxy: str | None) -> dict[str, dict[str, Any]]:
    states = client.proxies() if proxy is None else [client.proxy(proxy)]
    return {state["name"]: state for state in states}


def _rates(state: Mapping[str, Any], before: Mapping[str, Any] | None, took: float) -> Any:
    """What one proxy does, by second; None where there was no look before."""

    def rate(*path: str) -> float | None:
        new, old = _counter(state, path), _counter(before or state, path)
        if not took or new is None or old is None:
            return None
        # A proxy that was made anew in between begins at 0.
        return round((new - old if new >= old else new) / took, 1)

    return {
        "name": state["name"],
        "connections": state.get("connections"),
        "exchanges_per_s": rate("exchanges"),
        "bytes_per_s": {way: rate("received", way) for way in ("upstream", "downstream")},
        "fired": {
            name: s["fired"] for name, s in (state.get("stats") or {}).items() if s.get("fired")
        },
    }


def _counter(state: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """One of a proxy's counters; None if the answer has none, as that of another version may."""
    found: Any = state.get("counters")
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, (int, float)) else None


def _row(rates: Mapping[str, Any]) -> tuple[Any, ...]:
    """A row for the pipe."""
    ways = rates["bytes_per_s"]
    fired = " ".join(f"{name}={times}" for name, times in rates["fired"].items())
    return (
        rates["name"],
        rates["connections"],
        rates["exchanges_per_s"],
        ways["upstream"],
        ways["downstream"],
        fired,
    )


def _draw(client: Client, rates: list[Any], interval: float) -> None:
    """A screenful: as many proxies as fit, each line as wide as fits."""
    rows = [(*r[:3], _bytes(r[3]), _bytes(r[4]), *r[5:]) for r in map(_row, rates)]
    lines = aligned(HEADER, rows, columns())
    size = shutil.get_terminal_size()
    room = max(size.lines - 4, 2)  # with the title, a blank line, the last one, and the cursor's
    if len(lines) > room:
        lines[room:] = [f"and {len(lines) - room} more: the terminal is too low"]
    clock = datetime.now().strftime("%H:%M:%S")
    title = f"Vaurien at {client.address}, {clock}, every {interval:g} s; Ctrl-C ends"
    text = "".join(
        f"{cut(line, size.columns)}{_REST_OF_LINE}\r\n" for line in (cell(title), "", *lines)
    )
    sys.stdout.write(_HOME + text + _REST_OF_SCREEN)
    sys.stdout.flush()


def _bytes(number: float | None) -> str:
    """Bytes for people: 1.2 MB."""
    if number is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
