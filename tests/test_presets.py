"""Presets: the published figures, the user's own, and what is refused."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.test_settings import ini, refused, resolved
from vaurien import ini as ini_
from vaurien.errors import UsageError
from vaurien.flow import EOF, Data
from vaurien.handlers.bandwidth import Bandwidth
from vaurien.handlers.blackhole import Blackhole
from vaurien.handlers.cut import Cut
from vaurien.handlers.latency import Latency
from vaurien.handlers.stall import Stall
from vaurien.plan import Specification
from vaurien.presets import builtins, found_in
from vaurien.testing import play

#: name, latency to the client and to the backend in ms, rates in kbit/s, loss in percent, source:
#: the table as it was published, with half of a round trip for each way.
FIGURES: list[tuple[str, float, float, float, float, float, str]] = [
    ("dial", 60, 60, 49, 30, 0, "WebPageTest"),
    ("2g", 650, 650, 35, 32, 0, "WebPageTest"),
    ("edge", 420, 420, 240, 200, 0, "WebPageTest"),
    ("3g-slow", 100, 100, 780, 330, 0, "WebPageTest"),
    ("3g", 150, 150, 1600, 768, 0, "WebPageTest"),
    ("3g-fast", 75, 75, 1600, 768, 0, "WebPageTest"),
    ("dsl", 25, 25, 1500, 384, 0, "WebPageTest"),
    ("cable", 14, 14, 5000, 1000, 0, "WebPageTest"),
    ("fios", 2, 2, 20000, 5000, 0, "WebPageTest"),
    ("4g", 42.5, 42.5, 9000, 9000, 0, "sitespeed.io"),
    ("lte", 17.5, 17.5, 12000, 12000, 0, "sitespeed.io"),
    ("lighthouse-mobile", 75, 75, 1600, 750, 0, "Lighthouse"),
    ("2g-rural", 650, 650, 20, 18, 2, "Facebook"),
    ("2g-urban", 650, 650, 35, 32, 0, "Facebook"),
    ("edge-lossy", 400, 440, 240, 200, 1, "Facebook"),
    ("edge-average", 400, 440, 240, 200, 0, "Facebook"),
    ("3g-average", 100, 100, 780, 330, 0, "Facebook"),
    ("satellite", 300, 300, 1000, 256, 0, "Loadero"),
    ("wifi-poor", 40, 40, 30000, 30000, 0.2, "comcast"),
    ("very-bad", 500, 500, 1000, 1000, 10, "Apple"),
]


def way(specifications: tuple[Specification, ...], to_backend: bool) -> dict[type, Any]:
    """The options of the handlers that act in one direction, by class."""
    return {one.cls: one.options for one in specifications if one.acts(to_backend)}


def test_the_presets_are_those_that_were_published() -> None:
    assert set(builtins()) == {*(name for name, *_ in FIGURES), "offline"}


@pytest.mark.parametrize(
    ("name", "down_ms", "up_ms", "down", "up", "loss", "source"),
    FIGURES,
    ids=[f[0] for f in FIGURES],
)
def test_each_preset_has_its_published_figures_and_names_their_source(
    name: str, down_ms: float, up_ms: float, down: float, up: float, loss: float, source: str
) -> None:
    preset = builtins()[name]
    for to_backend, ms, kbits in ((False, down_ms, down), (True, up_ms, up)):
        found = way(preset.specifications, to_backend)
        assert set(found) == {Bandwidth, Latency, Stall} - (set() if loss else {Stall})
        assert found[Latency]["latency"] == ms
        assert found[Latency]["jitter"] == 0
        # 1 kbit is 1000 bit, 1 KB is 1000 bytes
        assert found[Bandwidth]["rate"] == pytest.approx(kbits / 8, rel=1e-12)
        assert not found[Bandwidth]["shared"]
        assert not loss or found[Stall]["loss"] == loss
    assert source in preset.summary


@pytest.mark.parametrize("to_backend", [False, True])
def test_offline_lets_nothing_through(to_backend: bool) -> None:
    (specification,) = (one for one in builtins()["offline"].specifications if one.acts(to_backend))
    assert specification.cls is Blackhole
    assert play([Blackhole({}, to_backend)], [(0, Data(b"a"))]) == []


def test_a_kilobyte_over_3g_takes_the_time_that_the_figures_say() -> None:
    stages = [
        one.cls(one.options)
        for one in builtins()["3g"].specifications
        if one.acts(to_backend=False)
    ]
    left = play(stages, [(0, Data(bytes(1000))), (0, EOF)], until=inf)
    assert left[-2][0] == pytest.approx(0.15 + 8000 / 1_600_000)


def test_a_preset_says_in_a_line_what_it_is() -> None:
    summary = builtins()["3g"].summary
    assert "\n" not in summary
    for figure in ("300", "1600", "768"):
        assert figure in summary


def found(tmp_path: Path, text: str) -> Any:
    """The presets of a file."""
    path = tmp_path / "vaurien.ini"
    path.write_text(text)
    return found_in(ini_.read(str(path), "--config"))


def test_a_file_can_add_presets(tmp_path: Path) -> None:
    made = found(tmp_path, "[preset:lift]\nrtt = 90\ndown = 800\nloss = 5\n")["lift"]
    down, up = way(made.specifications, False), way(made.specifications, True)
    assert down[Latency]["latency"] == up[Latency]["latency"] == 45
    assert down[Bandwidth]["rate"] == 100
    assert Bandwidth not in up
    assert down[Stall]["loss"] == up[Stall]["loss"] == 5


def test_each_way_can_have_its_own_latency(tmp_path: Path) -> None:
    made = found(tmp_path, "[preset:lift]\nlatency_down = 10\nlatency-up = 20\n")["lift"]
    assert way(made.specifications, False)[Latency]["latency"] == 10
    assert way(made.specifications, True)[Latency]["latency"] == 20


def test_one_way_can_be_cut_off(tmp_path: Path) -> None:
    made = found(tmp_path, "[preset:mute]\nup = 0\n")["mute"]
    assert set(way(made.specifications, True)) == {Blackhole}
    assert way(made.specifications, False) == {}


def test_a_behavior_can_pick_a_preset_and_one_of_the_users_own(tmp_path: Path) -> None:
    config = ini(tmp_path, "[preset:lift]\nrtt = 90\n")
    made = resolved(distant="a:1", behavior="10:3g,5:lift", config=config).plan
    assert [one.cls for one in made.specifications("3g")] == [Bandwidth, Latency] * 2
    assert [one.cls for one in made.specifications("lift")] == [Latency] * 2
    assert [one.options["latency"] for one in made.specifications("lift")] == [45, 45]


def test_a_preset_of_the_file_can_stand_in_for_a_built_in_one(tmp_path: Path) -> None:
    config = ini(tmp_path, "[preset:3g]\nrtt = 1\n")
    made = resolved(distant="a:1", behavior="10:3g", config=config).plan
    assert [one.cls for one in made.specifications("3g")] == [Latency] * 2


def test_a_preset_can_be_combined_with_a_handler() -> None:
    made = resolved(distant="a:1", behavior="10:3g+cut").plan
    assert [one.cls for one in made.specifications("3g+cut")] == [*[Bandwidth, Latency] * 2, Cut]


@pytest.mark.parametrize(("wrong", "right"), [("3g-fsat", "3g-fast"), ("wifi-por", "wifi-poor")])
def test_an_unknown_preset_is_refused_with_the_nearest_name(wrong: str, right: str) -> None:
    sentence = refused(distant="a:1", behavior=f"100:{wrong}")
    assert repr(wrong) in sentence
    assert f"did you mean {right!r}?" in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rttt = 5", ["rttt", "did you mean 'rtt'?"]),
        ("rtt = -5", ["-5", "less than 0"]),
        ("rtt = soon", ["soon", "not a number"]),
        ("rtt = 5\nlatency = 5", ["rtt", "latency"]),
        ("rtt = 5\nlatency_up = 5", ["rtt", "latency_up"]),
        ("latency = 5\nlatency_down = 5", ["latency", "latency_down"]),
        ("down = -1", ["-1", "less than 0"]),
        ("rtt = 1\nloss = 101", ["101", "more than 100"]),
        ("source = me", ["does nothing"]),
        ("", ["does nothing"]),
    ],
)
def test_a_wrong_preset_is_refused_before_anything_listens(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        found(tmp_path, f"[preset:lift]\n{text}\n")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "vaurien.ini" in sentence
    for words in said:
        assert words in sentence


def test_a_preset_takes_no_options() -> None:
    sentence = refused({}, {"3g.latency": "5"}, distant="a:1", behavior="10:3g")
    assert "'3g'" in sentence
    assert "[preset:" in sentence


def test_a_preset_cannot_have_the_name_of_a_handler(tmp_path: Path) -> None:
    config = ini(tmp_path, "[preset:latency]\nrtt = 1\n")
    sentence = refused(distant="a:1", behavior="10:latency", config=config)
    assert "'latency' is a handler" in sentence


def test_a_preset_does_not_meet_clients() -> None:
    sentence = refused(distant="a:1", flags={"on-connect": "10:3g"})
    assert "3g" in sentence
