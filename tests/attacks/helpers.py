"""What the tests of attacks share: a bystander, which must not notice the attack."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from tests.support import PATIENCE, dial, exchange, kept_waiting, receive_all, wait_for

#: Seconds that an exchange of others may take during an attack. Undisturbed it takes 0.2 ms; the
#: machine may be busy with other tests, and what this is to find takes seconds.
MOMENT = 0.5


class Bystander:
    """A client that makes one exchange after another through an echoing proxy, and times each.

    What it or the proxy, whose process is `pid`, waits for a processor is no fault of the attack,
    and not counted.
    """

    def __init__(self, address: str, pid: int) -> None:
        self.address, self.pid = address, pid
        self.done = 0  # exchanges
        self.longest = 0.0  # seconds
        self.error: BaseException | None = None
        self._began = 0.0  # when the present exchange began; 0 if none does
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            with dial(self.address) as sock:
                while not self._over.wait(0.002):
                    waited = self._waited()
                    self._began = time.monotonic()
                    assert exchange(sock, b"anybody there?") == b"anybody there?"
                    took = time.monotonic() - self._began - (self._waited() - waited)
                    self.longest = max(self.longest, took)
                    self._began, self.done = 0.0, self.done + 1
        except BaseException as error:
            self.error = error

    def _waited(self) -> float:
        return kept_waiting() + kept_waiting(self.pid)

    def unharmed(self, exchanges: int = 20) -> None:
        """Fail unless so many more exchanges are made, and none took longer than `MOMENT`."""
        until = self.done + exchanges
        wait_for(lambda: self.error or self.done >= until, "others make exchanges")
        assert self.error is None, self.error
        assert self.longest < MOMENT, f"an exchange of others took {self.longest:.2f} s"

    def __enter__(self) -> Bystander:
        self._thread.start()
        wait_for(lambda: self.error or self.done, "the first exchange of others")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)


def pour(sock: socket.socket, data: bytes, over: threading.Event) -> int:
    """Send `data` again and again until `over` or until nobody takes it; how many bytes went."""
    sent = 0
    with contextlib.suppress(OSError):
        while not over.is_set():
            sock.sendall(data)
            sent += len(data)
    return sent


@contextlib.contextmanager
def pouring(address: str, head: bytes, data: bytes) -> Iterator[Callable[[], bytes]]:
    """A client that sends `head`, then `data` without end, for as long as it is let.

    The function that it gives waits for the end of this, and returns what was answered.
    """
    over = threading.Event()
    with dial(address) as sock:
        sock.sendall(head)
        thread = threading.Thread(target=pour, args=(sock, data, over), daemon=True)
        thread.start()
        answer: list[bytes] = []

        def answered() -> bytes:
            if not answer:
                with contextlib.suppress(ConnectionError):
                    answer.append(receive_all(sock))
            thread.join(PATIENCE)
            assert not thread.is_alive()
            return b"".join(answer)

        try:
            yield answered
        finally:
            over.set()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
