"""The journal: a JSON line for each exchange that a handler touched, and for each change; replay.

Law: writing never blocks the loop; a full disk or a closed pipe stops the journal, not the proxy.
It lacks nothing that a disk can take.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from vaurien import registry
from vaurien.behavior import DUMMY, Behavior
from vaurien.errors import UsageError, many
from vaurien.observe.events import Changed, Ended, Event
from vaurien.observe.files import open_to_append
from vaurien.observe.lines import VERSION, line
from vaurien.observe.writer import Writer
from vaurien.options import Raw
from vaurien.plan import POINTS, Specification, specify

#: Lines that may wait: what a proxy at full speed makes in more than a second, so that a disk that
#: hesitates costs none. They take some 40 MB then.
LIMIT = 100_000

log = logging.getLogger("vaurien")


class Journal:
    """An observer that appends to the file at `path`."""

    wants = (Ended,)

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # A pipe that nobody reads would block the opening.
            flags = os.O_RDWR if os.path.isfile(path) else os.O_WRONLY
            self._descriptor = open_to_append(path, flags | os.O_NONBLOCK)
            os.set_blocking(self._descriptor, True)
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                self._end_torn_line()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"--journal: cannot write {path!r}: {reason}; give a file's path"
            ) from None
        self._writer: Writer[Ended | Changed] = Writer(
            self._descriptor, line, LIMIT, failed=self._failed
        )

    def __call__(self, event: Event) -> None:
        """Take note of an exchange that is over, or of a change."""
        if event.__class__ is Ended or event.__class__ is Changed:
            self._writer.put(event)

    @property
    def dropped(self) -> int:
        """How many lines were dropped in all."""
        return self._writer.dropped

    def stop(self) -> None:
        """Write what is waiting, for a second at most."""
        if not self._writer.stop():
            log.error("journal %s: not all could be written within a second", self.path)
        elif self._writer.dropped:
            dropped = many(self._writer.dropped, "line", "was", "were")
            log.error("journal %s: %s dropped", self.path, dropped)

    def _end_torn_line(self) -> None:
        """Begin a new line, if the file ends in the middle of one: a run was killed in writing."""
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")

    def _failed(self, error: OSError) -> None:
        log.error("journal %s stops: %s; the proxy goes on", self.path, error.strerror)


@dataclass
class Replay:
    """The decisions of a journal, as parts of behaviors whose weights do not count."""

    seed: int | None = None
    decisions: dict[tuple[int, int], str] = field(default_factory=dict)
    connect_decisions: dict[tuple[int, int], str] = field(default_factory=dict)
    handlers: dict[str, Specification | tuple[Specification, ...]] = field(default_factory=dict)
    #: The operations in JSON, each with its seconds from the start, and its place for messages.
    operations: list[tuple[float, Any, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def behavior(self) -> Behavior:
        """All parts that deal with exchanges."""
        return _behavior(self.decisions)

    @property
    def on_connect(self) -> Behavior:
        """All parts that meet clients."""
        return _behavior(self.connect_decisions)


def _behavior(decisions: dict[tuple[int, int], str]) -> Behavior:
    return Behavior(tuple((Fraction(0), part) for part in dict.fromkeys(decisions.values())))


def read(
    path: str, where: str, proxy: str, find: Callable[[str, str], type], one_of_many: bool = False
) -> Replay:
    """The decisions for `proxy` in the journal at `path`; `find` knows the handlers' classes.

    If it is `one_of_many`, there may be none. UsageError if the file cannot be read, is of another
    version or holds several runs. A torn last line, as a killed process leaves it, is left out with
    a warning.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"{where}: cannot read {path!r}: {reason}; give a journal") from None
    replay = Replay()
    others: set[str] = set()
    torn = lines.pop()
    for number, text in enumerate([*lines, *([torn] if torn else [])], 1):
        place = f"{where}: {path}, line {number}"
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError
        except ValueError:
            if number > len(lines):
                replay.warnings.append(f"{place} is torn, as when a run is killed; it is left out")
                break
            raise UsageError(f"{place} is not a JSON object; give a journal") from None
        if line.get("v") != VERSION:
            raise UsageError(
                f"{place} is of version {line.get('v')!r}; this Vaurien reads {VERSION}"
            )
        if line.get("proxy") == proxy:
            try:
                _take(replay, line, place, find)
            except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise UsageError(f"{place} is damaged ({error!r}); give a whole journal") from None
        else:
            others.add(str(line.get("proxy")))
    if others and replay.seed is None and not one_of_many:
        raise UsageError(
            f"{where}: {path!r} has nothing of proxy {proxy!r}, only of {', '.join(sorted(others))}"
        )
    return replay


def _take(
    replay: Replay, line: dict[str, Any], place: str, find: Callable[[str, str], type]
) -> None:
    """Take in the decision, or the change, of one line."""
    if replay.seed not in (None, line["seed"]):
        raise UsageError(
            f"{place} has the seed {line['seed']}, those before have {replay.seed}: two runs; give"
            " each run a journal of its own"
        )
    replay.seed = int(line["seed"])
    if "operation" in line:
        since = float(line["since"])
        if replay.operations and since < replay.operations[-1][0]:
            raise UsageError(
                f"{place} goes back in time: two runs; give each run a journal of its own"
            )
        replay.operations.append((since, line["operation"], place))
        return
    if line["handler"] == DUMMY:
        return
    at = (int(line["connection"]), int(line["exchange"]))
    decisions = replay.decisions if at[1] else replay.connect_decisions
    if at in decisions:
        raise UsageError(
            f"{place} has connection {at[0]}, exchange {at[1]} a second time: two runs; give each"
            " run a journal of its own"
        )
    names = []
    for name, options in line["options"].items():
        made = _specify(name, options, place, find)
        known = [other for other in replay.handlers if other.partition("~")[0] == name]
        same = [other for other in known if replay.handlers[other] == made]
        names.append(same[0] if same else f"{name}~{len(known)}" if known else name)
        replay.handlers[names[-1]] = made
    decisions[at] = "+".join(names)


def _specify(
    name: str, options: Any, place: str, find: Callable[[str, str], type]
) -> Specification | tuple[Specification, ...]:
    """The handler as it was, without its exact points: the journal says where it did harm."""

    def made(cls: type, values: dict[str, Any]) -> Specification:
        keep = {option.name for option in registry.options_of(cls).values()} | {"stream"}
        raws = {
            key: Raw(value, f"{place}: {name}.{key}")
            for key, value in values.items()
            if key in keep and value is not None
        }
        spec = specify(name, cls, raws)
        words = getattr(cls, "points", {})  # the class's own words for points do not count either
        return replace(spec, given={**spec.given, **{w: POINTS[w].default for w in words}})

    if isinstance(options, list):
        return tuple(made(find(one["handler"], place), one["options"]) for one in options)
    try:
        cls = find(name, place)
    except UsageError as error:
        raise UsageError(
            f"{error}; or, if it is one of your own, name its class: --behavior"
            f" 1:package.module.Class, or a [handler:{name}] section"
        ) from None
    return made(cls, options)
