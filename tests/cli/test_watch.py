"""``vaurienctl watch``: what its table says is what passed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.cli.ctl import ending
from tests.cli.test_ctl import spawn
from tests.support import Backend, clients, exchange
from vaurien import start_proxy
from vaurien.cli.watch import _rates
from vaurien.kit.process import Running

REQUEST, REPLY, TIMES, INTERVAL = 100, 2500, 40, 0.4


def serve(sock: object) -> None:
    """A backend that answers each request with more than it got."""
    with contextlib.suppress(OSError):
        while sock.recv(REQUEST):  # type: ignore[attr-defined]
            sock.sendall(b"y" * REPLY)  # type: ignore[attr-defined]


@pytest.fixture
def running() -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch, Backend(serve) as backend:
        for name in [name for name in os.environ if name.startswith("VAURIEN_")]:
            patch.delenv(name)
        with start_proxy(distant=backend.address) as made:
            made.client.create("idle", "127.0.0.1:0", backend.address)
            yield made


def test_rates_times_time_are_what_passed_and_connections_are_those_that_are_open(
    running: Running,
) -> None:
    host = str(running.http)
    with spawn(host, "watch", "--interval", str(INTERVAL)) as process, ending(process):
        assert process.stdout is not None
        out = process.stdout

        def look() -> tuple[datetime, list[str], list[str]]:
            """When it looked, and the cells of the two proxies."""
            (stamp, *first), (same, *second) = (out.readline()[:-1].split("\t") for _ in "ab")
            assert stamp == same
            return datetime.fromisoformat(stamp), first, second

        before, *both = look()
        assert both == [["default", *"0000", "-"], ["idle", *"0000", "-"]]
        with clients(running.address, 3) as socks:
            for n in range(TIMES):
                assert len(exchange(socks[n % 3], b"x" * REQUEST, REPLY)) == REPLY
            totals, rates = [0.0, 0.0, 0.0], [1.0]
            connections = []
            while any(rates) or not any(totals):
                stamp, first, idle = look()
                took, before = (stamp - before).total_seconds(), stamp
                rates = [float(cell) for cell in first[2:5]]
                totals = [total + rate * took for total, rate in zip(totals, rates, strict=True)]
                connections.append(first[1])
                assert idle == ["idle", *"0000", "-"]
        exchanges, up, down = totals
        # its clock is read a moment after it has looked, so that all three are off alike
        assert TIMES * 0.6 < exchanges < TIMES * 1.6
        assert up == pytest.approx(exchanges * REQUEST, rel=0.02)
        assert down == pytest.approx(exchanges * REPLY, rel=0.02)
        assert connections[-1] == "3"
        while look()[1][1] != "0":
            pass


def test_an_answer_without_counters_is_shown_without_rates() -> None:
    before = {"name": "p", "counters": {"exchanges": 1, "received": {"upstream": 5}}}
    for state in ({"name": "p"}, {"name": "p", "counters": {}}, {"name": "p", "counters": None}):
        rates = _rates(state, before, 1.0)
        assert rates["exchanges_per_s"] is None
        assert rates["bytes_per_s"] == {"upstream": None, "downstream": None}
        assert rates["fired"] == {} and rates["connections"] is None
    assert _rates(before, before, 1.0)["bytes_per_s"] == {"upstream": 0.0, "downstream": None}
