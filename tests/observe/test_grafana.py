"""The Grafana dashboard among the examples: it is one, and shows metrics that there are.

It was read, too, by Grafana's own models (grafana-foundation-sdk), and its expressions by a real
Prometheus; here is what needs neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from vaurien.observe.metrics import FAMILIES, Family

PATH = Path(__file__).parents[2] / "examples" / "grafana.json"
NAME = re.compile(r"\b(?:vaurien|toxiproxy)_\w+")
#: A metric, and all that stands in its braces.
SELECTOR = re.compile(r"\b((?:vaurien|toxiproxy)_\w+)(?:\{([^}]*)\})?")


@pytest.fixture(scope="module")
def board() -> Any:
    return json.loads(PATH.read_text())


def exposed() -> dict[str, Family]:
    """Each name of a sample, and its family."""
    found = {}
    for family in FAMILIES:
        ends = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        found.update({family.name + end: family for end in ends})
    return found


def targets(board: Any) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield from panel.get("targets", [])


def test_every_metric_in_it_is_exposed_with_the_labels_that_it_uses(board: Any) -> None:
    known = exposed()
    for target in targets(board):
        expression = target["expr"]
        used = SELECTOR.findall(expression)
        assert used, f"{expression!r} has no metric"
        labels = {"le", "instance", "job"}.union(*(known[name].labels for name, _ in used))
        for _, selector in used:
            assert {*re.findall(r"(\w+)\s*[=!]", selector)} <= labels
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in by.split(",")} <= labels
        assert {*re.findall(r"{{(\w+)}}", target["legendFormat"])} <= labels
    queries = [str(variable["query"]) for variable in board["templating"]["list"]]
    assert {name for text in queries for name in NAME.findall(text)} <= {*known}


def test_every_metric_of_vaurien_is_in_it(board: Any) -> None:
    shown = {name for target in targets(board) for name in NAME.findall(target["expr"])}
    known = exposed()
    missing = {family.name for family in FAMILIES} - {known[name].name for name in shown}
    assert not {name for name in missing if name.startswith("vaurien_")}


def test_rates_are_of_counters(board: Any) -> None:
    known = exposed()
    for target in targets(board):
        for name in re.findall(r"rate\((\w+)", target["expr"]):
            assert known[name].kind in ("counter", "histogram")
        for name in re.findall(r"histogram_quantile\(.*?\b(vaurien_\w+)", target["expr"]):
            assert name.endswith("_bucket")
        assert target["expr"].count("(") == target["expr"].count(")")


def test_it_has_the_structure_of_a_dashboard(board: Any) -> None:
    assert board["title"]
    assert board["uid"]
    assert board["schemaVersion"] >= 36  # Grafana 9
    assert "id" not in board  # else it could not be imported
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert {"id", "type", "title", "gridPos"} <= {*panel}
        place = panel["gridPos"]
        assert {*place} == {"x", "y", "w", "h"}
        assert place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("stat", "timeseries", "table")
        assert panel["description"].endswith(".")
        assert panel["targets"]
        assert {"defaults", "overrides"} <= {*panel["fieldConfig"]}
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names)


def test_no_panel_covers_another(board: Any) -> None:
    for one, other in combinations((panel["gridPos"] for panel in board["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_the_source_of_data_is_a_variable(board: Any) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["proxy"]["datasource"] == wanted
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == wanted
            assert all(target["datasource"] == wanted for target in panel["targets"])
    used = {
        name for target in targets(board) for name in re.findall(r"\$(\w+)", target["expr"])
    } - {"__rate_interval"}
    assert used <= {*variables}
