"""A Vaurien in a process of its own: started, ready, and ended when this process ends.

Law: no gevent, nothing patched, no thread. The new process reads from a socket that the system
closes when this process ends, in whatever way: ``atexit`` would not run after SIGKILL. A process
forked by this one may hold the socket open, so the new process also watches this one itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Any

from vaurien.client import FILE_VARIABLE, HOST_VARIABLE, TOKEN_VARIABLE, Client
from vaurien.errors import UsageError, VaurienError

READY_TIMEOUT, STOP_TIMEOUT = 20.0, 10.0
_SENTENCE = re.compile(r"^vaurien: (.*)$", re.MULTILINE)
#: A flag in a sentence; in quotes, and in a path, there are values, but for these two.
_FLAG = re.compile(
    r"""(?:(?<![\w/'"-])|(?<=unknown argument ')|(?<=did you mean '))--([a-z][\w.-]*)"""
)


class Running:
    """A running ``vaurien`` process; a context manager that stops it.

    `address` is where its proxy listens, `proxies` where each did at the start, by name; `client`
    controls it.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        parent: socket.socket,
        log: IO[bytes],
        ready: Mapping[str, Any],
    ) -> None:
        self._process, self._parent, self._log = process, parent, log
        self._last = ""  # what it had logged when it was stopped
        self.pid = process.pid
        self.proxies: dict[str, str] = dict(ready["proxies"])
        #: The addresses of the API and of Toxiproxy's port; None where there is none.
        self.http: str | None = ready["http"]
        self.toxiproxy: str | None = ready["toxiproxy"]
        token = "none" if ready["token"] is None else ready["token"]  # never the environment's
        self._client = None if self.http is None else Client(self.http, token=token)

    def __repr__(self) -> str:
        code = self._process.returncode
        state = f"pid {self.pid}" if code is None else f"ended with {code}"
        where = ", ".join(f"{name} at {address}" for name, address in self.proxies.items())
        return f"<Vaurien {state}: {where or 'no proxies'}>"

    @property
    def address(self) -> str:
        """Where the proxy ``default``, or else the first, listens; VaurienError if none does."""
        for address in (self.proxies.get("default"), *self.proxies.values()):
            if address is not None:
                return address
        raise VaurienError(
            "no proxy was configured; give start_proxy distant=, or make one with client.create"
        )

    @property
    def client(self) -> Client:
        """A client of its API; VaurienError if it runs without."""
        if self._client is None:
            raise VaurienError("it was started with http=False; without an API it has no client")
        return self._client

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._last if self._log.closed else _read(self._log)

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """End it as SIGTERM does, and wait; its exit code.

        After `timeout` seconds (10 by default) it is killed; the code is then -9. A second call
        does nothing.
        """
        if self._process.poll() is None:
            self._process.terminate()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if not self._log.closed:
            self._last = _read(self._log)
            self._log.close()
            self._parent.close()
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_proxy(
    *,
    http: bool = True,
    handlers: Mapping[str, Mapping[str, Any]] | None = None,
    ready_timeout: float = READY_TIMEOUT,
    **settings: Any,
) -> Running:
    """Run ``vaurien`` in a process of its own, and return when it listens.

    `settings` are those of the command line, with ``_`` for ``-``: ``distant="127.0.0.1:6379"``,
    ``behavior="20:delay"``, ``on_connect``, ``config``, ``seed``, and so on; None means not given.
    `handlers` are options by handler: ``{"delay": {"sleep": 1}}``. Without `config`, two defaults
    differ from the command line's: ``local`` is any free port of 127.0.0.1, and ``drain`` is 0 s.
    With `http`, the default, it has the API, at any free port unless ``http_port`` or ``http_host``
    say otherwise. Environment variables and the file of `config` apply as usual; arguments win.

    The process ends with this one, even if this one is killed, and whatever it has forked. Ctrl-C
    does not reach it.

    UsageError for settings that are wrong. VaurienError if it cannot run, or does not listen within
    `ready_timeout` seconds (20 by default). The message is Vaurien's own, with the names of the
    arguments.
    """
    if isinstance(ready_timeout, bool) or not isinstance(ready_timeout, (int, float)):
        raise UsageError(f"ready_timeout: {ready_timeout!r} is not a time; give seconds")
    arguments, environment = _arguments(http, handlers or {}, settings)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        parent, child = map(stack.enter_context, socket.socketpair())
        # The process that it is to watch, where the system does not say what made a socket pair.
        parent.sendall(b"%d\n" % os.getpid())
        process = subprocess.Popen(
            [sys.executable, "-m", "vaurien", *arguments, f"--parent-fd={child.fileno()}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment,
            pass_fds=(child.fileno(),),
            start_new_session=True,
        )
        stack.callback(_end, process)
        child.close()
        ready = _wait(process, parent, log, ready_timeout)
        running = Running(process, parent, log, ready)
        stack.pop_all()
    return running


def stop_proxy(running: Running, timeout: float = STOP_TIMEOUT) -> int:
    """Stop what `start_proxy` has started; its exit code.

    After `timeout` seconds (10 by default) it is killed, and the code is -9. UsageError if
    `running` is something else.
    """
    if not isinstance(running, Running):
        raise UsageError(f"running: {running!r} is not what start_proxy returns")
    return running.stop(timeout)


def _arguments(
    http: bool, handlers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """The command line's arguments and its environment."""
    given = {name: value for name, value in settings.items() if value is not None}
    environment = {name: value for name, value in os.environ.items() if name != HOST_VARIABLE}
    if "config" not in given:
        if "VAURIEN_DRAIN" not in environment:
            given.setdefault("drain", 0)
        if {"distant", "behavior"} & set(given) and "VAURIEN_LOCAL" not in environment:
            given.setdefault("local", "127.0.0.1:0")
    if "http_token" in given:  # the arguments of a process are anybody's to read
        if "http_token_file" in given:
            raise UsageError("http_token: http_token_file is given too; leave one of them out")
        environment.pop(FILE_VARIABLE, None)
        environment[TOKEN_VARIABLE] = str(given.pop("http_token"))
    elif "http_token_file" in given:
        environment.pop(TOKEN_VARIABLE, None)
    arguments = [f"--{name.replace('_', '-')}={_text(value)}" for name, value in given.items()]
    arguments.append(f"--http={_text(http)}")
    if not isinstance(handlers, Mapping) or not all(
        isinstance(options, Mapping) for options in handlers.values()
    ):
        raise UsageError(
            f"handlers: {handlers!r} is not options by handler, such as {{'delay': {{'sleep': 1}}}}"
        )
    for handler, options in handlers.items():
        arguments += [f"--handlers.{handler}.{name}={_text(v)}" for name, v in options.items()]
    return arguments, environment


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _wait(
    process: subprocess.Popen[bytes], parent: socket.socket, log: IO[bytes], timeout: float
) -> dict[str, Any]:
    """What the process says when it is ready."""
    until = time.monotonic() + timeout
    said = b""
    while not said.endswith(b"\n"):
        left = until - time.monotonic()
        parent.settimeout(max(left, 0.001))
        try:
            data = parent.recv(65536)
        except TimeoutError:
            raise VaurienError(
                f"vaurien does not listen after {timeout:g} s; its log: {_read(log).strip()!r}"
            ) from None
        except ConnectionError:
            data = b""
        if not data:
            raise _failure(process, log)
        said += data
    return dict(json.loads(said))


def _failure(process: subprocess.Popen[bytes], log: IO[bytes]) -> VaurienError:
    """Why it has ended before it was ready."""
    try:
        code = process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        return VaurienError("vaurien closed its socket before it listened, and goes on")
    text = _read(log)
    sentences = _SENTENCE.findall(text)
    if not sentences:
        return VaurienError(f"vaurien ended with exit code {code}: {text.strip()}")
    kind = UsageError if code == UsageError.exit_code else VaurienError
    return kind(_FLAG.sub(lambda flag: flag[1].replace("-", "_"), sentences[-1]))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _read(log: IO[bytes]) -> str:
    """All of a file that another process appends to, without moving its place there."""
    return os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
