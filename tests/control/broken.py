"""A handler whose class is all right and that cannot be built."""

from __future__ import annotations

from typing import NoReturn


class Broken:
    """Raises when it is made."""

    name = "broken"
    options: dict[str, object] = {}

    def __init__(self, settings: object = None, proxy: object = None) -> None:
        raise ValueError("no luck")

    def __call__(self, client_sock: object, backend_sock: object, to_backend: bool) -> NoReturn:
        raise AssertionError("it was never made")
