"""Many clients, and an echoing backend, in a process of their own.

In the test's process they would compete for the interpreter with the code that measures.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

from tests.support import PATIENCE, Backend, dial, echo


class Crowd:
    """The process. `address` is where its backend listens; `begin` has its clients come."""

    def __init__(self, clients: int, size: int) -> None:
        """Each client sends `size` bytes at once and reads what comes, again and again."""
        self._arguments = [str(clients), str(size)]

    def __enter__(self) -> Crowd:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.crowd", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        return self

    def begin(self, where: str) -> None:
        """Have all clients talk to `where`, on one connection after the other."""
        assert self._process.stdin is not None
        print(where, file=self._process.stdin, flush=True)

    def end(self) -> None:
        """Have them go; the backend stays."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __exit__(self, *_: object) -> None:
        self.end()
        assert self._process.wait(PATIENCE) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()


def talk(where: str, size: int, over: threading.Event) -> None:
    """One of the clients."""
    while not over.is_set():
        with contextlib.suppress(OSError), dial(where) as sock:
            sock.sendall(bytes(size))
            while not over.is_set() and sock.recv(1 << 16):
                pass


def main(clients: int, size: int) -> None:
    """Talk to the address on the first line of the input, until that ends."""
    with Backend(echo) as backend:
        print(backend.address, flush=True)
        where = sys.stdin.readline().strip()
        over = threading.Event()
        threads = [
            threading.Thread(target=talk, args=(where, size, over), daemon=True)
            for _ in range(clients)
        ]
        for thread in threads if where else ():
            thread.start()
        sys.stdin.read()
        over.set()  # who still waits ends with the process


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
