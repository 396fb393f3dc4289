"""``vaurien --demo``: a backend, a client and a proxy between them, all in this process.

Law: everything shown was measured by the client inside, and checks itself; exit code 1 if a share
lies outside its 99.99 % binomial bounds or a handler did not do what it says.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import comb
from statistics import median
from typing import cast

from gevent.pywsgi import WSGIServer

from vaurien import behavior, registry
from vaurien.address import Address
from vaurien.behavior import DUMMY
from vaurien.errors import UsageError
from vaurien.observe.events import Began
from vaurien.plan import Plan, Specification
from vaurien.relay.proxy import Proxy
from vaurien.settings import Settings

BEHAVIOR = "25:delay,15:error,10:reset"
DELAY = 0.05  # seconds
REQUESTS = 200
SEED = 1
CONFIDENCE = 0.9999
BODY = b"All is well.\n" * 10
_BAR = 40  # characters

ANSWER, GARBAGE, RESET = "the answer", "garbage", "connection reset"


@dataclass(frozen=True)
class Seen:
    """What the client saw of one request, and how long it took, in seconds."""

    handler: str
    outcome: str
    took: float


@dataclass(frozen=True)
class Expected:
    """What a handler should make the client see."""

    share: float  # of all exchanges, 0 to 1
    outcome: str
    at_least: float = 0.0  # seconds


def run(settings: Settings) -> int:
    """Run the demo, print the table; 0 if all is as it should be, else 1."""
    foreign = [
        source
        for name, source in settings.sources.items()
        if source not in ("default", "drawn") and name not in ("seed", "log-level", "log-output")
    ]
    if foreign:
        raise UsageError(f"{foreign[0]}: the demo has settings of its own; leave it out")
    seed = SEED if settings.sources["seed"] == "drawn" else settings["seed"]
    backend = WSGIServer(("127.0.0.1", 0), _application, log=None)
    backend.start()
    picked: list[Began] = []
    plan = _plan(settings.plan, cast(int, backend.server_port), seed)
    proxy = Proxy(
        plan,
        (lambda event: picked.append(event) if isinstance(event, Began) else None,),
        everything=True,
    )
    proxy.start()
    print(f"backend  http://127.0.0.1:{backend.server_port}/ (inside)")
    print(f"vaurien  http://{proxy.address}/ --behavior {BEHAVIOR} --seed {plan.seed}")
    try:
        seen = list(_progress(_request(proxy.address, picked, i) for i in range(REQUESTS)))
    finally:
        proxy.stop()
        backend.stop()
    expected = _expected(plan)
    complaints = list(check(seen, expected))
    print("\n".join(table(seen, expected)))
    for complaint in complaints:
        print(f"not as it should be: {complaint}")
    if not complaints:
        print(f"All shares lie within their {CONFIDENCE:.2%} bounds. The same seed does it again.")
    return 1 if complaints else 0


def _application(_environ: object, start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]


def _plan(base: Plan, port: int, seed: int) -> Plan:
    parsed = behavior.parse(BEHAVIOR, "--demo")
    options = {"delay": {"sleep": DELAY}}
    handlers = {
        name: Specification(name, registry.find(name, "--demo"), options.get(name, {}))
        for name in parsed.names
    }
    return replace(
        base,
        local=Address("127.0.0.1", 0),
        distant=Address("127.0.0.1", port),
        behavior=parsed,
        handlers=handlers,
        seed=seed,
    )


def _expected(plan: Plan) -> dict[str, Expected]:
    shares = {name: float(weight) / 100 for weight, name in plan.behavior.parts}
    return {
        "delay": Expected(shares["delay"], ANSWER, DELAY),
        "error": Expected(shares["error"], GARBAGE),
        "reset": Expected(shares["reset"], RESET),
        DUMMY: Expected(1 - sum(shares.values()), ANSWER),
    }


def _request(address: Address, picked: list[Began], number: int) -> Seen:
    """One GET on a connection of its own."""
    client = http.client.HTTPConnection(address.host, address.port, timeout=10)
    before = len(picked)
    start = time.perf_counter()
    try:
        client.request("GET", f"/{number}", headers={"Connection": "close"})
        outcome = ANSWER if client.getresponse().read() == BODY else GARBAGE
    except ConnectionResetError:
        outcome = RESET
    except (http.client.HTTPException, ValueError):
        outcome = GARBAGE
    except OSError as error:
        outcome = str(error)
    finally:
        client.close()
    took = time.perf_counter() - start
    handlers = {"+".join(event.handlers) or DUMMY for event in picked[before:]}
    return Seen(" and ".join(sorted(handlers)) or "none", outcome, took)


def _progress(results: Iterator[Seen]) -> Iterator[Seen]:
    """Pass the results on, with a bar on a terminal and nothing elsewhere."""
    terminal = sys.stdout.isatty()
    for done, seen in enumerate(results, 1):
        yield seen
        if terminal:
            full = _BAR * done // REQUESTS
            bar = "#" * full + "." * (_BAR - full)
            end = "\n" if done == REQUESTS else ""
            print(f"\r[{bar}] {done} of {REQUESTS} requests", end=end, flush=True)


def bounds(n: int, share: float) -> tuple[int, int]:
    """How many of `n` there should be at `share`, at least and at most, with `CONFIDENCE`."""
    tail = (1 - CONFIDENCE) / 2
    chances = [comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    low, below = 0, chances[0]
    while below <= tail:
        low += 1
        below += chances[low]
    high, above = n, chances[n]
    while above <= tail:
        high -= 1
        above += chances[high]
    return low, high


def check(seen: list[Seen], expected: dict[str, Expected]) -> Iterator[str]:
    """A sentence for each thing that is not as it should be."""
    for handler in sorted({one.handler for one in seen} - set(expected)):
        yield f"a request was dealt with by {handler}"
    for handler, wanted in expected.items():
        times = [one for one in seen if one.handler == handler]
        low, high = bounds(len(seen), wanted.share)
        if not low <= len(times) <= high:
            yield f"{handler} had {len(times)} exchanges, not {low} to {high}"
        for one in times:
            if one.outcome != wanted.outcome or one.took < wanted.at_least:
                yield f"{handler} gave {one.outcome} after {one.took:.3f} s"


def table(seen: list[Seen], expected: dict[str, Expected]) -> Iterator[str]:
    """The table, line by line."""
    columns = "{:<8} {:>6} {:>10} {:>11}   {:<18} {:>9} {:>9}"
    yield columns.format("handler", "asked", "exchanges", "allowed", "the client saw", "p50", "max")
    for handler, wanted in expected.items():
        mine = [one for one in seen if one.handler == handler]
        low, high = bounds(len(seen), wanted.share)
        times = [one.took * 1000 for one in mine] or [0.0]
        yield columns.format(
            handler,
            f"{wanted.share:.0%}",
            len(mine),
            f"{low} to {high}",
            ", ".join(sorted({one.outcome for one in mine})) or "nothing",
            f"{median(times):.1f} ms",
            f"{max(times):.1f} ms",
        )
