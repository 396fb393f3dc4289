"""What tests share: the real program, real backends, and waiting for conditions.

Everything is on loopback, on port 0, and ends what it started. Nothing here imports gevent: tests
are plain blocking code, as a user's client is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
READY = re.compile(r"^(\S+) listening on (\S+), backend (\S+), seed (-?\d+)$")
PATIENCE = 20.0  # seconds until a condition that should hold is called a failure
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: the next close sends RST

#: The example of the handlers' contract. It needs ``import gevent`` before it.
#: Whoever changes a letter of it breaks users' handlers.
CONTRACT = '''\
from vaurien.handlers import BaseHandler

class Delay(BaseHandler):
    """Adds a delay before the backend is called.
    """
    name = 'delay'
    options = {'sleep': ("Delay in seconds", int, 1),
            'before':
                    ("If True adds before the backend is called. Otherwise"
                    " after", bool, True)}

    def __call__(self, client_sock, backend_sock, to_backend):
        before = to_backend and self.options('before')
        after = not to_backend and not self.options('before')

        if before:
            gevent.sleep(self.options('sleep'))

        data = self._get_data(client_sock, backend_sock, to_backend)

        if after:
            gevent.sleep(self.options('sleep'))

        if data:
            dest = to_backend and backend_sock or client_sock
            dest.sendall(data)
'''


def wait_for(condition: Callable[[], T | None], what: str = "", patience: float = PATIENCE) -> T:
    """Wait until `condition` gives something true, and return that."""
    pause = threading.Event()
    until = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < until, f"not within {patience} s: {what or condition}"
        pause.wait(0.01)
    return result


def parse_address(text: str) -> Any:
    """What ``connect`` takes, from an address as Vaurien prints it."""
    if text.startswith("unix:"):
        return text[len("unix:") :]
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def dial(address: Any, timeout: float = PATIENCE) -> socket.socket:
    """A blocking client socket; `address` as text or as ``connect`` takes it."""
    target = parse_address(address) if isinstance(address, str) and ":" in address else address
    if isinstance(target, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        try:
            sock.connect(target)
        except OSError:
            sock.close()
            raise
        return sock
    return socket.create_connection(target, timeout=timeout)


def receive(sock: socket.socket, n: int) -> bytes:
    """Exactly `n` bytes, or what came before the end."""
    data = bytearray()
    while len(data) < n and (chunk := sock.recv(min(n - len(data), 1 << 20))):
        data += chunk
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    """All there is until EOF."""
    data = bytearray()
    while chunk := sock.recv(1 << 20):
        data += chunk
    return bytes(data)


def exchange(sock: socket.socket, data: bytes, answer: int | None = None) -> bytes:
    """Send `data` and read `answer` bytes, as many as were sent if None."""
    sock.sendall(data)
    return receive(sock, len(data) if answer is None else answer)


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kept_waiting(pid: int | None = None) -> float:
    """Seconds in which the main thread of a process, or this thread, waited for a processor.

    A busy machine makes everything late by that; 0 where the system does not count it.
    """
    path = "/proc/thread-self/schedstat" if pid is None else f"/proc/{pid}/schedstat"
    try:
        return int(Path(path).read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Pipe:
    """A pipe of the smallest size, 4 KiB; as a context manager both its ends are closed at the end.

    Each end is a file, so that it is closed once: to close a number twice is to close a stranger's.
    """

    def __init__(self) -> None:
        reader, writer = os.pipe()
        self.reader = open(reader, "rb", buffering=0)
        self.writer = open(writer, "wb", buffering=0)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self) -> None:
        """Leave no room in it."""
        os.set_blocking(self.writer.fileno(), False)
        while self.writer.write(b"\n"):
            pass
        os.set_blocking(self.writer.fileno(), True)

    def read(self) -> str:
        """What there is to read within a moment."""
        data = b""
        while select.select([self.reader], [], [], 0.5)[0] and (chunk := self.reader.read(1 << 20)):
            data += chunk
        return data.decode()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.writer.close()


class Backend:
    """A TCP (or unix) server in threads: `script` is called with each accepted socket.

    The socket is closed when the script returns. What a script raises is kept in `errors`;
    accepted sockets are counted in `accepted`.
    """

    def __init__(
        self, script: Callable[[socket.socket], object], path: str | None = None, port: int = 0
    ) -> None:
        self.script = script
        self.errors: list[BaseException] = []
        self.accepted = 0
        self._open: set[socket.socket] = set()
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
            self.port = self.listener.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(4096)
            self.address = f"unix:{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.accepted += 1
                self._open.add(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self.script(sock)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._open.discard(sock)
            sock.close()

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def echo(sock: socket.socket) -> None:
    """A backend's script: sends back what it gets, until EOF."""
    while data := sock.recv(65536):
        sock.sendall(data)


