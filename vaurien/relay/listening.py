"""The listener of a proxy: closed, bound, or listening.

Which of the three it is to be follows from whether the proxy is enabled, from its plan and from the
time (``down``); `settle` makes it so, and is called whenever one of them has changed.

Laws: an address that is bound is the proxy's alone, though it does not listen. What cannot be is
logged, once, and tried again each `RETRY` seconds. One that has stopped for good never binds or
listens again. Before a listener closes by itself, those who wait in its backlog are taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

from vaurien.address import Address
from vaurien.errors import ListenError, Stopping
from vaurien.exchange.picks import Picked, Picks
from vaurien.kinds import closes_listener
from vaurien.net.accept import Acceptor
from vaurien.net.dial import Target
from vaurien.net.guard import guarded
from vaurien.net.listener import Bound, refused
from vaurien.net.loop import Loop, Watcher
from vaurien.net.turn import give_way
from vaurien.plan import Plan

log = logging.getLogger("vaurien")

RETRY = 1.0  # seconds until it tries again to listen, when it cannot


class Listening:
    """Where a proxy listens, and whether it does.

    `plan` and `meets` (who meets clients) are those in force; `started` is called when it is
    enabled, before it listens.
    """

    def __init__(
        self, plan: Plan, meets: Picks, loop: Loop, acceptor: Acceptor, started: Callable[[], None]
    ) -> None:
        self.plan, self.meets, self._loop, self._acceptor = plan, meets, loop, acceptor
        self._started = started
        self.enabled = self.stopped = False
        self.down: Picked | None = None  # the `down` of the plan, in force or not
        self._was_down: Picked | None = None  # when last settled
        self._trouble = ""  # why it then could not listen, or keep its address
        self._bound: Bound | None = None
        self._timer: Watcher | None = None  # of the next settling
        self._emptying: Watcher | None = None  # of the next look at the backlog, before it closes
        self._has_alarms = False

    def __repr__(self) -> str:
        state = "listening" if self._acceptor.started else "enabled" if self.enabled else "closed"
        return f"<Listening at {self.address}: {state}>"

    # Where

    @property
    def address(self) -> Address:
        """The real local address: port 0 has become the port that was given."""
        return self._bound.address if self._bound is not None else self.plan.local

    @property
    def located(self) -> bool:
        """Whether it listens, or ever did, so that its address is known."""
        return self._bound is not None

    def is_at(self, target: Target) -> bool:
        """Whether it listens there, or did when it was last enabled."""
        return self._bound is not None and self._bound.target == target

    def forget_address(self) -> None:
        """It listens nowhere now, and next time where its plan says."""
        self._bound = None

    @property
    def in_place(self) -> bool:
        """Whether its plan needs no other socket: it has one, tries to have it, or has stopped."""
        held = self._acceptor.started or (self._bound is not None and self._bound.held)
        tries_again = self.enabled and (bool(self._trouble) or self._was_down is None)
        return held or tries_again or (self.stopped and self.plan.enabled)

    def bind(self, plan: Plan, target: Target | None) -> Bound:
        """A socket for `plan`, bound to where its local address is, or None for where it last was.

        ListenError if it cannot be had, Stopping if it has stopped for good. Where it listens now
        counts as free, and is given up.
        """
        if self.stopped:
            raise Stopping("Vaurien is stopping; nothing is begun any more")
        if self._has_alarms:
            return self._bind_anew(plan, target)
        try:
            self._loop.alarms.join()
        except OSError as error:  # no descriptor left
            raise refused(error, plan.local, plan.where, "timerfd_create") from None
        self._has_alarms = True
        try:
            return self._bind_anew(plan, target)
        except ListenError:
            self.leave_alarms()
            raise

    def leave_alarms(self) -> None:
        """Nothing of the proxy is to be woken any more."""
        if self._has_alarms:
            self._has_alarms = False
            self._loop.alarms.leave()

    def _bind_anew(self, plan: Plan, target: Target | None) -> Bound:
        own = self._bound
        if target is None:
            assert own is not None
            return _bind(plan, own.address, own.target)
        try:
            return _bind(plan, plan.local, target)
        except ListenError:
            own_port = own is not None and self.enabled and own.address.port == plan.local.port
            if plan.local.path or not own_port:
                raise
            self.give_up()  # it may be ourselves who is in the way
            try:
                return _bind(plan, plan.local, target)
            except ListenError:
                self.settle()
                raise

    # Whether

    def listen(self, bound: Bound) -> None:
        """Listen at `bound`, so that a connect succeeds from now on.

        Its time begins when it is enabled; `down` may have it that it does not listen yet.
        """
        self._unlisten()
        self._bound = bound
        if not self.enabled:
            self._started()
            self._was_down, self._trouble = None, ""
        self.enabled = True
        self.settle()

    @guarded
    def settle(self) -> None:
        """Have the listener as it is to be now: it listens, or only keeps its address."""
        self._stop_timers()
        if not self.enabled:
            return
        self.down = self.meets.only(closes_listener)
        down, left = self._down_now()
        if down is not None and self._acceptor.accept_now():
            self._emptying = self._loop.timer(0)  # others first, then those who wait still
            self._emptying.start(self.settle)
            return
        trouble = ""
        try:
            self._keep() if down else self._open()
        except ListenError as error:
            trouble, left = str(error), min(left, RETRY)
        name = self.plan.name
        if trouble and trouble != self._trouble:
            log.error("%s: tries again each %g s: %s", name, RETRY, trouble)
        if down is not None and down is not self._was_down:
            _went_down(name, down)
        if self._acceptor.started and (self._was_down or self._trouble):
            log.info("%s: up, at %s", name, self.address)
        self._was_down, self._trouble = down, trouble
        if left < inf:
            self._timer = self._loop.timer(left)
            self._timer.start(self.settle)

    def crashed(self) -> None:
        """Called in an ``except``: an error of ours; it is tried again."""
        log.exception("%s: the listener: internal error", self.plan.name)
        self._stop_timers()
        self._timer = self._loop.timer(RETRY)
        self._timer.start(self.settle)

    def _down_now(self) -> tuple[Picked | None, float]:
        """The `down` in force now, and the seconds until that changes."""
        points = self.down.specification.points if self.down is not None else None
        if points is None:
            return None, inf
        passed = self._loop.now() - self.meets.started
        if passed < points.since:
            return None, points.since - passed
        until = inf if points.until is None else points.until
        return (self.down, until - passed) if passed < until else (None, inf)

    def _open(self) -> None:
        """Have the system accept clients; ListenError if that cannot be."""
        assert self._bound is not None
        if not self._acceptor.started:
            if not self._bound.held:
                self._bound = self._bound.again()
            self._bound.listen(self.plan.backlog)
            self._acceptor.take_over(self._bound.sock)

    def _keep(self) -> None:
        """Do not listen, but keep the address; ListenError if that cannot be."""
        assert self._bound is not None
        if self._acceptor.started:
            self._unlisten()
        if not self._bound.held:
            self._bound = self._bound.again()

    def _unlisten(self) -> None:
        """Close the listener; who waits in the backlog is reset by the system."""
        self._stop_timers()
        self._acceptor.close()
        if self._bound is not None:
            self._bound.close()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._emptying):
            if timer is not None:
                timer.stop()
                timer.close()
        self._timer = self._emptying = None

    def give_up(self) -> None:
        """Give the address to others for a moment; until `settle`."""
        if self.enabled:
            self._unlisten()

    def keep_alive(self, seconds: int) -> None:
        """Ask who is accepted from now on whether they are there after `seconds`; 0 is never."""
        if self._bound is not None:
            self._bound.keep_alive(seconds)

    def set_backlog(self, backlog: int) -> None:
        """Let that many wait from now on."""
        if self._acceptor.started:
            self._acceptor.socket.listen(backlog)

    def disable(self) -> None:
        """Close it, waiting for nothing."""
        self.enabled = False
        self._unlisten()

    def stop(self) -> None:
        """Take those who wait in the backlog, then close it, for good. Blocks the greenlet."""
        self.stopped = True
        # no more than there may be: others come while these are taken
        for _ in range(self.plan.backlog // self._acceptor.max_accept + 2):
            if not self.enabled or not self._acceptor.accept_now():
                break
            give_way()
        self.enabled = False
        self._unlisten()


def _bind(plan: Plan, local: Address, target: Target) -> Bound:
    bound = Bound(local, target, plan.where, plan.keepalive)
    goes_down: Any = plan.goes_down
    if not goes_down:  # clients wait until the plan is in force
        bound.listen(plan.backlog)
    return bound


def _went_down(name: str, down: Picked) -> None:
    down.stats.picked += 1
    down.stats.fire(inf, 0)
    points = down.specification.points
    assert points is not None
    until = "" if points.until is None else f" until {points.until:g} s after the start"
    log.info("%s: down%s: the system refuses who connects", name, until)
