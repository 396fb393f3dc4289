"""Handlers as users write them, with what makes trouble."""

from __future__ import annotations

from typing import Any, NoReturn

from vaurien.handlers import BaseHandler


class Broken:
    """Raises when it is made."""

    name = "broken"
    options: dict[str, object] = {}

    def __init__(self, settings: object = None, proxy: object = None) -> None:
        raise ValueError("no luck")

    def __call__(self, client_sock: object, backend_sock: object, to_backend: bool) -> NoReturn:
        raise AssertionError("it was never made")


class Exits(Broken):
    """Ends the program when it is made, or would like to."""

    name = "exits"

    def __init__(self, settings: object = None, proxy: object = None) -> None:
        raise SystemExit("no luck")


class Thing:
    """What an option becomes; it does not say what it is equal to."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Relay(BaseHandler):
    """Passes all on, in one call that lasts as long as the connection."""

    name = "relay"
    options: Any = {"thing": ("Anything", Thing, "x")}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> bool:
        while data := client_sock.recv(65536):
            backend_sock.sendall(data)
            client_sock.sendall(backend_sock.recv(65536))
        return False
