"""However many there are of something, others are served: each has a limit, and a sentence."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.attacks.helpers import Bystander
from tests.control.served import Served, whatever
from tests.net.test_accept import limit_descriptors
from tests.support import Backend, clients, dial, exchange, wait_for
from vaurien.control.events import STREAMS
from vaurien.control.http import CONNECTIONS
from vaurien.control.ttl import LAYERS

_EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def drain(sock: socket.socket) -> None:
    """Read what comes until the end."""
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


@pytest.mark.long
def test_as_many_streams_of_events_as_there_can_be_hold_up_nobody(echo_backend: Backend) -> None:
    with (
        Served("--distant", echo_backend.address, "--behavior", "100:latency") as vaurien,
        clients(vaurien.api.address, STREAMS) as watching,
    ):
        for sock in watching:
            sock.sendall(_EVENTS)
            assert b" 200 OK" in sock.recv(1000)
            threading.Thread(target=drain, args=(sock,), daemon=True).start()
        with Bystander(vaurien.create("others", echo_backend.address), vaurien.pid) as others:
            others.unharmed(40)
        refused = vaurien.api.call("GET", "/events")
        assert refused.status == 503
        assert refused.error == (
            "100 streams of events are open, which is as many as there can be; close one"
        )
        watching[0].shutdown(socket.SHUT_RDWR)
        with contextlib.ExitStack() as stack:

            def opens() -> bool:
                sock = stack.enter_context(dial(vaurien.api.address))
                sock.sendall(_EVENTS)
                return b" 200 OK" in sock.recv(1000)

            vaurien.api.post(f"/proxies/{vaurien.name}", {"enabled": False})  # it sees that
            wait_for(opens, "there is room for another")


def test_who_watches_fast_enough_gets_every_event_once(echo_backend: Backend) -> None:
    with (
        Served("--distant", echo_backend.address, "--behavior", "100:noop") as vaurien,
        clients(vaurien.api.address, 3) as watching,
    ):
        for sock in watching:
            sock.sendall(_EVENTS)
            assert b": from here on" in sock.recv(1000) + sock.recv(1000)
        with vaurien.dial() as client:
            for n in range(200):
                assert exchange(client, b"%d" % n) == b"%d" % n
        for sock in watching:
            seen = b""
            while seen.count(b"event: ended") < 200:
                seen += sock.recv(1 << 16)
            assert seen.count(b"event: ended") == 200
            assert b"dropped" not in seen


def test_clients_of_the_api_that_ask_for_nothing_leave_room_for_others(
    echo_backend: Backend,
) -> None:
    with Served("--distant", echo_backend.address) as vaurien:
        limit_descriptors(vaurien, 500)
        with clients(vaurien.api.address, CONNECTIONS + 250) as idle:
            for sock in idle[CONNECTIONS:]:
                sock.sendall(_HEALTH[:-2])  # some have begun to
            assert vaurien.api.call("GET", "/health").status == 200
            with vaurien.dial() as client:
                assert exchange(client, b"hello") == b"hello"
            assert whatever(idle[0]) == b""  # who was there for longest has gone
            assert vaurien.descriptors() < 450


def test_clients_of_the_api_that_are_all_busy_are_not_cut_off(echo_backend: Backend) -> None:
    with (
        Served("--distant", echo_backend.address) as vaurien,
        clients(vaurien.api.address, STREAMS) as watching,
    ):
        for sock in watching:
            sock.sendall(_EVENTS)
            assert b" 200 OK" in sock.recv(1000)
        with clients(vaurien.api.address, CONNECTIONS):
            assert vaurien.api.call("GET", "/health").status == 200
            for sock in watching:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    assert sock.recv(10_000) != b""


def test_changes_for_a_while_on_top_of_each_other_have_a_limit(echo_backend: Backend) -> None:
    with Served("--distant", echo_backend.address) as vaurien:
        path = f"/proxies/{vaurien.name}/behavior"
        for n in range(LAYERS):
            body = {"behavior": f"{n % 50}:delay", "ttl": 100_000 - n}
            vaurien.api.ok("POST", path, body)
        refused = vaurien.api.call("POST", path, {"behavior": "99:delay", "ttl": 1})
        assert refused.status == 503
        assert refused.error == (
            "ttl: 100 changes of behavior of proxy 'default' are for a while already, which is as"
            " many as there can be; wait for one to end, or make one without a ttl"
        )
        assert vaurien.api.get(path)["behavior"] == "49:delay"
        vaurien.api.ok("POST", path, {"behavior": "98:delay"})
        vaurien.api.ok("POST", path, {"behavior": "97:delay", "ttl": 60})


@pytest.mark.long
def test_proxies_have_a_limit(echo_backend: Backend) -> None:
    with Served() as vaurien:
        for start in range(0, 10_000, 2500):
            body = [
                {"name": f"p{n}", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1",
                 "enabled": False}
                for n in range(start, start + 2500)
            ]  # fmt: skip
            vaurien.api.prompt = 60
            vaurien.api.post("/populate", body)
        refused = vaurien.api.call(
            "POST", "/proxies", {"name": "more", "listen": "127.0.0.1:0", "upstream": "a:1"}
        )
        assert refused.status == 503
        assert refused.error == (
            "there are 10,000 proxies, which is as many as there can be; delete one, or start"
            " another Vaurien"
        )
        vaurien.api.delete("/proxies/p0")
        vaurien.create("more", echo_backend.address)
