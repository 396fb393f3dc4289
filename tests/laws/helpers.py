"""What the tests of laws, hand-off, dial and handlers share, on top of `tests.support`.

Handlers under test are modules written into a directory from which the program is started, as a
user has them; what such a handler wants to tell, it prints, and the test reads it in the output.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import select
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import PATIENCE, Backend, Program, proxy, wait_for
from vaurien.behavior import Dice, cuts, parse

MB = 1_000_000
CLOSED, CLOSE_WAIT = 7, 8  # tcp_info's first byte, from linux/tcp_states.h

#: What stands at the top of every handler module that a test writes.
HEAD = """
import socket
import struct

import gevent
import gevent.socket
from gevent.event import Event

from vaurien.handlers import BaseHandler


def say(*words):
    print(*words, flush=True)


"""

#: A resolver for gevent (its setting GEVENT_RESOLVER) that looks names under .test up in a file:
#: `NAME IP ...`, or `NAME hang PIPE IP ...`, which blocks the resolving thread until
#: somebody opens the pipe; without an IP it fails then.
RESOLVER = """
import _socket
import os
import socket

from gevent.resolver.thread import Resolver as Thread


def answer(host, port, *rest, **more):
    host = host.decode() if isinstance(host, bytes) else host
    if host is None or not host.endswith(".test"):
        return _socket.getaddrinfo(host, port, *rest, **more)
    with open(os.environ["NAMES"]) as names:
        table = {words[0]: words[1:] for words in (line.split() for line in names) if words}
    found = table.get(host)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if found[0] == "hang":
        with open(found[1] + ".hanging", "a") as hanging:
            print(host, file=hanging)
        with open(found[1]):
            pass
        found = found[2:]
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return [
        (
            socket.AF_INET6 if ":" in ip else socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            "",
            (ip, port, 0, 0) if ":" in ip else (ip, port),
        )
        for ip in found
    ]


class Resolver(Thread):
    def getaddrinfo(self, *args, **kwargs):
        return self.pool.apply(answer, args, kwargs)
"""


def write_module(directory: Path, source: str, name: str = "own") -> None:
    """Write a user's module of handlers; `source` follows `HEAD`."""
    (directory / f"{name}.py").write_text(HEAD + textwrap.dedent(source))


def own(
    backend: Backend | str, directory: Path, cls: str, *arguments: object, **kwargs: Any
) -> Program:
    """A Vaurien whose every exchange goes to the class `cls` of the module ``own``."""
    return proxy(backend, "--behavior", f"100:own.{cls}", *arguments, cwd=directory, **kwargs)


class Names:
    """The names that a program resolves which is started with `env`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "names"
        self._file.touch()
        (directory / "ownresolver.py").write_text(RESOLVER)
        self.env = {
            "GEVENT_RESOLVER": "ownresolver.Resolver",
            "PYTHONPATH": os.pathsep.join(
                [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "NAMES": str(self._file),
        }

    def set(self, name: str, *ips: str) -> None:
        """From now on `name` stands for `ips`, and no other for anything."""
        self._write(f"{name} {' '.join(ips)}\n")

    def _write(self, text: str) -> None:
        new = self._directory / "names.new"
        new.write_text(text)
        new.replace(self._file)

    @contextlib.contextmanager
    def hanging(
        self, name: str, *ips: str, others: Sequence[str] = ()
    ) -> Iterator[Callable[[], object]]:
        """Resolving `name`, and `others`, hangs until the end, when they stand for `ips`.

        What is given waits until somebody does so with each.
        """
        pipe = self._directory / "pipe"
        os.mkfifo(pipe)
        names = [name, *others]
        self._write("".join(f"{one} hang {pipe} {' '.join(ips)}\n" for one in names))
        hanging = Path(f"{pipe}.hanging")
        hanging.touch()
        try:
            yield lambda: wait_for(
                lambda: {*names} <= {*hanging.read_text().split()}, f"somebody resolves {names}"
            )
        finally:
            with contextlib.suppress(OSError):  # ENXIO: nobody hangs
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


class Acceptor(Backend):
    """A backend whose accepted sockets the test itself uses."""

    def __init__(self, path: str | None = None) -> None:
        self._accepted: queue.Queue[socket.socket] = queue.Queue()
        self._over = threading.Event()
        super().__init__(self._keep, path)

    def _keep(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self._accepted.put(sock)
        self._over.wait()

    def accept(self) -> socket.socket:
        """The next connection that came in."""
        return self._accepted.get(timeout=PATIENCE)

    def stop_listening(self) -> None:
        """Refuse whoever comes from now on."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def __enter__(self) -> Acceptor:
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._over.set()


