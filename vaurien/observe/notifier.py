"""Notifies a proxy's observers of its exchanges.

Law: an event that no observer wants costs a comparison, and one that is only counted an addition.
What repeats from one event to the next (names, specifications, clients) is made once, since a busy
proxy sends tens of thousands a second.

An observer that at times wants no more than the number of some events has a method ``tally``, see
`vaurien.observe.faults`; it is asked where there is no other one that wants them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import time
from typing import Protocol

from vaurien.behavior import Exchange
from vaurien.observe.events import Acted, Began, Ended, Event, Observer, Tally, wanting
from vaurien.plan import Specification

#: Sets of handlers whose names are kept; a behavior has few, and those of behaviors that are gone
#: have to go as well.
_KEPT = 100

#: Clients whose names are kept: those of connections that are open, if they are not very many.
_CLIENTS = 1000


class Handler(Protocol):
    """A handler that can be picked, as `vaurien.exchange.picks.Picked` is."""

    @property
    def name(self) -> str: ...

    @property
    def specification(self) -> Specification: ...


#: Makes a named tuple of a tuple in half the time that calling its class takes.
_made = tuple.__new__

_Named = tuple[tuple[str, ...], tuple[Specification, ...], Tally | None]
_Toxics = tuple[tuple[str, ...], Tally | None]


class Notifier:
    """Notifies the `observers` of the proxy `name`."""

    def __init__(self, name: str, observers: tuple[Observer, ...]) -> None:
        self._name = name
        self._named: dict[tuple[Handler, ...], _Named] = {}
        self._toxics: dict[tuple[tuple[Handler, ...], ...], _Toxics] = {}
        self.observers = observers

    def __repr__(self) -> str:
        return f"<Notifier of {self._name!r}: {len(self.observers)} observers>"

    @property
    def observers(self) -> tuple[Observer, ...]:
        """All observers; `on_began`, `on_ended` and `on_acted` have those that want such events."""
        return self._observers

    @observers.setter
    def observers(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers
        self.on_began = wanting(observers, Began)
        self.on_ended = wanting(observers, Ended)
        self.on_acted = wanting(observers, Acted)
        self._named.clear()
        self._toxics.clear()

    def began(self, connection: int, exchange: int, handlers: tuple[Handler, ...]) -> None:
        """An exchange began, for which `handlers` were picked."""
        if self.on_began:
            names, _, tally = self._named.get(handlers) or self._names(handlers)
            if tally is not None and tally.quiet:
                tally.n += 1
                return
            self._notify(self.on_began, _made(Began, (self._name, connection, exchange, names)))

    def ended(
        self, exchange: Exchange, seed: int, address: object, seconds: float, end: str
    ) -> None:
        """An exchange is over after `seconds`; `address` is the client's, see `Ended`."""
        if self.on_acted and exchange.added:
            self._notify_of_toxics(exchange)
        if self.on_ended:
            handlers, acted = exchange.handlers, tuple(exchange.added)
            names, specifications, _ = self._named.get(handlers) or self._names(handlers)
            fired, _, _ = self._named.get(acted) or self._names(acted)
            values = (
                time() - seconds,
                self._name,
                seed,
                exchange.connection,
                client_name(address),
                exchange.number,
                names,
                specifications,
                fired,
                exchange.from_client,
                exchange.from_backend,
                seconds,
                end,
            )
            self._notify(self.on_ended, _made(Ended, values))

    def _notify_of_toxics(self, exchange: Exchange) -> None:
        picked = exchange.handlers
        # Mostly no toxic has acted: find that out without making anything.
        for one in exchange.added:
            if one not in picked:
                break
        else:
            return
        key = (picked, tuple(exchange.added))
        toxics, tally = self._toxics.get(key) or self._toxics_of(*key)
        if tally is not None and tally.quiet:
            tally.n += 1
        elif toxics:
            acted = Acted(self._name, exchange.connection, exchange.number, toxics)
            self._notify(self.on_acted, acted)

    @staticmethod
    def _notify(observers: tuple[Observer, ...], event: Event) -> None:
        for observer in observers:
            try:
                observer(event)
            except SystemExit as error:  # which the pump would report as a handler's
                raise RuntimeError(f"observer {observer!r} raised SystemExit") from error

    def _names(self, handlers: tuple[Handler, ...]) -> _Named:
        """The names of handlers, each once (those of a preset share one), and what they are."""
        if len(self._named) >= _KEPT:
            self._named.clear()
        names = tuple(dict.fromkeys(one.name for one in handlers))
        tally = self._tally(self.on_began, Began, names)
        named = (names, tuple(one.specification for one in handlers), tally)
        self._named[handlers] = named
        return named

    def _toxics_of(self, picked: tuple[Handler, ...], acted: tuple[Handler, ...]) -> _Toxics:
        """The names of those of `acted` that share no name with what was picked."""
        if len(self._toxics) >= _KEPT:
            self._toxics.clear()
        names = (self._named.get(picked) or self._names(picked))[0]
        fired = (self._named.get(acted) or self._names(acted))[0]
        toxics = tuple(name for name in fired if name not in names)
        made = (toxics, self._tally(self.on_acted, Acted, toxics))
        self._toxics[picked, acted] = made
        return made

    def _tally(
        self, observers: tuple[Observer, ...], event: type, names: tuple[str, ...]
    ) -> Tally | None:
        """What counts such events for the one observer that wants them, if it has such a thing."""
        if len(observers) != 1 or not names:
            return None
        tally: Callable[[str, type, tuple[str, ...]], Tally] | None
        tally = getattr(observers[0], "tally", None)
        return tally(self._name, event, names) if tally is not None else None


@lru_cache(_CLIENTS)
def client_name(address: object) -> str:
    """A client's address as text; a unix socket's has none."""
    if not isinstance(address, tuple):
        return "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