class Program:
    """The ``vaurien`` command as a process of its own.

    As a context manager it is started and, at the end, killed if it still runs. `address` is where
    it listens once `start` has returned.
    """

    def __init__(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stderr: int | IO[bytes] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VAURIEN_")}
        self.env = {**clean, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.cwd, self._stderr = cwd, stderr
        self._prefix = prefix  # a command that runs another one, such as nsenter
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.output: list[str] = []
        self.log: list[str] = []
        self.name = self.address = self.backend = ""
        self.seed = 0

    def spawn(self) -> Program:
        """Start the process without waiting for it to be ready."""
        self.process = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "vaurien", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self._stderr is None else self._stderr,
            env=self.env,
            cwd=self.cwd,
            text=True,
        )
        self._readers = [threading.Thread(target=self._read_output, daemon=True)]
        if self._stderr is None:
            self._readers.append(threading.Thread(target=self._read_log, daemon=True))
        for reader in self._readers:
            reader.start()
        return self

    def start(self) -> Program:
        """Start it, and wait until it says that it listens."""
        self.spawn()
        while True:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, f"it ended before it listened: {''.join(self.log)}"
            if match := READY.match(line.rstrip("\n")):
                self.name, self.address, self.backend = match.group(1, 2, 3)
                self.seed = int(match[4])
                return self

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    @property
    def text(self) -> str:
        """All that came on standard error so far."""
        return "".join(self.log)

    def dial(self, timeout: float = PATIENCE) -> socket.socket:
        """A new client of it."""
        return dial(self.address, timeout)

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until standard error has a match of `pattern`."""
        return wait_for(lambda: re.search(pattern, self.text), f"{pattern!r} in the log")

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end; the exit code. All output has been read by then."""
        code = self.process.wait(patience)
        for reader in self._readers:
            reader.join(patience)
        return code

    def stop(self, number: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """End it with a signal; the exit code."""
        self.send_signal(number)
        return self.wait(patience)

    def __enter__(self) -> Program:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def proxy(backend: Backend | str, *arguments: object, **kwargs: Any) -> Program:
    """A Vaurien before `backend`, on a free port; quick to end unless `arguments` say otherwise."""
    distant = backend.address if isinstance(backend, Backend) else backend
    given = [str(argument) for argument in arguments]
    extra: list[object] = []
    if "--local" not in given:
        extra += ["--local", "127.0.0.1:0"]
    if "--drain" not in given:
        extra += ["--drain", "0"]
    return Program("--distant", distant, *extra, *given, **kwargs)


def run(*arguments: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run ``vaurien`` to its end."""
    program = Program(*arguments, **kwargs)
    return subprocess.run(
        [sys.executable, "-m", "vaurien", *program.arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=program.env,
        cwd=program.cwd,
        timeout=PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def clients(address: str, n: int) -> Iterator[Sequence[socket.socket]]:
    """`n` clients, connected."""
    socks: list[socket.socket] = []
    try:
        for _ in range(n):
            socks.append(dial(address))
        yield socks
    finally:
        for sock in socks:
            sock.close()
