"""The whole way, thin: a real client, the program, a real backend."""

from __future__ import annotations

from tests.support import Backend, exchange, proxy


def test_bytes_pass_both_ways(echo_backend: Backend) -> None:
    with proxy(echo_backend) as vaurien, vaurien.dial() as client:
        assert exchange(client, b"hello") == b"hello"


def test_a_delayed_exchange_passes_too(echo_backend: Backend) -> None:
    with (
        proxy(echo_backend, "--behavior", "100:delay", "--handlers.delay.sleep", 0.01) as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"hello") == b"hello"
        assert exchange(client, b"again") == b"again"


def test_ends_with_zero_on_sigterm(echo_backend: Backend) -> None:
    with proxy(echo_backend) as vaurien:
        assert vaurien.stop() == 0