class Flood:
    """`size` bytes that are nowhere alike, made as they are sent, with their digest."""

    BLOCK = 1 << 20

    def __init__(self, size: int, salt: int = 0) -> None:
        self.size = size
        self._rest = hashlib.sha512(str(salt).encode()).digest() * (self.BLOCK // 64)

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks that each begin with their number."""
        for number, start in enumerate(range(0, self.size, self.BLOCK)):
            block = number.to_bytes(8, "big") + self._rest[8:]
            yield block[: self.size - start]

    def digest(self) -> str:
        """What `digest_of` gives for a socket through which all of it came."""
        made = hashlib.sha256()
        for block in self.blocks():
            made.update(block)
        return made.hexdigest()

    def send(self, sock: socket.socket) -> None:
        """Send it all."""
        for block in self.blocks():
            sock.sendall(block)


def digest_of(
    sock: socket.socket, size: int | None = None, note: Callable[[int], object] = lambda _: None
) -> tuple[int, str]:
    """How many bytes came, `size` or until EOF, and their digest; `note` is given each count."""
    made, n = hashlib.sha256(), 0
    while size is None or n < size:
        data = sock.recv(1 << 20 if size is None else min(1 << 20, size - n))
        if not data:
            break
        n += len(data)
        made.update(data)
        note(n)
    return n, made.hexdigest()


@contextlib.contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for what must go on at the same time; `result(PATIENCE)` gives what they return."""
    with ThreadPoolExecutor(16) as pool:
        yield pool


def tcp_state(sock: socket.socket) -> int:
    """The kernel's state of a TCP socket."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def assert_fin(sock: socket.socket) -> None:
    """The other end has come to a polite end; `sock` has not said that it ends itself."""
    assert sock.recv(1) == b""
    assert tcp_state(sock) == CLOSE_WAIT, "a RST came after the FIN"


@contextlib.contextmanager
def full_listener(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """A listener whose backlog is full: whoever connects to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        address = listener.getsockname()
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
            if not select.select([], [filler], [], 0.2)[1]:
                break
        yield address


def unused_port() -> int:
    """A port that nobody listens on; nobody else is given it, as long as the kernel has others."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def seed_for(behavior: str, picks: dict[tuple[int, int], int]) -> int:
    """A seed with which the `behavior` picks as wanted: (connection, exchange) to part's index."""
    edges = cuts(parse(behavior, "test"))
    for seed in range(100_000):
        dice = Dice(seed, "default")
        if all(dice.part(edges, *where) == part for where, part in picks.items()):
            return seed
    raise AssertionError(f"no seed picks {picks}")


def said(program: Program, word: str) -> list[str]:
    """The lines on standard output that begin with `word`, without it."""
    return [line[len(word) :].strip() for line in program.output if line.startswith(word)]


def wait_said(program: Program, word: str, n: int = 1) -> list[str]:
    """Wait until `n` lines on standard output begin with `word`."""
    wait_for(lambda: len(said(program, word)) >= n, f"{n} lines {word!r} on standard output")
    return said(program, word)


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def bytes_of(*values: Any) -> bytes:
    """The values as text, by spaces."""
    return " ".join(map(str, values)).encode()
