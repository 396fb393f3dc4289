"""What the journal has of changes, and what a replay makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.cli.helpers import refused
from tests.cli.test_journal import read
from tests.cli.test_replay import journal, line
from tests.control.farms import Farm as Program
from tests.control.test_farm import dial, exchange, plan, populate, set_behavior, toxic
from tests.loops import wait_for
from tests.support import Backend, echo
from tests.support import dial as connect
from tests.support import exchange as ask
from tests.test_settings import resolved
from vaurien.control.events import Streams
from vaurien.control.farm import Farm
from vaurien.control.operations import (
    KINDS,
    AddToxic,
    Change,
    Create,
    Delete,
    Drop,
    Edit,
    Operation,
    RemoveToxic,
    SetBehavior,
    from_json,
)
from vaurien.errors import AlreadyThere
from vaurien.observe import lines as lines_
from vaurien.observe.events import Changed, Event
from vaurien.options import Raw
from vaurien.plan import Plan
from vaurien.settings import resolve


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend(echo) as backend:
        yield backend


class Watched:
    """A farm, and a plan for each proxy that is made of nothing but the journal's lines."""

    def __init__(self) -> None:
        self.farm = Farm(resolved(http="yes", http_port="0", seed="7"), [self.observe])
        self.plans: dict[str, Plan] = {}
        self.lines: list[dict[str, Any]] = []

    def observe(self, event: Event) -> None:
        if not isinstance(event, Changed):
            return
        self.lines.append(json.loads(lines_.line(event)))
        body, name = self.lines[-1]["operation"], event.proxy
        operation = from_json(body, self.farm.catalog.cls, "the journal")
        if isinstance(operation, Create):
            self.plans[name] = operation.apply(None)
        elif isinstance(operation, Delete):
            del self.plans[name]
        elif isinstance(operation, Edit):
            self.plans[name] = operation.apply(self.plans[name])

    def check(self) -> None:
        assert self.plans == {proxy.name: proxy.plan for proxy in self.farm}

    def kinds(self) -> list[str]:
        return [line["operation"]["kind"] for line in self.lines]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    made.farm.start()
    yield made
    for name in list(made.farm.proxies):
        made.farm.delete(name)
    made.check()


def test_the_lines_are_all_that_is_needed_to_know_every_plan(
    watched: Watched, backend: Backend
) -> None:
    farm = watched.farm
    farm.create(plan(backend, toxics=(toxic(farm, name="first"),)))
    farm.add_toxic("a", toxic(farm, latency=1))
    farm.update_toxic("a", toxic(farm, latency=2))
    set_behavior(farm, "a", "20:latency,10:3g", latency={"latency": 3})
    farm.disable("a")
    farm.enable("a")
    watched.check()
    farm.apply("a", Change({"seed": 5, "enabled": False}))
    farm.change("a", lambda before: replace(before, max_held=99, enabled=True))
    farm.remove_toxic("a", "first")
    watched.check()
    populate(farm, plan(backend, behavior="30:noop", toxics=()), "behavior", "toxics")
    watched.check()
    with Backend(echo) as other:
        populate(farm, plan(other, toxics=(toxic(farm),)))
        watched.check()
    farm.reset()
    settings = resolved(http="yes")
    settings.plans = (plan(backend, "b", behavior="5:error"), plan(backend, "a"))
    farm.reload(settings)
    watched.check()
    settings.plans = ()
    farm.reload(settings)
    watched.check()
    assert {*watched.kinds()} == {
        *("create", "add_toxic", "update_toxic", "set_behavior", "disable", "enable"),
        *("change", "remove_toxic", "reset", "delete"),
    }


def test_what_ends_by_itself_is_a_line_of_its_own(watched: Watched, backend: Backend) -> None:
    farm = watched.farm
    farm.create(plan(backend))
    farm.add_toxic("a", toxic(farm), ttl=0.02)
    farm.disable("a", ttl=0.02)
    set_behavior(farm, "a", "10:noop", ttl=0.02)
    wait_for(lambda: not farm.ttls.left("a"))
    watched.check()
    assert watched.kinds()[1:4] == ["add_toxic", "disable", "set_behavior"]
    assert sorted(watched.kinds()[4:]) == ["enable", "remove_toxic", "set_behavior"]
    assert [one["ttl"] for one in watched.lines] == [None, 0.02, 0.02, 0.02, None, None, None]
    since = [one["since"] for one in watched.lines]
    assert since == sorted(since) and since[0] > 0
    assert {(one["v"], one["proxy"], one["seed"]) for one in watched.lines} == {(1, "a", 7)}


