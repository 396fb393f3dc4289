"""Wave: a delay that rises and falls."""

from __future__ import annotations

from math import sin, tau

import pytest

from tests.flow.helpers import Flow, near, times
from vaurien.flow import EOF, Data
from vaurien.handlers.wave import Wave
from vaurien.testing import play

PERIOD = 100.0  # seconds, long against each delay


def delays(at: list[float], **options: float) -> list[float]:
    """The delay in ms of a piece at each of these phases of a period."""
    stage = Wave({"sine_amplitude": 0, **options})
    left = play([stage], [(phase * PERIOD, Data(b"x")) for phase in at])
    return [(time - phase * PERIOD) * 1000 for time, phase in zip(times(left), at, strict=True)]


PHASES = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1.25, 7.75]

SHAPES: dict[str, list[float]] = {
    "sine": [sin(tau * phase) for phase in PHASES],
    "saw": [0, 0.25, 0.5, 0.75, -1, -0.75, -0.5, -0.25, 0, 0.5, -0.5],
    "square": [1, 1, 1, 1, -1, -1, -1, -1, 1, 1, -1],
    "triangle": [0, 0.5, 1, 0.5, 0, -0.5, -1, -0.5, 0, 1, -1],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_wave_has_its_shape(shape: str) -> None:
    options = {"latency": 100, f"{shape}_amplitude": 50, f"{shape}_period": PERIOD * 1000}
    assert delays(PHASES, **options) == pytest.approx([100 + 50 * one for one in SHAPES[shape]])


def test_waves_add_up_each_with_its_own_period() -> None:
    found = delays(
        PHASES,
        latency=500,
        square_amplitude=100,
        square_period=PERIOD * 1000,
        triangle_amplitude=10,
        triangle_period=PERIOD * 2000,
    )
    half = [4 * abs((phase / 2 - 0.25) % 1 - 0.5) - 1 for phase in PHASES]
    expected = [500 + 100 * a + 10 * b for a, b in zip(SHAPES["square"], half, strict=True)]
    assert found == pytest.approx(expected)


def test_without_waves_it_is_a_latency() -> None:
    assert delays(PHASES, latency=30) == pytest.approx([30] * len(PHASES))


def test_a_delay_below_0_is_none() -> None:
    options = {"latency": 10, "square_amplitude": 50, "square_period": PERIOD * 1000}
    assert delays([0.25, 0.75], **options) == pytest.approx([60, 0])


def test_a_falling_delay_reorders_nothing() -> None:
    # at 0.99 s the delay is 900 ms, at 1.01 s it is 0
    stage = Wave(
        {"latency": 450, "sine_amplitude": 0, "square_amplitude": 450, "square_period": 2000}
    )
    left = play([stage], [(0.99, Data(b"a")), (1.01, Data(b"b")), (1.02, EOF)])
    assert [event for _, event in left] == [Data(b"a"), Data(b"b"), EOF]
    assert [time for time, _ in left] == pytest.approx([1.89, 1.89, 1.89])


def test_the_time_of_the_waves_begins_with_the_connection() -> None:
    stage = Wave({"latency": 100, "sine_amplitude": 50, "sine_period": 4000})
    flow = Flow()
    flow.run(1000)
    flow.insert(stage)
    flow.push(b"a")  # at phase 0
    flow.push(b"b", at=1001)  # at a quarter
    flow.run(1010)
    assert times(flow.left) == pytest.approx([1000.1, 1001.15])


def test_an_update_restarts_the_time_of_the_waves() -> None:
    stage = Wave({"latency": 100, "sine_amplitude": 50, "sine_period": 4000})
    flow = Flow(stage)
    flow.run(1)
    flow.update(stage, sine_amplitude=80)
    flow.push(b"a")
    flow.push(b"b", at=2)
    flow.run(9)
    assert times(flow.left) == pytest.approx([1.1, 2.18])


def test_the_end_is_delayed_too() -> None:
    left = play([Wave({"latency": 70, "sine_amplitude": 0})], [(0, EOF)])
    assert left == near([(0.07, EOF)])
