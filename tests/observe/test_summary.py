"""What the handlers did: quantiles, and the table that is told at exit."""

from __future__ import annotations

from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaurien.counts import Histogram, Stats, table

durations = st.lists(st.one_of(st.just(0.0), st.floats(1e-5, 1e6)), min_size=1, max_size=200)


def counted(many: list[float]) -> Histogram:
    """A histogram of them."""
    made = Histogram()
    for one in many:
        made.add(one)
    return made


@given(durations, st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.99, 1.0]))
@settings(deadline=None, max_examples=150)
def test_a_quantile_is_that_of_the_sorted_durations_within_a_hundredth(
    many: list[float], share: float
) -> None:
    found = counted(many).quantile(share)
    assert found is not None
    rank = max(1, ceil(share * len(many) - 1e-9))
    assert found == pytest.approx(sorted(many)[rank - 1], rel=0.011)


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_no_time_is_no_time() -> None:
    assert counted([0.0] * 5).quantile(0.5) == 0
    assert counted([0.0] * 5 + [1.0] * 4).quantile(0.5) == 0


def test_quantiles_rise() -> None:
    made = counted([n / 1000 for n in range(1, 1001)])
    found = [made.quantile(n / 100) or 0 for n in range(1, 101)]
    assert found == sorted(found)
    assert made.quantile(0.5) == pytest.approx(0.5, rel=0.011)
    assert made.quantile(0.99) == pytest.approx(0.99, rel=0.011)
    assert made.count == 1000


def test_memory_of_a_histogram_does_not_grow_with_what_it_counts() -> None:
    made = Histogram()
    for n in range(50_000):
        made.add((n % 1000 + 1) / 1000)
    assert len(made._buckets) < 1000


def test_endless_time_fires_and_is_no_duration() -> None:
    stats = Stats()
    stats.fire(0.5, 10)
    stats.fire(inf, 5)
    assert (stats.fired, stats.bytes) == (2, 15)
    assert stats.added.count == 1
    assert stats.added.quantile(1) == pytest.approx(0.5, rel=0.011)


def stats(picked: int = 0, sent: int = 0, *added: float) -> Stats:
    """What a handler did."""
    made = Stats()
    made.picked, made.bytes = picked, sent
    for one in added:
        made.fire(one, 0)
    return made


def test_the_table_has_a_line_for_each_handler_under_its_heading() -> None:
    lines = list(
        table({"latency": stats(10, 12345, *[0.02] * 9, 0.5), "cut": stats(3), "a": stats(1, 5, 0)})
    )
    heading, *rows = (line.split() for line in lines)
    assert heading == ["handler", "picked", "fired", "bytes", "added", "p50", "added", "p99"]
    assert [row[:4] for row in rows] == [
        ["latency", "10", "10", "12345"],
        ["cut", "3", "0", "0"],
        ["a", "1", "1", "5"],
    ]
    assert rows[1][4:] == ["-", "-"]
    assert rows[2][4:] == ["0", "ms", "0", "ms"]
    assert float(rows[0][4]) == pytest.approx(20, rel=0.011)
    assert float(rows[0][6]) == pytest.approx(500, rel=0.011)
    assert rows[0][5] == rows[0][7] == "ms"


def test_the_columns_of_the_table_stand_below_each_other() -> None:
    lines = list(table({"a-very-long-name": stats(1), "b": stats(1_000_000, 10**12, 0.1)}))
    assert len({len(line) for line in lines}) == 1
    heading, _, last = lines
    assert heading.index("picked") + len("picked") == last.index("1000000") + len("1000000")


def test_an_empty_table_is_its_heading() -> None:
    assert len(list(table({}))) == 1


@pytest.mark.parametrize(
    "seconds", [0.0001, 0.001, 0.0125, 0.999, 0.9999, 1.5, 60.0, 999.9, 1000.0, 86_400.0]
)
def test_a_time_in_the_table_is_read_without_a_calculator(seconds: float) -> None:
    _, row = table({"x": stats(1, 0, seconds)})
    number, unit = row.split()[4:6]
    assert "e" not in number
    assert float(number) * {"ms": 0.001, "s": 1}[unit] == pytest.approx(seconds, rel=0.016)
