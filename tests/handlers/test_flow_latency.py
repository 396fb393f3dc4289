"""Latency: what it delays by, and how that is distributed."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from pathlib import Path
from statistics import NormalDist, correlation, mean, median
from typing import Any

import pytest

from tests.flow.helpers import Flow, draws, near, times
from tests.rivals.differences import differs
from vaurien.errors import UsageError
from vaurien.flow import EOF, Close, Data, Event
from vaurien.handlers.latency import Latency
from vaurien.testing import play

MANY = 20_000


def delays(n: int = MANY, seed: int = 1, **options: Any) -> list[float]:
    """The delays of so many pieces, in ms, each far from the next."""
    stage = Latency(options, False, draws("latency", seed))
    result = []
    for number in range(n):
        ((delay, event),) = stage.on(Data(b"x"), float(number))
        assert event == Data(b"x")
        result.append(delay * 1000)
    return result


@differs("latency-end")
def test_each_piece_and_the_end_are_delayed_from_their_arrival() -> None:
    events: list[tuple[float, Event]] = [(0, Data(b"a")), (0.005, Data(b"b")), (0.3, EOF)]
    assert play([Latency({"latency": 20})], events) == near(
        [(0.02, b"a"), (0.025, b"b"), (0.32, EOF)]
    )


def test_pieces_overlap_on_their_way() -> None:
    # five pieces in flight at a time, not one after another
    left = play([Latency({"latency": 1000})], [(n / 5, Data(b"x")) for n in range(20)])
    assert times(left) == pytest.approx([1 + n / 5 for n in range(20)])


def test_a_latency_of_0_passes_at_once() -> None:
    assert play([Latency({"latency": 0})], [(1, Data(b"a")), (1, EOF)]) == [
        (1, Data(b"a")),
        (1, EOF),
    ]


def test_the_default_is_100_ms_without_jitter() -> None:
    assert play([Latency()], [(0, Data(b"a"))]) == near([(0.1, b"a")])


def test_two_latencies_add_up() -> None:
    stages = [Latency({"latency": 20}), Latency({"latency": 30})]
    assert play(stages, [(0, Data(b"a"))]) == near([(0.05, b"a")])


def test_jitter_reorders_nothing() -> None:
    sent = [Data(bytes([n])) for n in range(200)]
    left = play(
        [Latency({"latency": 50, "jitter": 50})], [(n / 1000, one) for n, one in enumerate(sent)]
    )
    assert [event for _, event in left] == sent


def test_an_end_by_another_stage_waits_for_the_data_before_it() -> None:
    flow = Flow(Latency({"latency": 50}))
    flow.push(b"a", Close())
    flow.run(1)
    assert flow.left == near([(0.05, b"a"), (0.05, Close())])


NORMAL = NormalDist()


def pareto(u: float) -> float:
    """Shape 3, mean 0: the table of netem (iproute2, netem/pareto.c)."""
    return float(((1 - u) ** (-1 / 3) - 1.5) * 4 / 3)


#: The quantile of the delay in ms, of latency 100 and jitter 20.
QUANTILES: dict[str, Callable[[float], float]] = {
    "uniform": lambda u: 80 + 40 * u,
    "normal": lambda u: 100 + 20 * NORMAL.inv_cdf(u),
    "pareto": lambda u: 100 + 20 * pareto(u),
    "paretonormal": lambda u: 100 + 20 * (NORMAL.inv_cdf(u) + 3 * pareto(u)) / 4,
    "lognormal": lambda u: 100 * exp(0.2 * NORMAL.inv_cdf(u)),
}


@pytest.mark.parametrize("correlated", [0, 60])
@pytest.mark.parametrize("name", QUANTILES)
def test_delays_are_distributed_as_asked(name: str, correlated: int) -> None:
    # correlation keeps the distribution, though fewer draws count: n (1 - rho) / (1 + rho)
    sample = delays(latency=100, jitter=20, distribution=name, correlation=correlated)
    count = MANY * (100 - correlated) / (100 + correlated)
    for share in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        below = sum(delay <= QUANTILES[name](share) for delay in sample) / MANY
        assert abs(below - share) < 4 * sqrt(share * (1 - share) / count), share


@pytest.mark.parametrize("name", ["uniform", "normal", "pareto", "paretonormal"])
def test_jitter_leaves_the_mean_at_the_latency(name: str) -> None:
    # the widest, pareto, has a deviation of 1.16 times the jitter
    assert mean(delays(latency=100, jitter=20, distribution=name)) == pytest.approx(100, abs=0.7)


def test_the_median_of_lognormal_is_the_latency() -> None:
    assert median(delays(latency=80, jitter=80, distribution="lognormal")) == pytest.approx(
        80, rel=0.04
    )


def test_uniform_never_leaves_its_bounds() -> None:
    sample = delays(latency=100, jitter=20)
    assert 80 <= min(sample) < 80.1
    assert 119.9 < max(sample) <= 120


@pytest.mark.parametrize("name", QUANTILES)
def test_no_delay_is_negative(name: str) -> None:
    sample = delays(2000, latency=1, jitter=50, distribution=name)
    assert min(sample) >= 0


@pytest.mark.parametrize("name", QUANTILES)
@pytest.mark.parametrize(("latency", "jitter"), [(1, 1000), (0, 1000), (1000, 0), (0.001, 1e9)])
def test_no_jitter_that_is_allowed_breaks_a_connection(
    name: str, latency: float, jitter: float
) -> None:
    sample = delays(500, latency=latency, jitter=jitter, distribution=name)
    assert min(sample) >= 0


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (25, 0.25), (75, 0.75), (95, 0.95)])
def test_correlation_is_how_much_a_delay_resembles_the_last_one(
    percent: int, expected: float
) -> None:
    sample = delays(latency=100, jitter=10, distribution="normal", correlation=percent)
    assert correlation(sample[:-1], sample[1:]) == pytest.approx(expected, abs=0.04)
    assert correlation(sample[:-2], sample[2:]) == pytest.approx(expected**2, abs=0.06)


def test_full_correlation_repeats_the_first_delay() -> None:
    sample = delays(50, latency=100, jitter=10, correlation=100)
    assert sample == pytest.approx([sample[0]] * 50)


def test_delays_differ_from_piece_to_piece_and_from_seed_to_seed() -> None:
    first, second = delays(100, jitter=20), delays(100, seed=2, jitter=20)
    assert len({*first, *second}) == 200
    assert first == delays(100, jitter=20)


def test_a_file_of_samples_takes_the_place_of_latency_and_jitter(tmp_path: Path) -> None:
    path = tmp_path / "delays.txt"
    path.write_text("5 10\n20\t40.5\n")
    sample = delays(4000, distribution=str(path), latency=7, jitter=3)
    assert sorted(set(sample)) == pytest.approx([5, 10, 20, 40.5])
    for value in (5, 10, 20, 40.5):
        share = sum(one == pytest.approx(value) for one in sample) / 4000
        assert share == pytest.approx(0.25, abs=0.03)


def test_a_file_of_one_sample_gives_that(tmp_path: Path) -> None:
    path = tmp_path / "delays.txt"
    path.write_text("12.5")
    assert set(delays(10, distribution=str(path))) == {12.5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "holds no delays"),
        ("12 -1", "less than 0"),
        ("12 nan", "not a finite number"),
        ("12,13", "not a number"),
    ],
)
def test_a_bad_file_of_samples_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "delays.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as caught:
        Latency({"distribution": str(path)})
    assert "'distribution'" in str(caught.value)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_an_unknown_distribution_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"'unifrom'.*did you mean 'uniform'"):
        Latency({"distribution": "unifrom"})


def test_an_update_counts_for_what_comes_then() -> None:
    stage = Latency({"latency": 1000})
    flow = Flow(stage)
    flow.push(b"a")
    flow.run(0.1)
    flow.update(stage, latency=20)
    flow.push(b"b")
    flow.run(2)
    assert flow.left == near([(0.1, b"a"), (0.12, b"b")])


def test_a_removal_lets_all_go_at_once() -> None:
    stage = Latency({"latency": 1000})
    flow = Flow(stage)
    flow.push(b"a", b"b", EOF)
    flow.run(0.25)
    flow.remove(stage)
    assert flow.left == near([(0.25, b"ab"), (0.25, EOF)])