def test_who_is_dropped_is_told_to_the_journal_only(
    watched: Watched, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vaurien")
    proxy = watched.farm.create(plan(backend))
    stream = Streams(watched.farm).open("a")
    next(stream)
    with dial(proxy) as client:
        exchange(client)
        watched.farm.drop("a", 1, "reset")
    watched.farm.disable("a")
    assert '"change": "disabled"' in next(stream).decode()
    assert watched.lines[1]["operation"] == {"kind": "drop", "number": 1, "how": "reset"}
    assert len(caplog.records) == 2
    assert watched.farm.drop("a") == 0
    assert watched.kinds() == ["create", "drop", "disable"]


def test_several_operations_are_one_step(watched: Watched, backend: Backend) -> None:
    farm = watched.farm
    before = farm.create(plan(backend)).plan
    one = toxic(farm)
    with pytest.raises(AlreadyThere):
        farm.apply("a", AddToxic(one), AddToxic(one))
    assert farm.get("a").plan is before
    farm.apply("a", AddToxic(one), Change({"enabled": False}))
    assert farm.get("a").plan.toxics == (one,) and not farm.get("a").enabled


def test_an_operation_is_undone_by_its_inverse(watched: Watched, backend: Backend) -> None:
    farm = watched.farm
    names = ("first", "t", "last")
    proxy = farm.create(plan(backend, toxics=tuple(toxic(farm, name=name) for name in names)))
    before = proxy.plan
    removal = RemoveToxic("t")
    farm.apply("a", removal)
    farm.apply("a", removal.inverse(before))
    assert proxy.plan == before


def test_every_field_and_kind_of_a_change_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "journal.rst").read_text()
    section = page.partition("\nChanges\n")[2].partition("\nHow it ended\n")[0]
    words = {*re.findall(r"``(\w+)``", section)}
    assert {*json.loads(change(0, slow()))} <= words
    assert {*KINDS} <= words
    for cls in KINDS.values():
        own = {one.name for one in fields(cast(Any, cls))} - {"decisions"}
        assert own <= words, cls


# The file, and its replay


def change(since: float, operation: Operation, proxy: str = "default", seed: int = 7) -> str:
    event = Changed(1.8e9, proxy, "", "", operation, since, None, seed)
    return lines_.line(event)


CATALOG = resolved(http="yes").catalog


def slow(name: str = "slow", milliseconds: int = 300) -> AddToxic:
    raws = {"latency": Raw(milliseconds, "")}
    return AddToxic(CATALOG.toxic("latency", name, "downstream", 1.0, raws))


def behavior(text: str, **options: Any) -> SetBehavior:
    settings = resolved(behavior=text, handlers={k: str(v) for k, v in options.items()})
    return SetBehavior("behavior", settings.plan.behavior, settings.plan.handlers)


def replay(tmp_path: Path, *lines: str, **given: str) -> Any:
    raws = {"replay": str(journal(tmp_path, *lines)), **given}
    return resolve({name: Raw(value, f"--{name}") for name, value in raws.items()}, [], {})


def test_the_toxics_of_the_start_are_there_before_anything_listens(tmp_path: Path) -> None:
    toxics = {"toxics": (slow().toxic,)}
    found = replay(tmp_path, change(0, Change(toxics)), line(1, 1), toxics="noop")
    assert found.plan.toxics == (slow().toxic,)
    assert found.plan.decisions == {(1, 1): "corrupt"}
    assert found.operations == ()
    assert replay(tmp_path, line(1, 1), toxics="noop").plan.toxics[0].type == "noop"


def test_the_seed_comes_from_a_journal_that_has_changes_only(tmp_path: Path) -> None:
    found = replay(tmp_path, change(0.5, slow()))
    assert found["seed"] == found.plan.seed == 7
    assert [(one.since, one.proxy, one.operation) for one in found.operations] == [
        (0.5, "default", slow())
    ]


def test_what_does_not_come_again_is_told(tmp_path: Path) -> None:
    moved = Change({"max_held": 5, "toxics": ()})
    found = replay(tmp_path, change(0.5, moved), change(1, Delete()))
    assert [one.operation for one in found.operations] == [Change({"toxics": ()})]
    (said,) = [one for one in found.warnings if "not done again" in one]
    assert "change, delete" in said


@pytest.mark.parametrize("kind", ["another seed", "back in time", "damaged"])
def test_changes_of_two_runs_or_damaged_ones_are_refused(tmp_path: Path, kind: str) -> None:
    broken = json.loads(change(3, slow()))
    broken["operation"]["toxic"]["type"] = "nobody"
    lines = {
        "another seed": [line(1, 1), change(1, slow(), seed=8)],
        "back in time": [change(2, slow()), change(1, slow("other"))],
        "damaged": [line(1, 1), json.dumps(broken)],
    }[kind]
    file = journal(tmp_path, *lines)
    said = refused("--replay", file, "--local", "127.0.0.1:0")
    assert str(file) in said and "line 2" in said


