"""The built-in handler ``dummy``."""

from __future__ import annotations

from tests.support import Backend, exchange, proxy


def test_dummy_passes_everything_on(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--behavior", "100:dummy") as vaurien, vaurien.dial() as client:
        for size in (1, 1000, 1_000_000):
            assert exchange(client, b"x" * size) == b"x" * size


def test_without_a_behavior_all_goes_to_dummy(echo_backend: Backend) -> None:
    with proxy(echo_backend) as vaurien, vaurien.dial() as client:
        for _ in range(50):
            assert exchange(client, b"hello") == b"hello"


def test_what_the_weights_leave_goes_to_dummy(echo_backend: Backend) -> None:
    with proxy(echo_backend, "--behavior", "0:error") as vaurien, vaurien.dial() as client:
        for _ in range(50):
            assert exchange(client, b"hello") == b"hello"
