"""Operations as values: each can be undone, written down, and done for a while."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loops import wait_for
from tests.test_settings import resolved
from vaurien import services
from vaurien.address import Address
from vaurien.behavior import parse
from vaurien.control.operations import (
    KINDS,
    AddToxic,
    Change,
    Create,
    Delete,
    Disable,
    Drop,
    Edit,
    Enable,
    Operation,
    RemoveToxic,
    Reset,
    SetBehavior,
    UpdateToxic,
    from_json,
    part_of,
)
from vaurien.control.ttl import Ttls, Undo
from vaurien.errors import AlreadyThere, NotFound, UsageError
from vaurien.options import Raw
from vaurien.plan import NOTHING, Plan, Toxic

CATALOG = resolved(http="yes").catalog
BASE = resolved(local="127.0.0.1:0", distant="127.0.0.1:9", seed="7").plan


def toxic(kind: str = "latency", name: str = "t", toxicity: float = 1.0, **options: Any) -> Toxic:
    raws = {key: Raw(value, key) for key, value in options.items()}
    return CATALOG.toxic(kind, name, "downstream", toxicity, raws)


def behavior(what: str, text: str | None, **options: dict[str, Any]) -> SetBehavior:
    given = {name: {k: Raw(v, k) for k, v in values.items()} for name, values in options.items()}
    parsed = NOTHING if text is None else parse(text, what)
    both = (parsed, NOTHING) if what == "behavior" else (NOTHING, parsed)
    return SetBehavior(what, parsed, CATALOG.choose(*both, options=given))


#: How long an example takes is the machine's business.
UNHURRIED = settings(deadline=None)
NAMES = st.sampled_from("abcd")
NUMBERS = st.integers(0, 3)
TOXICS = st.builds(
    lambda kind, name, number, share: toxic(kind[0], name, share, **{kind[1]: number}),
    st.sampled_from([("latency", "latency"), ("bandwidth", "rate"), ("slicer", "delay")]),
    NAMES,
    NUMBERS,
    st.sampled_from([0.0, 0.25, 1.0]),
)
BEHAVIORS = st.one_of(
    st.builds(
        lambda text, number: behavior("behavior", text, latency={"latency": number}),
        st.sampled_from(["100:latency", "20.5:latency+bandwidth,5:error", "1:latency,2:3g"]),
        NUMBERS,
    ),
    st.sampled_from(
        [
            behavior("behavior", "100:dummy"),
            behavior("behavior", "50:error", error={"times": 2, "clients": "10.0.0.0/8"}),
            behavior("on_connect", None),
            behavior("on_connect", "20:refuse,5:slow_accept", slow_accept={"delay": "3"}),
        ]
    ),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "local": st.sampled_from([BASE.local, replace(BASE.local, port=99)]),
        "distant": st.sampled_from([BASE.distant, replace(BASE.distant, host="::1")]),
        "enabled": st.booleans(),
        "seed": NUMBERS,
        "timeout": st.sampled_from([0.0, 2.5]),
        "max_held": st.sampled_from([1000, 1 << 20]),
        "toxics": st.lists(TOXICS, max_size=3, unique_by=lambda one: one.name).map(tuple),
    },
)
EDITS: st.SearchStrategy[Edit] = st.one_of(
    BEHAVIORS,
    TOXICS.map(AddToxic),
    st.builds(AddToxic, TOXICS, NUMBERS),
    TOXICS.map(UpdateToxic),
    NAMES.map(RemoveToxic),
    st.just(Enable()),
    st.just(Disable()),
    FIELDS.map(Change),
    st.just(Reset()),
)


def done(plan: Plan, edits: list[Edit]) -> list[tuple[Plan, Edit, Plan]]:
    """Those that can be done, one after the other: the plan before, what was done, what it made."""
    steps = []
    for edit in edits:
        try:
            after = edit.apply(plan)
        except (NotFound, AlreadyThere):
            continue
        steps.append((plan, edit, after))
        plan = after
    return steps


def last(edits: list[Edit]) -> Plan:
    """The plan that they make in the end."""
    return [BASE, *(after for _, _, after in done(BASE, edits))][-1]


def parts(*plans: Plan) -> list[str]:
    toxics = {f"toxic {one.name}" for plan in plans for one in plan.toxics}
    return ["enabled", "behavior", "on_connect", *sorted(toxics)]


@UNHURRIED
@given(st.lists(EDITS, max_size=12))
def test_the_inverse_brings_back_the_plan_before(edits: list[Edit]) -> None:
    steps = done(BASE, edits)
    for before, edit, after in steps:
        assert edit.inverse(before).apply(after) == before
    plan = last(edits)
    for before, edit, _ in reversed(steps):
        plan = edit.inverse(before).apply(plan)
    assert plan == BASE


@UNHURRIED
@given(st.lists(EDITS, max_size=8), EDITS, EDITS)
def test_the_inverse_leaves_alone_what_others_have_changed_since(
    former: list[Edit], mine: Edit, other: Edit
) -> None:
    before = last(former)
    steps = done(before, [mine, other])
    if len(steps) < 2:
        return
    (_, _, between), (_, _, after) = steps
    touched = mine.touched(before, between)
    if not mine.part or {*touched} & {*other.touched(between, after)}:
        return  # `Change` and `Reset` bring back whole fields, all toxics among them
    back = mine.inverse(before).apply(after)
    for part in parts(before, after):
        assert part_of(back, part) == part_of(before if part in touched else after, part)


@UNHURRIED
@given(st.lists(EDITS, max_size=8))
def test_what_is_not_touched_is_the_same(edits: list[Edit]) -> None:
    for before, edit, after in done(BASE, edits):
        for part in parts(before, after):
            if part not in edit.touched(before, after):
                assert part_of(after, part) == part_of(before, part)


@UNHURRIED
@given(st.lists(EDITS, max_size=8), st.lists(EDITS, max_size=4))
def test_what_lies_between_two_plans_makes_the_one_of_the_other(
    one: list[Edit], two: list[Edit]
) -> None:
    before, after = last(one), last(two)
    assert Change.between(before, after).apply(before) == after


def through_json(operation: Operation) -> Operation:
    return from_json(json.loads(json.dumps(operation.to_json())), CATALOG.cls, "there")


@UNHURRIED
@given(st.lists(EDITS, max_size=8))
def test_an_operation_comes_back_from_json_as_it_was(edits: list[Edit]) -> None:
    for before, edit, after in done(BASE, edits):
        undo = edit.inverse(before)
        for operation in (edit, undo, Create(before), Change.between(before, after)):
            assert through_json(operation) == operation


@pytest.mark.parametrize("operation", [Delete(), Drop(), Drop(3, "reset"), Create(BASE)])
def test_so_does_one_that_makes_no_plan_of_another(operation: Operation) -> None:
    assert through_json(operation) == operation


def test_an_address_of_both_kinds_comes_back_as_such() -> None:
    plan = replace(
        BASE, local=Address("0.0.0.0", 80, both=True), distant=services.parse("b:http", "")
    )
    made = through_json(Create(plan))
    assert isinstance(made, Create)
    assert made == Create(plan)
    assert made.plan.local.both
    assert str(made.plan.distant) == "b:http"


def test_create_and_delete_undo_each_other() -> None:
    assert Create(BASE).inverse() == Delete()
    assert Delete().inverse(BASE).apply(None) == BASE
    with pytest.raises(NotFound):
        Delete().apply(None)
    with pytest.raises(AlreadyThere):
        Create(BASE).apply(BASE)  # type: ignore[arg-type]


def test_every_kind_is_tried_here() -> None:
    tried = {SetBehavior, AddToxic, UpdateToxic, RemoveToxic, Enable, Disable, Change, Reset}
    assert {*KINDS.values()} == tried | {Create, Delete, Drop}


def test_json_has_the_options_as_they_were_given() -> None:
    given = behavior("behavior", "20:latency", latency={"latency": "15", "times": 3})
    assert given.to_json() == {
        "kind": "set_behavior",
        "what": "behavior",
        "behavior": "20:latency",
        "handlers": {"latency": {"handler": "latency", "options": {"latency": "15", "times": 3}}},
    }
    assert AddToxic(toxic(latency=150)).to_json()["toxic"] == {
        "name": "t",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1.0,
        "options": {"latency": 150, "stream": "downstream"},
    }


@pytest.mark.parametrize(
    "text",
    ["10:slow", "10:tests.control.broken.Broken", "10:own", "10:mine", "10:3g", "10:slow+mine"],
)
def test_a_handler_of_the_configuration_is_found_again(tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.ini"
    file.write_text(
        "[handler:slow]\ncallable = vaurien.handlers.latency.Latency\nlatency = 77\n"
        "[handler:own]\ncallable = tests.control.broken.Broken\n"
        "[preset:mine]\nlatency = 30\nloss = 1\n"
    )
    plan = resolved(config=str(file), behavior=text).plan
    catalog = resolved(config=str(file), behavior=text).catalog
    operation = SetBehavior("behavior", plan.behavior, plan.handlers)
    read = from_json(json.loads(json.dumps(operation.to_json())), catalog.cls, "there")
    assert read == operation


BROKEN: dict[str, Any] = {
    "no object": [],
    "no kind": {},
    "another kind": {"kind": "explode"},
    "a field is missing": {"kind": "add_toxic"},
    "a field too many": {"kind": "enable", "for": 3},
    "another behavior": {"kind": "set_behavior", "what": "x", "behavior": None, "handlers": {}},
    "no toxic": {"kind": "add_toxic", "toxic": {"name": "t"}},
    "no such handler": {
        "kind": "add_toxic",
        "toxic": {"name": "t", "type": "x", "stream": "", "toxicity": 1, "options": {}},
    },
    "no such option": {
        "kind": "set_behavior",
        "what": "behavior",
        "behavior": "1:error",
        "handlers": {"error": {"handler": "error", "options": {"x": 1}}},
    },
    "a field of no plan": {"kind": "create", "plan": {"x": 1}},
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_operation_is_refused_with_its_place(body: Any) -> None:
    with pytest.raises(UsageError, match=r"^there|'x'"):
        from_json(body, CATALOG.cls, "there")


def test_the_decisions_of_a_replay_go_and_come_with_their_behavior() -> None:
    corrupt = behavior("behavior", "0:corrupt")
    plan = replace(
        BASE, behavior=corrupt.behavior, handlers=corrupt.handlers, decisions={(1, 2): "corrupt"}
    )
    for edit in (behavior("behavior", "1:error"), Reset(), Change({"behavior": BASE.behavior})):
        after = edit.apply(plan)
        assert after.decisions is None
        assert edit.inverse(plan).apply(after) == plan
    other = replace(plan, behavior=parse("1:corrupt", "behavior"))
    assert Change.between(plan, other).apply(plan) == other


# For a while


ONE, TWO, THREE = Enable(), Disable(), Reset()
KEY = ("a", "enabled")


def ttls() -> tuple[Ttls, list[Undo]]:
    ended: list[Undo] = []

    def end(key: tuple[str, str], undo: Undo) -> None:
        assert key == KEY
        ended.append(undo)

    return Ttls(end), ended


def test_a_shorter_while_lies_on_top_and_each_brings_back_its_own() -> None:
    made, ended = ttls()
    made.changed(KEY, 0.06, Undo(ONE, 1))
    made.changed(KEY, 0.02, Undo(TWO, 2))
    assert made.left("a")["enabled"] <= 0.02
    wait_for(lambda: len(ended) == 2)
    assert ended == [Undo(TWO, 2), Undo(ONE, 1)]
    assert made.left("a") == {}


def test_a_longer_while_brings_back_what_the_shorter_one_below_it_would_have() -> None:
    made, ended = ttls()
    made.changed(KEY, 0.02, Undo(ONE, 1))
    made.changed(KEY, 0.03, Undo(TWO, 2))
    made.changed(KEY, 0.06, Undo(THREE, 3))
    wait_for(lambda: ended)
    assert ended == [Undo(ONE, 3)]
    wait_for(lambda: not made.left("a"))
    assert len(ended) == 1


def test_what_is_changed_for_good_ends_all_whiles_of_its_part() -> None:
    made, ended = ttls()
    made.changed(KEY, 0.02, Undo(ONE))
    made.changed(KEY, 0.01, Undo(TWO))
    made.changed(KEY, None, Undo(THREE))
    assert made.left("a") == {}
    made.changed(KEY, 0.03, Undo(THREE))
    wait_for(lambda: ended)
    assert ended == [Undo(THREE)]


def test_a_while_that_is_renewed_brings_back_the_same() -> None:
    made, ended = ttls()
    made.renew(KEY, 0.01)  # there is nothing to renew
    made.changed(KEY, 3600, Undo(ONE, 1))
    made.renew(KEY, 0.01)
    wait_for(lambda: ended)
    assert ended == [Undo(ONE, 1)]


@UNHURRIED
@given(st.lists(EDITS, min_size=1, max_size=5))
def test_no_operation_changes_the_plan_that_it_is_given(edits: list[Edit]) -> None:
    steps = done(BASE, edits)
    images = [repr(before) for before, _, _ in steps]
    for before, edit, after in steps:
        edit.inverse(before).apply(after)
    assert [repr(before) for before, _, _ in steps] == images
