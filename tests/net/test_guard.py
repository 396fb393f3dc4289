"""What the loop calls is guarded: `vaurien.net.guard` says so, and here the sources are read."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

import vaurien
from vaurien.address import Address
from vaurien.net.dial import Dial, Dialer, Target
from vaurien.net.guard import each, guarded

SOURCES = Path(vaurien.__file__).parent
#: Calls that hand a callback to the loop, by name, and which of their arguments it is.
HANDED = {
    "start": 0,
    "spawn": 0,
    "spawn_later": 1,
    "spawn_raw": 0,
    "run_callback": 0,
    "run_callback_threadsafe": 0,
    "call_soon": 0,
    "_call_soon": 0,
    "rawlink": 0,
    "link": 0,
}
CATCHING = {"RAISED", "Exception", "BaseException"}
#: What is handed over and is no callback: `start` of a proxy, a server and a thread.
OTHERS = {"target", "application", "targets"}
#: What is not guarded as the law has it, and why that is no harm.
LEFT = {
    "vaurien/control/farm.py: proxy.stop": "its greenlet is waited for, and what it raises told",
    "vaurien/net/accept.py: self._start_accepting_if_started": "gevent's own, as above",
    "vaurien/net/loop.py: callback": "that of who calls `call_soon`, which is looked at there",
    "vaurien/net/loop.py: Greenlet.spawn": "what it runs hands all that it raises to the caller",
    "vaurien/net/system.py: ring": "the alarms', which catches",
    "vaurien/net/system.py: self._ring": "the alarms', which catches",
    "vaurien/net/memory.py: self._ring": "a test is to see what is raised",
    "vaurien/net/memory.py: callback": "a test is to see what is raised",
    "vaurien/relay/flow.py: self.callback": "the pump's, or what stands in for it: each catches",
    "vaurien/control/http.py: resume": "gevent's own, which starts a watcher and no more",
}


def handed(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, ast.expr]]:
    """The callbacks that a module hands to the loop, and the class in which it does."""
    for owner in [None, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        nodes = ast.walk(owner) if owner is not None else outside_classes(tree)
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                at = HANDED.get(node.func.attr, len(node.args))
                if at < len(node.args):
                    yield owner, node.args[at]


def outside_classes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that are in no class."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef):
            yield child
            yield from outside_classes(child)


def functions(of: ast.AST) -> dict[str, ast.FunctionDef]:
    """The functions within, by name."""
    return {node.name: node for node in ast.walk(of) if isinstance(node, ast.FunctionDef)}


def is_guarded(function: ast.FunctionDef, known: dict[str, ast.FunctionDef]) -> bool:
    """By its decorator, or since all that may raise is in a ``try`` that catches it."""
    if any(isinstance(one, ast.Name) and one.id == "guarded" for one in function.decorator_list):
        return True
    body = function.body[ast.get_docstring(function) is not None :]
    if len(body) == 1 and isinstance(body[0], ast.While):  # a greenlet that goes round
        body = body[0].body
    return all(is_harmless(statement, known) for statement in body)


def is_harmless(statement: ast.stmt, known: dict[str, ast.FunctionDef]) -> bool:
    """Catches what may come, moves plain names and attributes, sleeps, or calls what is guarded."""
    if isinstance(statement, ast.Try):
        return catches(statement)
    if isinstance(statement, ast.Return):
        return statement.value is None or isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assign):
        plain = (ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.List)
        return isinstance(statement.value, plain)
    called = ast.unparse(statement).partition("(")[0]
    if called in ("gevent.sleep", "each"):
        return True
    method = known.get(called.removeprefix("self."))
    return method is not None and called.startswith("self.") and is_guarded(method, known)


def catches(one: ast.Try) -> bool:
    """It catches what may come."""
    caught = {handler.type.id for handler in one.handlers if isinstance(handler.type, ast.Name)}
    return bool(caught & CATCHING)


def unguarded(source: str, name: str = "it.py") -> set[str]:
    """What a source hands to the loop that is not guarded."""
    tree = ast.parse(source)
    found = set()
    for owner, callback in handed(tree):
        known = functions(owner) if owner is not None else {}
        if isinstance(callback, ast.Attribute) and ast.unparse(callback.value) == "self":
            what = known.get(callback.attr)
            if what is None:  # kept in an attribute: all that are ever put there
                puts = put_there(owner, callback.attr) if owner is not None else []
                if puts and all(is_guarded(known[one], known) for one in puts if one in known):
                    continue
        elif isinstance(callback, ast.Name):
            if callback.id in OTHERS:
                continue
            what = functions(tree).get(callback.id)
        elif isinstance(callback, ast.Call):
            continue  # `server.start(application(...))`
        else:
            what = None
        if what is None or not is_guarded(what, known):
            found.add(f"{name}: {ast.unparse(callback)}")
    return found


def put_there(owner: ast.ClassDef, attribute: str) -> list[str]:
    """The methods of a class that it puts into one of its attributes."""
    return [
        value.attr
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == f"self.{attribute}"
        for value in ast.walk(node.value)
        if isinstance(value, ast.Attribute)
    ]


def test_whatever_the_loop_calls_is_guarded() -> None:
    found: set[str] = set()
    for path in sorted(SOURCES.rglob("*.py")):
        name = f"vaurien/{path.relative_to(SOURCES)}"
        found |= unguarded(path.read_text(), name)
    assert found == set(LEFT)


@pytest.mark.parametrize(
    ("callback", "found"),
    [
        ("def call(self): work()", True),
        ("@guarded\n    def call(self): work()", False),
        ("@other\n    def call(self): work()", True),
        ("def call(self):\n        try: work()\n        except RAISED: pass", False),
        ("def call(self):\n        try: work()\n        except Exception: pass", False),
        ("def call(self):\n        try: work()\n        except OSError: pass", True),
        ("def call(self):\n        try: work()\n        finally: pass", True),
        ("def call(self):\n        work()\n        try: work()\n        except RAISED: pass", True),
        ("def call(self):\n        '''Text.'''\n        self.x = None\n        try: work()\n"
         "        except RAISED: pass", False),
        ("def call(self):\n        while True:\n            work()", True),
        ("def call(self):\n        while True:\n            gevent.sleep(1)\n"
         "            try: work()\n            except Exception: pass", False),
        ("def other(self): pass", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["self.timer.start(self.call)", "gevent.spawn_later(1, self.call)"])
def test_what_is_not_guarded_is_found(callback: str, found: bool, way: str) -> None:
    source = f"class C:\n    {callback}\n    def begin(self):\n        {way}\n"
    assert unguarded(source) == ({"it.py: self.call"} if found else set())


class Counting:
    """Counts its crashes."""

    crashes = 0

    def crashed(self) -> None:
        self.crashes += 1

    @guarded
    def call(self, error: BaseException | None, *, twice: bool = False) -> None:
        """Raises what it is given."""
        if error is not None:
            raise error


def test_a_guarded_method_takes_its_arguments() -> None:
    counting = Counting()
    counting.call(None)
    counting.call(KeyError(), twice=True)
    counting.call(SystemExit())
    assert counting.crashes == 2
    with pytest.raises(KeyboardInterrupt):
        counting.call(KeyboardInterrupt())


def test_one_that_raises_starves_none_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    got: list[int] = []

    def raising(_value: int) -> None:
        raise KeyError("oh")

    with caplog.at_level(logging.ERROR, "vaurien"):
        each([got.append, raising, got.append], 5, "telling")
    assert got == [5, 5]
    assert [record.getMessage() for record in caplog.records] == ["telling: internal error"]


class Names(Dialer):
    """A dialer whose name resolves as a test says."""

    answer: Callable[[], list[Target]]

    def lookup(self) -> OSError | None:
        self.targets = tuple(self.answer())
        return None


def wait_for_all(dialer: Dialer, count: int) -> list[OSError | None]:
    """What `count` who wait for one lookup are told, the first of whom raises."""
    told: list[OSError | None] = []

    def raising(_error: OSError | None) -> None:
        raise KeyError("oh")

    dialer.lookup_soon(raising)
    for _ in range(count):
        dialer.lookup_soon(told.append)
    with gevent.Timeout(10):
        while len(told) < count:
            gevent.sleep(0)
    return told


@pytest.fixture
def dialer() -> Names:
    """One that still looks for its backend."""
    made = Names(Address("backend.test", 1), 1.0)
    made.answer = list
    return made


def test_one_who_raises_starves_none_who_wait_for_the_same_lookup(
    dialer: Names, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "vaurien"):
        assert wait_for_all(dialer, 3) == [None] * 3
    assert "backend.test:1 was looked up: internal error" in caplog.text


def test_a_lookup_that_raises_is_told_to_all_and_leaves_the_next_one_free(
    dialer: Names, caplog: pytest.LogCaptureFixture
) -> None:
    def raising() -> list[Target]:
        raise ValueError("oh")

    dialer.answer = raising
    with caplog.at_level(logging.ERROR, "vaurien"):
        told = wait_for_all(dialer, 2)
    assert [str(error) for error in told] == ["[Errno 5] internal error"] * 2
    dialer.answer = list
    assert wait_for_all(dialer, 2) == [None, None]


def test_a_dial_whose_lookup_crashes_fails_and_no_other(
    dialer: Names, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[OSError | None] = []
    with caplog.at_level(logging.ERROR, "vaurien"):
        dials = [Dial(dialer, lambda _sock, error: failed.append(error)) for _ in range(2)]
        dials[0]._tried = None  # type: ignore[assignment]
        dialer.answer = lambda: [(2, ("127.0.0.1", 9))]
        dials[1]._tried = ((2, ("127.0.0.1", 9)),)  # nothing new for this one
        for dial in dials:
            dial.start()
        with gevent.Timeout(10):
            while len(failed) < 2:
                gevent.sleep(0)
    assert [str(error) for error in failed] == ["[Errno 5] internal error", "None"]
