"""gevent's ``StreamServer``, which accepts, hands on what it has accepted, and knows no more.

Laws: an accept makes neither a greenlet nor a gevent socket. An error of accept never ends it: it
asks whether to pause, since raising would print, and returning None alone would spin while the
client still waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gevent.server import StreamServer

from vaurien.net.forked import close_in_child
from vaurien.net.loop import Loop

PAUSE = 0.1  # seconds without accepting, when descriptors have run out


class Acceptor(StreamServer):
    """Accepts at the socket that it is given, unless `is_full` says that there are enough.

    `accepted` gets a descriptor, which is its to close, and the client's address as the system has
    it; `failed` gets what the system said, and answers whether to pause for `PAUSE` seconds.
    """

    handle: Any = None  # gevent wants one; `do_handle` is ours
    socket: Any
    address: Any
    _watcher: Any  # gevent's own, which its stubs leave out
    _timer: Any
    _do_read: Callable[[], None]
    _start_accepting_if_started: Callable[[], None]

    def __init__(
        self,
        loop: Loop,
        accepted: Callable[[int, Any], None],
        failed: Callable[[OSError], bool],
        is_full: Callable[[], bool],
    ) -> None:
        self._failed, self._is_full = failed, is_full
        self.do_handle = accepted  # type: ignore[method-assign, assignment]
        super().__init__(cast(Any, None), spawn=None)
        self.loop = loop.hub.loop
        close_in_child(self)

    def forked(self) -> None:
        """In a process that a handler has forked: it accepts nobody."""
        self.close()

    def set_listener(self, listener: object) -> None:
        self.address = ()  # there is none before `take_over`

    def take_over(self, sock: Any) -> None:
        """Accept at `sock`, which listens, until `close`."""
        self.socket, self.family = sock, sock.family
        self.start()

    def full(self) -> bool:
        return self._is_full()

    def accept_now(self) -> bool:
        """Accept some hundred of those who wait; whether there may be more."""
        self.more = self.started and self._watcher is not None
        if self.more:
            self._do_read()  # which calls `do_read` until there is none, or it has had enough
        return self.more

    def accept_again(self) -> None:
        """Go on, if it has stopped because it was full."""
        if self._watcher is None and self._timer is None and self.started and not self.full():
            self.start_accepting()

    def do_read(self) -> tuple[int, Any] | None:  # type: ignore[override]
        try:
            return self.socket._accept()  # type: ignore[no-any-return]
        except OSError as error:
            self.more = False
            if not isinstance(error, BlockingIOError) and self._failed(error):
                self.stop_accepting()
                self._timer = cast(Any, self.loop.timer(PAUSE))
                self._timer.start(self._start_accepting_if_started)
            return None