def test_toxics_come_and_go_again_at_their_time(tmp_path: Path, backend: Backend) -> None:
    file = journal(
        tmp_path,
        change(0, Change({"toxics": (slow("start", 0).toxic,)})),
        *(change(0.3, slow()), change(1.5, RemoveToxic("slow"))),
        *(line(1, n, chance=100) for n in (1, 2, 3)),
    )
    again = tmp_path / "again.jsonl"
    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0", "--replay", file)
    with Program(*arguments, "--journal", again, ready=1) as program:
        (address,) = program.proxies.values()
        with connect(address) as client:
            assert ask(client, b"UUUU") != b"UUUU"
            program.wait_log("toxic added slow")
            assert ask(client, b"UUUU") != b"UUUU"
            program.wait_log("toxic removed slow")
            assert ask(client, b"UUUU") != b"UUUU"
        assert program.api.get("/proxies/default/toxics")[0]["name"] == "start"
        assert program.stop() == 0
        assert "all decisions of the replay came to pass" in program.text
    lines = read(again)
    exchanges = sorted((one["exchange"], one["seconds"]) for one in lines if "exchange" in one)
    assert len(exchanges) == 3
    changes = [one for one in lines if "operation" in one]
    assert [one["operation"]["kind"] for one in changes] == ["change", "add_toxic", "remove_toxic"]
    assert [one["since"] >= due for one, due in zip(changes, (0, 0.3, 1.5), strict=True)] == [
        True, True, True,
    ]  # fmt: skip
    assert changes[0]["since"] == 0


def test_whom_a_behavior_let_go_goes_again_and_the_decisions_stay(
    tmp_path: Path, backend: Backend
) -> None:
    hour = {"latency": 3_600_000}
    lines = [
        line(1, 1, "latency", **hour),
        line(2, 1, "corrupt", chance=100),
        line(3, 1, "latency", **hour),
        change(1, behavior("10:corrupt", **{"corrupt.chance": 100})),
        change(2, Drop(3)),
    ]
    settings = replay(tmp_path, *lines, distant=backend.address, local="127.0.0.1:0")
    setting, dropping = (one._replace(since=0) for one in settings.operations)
    settings.operations = ()
    farm = Farm(settings)
    farm.start()
    proxy = farm.first()
    before = proxy.plan
    with dial(proxy) as held, dial(proxy) as corrupted, dial(proxy) as later:
        held.sendall(b"UUUU")
        wait_for(lambda: proxy.look() and proxy.look()[0].held == 4)
        farm.play([setting])
        assert held.recv(4) == b"UUUU"
        assert exchange(corrupted, b"UUUU") != b"UUUU"
        later.sendall(b"UUUU")  # who waits, as the journal says, though it is later here
        wait_for(lambda: proxy.look()[-1].held == 4)
        assert proxy.plan == before
        farm.play([dropping])
        assert later.recv(4) == b""
    assert proxy.unmet() == []
    farm.stop(0)


def test_what_cannot_be_done_again_is_told_and_the_rest_goes_on(
    tmp_path: Path, backend: Backend
) -> None:
    file = journal(tmp_path, change(0.1, RemoveToxic("gone")), change(0.2, slow("there")))
    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0", "--replay", file)
    with Program(*arguments, ready=1) as program:
        program.wait_log("toxic added there")
        assert program.stop() == 0
    assert "after 0.1 s cannot be done again: remove_toxic: toxic not found" in program.text


def test_a_run_is_written_and_replayed_with_its_toxics(tmp_path: Path, backend: Backend) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    arguments = ("--distant", backend.address, "--local", "127.0.0.1:0")
    given = ("--toxics", "latency latency=1", "--journal", first)
    with Program(*arguments, *given, ready=1) as program:
        body = {"name": "late", "type": "slicer", "attributes": {"average_size": 1}}
        program.api.post("/proxies/default/toxics", body)
        program.api.delete("/proxies/default/toxics/latency_downstream")
        seed = program.seeds["default"]
        assert program.stop() == 0
    with Program(*arguments, "--replay", first, "--journal", second, ready=1) as program:
        assert program.seeds["default"] == seed
        program.wait_log("toxic removed latency_downstream")
        toxics = program.api.get("/proxies/default/toxics")
        assert [one["name"] for one in toxics] == ["late"]
        assert program.stop() == 0
    assert [one["operation"] for one in read(second)] == [one["operation"] for one in read(first)]
    assert [one["operation"]["kind"] for one in read(first)] == [
        *("change", "add_toxic", "remove_toxic")
    ]
