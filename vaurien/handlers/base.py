"""What a socket handler is, and the base class that makes writing one short.

Law: the contract of ``docs/handlers-writing.rst`` to the letter. ``options`` stays a mapping on the
class and is callable on an instance, even where a subclass's ``__init__`` does not call ours.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, ClassVar

from vaurien import options as options_
from vaurien.behavior import Exchange
from vaurien.flow.handler import CHUNK
from vaurien.kinds import Kind, left_open
from vaurien.options import Values


class BaseHandler:
    """A handler that works on the two sockets of a connection.

    Subclasses set `name` and `options` and implement ``__call__``. It is called in a greenlet each
    time there is something to read on one side, and may block cooperatively.
    """

    works_on: ClassVar[Kind] = "socket"
    name: ClassVar[str] = ""

    #: ``{name: (description, type, default[, choices])}``; on an instance, ``self.options('x')``
    #: gives the converted value, as ``self.option('x')`` does.
    options: Any = {}

    #: Which of the class's options are other words for exact points, which the framework keeps:
    #: ``{"after": "warmup"}`` lets ``warmup`` exchanges pass first.
    points: ClassVar[Mapping[str, str]] = {}

    settings: Mapping[str, Any]
    proxy: Any  # the proxy that calls it, None where it was made by hand

    def __new__(cls, settings: Any = None, proxy: Any = None, *_: Any, **__: Any) -> Any:
        # Here and not in __init__, which subclasses may leave uncalled.
        self = super().__new__(cls)
        given = {} if settings is None else settings
        if not isinstance(given, Values):  # made by hand, as in a user's own test
            given = options_.fill(cls.options, given, cls.name)
        self.options, self.settings, self.proxy = given, given, proxy
        return self

    def __init__(self, settings: Any = None, proxy: Any = None) -> None:
        """`settings` maps option names to values, `proxy` is the proxy that calls the handler."""

    def option(self, name: str) -> Any:
        """The converted value of the option `name`."""
        return self.options(name)

    @left_open
    def __call__(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> bool | None:
        """Deal with what can be read: on `client_sock` if `to_backend`, else on `backend_sock`.

        Returning False ends the connection; any other value goes on.
        """
        raise TypeError(f"handler {self.name!r} does not implement __call__")

    def _get_data(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> bytes:
        """What can be read on the side that woke the handler, at most 64 KiB; b'' at its end."""
        return (client_sock if to_backend else backend_sock).recv(CHUNK)

    def _pass(
        self, client_sock: socket.socket, backend_sock: socket.socket, to_backend: bool
    ) -> None:
        """Pass on what there is to read, unchanged."""
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)

    def exchange(self, sock: Any) -> Exchange:
        """The exchange that the handler deals with: its number, and draws derived from the seed."""
        return sock.exchange  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        values = " ".join(f"{k}={options_.show(v)}" for k, v in self.options.items())
        return f"<{type(self).__name__} {self.name!r}{' ' + values if values else ''}>"
