"""gevent's ``StreamServer``, which accepts, hands on what it has accepted, and knows no more.

Laws: an accept makes neither a greenlet nor a gevent socket. An error of accept never ends it: it
asks whether to pause, since raising would print, and returning None alone would spin while the
client still waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gevent.server import StreamServer

from vaurien.net.loop import Loop

PAUSE = 0.1  # seconds without accepting, when descriptors have run out


class Acceptor(StreamServer):
    """Accepts at one socket, `take_over`'s, for as long as `is_full` says no.

    `accepted` gets a descriptor, which is its to close, and the client's address as the system has
    it; `failed` gets what the system said, and answers whether to pause for `PAUSE` seconds.
    """

    handle: Any = None  # gevent wants one; `do_handle` is ours

    # gevent's own, which its stubs leave out
    _watcher: Any
    _timer: Any
    _do_read: Callable[[], None]
    _start_accepting_if_started: Callable[[], None]
    address: Any
    socket: Any

    def __init__(
        self,
        loop: Loop,
        accepted: Callable[[int, Any], None],
        failed: Callable[[OSError], bool],
        is_full: Callable[[], bool],
    ) -> None:
        self._accepted, self._failed, self._is_full = accepted, failed, is_full
        super().__init__(cast(Any, None), spawn=None)
        self.loop = loop.hub.loop

    def set_listener(self, listener: object) -> None:
        """Nothing: there is none before `take_over`."""
        self.address = ()

    def take_over(self, sock: Any) -> None:
        """Accept at `sock`, which listens; it is closed with `close`."""
        self.socket, self.family = sock, sock.family
        self.start()

    def accept_now(self) -> bool:
        """Accept those who wait, some hundred at most; whether there may be more."""
        before = self.stats
        if self.started and self._watcher is not None:
            self._do_read()
        return self.stats - before >= self.max_accept

    def accept_again(self) -> None:
        """Go on, if it has stopped because it was full."""
        if self._watcher is None and self._timer is None and self.started and not self._is_full():
            self.start_accepting()

    stats = 0  # how many it has accepted

    def full(self) -> bool:
        return self._is_full()

    def do_read(self) -> tuple[int, Any] | None:  # type: ignore[override]
        try:
            accepted: tuple[int, Any] = self.socket._accept()
            return accepted
        except BlockingIOError:
            return None
        except OSError as error:
            if self._failed(error):
                self.stop_accepting()
                self._timer = cast(Any, self.loop.timer(PAUSE))
                self._timer.start(self._start_accepting_if_started)
            return None

    def do_handle(self, descriptor: int, address: Any) -> None:  # type: ignore[override]
        self.stats += 1
        self._accepted(descriptor, address)
