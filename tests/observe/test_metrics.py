"""The metrics: what scrapers read, that it is true while it happens, and that it is quick."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import vaurien
from tests.rivals.driver import Driven, Rig
from tests.support import Backend, echo, exchange, wait_for
from vaurien.counts import DELAYS, Buckets, Counts, Done, Histogram, Stats
from vaurien.observe.metrics import CONTENT_TYPE, FAMILIES, Metrics
from vaurien.observe.watchdog import LAGS, Lag
from vaurien.options import Raw
from vaurien.plan import Specification, Toxic
from vaurien.relay.proxy import Proxy
from vaurien.settings import resolve

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
#: What Prometheus's promtool complains of, https://prometheus.io/docs/practices/naming/
NAME = re.compile(r"[a-z]+(_[a-z]+)+")


def made(name: str = "default", behavior: str = "100:dummy") -> Proxy:
    """A proxy that was not started."""
    raws = {"distant": Raw("127.0.0.1:9", "test"), "behavior": Raw(behavior, "test")}
    return Proxy(replace(resolve(raws, [], {}).plan, name=name))


def parsed(text: str) -> Samples:
    """The samples, by name and labels; each is there once."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def text_of(metrics: Metrics) -> str:
    """What a scraper reads."""
    return metrics.text()[0].decode()


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return samples[name, frozenset(labels.items())]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


# The text


def full() -> Metrics:
    """Metrics of proxies that have seen something."""
    proxies = [made("one", "20:delay,10:reset+latency"), made('two "\\\n é 5%d', "100:3g")]
    proxies[0].add_toxic(Toxic(Specification("mine", type_of("latency"), {}), 1.0))
    for proxy in proxies:
        for stats in proxy.stats.values():
            stats.picked += 7
            for seconds in (0.0004, 0.1, 3.0, 100.0):
                stats.fire(seconds, 5)
        proxy.counters.connections = 12345678901
        proxy.counters.received[:] = 10**15, 7
    lag = Lag()
    lag.add(0.003)
    dropped: Any = SimpleNamespace(dropped=3)
    return Metrics(lambda: proxies, lag, dropped, dropped)


def type_of(name: str) -> type:
    from vaurien import registry

    return registry.find(name, "test")


def test_the_text_says_what_prometheus_client_would_write() -> None:
    metrics = full()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    own, theirs = text_of(metrics), generate_latest(registry).decode()
    assert parsed(own) == parsed(theirs)
    comments = [line for line in own.splitlines() if line.startswith("#")]
    assert comments == [line for line in theirs.splitlines() if line.startswith("#")]
    assert metrics.text()[1] == CONTENT_TYPE


def test_every_sample_belongs_to_a_family_of_its_kind_and_none_is_missing() -> None:
    families = {family.name: family for family in text_string_to_metric_families(text_of(full()))}
    assert len(families) == len(FAMILIES)
    for declared in FAMILIES:
        kind = "gauge" if declared.kind == "info" else declared.kind
        family = families[declared.name.removesuffix("_total")]
        assert family.type == kind
        assert family.documentation == declared.help
        assert family.samples, f"{declared.name} has no samples"
        for sample in family.samples:
            assert {*sample.labels} - {"le"} == {*declared.labels}


