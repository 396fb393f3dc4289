"""Notifies a proxy's observers of its exchanges.

Law: an event that no observer wants costs a comparison. What repeats from one event to the next
(names, specifications, clients) is made once, since a busy proxy sends tens of thousands a second.
"""

from __future__ import annotations

from functools import lru_cache
from time import time
from typing import Protocol

from vaurien.behavior import Exchange
from vaurien.observe.events import Acted, Began, Ended, Event, Observer, wanting
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

_Named = tuple[tuple[str, ...], tuple[Specification, ...]]


class Notifier:
    """Notifies the `observers` of the proxy `name`."""

    def __init__(self, name: str, observers: tuple[Observer, ...]) -> None:
        self._name = name
        self._named: dict[tuple[Handler, ...], _Named] = {}
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

    def began(self, connection: int, exchange: int, handlers: tuple[Handler, ...]) -> None:
        """An exchange began, for which `handlers` were picked."""
        if self.on_began:
            names, _ = self._named.get(handlers) or self._names(handlers)
            self._notify(self.on_began, _made(Began, (self._name, connection, exchange, names)))

    def ended(
        self, exchange: Exchange, seed: int, address: object, seconds: float, end: str
    ) -> None:
        """An exchange is over after `seconds`; `address` is the client's, see `Ended`."""
        if self.on_acted and exchange.added:
            self._notify_of_toxics(exchange)
        if self.on_ended:
            handlers, acted = exchange.handlers, tuple(exchange.added)
            names, specifications = self._named.get(handlers) or self._names(handlers)
            fired, _ = self._named.get(acted) or self._names(acted)
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
        added = tuple(exchange.added)
        names, _ = self._named.get(picked) or self._names(picked)
        fired, _ = self._named.get(added) or self._names(added)
        toxics = tuple(name for name in fired if name not in names)
        if toxics:
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
        named = (names, tuple(one.specification for one in handlers))
        self._named[handlers] = named
        return named


@lru_cache(_CLIENTS)
def client_name(address: object) -> str:
    """A client's address as text; a unix socket's has none."""
    if not isinstance(address, tuple):
        return "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
