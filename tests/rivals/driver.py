"""Proxies in a process of their own, driven from the test: their toxics change while they run.

`Rig` is the test's end; run as a program, this file is the other one, which executes a command a
line of JSON, and answers with a line. It has the loop; the tests have none.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import PATIENCE, Backend, dial, wait_for
from vaurien.counts import Directions, Totals

ROOT = Path(__file__).parents[2]
PROMPT = 1.0  # seconds within which each operation has to be done, whatever the clients do


class Refused(Exception):
    """What the other end refused with a UsageError."""


class Rig:
    """The process; `proxy` makes proxies in it. `text` is what it logged."""

    def __enter__(self) -> Rig:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.rivals.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._log: list[str] = []
        assert self._process.stdout is not None and self._process.stderr is not None
        pipes: list[tuple[Any, Any]] = [
            (self._process.stdout, self._answers.put),
            (self._process.stderr, self._log.append),
        ]
        self._readers = [threading.Thread(target=self._read, args=pipe) for pipe in pipes]
        for reader in self._readers:
            reader.start()
        return self

    def _read(self, pipe: Any, sink: Any) -> None:
        for line in pipe:
            sink(line)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def text(self) -> str:
        """What it logged: warnings and errors."""
        return "".join(self._log)

    def do(self, **command: Any) -> Any:
        """Execute a command; how it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        try:
            answer = json.loads(self._answers.get(timeout=PATIENCE))
        except queue.Empty:
            self._process.send_signal(signal.SIGABRT)
            wait_for(lambda: "most recent call first" in self.text)
            raise AssertionError(f"{command} hangs: {self.text}") from None
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["done"]

    @contextlib.contextmanager
    def proxy(
        self,
        backend: Backend,
        behavior: str = "100:dummy",
        *,
        path: Path | None = None,
        **words: Any,
    ) -> Iterator[Driven]:
        """A proxy before `backend`; `words` are settings, and options as ``latency_jitter=3``.

        An option of the handler NAME is NAME__OPTION; `path` is where modules of handlers are.
        """
        settings = {"distant": backend.address, "behavior": behavior, "local": "127.0.0.1:0"}
        settings |= {k.replace("_", "-"): str(v) for k, v in words.items() if "__" not in k}
        options = {k.replace("__", "."): str(v) for k, v in words.items() if "__" in k}
        number, address = self.do(
            do="start", settings=settings, options=options, path=str(path or "")
        )
        driven = Driven(self, number, address)
        try:
            yield driven
        finally:
            self.do(do="stop", proxy=number)


class Driven:
    """A proxy in the process."""

    def __init__(self, rig: Rig, number: int, address: str) -> None:
        self.rig, self.number, self.address = rig, number, address

    def dial(self) -> Any:
        """A new client of it."""
        return dial(self.address)

    def _prompt(self, **command: Any) -> None:
        start = time.monotonic()
        self.rig.do(proxy=self.number, **command)
        took = time.monotonic() - start
        assert took < PROMPT, f"{command} took {took:.2f} s"

    def add(
        self,
        kind: str,
        name: str = "",
        stream: str = "downstream",
        toxicity: float = 1.0,
        **options: Any,
    ) -> None:
        """Add a toxic; it has to be there within `PROMPT`."""
        options |= {"stream": stream} if stream != "downstream" else {}
        self._prompt(do="add", kind=kind, name=name or kind, toxicity=toxicity, options=options)

    def update(
        self,
        kind: str,
        name: str = "",
        stream: str = "downstream",
        toxicity: float = 1.0,
        **options: Any,
    ) -> None:
        """Change a toxic."""
        options |= {"stream": stream} if stream != "downstream" else {}
        self._prompt(do="update", kind=kind, name=name or kind, toxicity=toxicity, options=options)

    def behave(self, behavior: str, **words: Any) -> None:
        """Change the behavior; an option of the handler NAME is NAME__OPTION."""
        options = {name.replace("__", "."): str(value) for name, value in words.items()}
        self._prompt(do="behave", behavior=behavior, options=options)

    def remove(self, name: str) -> None:
        """Take a toxic away."""
        self._prompt(do="remove", name=name)

    @property
    def connections(self) -> int:
        """How many connections it has."""
        return int(self.rig.do(do="connections", proxy=self.number))

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        """What each handler did."""
        found: dict[str, dict[str, int]] = self.rig.do(do="stats", proxy=self.number)
        return found

    @property
    def totals(self) -> Totals:
        """What happened in it."""
        found: dict[str, Any] = self.rig.do(do="totals", proxy=self.number)
        both: dict[str, Any] = {way: Directions(*found.pop(way)) for way in ("received", "sent")}
        return Totals(**found, **both)

    @property
    def metrics(self) -> str:
        """Its metrics."""
        return str(self.rig.do(do="metrics", proxy=self.number))

    @property
    def done(self) -> dict[str, int]:
        """How often handlers fired, toxics by their types."""
        found: dict[str, int] = self.rig.do(do="done", proxy=self.number)
        return found

    def wait_connections(self, n: int) -> None:
        """Wait until it has `n` connections."""
        wait_for(lambda: self.connections == n, f"{n} connections")