def test_names_are_as_prometheus_wants_them() -> None:
    for family in FAMILIES:
        assert NAME.fullmatch(family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not family.name.endswith(("_count", "_sum", "_bucket"))
        assert family.help.endswith(".")
        assert "\n" not in family.help
        assert not {"le", "quantile"} & {*family.labels}
        words = family.name.split("_")
        assert not {"ms", "milliseconds", "kilobytes", "gauge", "counter", "type"} & {*words}
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")
            assert list(family.bounds) == sorted(set(family.bounds))
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    shorts = [family.short for family in FAMILIES if family.short]
    assert len(shorts) == len(set(shorts))


def test_without_proxies_there_are_still_metrics() -> None:
    samples = parsed(text_of(Metrics(list)))
    assert value(samples, "vaurien_info", version=vaurien.__version__) == 1
    assert value(samples, "vaurien_log_dropped_total") == 0


def test_names_of_toxics_are_in_no_label() -> None:
    text = text_of(full())
    assert "mine" not in text
    assert 'handler="latency"' in text


def test_a_hundred_proxies_take_milliseconds() -> None:
    proxies = [made(f"proxy {number}", "20:delay,5:error") for number in range(100)]
    metrics = Metrics(lambda: proxies, Lag())
    metrics.text()
    times = []
    for _ in range(20):
        start = time.thread_time()  # whatever else this machine does meanwhile
        metrics.text()
        times.append(time.thread_time() - start)
    assert min(times) < 0.01, f"{min(times) * 1000:.1f} ms"


def test_nothing_global_is_touched() -> None:
    script = (
        "from prometheus_client import REGISTRY\n"
        "import vaurien.observe.metrics as m\n"
        "m.Metrics(list).text()\n"
        "assert not any('vaurien' in f.name for f in REGISTRY.collect())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# The histogram


@given(st.lists(st.floats(0, 200), max_size=600))
@settings(deadline=None, max_examples=50)
def test_buckets_are_cumulative_and_exact(many: list[float]) -> None:
    histogram = Histogram()
    for one in many:
        histogram.add(one)
    told = histogram.told()
    rounded = [round(one, 6) for one in many]
    want = [sum(one <= bound for one in rounded) for bound in DELAYS]
    assert told.cumulative == (*want, len(many))
    assert told.sum == pytest.approx(sum(many))
    assert histogram.count == len(many)


def test_a_delay_of_a_bound_is_within_it() -> None:
    """The clock's numbers are large: what is added to them comes back a little off."""
    for bound in DELAYS:
        now, buckets = 123456.789, Buckets(DELAYS)
        buckets.add((now + bound) - now)
        told = buckets.told().cumulative
        assert told[DELAYS.index(bound)] == 1
        assert sum(told[: DELAYS.index(bound)]) == 0


def test_what_is_counted_for_a_part_is_counted_for_the_whole_too() -> None:
    whole = Stats()
    for n in range(3):
        part = Stats(whole)
        for _ in range(n + 1):
            part.fire(0.5, 10)
        assert part.fired == n + 1
    assert (whole.fired, whole.bytes, whole.added.count) == (6, 60, 6)


def test_what_was_done_adds_up() -> None:
    stats = Stats()
    stats.picked = 2
    stats.fire(0.02, 10)
    both = stats.told() + stats.told()
    assert both == Done(4, 2, 20, Counts(both.added.cumulative, 0.04))
    assert both.added.cumulative[-1] == 2


def test_lag_is_a_histogram_and_the_worst_of_the_last_second() -> None:
    lag = Lag()
    assert lag.worst == 0
    lag.add(2.0)
    for _ in range(9):
        lag.add(-0.001)
    assert lag.worst == 2.0
    lag.add(0.004)
    assert lag.worst == 0.004
    told = lag.buckets.told()
    assert told.cumulative[-1] == 11
    assert told.cumulative[LAGS.index(1.0)] == 10
    assert told.sum == pytest.approx(2.004)


# While it happens


def scrape(driven: Driven) -> Samples:
    """What a scraper reads of one proxy."""
    return parsed(driven.metrics)


def test_bytes_move_while_the_connection_is_open(rig: Rig) -> None:
    with Backend(echo) as backend, rig.proxy(backend) as driven, driven.dial() as client:
        for number in range(1, 4):
            exchange(client, b"x" * 1000)
            n = 1000 * number

            def counted(n: int = n) -> bool:
                samples = scrape(driven)
                both = [
                    value(samples, f"vaurien_{way}_bytes_total", proxy="default", direction=where)
                    for way in ("received", "sent")
                    for where in ("upstream", "downstream")
                ]
                places = {"listener": driven.address, "upstream": backend.address}
                theirs = [
                    value(
                        samples,
                        f"toxiproxy_proxy_{way}_bytes_total",
                        proxy="default",
                        direction=where,
                        **places,
                    )
                    for way in ("received", "sent")
                    for where in ("upstream", "downstream")
                ]
                return both == theirs == [n] * 4

            wait_for(counted)
            samples = scrape(driven)
            assert value(samples, "vaurien_connections_open", proxy="default") == 1
            assert value(samples, "vaurien_exchanges_total", proxy="default") == number
            assert value(samples, "vaurien_proxy_enabled", proxy="default") == 1


def test_picks_and_added_delays_are_told_by_handler(rig: Rig) -> None:
    with (
        Backend(echo) as backend,
        rig.proxy(backend, "100:latency", latency__latency=20) as driven,
    ):
        with driven.dial() as client:
            for _ in range(3):
                exchange(client, b"x")
        driven.wait_connections(0)
        samples = scrape(driven)
        of = {"proxy": "default", "handler": "latency"}
        assert value(samples, "vaurien_picked_total", **of) == 3
        assert value(samples, "vaurien_fired_total", **of) == 3
        assert value(samples, "vaurien_delay_added_seconds_count", **of) == 3
        assert value(samples, "vaurien_delay_added_seconds_bucket", **of, le="0.01") == 0
        assert value(samples, "vaurien_delay_added_seconds_bucket", **of, le="0.025") == 3
        assert value(samples, "vaurien_delay_added_seconds_sum", **of) == pytest.approx(0.06)


def test_counters_do_not_go_down_when_toxics_go(rig: Rig) -> None:
    with Backend(echo) as backend, rig.proxy(backend) as driven:
        before: Samples = {}
        for number in range(4):
            driven.add("latency", name=f"toxic{number}", latency=1)
            with driven.dial() as client:
                exchange(client, b"x")
            driven.wait_connections(0)
            driven.remove(f"toxic{number}")
            samples = scrape(driven)
            assert value(samples, "vaurien_fired_total", proxy="default", handler="latency") == (
                number + 1
            )
            assert all(samples[key] >= n for key, n in before.items())
            before = samples
