"""``--timeout``: not only what is read counts as passing (see also tests/cli/test_limits.py)."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from tests.laws.helpers import MB, Acceptor, own, threads, write_module
from tests.support import PATIENCE, proxy, receive, wait_for

LIMIT = 1.0  # seconds
PACE = LIMIT / 5  # between two steps of somebody slow
STEPS = 12


def test_bytes_that_a_slow_client_still_takes_keep_a_connection_alive(tmp_path: Path) -> None:
    # The handler sends all at once; nothing is read from anybody while it trickles out.
    size = 60 * MB
    write_module(
        tmp_path,
        f"""
class Much(BaseHandler):
    name = "much"
    options = {{}}

    def __call__(self, client_sock, backend_sock, to_backend):
        if to_backend and self._get_data(client_sock, backend_sock, to_backend):
            client_sock.sendall(b"x" * {size})
        """,
    )
    pause = threading.Event()
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Much", "--timeout", LIMIT) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"?")
        for _ in range(STEPS):
            assert len(receive(client, size // STEPS)) == size // STEPS
            pause.wait(PACE)
        assert receive(client, 1) == b""


def test_a_stalled_connection_is_idle_and_gives_all_back() -> None:
    # Nobody reads, and nobody can be written to.
    with (
        Acceptor() as backend,
        proxy(backend, "--timeout", LIMIT) as vaurien,
        threads() as pool,
    ):
        before = vaurien.descriptors()
        with vaurien.dial() as client, backend.accept() as server:
            client.sendall(b"?")
            assert receive(server, 1) == b"?"
            sent = pool.submit(server.sendall, b"x" * 100 * MB)
            wait_for(lambda: vaurien.descriptors() == before, "both sockets are closed")
            with contextlib.suppress(ConnectionError):
                sent.result(PATIENCE)