def main() -> None:
    """The other end."""
    import faulthandler
    import logging
    from dataclasses import asdict, replace

    import gevent
    from gevent.fileobject import FileObjectPosix

    from vaurien import registry
    from vaurien.errors import VaurienError
    from vaurien.observe.metrics import Metrics
    from vaurien.options import Raw
    from vaurien.plan import Specification, Toxic
    from vaurien.relay.proxy import Proxy
    from vaurien.settings import resolve

    logging.basicConfig(level=logging.WARNING)
    faulthandler.enable()  # where it hangs, if it does, on SIGABRT
    proxies: list[Proxy] = []

    def start(settings: dict[str, str], options: dict[str, str], path: str) -> Any:
        if path and path not in sys.path:
            sys.path.insert(0, path)
        raws = {name: Raw(value, f"--{name}") for name, value in settings.items()}
        handlers = [(name, Raw(value, f"--handlers.{name}")) for name, value in options.items()]
        proxy = Proxy(resolve(raws, handlers, {}).plan)
        proxy.start()
        proxies.append(proxy)
        return len(proxies) - 1, str(proxy.address)

    def behave(proxy: Proxy, behavior: str, options: dict[str, str]) -> None:
        raws = {"behavior": Raw(behavior, "--behavior"), "distant": Raw("127.0.0.1:9", "test")}
        handlers = [(name, Raw(value, f"--handlers.{name}")) for name, value in options.items()]
        plan = resolve(raws, handlers, {}).plan
        proxy.change(replace(proxy.plan, behavior=plan.behavior, handlers=plan.handlers))

    def stop(proxy: Proxy) -> None:
        gevent.spawn(proxy.stop)  # which waits for ends that linger

    def toxic(kind: str, name: str, toxicity: float, options: dict[str, Any]) -> Toxic:
        return Toxic(Specification(name, registry.find(kind, "test"), options), toxicity)

    def stats(proxy: Proxy) -> dict[str, dict[str, int]]:
        return {
            name: {"picked": one.picked, "fired": one.fired, "bytes": one.bytes}
            for name, one in proxy.stats.items()
        }

    commands: dict[str, Any] = {
        "stop": stop,
        "add": lambda proxy, **words: proxy.add_toxic(toxic(**words)),
        "update": lambda proxy, **words: proxy.update_toxic(toxic(**words)),
        "remove": lambda proxy, name: proxy.remove_toxic(name),
        "connections": lambda proxy: proxy.connections,
        "stats": stats,
        "behave": behave,
        "totals": lambda proxy: asdict(proxy.totals()),
        "metrics": lambda proxy: Metrics(lambda: [proxy]).text()[0].decode(),
        "done": lambda proxy: {name: one.fired for name, one in proxy.done().items()},
    }
    for line in FileObjectPosix(0, "rb", closefd=False):
        words = json.loads(line)
        command = words.pop("do")
        try:
            if command == "start":
                done = start(**words)
            else:
                done = commands[command](proxies[words.pop("proxy")], **words)
            answer = {"done": done}
        except VaurienError as error:
            answer = {"refused": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
