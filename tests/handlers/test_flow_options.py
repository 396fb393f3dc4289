"""The options of flow handlers: names, defaults, and what is out of range."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flow.helpers import Flow
from vaurien.behavior import Dice
from vaurien.errors import UsageError
from vaurien.flow.handler import Draws, FlowHandler
from vaurien.options import Raw
from vaurien.plan import Specification, framework, specify
from vaurien.registry import builtins, summary

FLOW = {name: cls for name, cls in builtins().items() if issubclass(cls, FlowHandler)}

#: Toxiproxy's attributes, from its API, with another unit than ms in the description.
TOXIPROXY = {
    "latency": {"latency": "ms", "jitter": "ms"},
    "bandwidth": {"rate": "KB/s"},
    "slow_close": {"delay": "ms"},
    "timeout": {"timeout": "ms"},
    "reset_peer": {"timeout": "ms"},
    "slicer": {"average_size": "bytes", "size_variation": "bytes", "delay": "microseconds"},
    "limit_data": {"bytes": "bytes"},
    "noop": {},
}


def test_all_flow_handlers_are_there() -> None:
    assert set(FLOW) == {
        *TOXIPROXY,
        *("wave", "stall", "corrupt", "truncate", "pause", "blackhole", "cut", "trickle"),
        *("hang", "blackout", "abort", "reset", "delay"),
    }


@pytest.mark.parametrize("name", TOXIPROXY)
def test_the_first_eight_have_the_attributes_of_toxiproxy(name: str) -> None:
    cls: Any = FLOW[name]
    assert cls.name == name
    for attribute, unit in TOXIPROXY[name].items():
        assert unit in cls.options[attribute][0]


@pytest.mark.parametrize("name", FLOW)
def test_every_one_takes_its_defaults_a_stream_and_says_what_it_does(name: str) -> None:
    stage: Any = FLOW[name]()
    assert stage.name == name
    assert "stream" in {*framework(FLOW[name]), *FLOW[name].options}
    assert summary(FLOW[name]).endswith((".", ":", ","))
    assert "\n" not in repr(stage)
    assert Specification(name, FLOW[name]).is_flow


@pytest.mark.parametrize("name", sorted(set(FLOW) - {"hang", "delay"}))
def test_the_stream_is_downstream_if_not_said(name: str) -> None:
    made = Specification(name, FLOW[name])
    assert made.acts(to_backend=False)
    assert not made.acts(to_backend=True)


@pytest.mark.parametrize("before", [True, False])
def test_delay_acts_on_the_stream_that_before_says(before: bool) -> None:
    made = Specification("delay", FLOW["delay"], {"before": before})
    assert made.acts(to_backend=before)
    assert not made.acts(to_backend=not before)
    both = Specification("delay", FLOW["delay"], {"before": before, "stream": "both"})
    assert both.acts(to_backend=True)
    assert both.acts(to_backend=False)


def test_hang_acts_on_both_streams() -> None:
    made = Specification("hang", FLOW["hang"])
    assert made.acts(to_backend=False)
    assert made.acts(to_backend=True)


#: Every option in ms: a negative time makes no sense.
TIMES = [
    ("latency", "latency"),
    ("latency", "jitter"),
    ("slow_close", "delay"),
    ("timeout", "timeout"),
    ("reset_peer", "timeout"),
    ("reset", "timeout"),
    ("slicer", "delay"),
    ("wave", "latency"),
    ("wave", "sine_amplitude"),
    ("wave", "saw_amplitude"),
    ("wave", "square_amplitude"),
    ("wave", "triangle_amplitude"),
    ("stall", "rto"),
    ("stall", "max_rto"),
    ("pause", "time"),
    ("cut", "time"),
    ("trickle", "duration"),
]
SIZES = [
    ("slicer", "size_variation"),
    ("limit_data", "bytes"),
    ("truncate", "bytes"),
    ("cut", "bytes"),
    ("abort", "bytes"),
    ("corrupt", "offset"),
]
PERCENTAGES = [
    ("latency", "correlation"),
    ("stall", "loss"),
    ("stall", "go_bad"),
    ("stall", "go_good"),
    ("corrupt", "chance"),
]
WRONG: list[tuple[str, str, object, str]] = [
    *((name, option, "-1", "less than 0") for name, option in TIMES + SIZES + PERCENTAGES),
    *((name, option, "-0.001", "less than 0") for name, option in TIMES + PERCENTAGES),
    *((name, option, "nan", "not a finite number") for name, option in TIMES + PERCENTAGES),
    *((name, option, "inf", "not a finite number") for name, option in TIMES),
    *((name, option, "1s", "not a number") for name, option in TIMES),
    *((name, option, "1.5", "not a whole number") for name, option in SIZES),
    *((name, option, "100.1", "more than 100") for name, option in PERCENTAGES),
    ("bandwidth", "rate", "-5", "less than 0"),
    ("bandwidth", "rate", "nan", "not a finite number"),
    ("bandwidth", "shared", "perhaps", "yes, no"),
    ("slicer", "average_size", "-1", "less than 0"),
    ("stall", "packet", "0", "less than 1"),
    ("stall", "model", "markov", "bernoulli"),
    ("stall", "model", "gilbert", "gilbert-elliott"),
    ("truncate", "fraction", "-0.1", "less than 0"),
    ("truncate", "fraction", "1.1", "more than 1"),
    ("cut", "how", "rst", "reset"),
    ("cut", "side", "server", "backend"),
    ("reset_peer", "stream", "up", "upstream"),
    ("hang", "stream", "down", "downstream"),
    *(
        ("wave", f"{wave}_period", "0", "less than")
        for wave in ("sine", "saw", "square", "triangle")
    ),
    ("wave", "sine_period", "-1", "less than"),
]


@pytest.mark.parametrize(("name", "option", "value", "said"), WRONG)
def test_what_is_out_of_range_is_refused_by_name_value_and_way_out(
    name: str, option: str, value: object, said: str
) -> None:
    for make in (
        lambda: FLOW[name]({option: value}),
        lambda: specify(name, FLOW[name], {option: Raw(value, f"--handlers.{name}.{option}")}),
    ):
        with pytest.raises(UsageError) as caught:
            make()
        sentence = str(caught.value)
        assert option in sentence
        assert name in sentence
        assert repr(value) in sentence
        assert said in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize("name", FLOW)
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="'nonsense'"):
        FLOW[name]({"nonsense": 1})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("latency", {"latency": "0", "jitter": "0", "correlation": "100"}),
        ("bandwidth", {"rate": "0.001", "shared": "yes"}),
        ("slicer", {"average_size": "1", "size_variation": "0", "delay": "0"}),
        ("stall", {"loss": "0", "rto": "0", "max_rto": "0", "packet": "1"}),
        ("stall", {"loss": "100", "model": "gilbert-elliott"}),
        ("truncate", {"bytes": "0"}),
        ("truncate", {"fraction": "1"}),
        ("cut", {"time": "0", "bytes": "0", "how": "reset", "side": "backend"}),
        ("corrupt", {"chance": "0", "offset": "0"}),
        ("trickle", {"duration": "0"}),
        ("pause", {"time": "0"}),
        ("timeout", {"timeout": "0"}),
        ("wave", {"latency": "0", "sine_amplitude": "0", "sine_period": "1"}),
        ("limit_data", {"bytes": "0"}),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(name: str, options: dict[str, str]) -> None:
    stage: Any = FLOW[name](options)
    assert set(options) <= set(stage.options)


def test_dashes_and_underscores_in_names_are_the_same() -> None:
    stage: Any = FLOW["slicer"]({"average-size": "7"})
    assert stage.options["average_size"] == 7


class Counting(Draws):
    """Counts how often it is asked."""

    asked = 0

    def __call__(self, purpose: str) -> float:
        self.asked += 1
        return super().__call__(purpose)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bandwidth", {"rate": 0.001}),
        ("bandwidth", {"rate": 1}),
        ("slicer", {"average_size": 1, "delay": 10}),
        ("slicer", {"average_size": 5, "size_variation": 4, "delay": 10}),
        ("trickle", {"duration": 1e9}),
        ("stall", {"packet": 1, "loss": 30}),
        ("stall", {"packet": 20, "loss": 90}),
        ("corrupt", {"chance": 100}),
        ("corrupt", {"chance": 20}),
    ],
)
def test_what_a_stage_makes_of_one_read_is_bounded(name: str, options: dict[str, float]) -> None:
    # Law 2 and 6: a read is dealt with in one callback of the loop, and all its pieces are held.
    dice = Counting(Dice(1, "default"), 1, name)
    stage: Any = FLOW[name](options, False, dice)
    flow = Flow(stage)
    flow.push(bytes(stage.chunk))
    assert flow.chain.held <= 1 << 20  # what --max-held is if nobody says
    assert dice.asked <= 10_000
