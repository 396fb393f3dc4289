"""The log's lines about faults: one for each, of many in a second one for the rest, exact."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.support import Backend, exchange, proxy
from vaurien.behavior import Dice, Exchange
from vaurien.handlers.latency import Latency
from vaurien.observe import faults as module
from vaurien.observe.events import Acted, Began, Changed, Ended, Event
from vaurien.observe.faults import LINES, Faults
from vaurien.observe.journal import Journal
from vaurien.observe.log import QueueWriter, log
from vaurien.observe.notifier import Notifier
from vaurien.plan import Specification

MORE = re.compile(r"([\d,]+) more like this in this second")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[str]]:
    """The log as JSON; what it says is there once the writer has stopped, see `said`."""
    before = (log.level, log.propagate, log.handlers[:])
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = QueueWriter(file.fileno(), form="json")
        log.setLevel("INFO")
        log.propagate, log.handlers[:] = False, [writer]

        class Lines(list[str]):
            def said(self) -> list[dict[str, object]]:
                writer.stop()
                return [json.loads(line) for line in path.read_text().splitlines()]

        yield Lines()
        writer.stop()
    log.level, log.propagate, log.handlers[:] = before[0], before[1], before[2]


def said(lines: list[str]) -> list[dict[str, object]]:
    """All lines of the log, which ends with this."""
    return lines.said()  # type: ignore[attr-defined, no-any-return]


class Slow:
    """Stands for what a behavior picks."""

    def __init__(self, name: str) -> None:
        self.name, self.specification = name, Specification(name, Latency)


def test_of_twenty_thousand_faults_the_log_counts_all_and_the_journal_has_all(
    tmp_path: Path, lines: list[str]
) -> None:
    path = tmp_path / "journal"
    faults, journal = Faults(), Journal(str(path))
    notifier = Notifier("default", (faults, journal))
    handlers, dice = (Slow("latency"),), Dice(1, "default")
    n = 20_000
    for number in range(1, n + 1):
        passed = Exchange(dice, 7, number, handlers)
        notifier.began(7, number, handlers)
        passed.added[handlers[0]] = 0.0
        passed.from_client = number
        notifier.ended(passed, 1, ("::1", 7), 0.25, "next")
    faults.flush()
    journal.stop()
    found = said(lines)
    assert 0 < len(found) <= LINES + 2
    single = [line for line in found if "more" not in line]
    (rest,) = [line for line in found if "more" in line]
    assert [line["exchange"] for line in single] == list(range(1, len(single) + 1))
    more = n - len(single)
    assert rest["message"] == f"default: latency: {more:,} more like this in this second"
    assert (rest["more"], rest["proxy"], rest["handler"]) == (more, "default", "latency")
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["exchange"], line["from_client"]) for line in written] == [
        (number, number) for number in range(1, n + 1)
    ]
    assert {(line["client"], *line["fired"], line["end"]) for line in written} == {
        ("[::1]:7", "latency", "next")
    }
    assert journal.dropped == 0


def test_the_rest_of_a_second_is_said_when_it_is_over_though_nothing_follows(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECOND", 0.05)
    faults = Faults()
    for round_ in range(2):  # a new second counts anew, and its lines are there again
        for number in range(LINES + 100):
            faults(Began("default", round_, number, ("delay",)))
        over = gevent.get_hub().loop.timer(0.1)
        gevent.get_hub().wait(over)
    found = said(lines)
    for line, place in ((found[LINES + 1], 0), (found[-1], 1)):
        assert line["more"] == 99, place
    assert len(found) == 2 * (LINES + 2)


def test_what_is_rare_is_seen_among_what_is_frequent(lines: list[str]) -> None:
    faults = Faults()
    for number in range(1000):
        faults(Began("busy", 1, number, ("delay",)))
    faults(Began("quiet", 1, 1, ("delay",)))
    faults(Began("busy", 1, 1000, ("delay", "error")))
    faults(Acted("busy", 1, 1001, ("delay",)))
    faults.flush()
    messages = [str(line["message"]) for line in said(lines)]
    assert "quiet: connection 1, exchange 1: delay" in messages
    assert "busy: connection 1, exchange 1000: delay+error" in messages
    assert "busy: connection 1, exchange 1001: toxic delay" in messages
    assert messages[-1] == f"busy: delay: {999 - LINES} more like this in this second"


def test_few_faults_have_a_line_each_and_nothing_is_added(lines: list[str]) -> None:
    faults = Faults()
    for number in range(LINES):
        faults(Began("default", 1, number, ("delay",)))
    faults(Began("default", 1, LINES, ()))  # dummy
    faults.flush()
    faults.flush()
    assert len(said(lines)) == LINES


def test_other_lines_are_not_counted_but_written(lines: list[str]) -> None:
    faults = Faults()
    for number in range(1000):
        faults(Began("default", 1, number, ("delay",)))
        log.warning("the same each time")
    faults.flush()
    found = said(lines)
    assert sum(line["level"] == "warning" for line in found) == 1000
    assert len(found) == 1000 + LINES + 2


def test_a_log_that_is_not_to_have_faults_has_no_counts_of_them(lines: list[str]) -> None:
    log.setLevel(logging.WARNING)
    faults = Faults()
    for number in range(1000):
        faults(Began("default", 1, number, ("delay",)))
    faults.flush()
    assert said(lines) == []


def test_what_is_only_counted_becomes_no_event(lines: list[str]) -> None:
    class Watched(Faults):
        events = 0

        def __call__(self, event: Event) -> None:
            self.events += 1
            super().__call__(event)

    faults, others = Watched(), list[Event]()
    notifier = Notifier("default", (faults,))
    picked, toxic = Slow("latency"), Slow("slow")
    passed = Exchange(Dice(1, "default"), 3, 4, (picked,))
    passed.added = {picked: 0.0, toxic: 0.0}
    n = LINES + 1000
    for round_ in range(2):  # in the next second there are lines again
        for number in range(n):
            notifier.began(3, number, (picked,))
            notifier.ended(passed, 1, "", 0.25, "next")
        assert faults.events == (round_ + 1) * (LINES + 4)
        faults.flush()
    notifier.observers = (faults, others.append)
    for number in range(n):
        notifier.began(3, number, (picked,))
    assert len(others) == n
    faults.flush()
    more = [int(str(line["more"])) for line in said(lines) if "more" in line]
    assert [sum(more[i : i + 2]) for i in (0, 2)] == [2 * n - LINES - 2] * 2
    assert more[4:] == [n - LINES - 1]


# Who gets what


def test_an_observer_gets_what_it_wants_and_no_more() -> None:
    class Wants:
        def __init__(self, *kinds: type) -> None:
            self.wants, self.got = kinds, list[Event]()

        def __call__(self, event: Event) -> None:
            self.got.append(event)

    began, ended, acted, none = Wants(Began), Wants(Ended), Wants(Acted), Wants(Changed)
    usual: list[Event] = []
    picked, toxic, same = Slow("latency"), Slow("slow"), Slow("latency")
    notifier = Notifier("default", (began, ended, acted, none, usual.append))
    passed = Exchange(Dice(1, "default"), 3, 4, (picked,))
    notifier.began(3, 4, (picked,))
    passed.added = {picked: 0.0, toxic: 0.0, same: 0.0}
    notifier.ended(passed, 1, "", 0.25, "client")
    assert began.got == [Began("default", 3, 4, ("latency",))]
    assert acted.got == [Acted("default", 3, 4, ("slow",))]
    (end,) = ended.got
    assert isinstance(end, Ended)
    assert end.fired == ("latency", "slow")
    assert (end.specifications, end.client, end.seconds) == ((picked.specification,), "unix", 0.25)
    assert usual == [*began.got, *ended.got]
    assert none.got == []
    notifier.observers = (began,)
    notifier.ended(passed, 1, "", 0.25, "client")
    assert len(ended.got) == len(acted.got) == 1


# The program


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_of_a_busy_proxy_counts_what_the_journal_has(
    tmp_path: Path, echo_backend: Backend, form: str
) -> None:
    journal = tmp_path / "journal"
    arguments = (
        *("--behavior", "100:latency", "--handlers.latency.latency", 0),
        *("--journal", journal, "--log-format", form),
    )
    n = 3000
    with proxy(echo_backend, *arguments) as program:
        with program.dial() as client:
            for _ in range(n):
                exchange(client, b"x")
        assert program.stop() == 0
    assert journal.read_text().count("\n") == n
    single = program.text.count("connection 1, exchange ")
    more = [int(count.replace(",", "")) for count in MORE.findall(program.text)]
    assert more, "so many in a second were to be counted"
    assert single + sum(more) == n
    assert 0 < single < n
    assert "dropped" not in program.text
