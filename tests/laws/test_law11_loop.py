"""Law 11: only ``net/`` knows gevent's loop, and importing ``vaurien`` never monkey-patches."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import vaurien
from tests.laws.test_law10_pure import imports, of
from tests.support import PATIENCE, Backend, dial, exchange

ROOT = Path(vaurien.__file__).parent
ELSEWHERE = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not {"net", "relay"} & {*path.relative_to(ROOT).parts}
]
#: Where gevent hides its loop; what is left is for handlers: gevent.sleep, spawn, Event, Timeout.
OF_THE_LOOP = (
    "gevent.hub",
    "gevent.core",
    "gevent.libev",
    "gevent.libuv",
    "gevent._",
    "gevent.baseserver",
)
#: What runs as a program, and may patch.
COMMANDS = ("vaurien.__main__", "vaurien.cli.main", "vaurien.cli.demo")


def attributes(path: Path) -> set[str]:
    """The names that a file takes from other objects."""
    tree = ast.parse(path.read_text())
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


UNPATCHED = """
import importlib, pkgutil, sys
import vaurien
for module in pkgutil.walk_packages(vaurien.__path__, "vaurien."):
    if module.name not in {commands!r}:
        importlib.import_module(module.name)
assert "vaurien.relay.server" in sys.modules
from gevent import monkey
assert not monkey.saved, sorted(monkey.saved)
import socket, threading, time
assert not any(
    "gevent" in thing.__module__ for thing in (socket.socket, threading.Thread.start)
)
assert type(time.sleep).__name__ == "builtin_function_or_method"
"""

EMBEDDED = """
import socket, sys, threading
from gevent import monkey
from gevent.event import Event
from vaurien import Plan, Proxy
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
proxy = Proxy(
    Plan(
        local=address("127.0.0.1:0", "local"),
        distant=address(sys.argv[1], "distant"),
        behavior=behavior("100:dummy", "behavior"),
        handlers={},
        seed=1,
    )
)
proxy.start()
assert not monkey.saved, sorted(monkey.saved)
print(proxy.address, flush=True)
Event().wait()
"""


def test_only_net_imports_what_knows_the_loop() -> None:
    found = {
        of(path): names
        for path in ELSEWHERE
        if (names := [name for name in imports(path) if name.startswith(OF_THE_LOOP)])
    }
    assert found == {}


def test_only_net_uses_the_loop() -> None:
    found = {
        of(path): names
        for path in ELSEWHERE
        if (names := attributes(path) & {"loop", "run_callback", "get_hub"})
    }
    assert found == {}


def test_only_main_patches() -> None:
    found = {
        of(path): names
        for path in ROOT.rglob("*.py")
        if of(path) != "cli/main.py"
        and (names := {name for name in attributes(path) if name.startswith("patch_")})
    }
    assert found == {}


def test_nothing_but_the_commands_imports_main() -> None:
    importing = {of(path) for path in ROOT.rglob("*.py") if "vaurien.cli.main" in imports(path)}
    assert importing <= {"cli/entry.py", "cli/demo.py"}


def test_importing_vaurien_patches_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPATCHED.format(commands=COMMANDS)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_proxy_inside_another_program_patches_nothing(
    tmp_path: Path, echo_backend: Backend
) -> None:
    script = tmp_path / "embedding.py"
    script.write_text(EMBEDDED)
    with subprocess.Popen(
        [sys.executable, str(script), echo_backend.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            with dial(process.stdout.readline().strip()) as client:
                assert exchange(client, b"hello") == b"hello"
        finally:
            process.kill()
            _, log = process.communicate(timeout=PATIENCE)
    assert log == ""


def test_plugins_of_gevent_are_called_though_they_are_looked_for_once(tmp_path: Path) -> None:
    (tmp_path / "plug.py").write_text("def tell(event):\n    print(type(event).__name__)\n")
    about = tmp_path / "plug-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.will_patch_all]\nplug = plug:tell\n"
    )
    script = (
        "import importlib.metadata as metadata\n"
        "before = metadata.entry_points\n"
        "looks = []\n"
        "def counted(**groups):\n"
        "    looks.append(groups)\n"
        "    return before(**groups)\n"
        "metadata.entry_points = counted\n"
        "import vaurien.cli.main\n"
        "assert metadata.entry_points is counted\n"
        "print(len(looks))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT.parent}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.split() == ["GeventWillPatchAllEvent", "1"], done.stderr
