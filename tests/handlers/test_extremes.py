"""Every option at the extremes of its range: it works, or it is refused in one clear sentence.

What converts and cannot work is the fault that this is about: a chance of 1e-305 percent is a
number from 0 to 100, and its gaps are longer than any integer.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, cast

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaurien.errors import UsageError
from vaurien.flow import EOF, Begin, Close, Data, Reset
from vaurien.flow.handler import FlowHandler
from vaurien.handlers import latency
from vaurien.handlers.connect import ConnectHandler
from vaurien.options import Bounded, Option, Raw, number
from vaurien.registry import builtins, kind, options_of
from vaurien.specification import POINTS, Specification, specify
from vaurien.testing import play

NEVER = 1e15  # seconds of virtual time; what is due later is as good as never
TINY = (5e-324, 1e-320, 1e-305, 1e-300, 1e-160, 1e-12)
#: What any number is tried with, within its range or not.
NUMBERS = (0, -0.0, *TINY, 1, 1.5, 99.999999, 1e9, 1e18, 1e300, 1.7976931348623157e308,
           2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400, "1" * 5000, math.inf, -math.inf,
           math.nan, -1, -5e-324, "1e-305", "1e400", "nan", "-0", "", " ")  # fmt: skip
REQUEST = [Begin(1), Data(b"x"), Data(bytes(100_000)), Data(b"y" * 7), Begin(2), Data(b"z"), EOF]
FLOW = {name: cls for name, cls in builtins().items() if kind(cls) == "flow"}
CONNECT = {name: cls for name, cls in builtins().items() if kind(cls) == "connect"}


def extremes(option: Option) -> list[Any]:
    """The values to try an option with: all its choices, or numbers at and beyond its bounds."""
    if option.choices:
        return [*option.choices, "", "Down", 5]
    if option.type is latency.distribution:
        return ["normal", "pareto", "paretonormal", "lognormal", "uniform", "", "norml"]
    if option.type is bool:
        return [True, False, "yes", "0", 2, None]
    bounds: list[float] = []
    if isinstance(option.type, Bounded):
        bounds = [option.type.low, option.type.high]
        near = [math.nextafter(b, way) for b in bounds for way in (-math.inf, math.inf)]
        bounds += [*near, *(b + way for b in bounds for way in (-1, 1))]
    return [*NUMBERS, *bounds]


def accepted(option: Option) -> list[Any]:
    """Those of its extremes that it takes; each of the others is refused in one sentence."""
    said = {n: refusal(option, value) for n, value in enumerate(extremes(option))}
    for sentence in filter(None, said.values()):
        assert sentence.startswith("--here: ")
        assert "\n" not in sentence
        assert len(sentence) < 600
    return [value for n, value in enumerate(extremes(option)) if said[n] is None]


def refusal(option: Option, value: Any) -> str | None:
    """What is said against a value; None if it is taken."""
    try:
        option.convert(value, "--here")
    except UsageError as error:
        return str(error)
    return None


CASES = [
    pytest.param(name, option.name, value, id=f"{name}.{option.name}={str(value)[:20]}")
    for name, cls in FLOW.items()
    for option in options_of(cls).values()
    for value in accepted(option)
]


def made(name: str, **options: Any) -> FlowHandler:
    """A stage of the handler `name`, as the configuration makes it."""
    raws = {word.replace("_", "-"): Raw(value, f"--{word}") for word, value in options.items()}
    return cast(FlowHandler, FLOW[name](specify(name, FLOW[name], raws).options))


def check_played(stage: FlowHandler) -> None:
    """What an exchange becomes is in order of time, no longer than it was, and ends once."""
    events = [(0.001 * n, event) for n, event in enumerate(REQUEST)]
    left = play([stage], events, until=NEVER)  # type: ignore[arg-type]
    times = [now for now, _ in left]
    assert all(math.isfinite(now) for now in times)
    assert times == sorted(times)
    assert 1 <= stage.chunk <= 65536
    sent = sum(len(event.data) for event in REQUEST if isinstance(event, Data))
    assert sum(len(event.data) for _, event in left if isinstance(event, Data)) <= sent
    ends = [event for _, event in left if event is EOF or isinstance(event, (Close, Reset))]
    assert len(ends) <= 2  # an end of the flow, and then of the connection


@pytest.mark.parametrize(("name", "option", "value"), CASES)
def test_a_flow_handler_works_with_whatever_it_takes(name: str, option: str, value: Any) -> None:
    check_played(made(name, **{option: value}))


@pytest.mark.timeout(300)  # some extremes are a million draws: they may, and machines may be busy
@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_extremes_together_work(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FLOW)))
    chosen = {
        option.name: data.draw(st.sampled_from(accepted(option)))
        for option in options_of(FLOW[name]).values()
        if data.draw(st.booleans())
    }
    check_played(made(name, **chosen))


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("corrupt", {"chance": 1e-305}, "untouched"),
        ("corrupt", {"chance": 5e-324}, "untouched"),
        ("timeout", {"timeout": 5e-324}, "ended"),
        ("timeout", {"timeout": 0}, "open"),
        ("timeout", {"timeout": -0.0}, "open"),
        ("bandwidth", {"rate": 5e-324}, "held"),
        ("stall", {"loss": 5e-324}, "untouched"),
        ("pause", {"time": 5e-324}, "untouched"),
        ("latency", {"latency": 5e-324, "jitter": 1e9, "distribution": "lognormal"}, "any"),
    ],
)
def test_what_is_next_to_nothing_is_not_taken_for_nothing(
    name: str, options: dict[str, Any], wanted: str
) -> None:
    left = play([made(name, **options)], [(0, Begin(1)), (0, Data(b"hello"))], until=1.0)
    data = b"".join(event.data for _, event in left if isinstance(event, Data))
    ended = any(isinstance(event, Close) for _, event in left)
    seen = "untouched" if data == b"hello" else "ended" if ended else "held"
    if wanted != "any":
        assert seen == {"open": "held"}.get(wanted, wanted)


class Meeting:
    """A client that a connect handler meets: it takes no time that cannot be waited for."""

    def open_later(self, seconds: float) -> None:
        assert 0 <= seconds <= 1e9
        wait_a_moment(seconds)

    def reset(self) -> None: ...

    def wait(self) -> None: ...

    def undialled(self, reason: str) -> None: ...


def wait_a_moment(seconds: float) -> None:
    """Wait so long in the loop, or until it is clear that it waits."""
    with contextlib.suppress(gevent.Timeout), gevent.Timeout(0.01):
        gevent.sleep(seconds)


@pytest.mark.parametrize("name", CONNECT)
def test_a_connect_handler_works_with_whatever_it_takes(name: str) -> None:
    cls: Any = CONNECT[name]
    for option in options_of(cls).values():
        for value in accepted(option):
            stage: ConnectHandler = cls(Specification(name, cls, {option.name: value}).options)
            stage.meet(Meeting())


def test_a_delay_waits_with_whatever_it_takes() -> None:
    (sleep,) = (o for o in options_of(builtins()["delay"]).values() if o.name == "sleep")
    for value in accepted(sleep):
        wait_a_moment(sleep.convert(value, "--here"))


def points() -> list[tuple[str, Any]]:
    """Every exact point with each value that it takes."""
    numbers = [option for option in POINTS.values() if option.name != "clients"]
    return [(option.name, value) for option in numbers for value in accepted(option)]


@pytest.mark.parametrize(("point", "value"), points())
def test_an_exact_point_works_with_whatever_it_takes(point: str, value: Any) -> None:
    cls = builtins()["delay"]
    if point == "until" and not float(value):
        with pytest.raises(UsageError, match=r"is not after since \(0\)"):
            Specification("delay", cls, {point: value})
        return
    spec = Specification("delay", cls, {point: value})
    for exchange in (1, 2, 2**62):
        assert spec.points.allow(exchange, 0, 0.0) in (True, False)
        assert spec.points.allow(exchange, exchange, 1e9) in (True, False)
    assert str(spec)


def test_a_bound_may_leave_out_zero() -> None:
    bounded = Bounded(number, "x", 0.5, 2, or_zero=True)
    assert [bounded(0), bounded(0.5), bounded(2)] == [0, 0.5, 2]
    for wrong, why in ((0.4, "less than 0.5, and not 0"), (3, "more than 2")):
        with pytest.raises(ValueError, match=why):
            bounded(wrong)
