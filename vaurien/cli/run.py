"""One run of the proxies: from the settings to the last line of the log.

Law: what is started here is stopped here. Nothing is looked up or built after the first signal: the
settings, the farm and the API's addresses are there before any proxy listens, so that what is wrong
ends the run before it has begun.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Event_

from vaurien.cli.signals import HANGUPS, SIGHUP, SIGUSR1, take
from vaurien.cli.stop import Stop
from vaurien.cli.system import raise_file_limit, say, wait_for_end
from vaurien.control.farm import Farm
from vaurien.counts import table
from vaurien.errors import UsageError, VaurienError, many
from vaurien.net.loop import current
from vaurien.net.spin import Spin
from vaurien.observe.events import Event
from vaurien.observe.faults import Faults
from vaurien.observe.journal import Journal
from vaurien.observe.log import QueueWriter
from vaurien.observe.watchdog import Watchdog
from vaurien.relay.proxy import Proxy
from vaurien.settings import Settings

if TYPE_CHECKING:
    from vaurien.control.service import Service
    from vaurien.observe.statsd import Statsd

log = logging.getLogger("vaurien")

#: The collector's thresholds. What the data path makes has no circles, and goes by itself; but it
#: looks at all that is held, 0.3 µs each: the second one bounds that to some milliseconds,
#: the third one has it look at everything that lives as seldom as can be.
GARBAGE = (5_000, 2, 200)
_NAMES = ("http", "toxiproxy")  # of the API's addresses
_LIVE = ("local", "distant", "behavior", "on_connect", "protocol", "toxics", "seed", "drain",
         "strict", "log_level")  # settings that a reload puts in force  # fmt: skip
NEVER_FIRED = 3  # the exit code of --strict


class Run:
    """One run of the proxies: from the settings to the last line of the log."""

    def __init__(
        self, settings: Settings, writer: QueueWriter, again: Callable[[Settings], Settings]
    ):
        """Build all and bind the API's addresses; `again` reads the settings anew, given these."""
        self.settings, self._writer, self._again = settings, writer, again
        observers: list[Callable[[Event], None]] = []
        self._faults = Faults()
        if log.isEnabledFor(logging.INFO):
            observers.append(self._faults)
        self._journal = None
        if settings["journal"] is not None:
            self._journal = Journal(settings["journal"])
            observers.append(self._journal)
        self.farm = Farm(settings, observers, everything=settings["journal-all"])
        self._watchdog = Watchdog(current().caller)
        self._spin = Spin(settings["spin"]) if settings["spin"] else None
        self._stop = Event_()
        self._started = False
        self._readings = 0  # how often the files were read again
        self._in_force = 0  # which of these is in force
        self._statsd: Statsd | None = None
        self._api: Service | None = None
        if settings.statsd is not None or settings.access is not None:
            self._observe_and_control()

    def _observe_and_control(self) -> None:
        """Make what tells the numbers, and what serves the API."""
        # here, since these double the time that a start takes
        from vaurien.control.service import Service
        from vaurien.observe.metrics import Metrics
        from vaurien.observe.statsd import Statsd

        settings = self.settings
        metrics = Metrics(lambda: self.farm, self._watchdog.lag, self._journal, self._writer)
        if settings.statsd is not None:
            self._statsd = Statsd(settings.statsd, metrics, settings.where("statsd"))
            self.farm.leaving.append(self._statsd.leave)
        if settings.access is not None:
            self._api = Service(self.farm, settings.access, metrics.text, self.reload)

    def until_signalled(self, parent: int | None) -> int:
        """Listen until a signal comes, or `parent` closes its end; the exit code."""
        self._start()
        try:
            say("\n".join(self._places()))
        except BrokenPipeError:
            pass  # if nobody reads it, so be it
        except OSError as error:
            log.warning("where it listens cannot be written to the output: %s", error.strerror)
        if parent is not None:
            gevent.spawn(self._watch_parent, parent)
        self._started = True
        if HANGUPS:
            gevent.spawn(self._hangup)
        self._stop.wait()
        self._end()
        return self._tell_all()

    def _start(self) -> None:
        for warning in self.settings.warnings:
            log.warning("%s", warning)
        raise_file_limit()
        Stop(self._stop.set)
        take(SIGUSR1, self._tell, gevent.signal_handler)
        take(SIGHUP, self._hangup, gevent.signal_handler)
        self.farm.start()
        if self._api is not None:
            self._api.start()
        self._watchdog.start()
        if self._statsd is not None:
            self._statsd.start()
        if self._spin is not None:
            self._spin.start()
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        gc.set_threshold(*GARBAGE)

    def _end(self) -> None:
        """Let the connections end, then stop what tells of them: its last words are theirs."""
        if self._api is not None:
            self._api.stopping()
        for proxy in self.farm:
            log.info("%s: stopping, %d open of %s", proxy.name, proxy.connections, proxy.counters)
        drain = self.settings["drain"]
        for name, cut in self.farm.stop(drain).items():
            if cut:
                ended = many(cut, "connection", "was", "were")
                log.warning("%s: %s ended after %g s", name, ended, drain)
        if self._api is not None:
            self._api.stop()
        if self._spin is not None:
            self._spin.stop()
        self._watchdog.stop()
        if self._statsd is not None:
            self._statsd.stop()
        self._faults.flush()
        if self._journal is not None:
            self._journal.stop()

    def _places(self) -> list[str]:
        """What listens where."""
        lines = [
            f"{proxy.name} listening on {proxy.address}, backend {proxy.plan.distant},"
            f" seed {proxy.plan.seed}"
            for proxy in self.farm
            if proxy.enabled
        ]
        addresses = self._api.addresses if self._api is not None else {}
        return [*lines, *(f"{name} listening on {place}" for name, place in addresses.items())]

    def _watch_parent(self, descriptor: int) -> None:
        """Tell the process that started this one that all listens; end when it is gone."""
        try:
            ready = self._ready()
            with socket.socket(fileno=descriptor) as parent:
                parent.sendall(json.dumps(ready).encode() + b"\n")
                wait_for_end(parent)
        except OSError:
            pass  # gone as well
        except Exception as error:
            log.exception("watching who started this: %r", error)
        finally:
            self._stop.set()

    def _ready(self) -> dict[str, Any]:
        """What the process that started this one is sent, once all listen."""
        addresses = self._api.addresses if self._api is not None else {}
        return {
            "pid": os.getpid(),
            "proxies": {p.name: str(p.address) for p in self.farm if p.enabled},
            **{name: str(addresses[name]) if name in addresses else None for name in _NAMES},
            "token": self.settings.access.token if self.settings.access is not None else None,
        }

    def _hangup(self) -> None:
        try:
            if self._started:
                self.reload()
            else:  # the name of an address may take its time
                HANGUPS.append(1)
                log.info("reload: put off until all listen")
        except VaurienError as error:
            log.error("reload: nothing is changed: %s", error)
        except BaseException as error:  # of which gevent would make the end of the process
            log.exception("reload: nothing is changed: %r", error)

    def reload(self) -> dict[str, list[str]]:
        """Read the files again, and be as they say; UsageError if that cannot be.

        Others may come between while a name is resolved: if what was read later is in force by
        then, the files are read once more.
        """
        while True:
            self._readings += 1
            number = self._readings
            settings = self._again(self.settings)
            try:
                changed = self.farm.reload(settings, partial(self._refuse_stale, number))
                break
            except VaurienError:
                if number > self._in_force:
                    raise
        self._in_force = number
        before = self.settings
        names = [name for name in settings.values if settings[name] != before[name]]
        live = {*settings.common, *_LIVE}
        late = [name for name in names if name.replace("-", "_") not in live]
        for warning in settings.warnings:
            log.warning("reload: %s", warning)
        if late:
            log.warning("reload: %s: in force after a restart only", ", ".join(late))
        log.setLevel(settings["log-level"].upper())
        before.values.update({name: settings[name] for name in names if name not in late})
        log.info("reload: %s", "; ".join(f"{len(v)} {k}" for k, v in changed.items()))
        return {**changed, "after_restart": late}

    def _refuse_stale(self, number: int) -> None:
        if number < self._in_force:
            raise UsageError("the files were read again meanwhile")

    def _tell(self) -> None:
        """Write the table of what handlers did."""
        several = len(self.farm.proxies) > 1
        for proxy in self.farm:
            if several and proxy.stats:
                self._writer.tell(f"{proxy.name}:")
            if proxy.stats:
                for line in table(proxy.stats):
                    self._writer.tell(line)
        if not any(proxy.stats for proxy in self.farm):
            self._writer.tell("no handler is configured")

    def _tell_all(self) -> int:
        """What happened, at the end; the exit code."""
        if self.settings["replay"] is not None:
            for proxy in self.farm:
                self._tell_unmet(proxy)
        if not any(proxy.stats for proxy in self.farm):
            return 0
        self._tell()
        code = 0
        for proxy in self.farm:
            idle = [name for name, stats in proxy.stats.items() if not stats.fired]
            if idle:
                log.warning("%s: never fired: %s", proxy.name, ", ".join(idle))
                code = NEVER_FIRED if self.settings["strict"] else code
        return code

    @staticmethod
    def _tell_unmet(proxy: Proxy) -> None:
        unmet = [f"{connection}.{exchange}" for connection, exchange in proxy.unmet()]
        if unmet:
            more = f" and {len(unmet) - 20} more" if len(unmet) > 20 else ""
            log.warning(
                "%s: what of the replay did not come to pass: %d, as connection.exchange: %s%s",
                proxy.name, len(unmet), ", ".join(unmet[:20]), more,
            )  # fmt: skip
        else:
            log.info("%s: all decisions of the replay came to pass", proxy.name)
