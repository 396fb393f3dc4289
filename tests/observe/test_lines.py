"""A line of the journal is what ``json.dumps`` would make, whatever is in it."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaurien.handlers.latency import Latency
from vaurien.observe.events import Ended
from vaurien.observe.lines import line
from vaurien.plan import Specification

TEXT = st.text(max_size=8)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
COUNT = st.integers(0, 10**15)


@given(
    st.builds(
        Ended,
        time=st.floats(0, 4e9),
        proxy=TEXT,
        seed=COUNT,
        connection=COUNT,
        client=TEXT,
        exchange=COUNT,
        handlers=NAMES,
        specifications=st.just(()),
        fired=NAMES,
        from_client=COUNT,
        from_backend=COUNT,
        seconds=st.floats(0, 1e8),
        end=TEXT,
    )
)
def test_each_field_is_what_it_was(event: Ended) -> None:
    found = json.loads(line(event))
    assert "\n" not in line(event)
    assert abs(datetime.fromisoformat(found.pop("time")).timestamp() - event.time) < 2e-6
    assert abs(found.pop("seconds") - event.seconds) < 1e-6
    names = ("proxy", "seed", "connection", "client", "exchange", "from_client", "from_backend")
    assert found == {
        "v": 1,
        **{name: getattr(event, name) for name in (*names, "end")},
        "handler": "+".join(event.handlers) or "dummy",
        "options": {},
        "fired": list(event.fired),
    }


def ended(began: float = 0.0, *specifications: Specification) -> Ended:
    names = tuple(spec.name for spec in specifications)
    return Ended(began, "p", 1, 1, "c", 1, names, specifications, names, 1, 1, 0.25, "next")


@pytest.mark.parametrize("micro", [0, 1, 499_999, 999_999])
def test_the_time_has_microseconds_and_its_zone(micro: int) -> None:
    began = 1_764_000_000 + micro / 1e6
    (text,) = (json.loads(line(ended(began)))["time"],)
    told = datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="microseconds")
    assert text == told


def test_what_is_kept_of_one_is_not_taken_for_another() -> None:
    # Thousands of others come and go, at addresses that are given out again.
    for number in range(5000):
        spec = Specification("latency", Latency, {"latency": number})
        assert json.loads(line(ended(0.0, spec)))["options"]["latency"]["latency"] == number
