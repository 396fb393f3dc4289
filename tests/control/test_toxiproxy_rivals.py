"""R1 to R3, R5 to R9, R11 and R15 of rivals.md, through the API while it happens.

Each call has to be answered within a second: `Api.call` sees to that.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.helpers import Api, Remote
from tests.laws.helpers import (
    MB,
    Acceptor,
    Flood,
    Names,
    assert_fin,
    digest_of,
    full_listener,
    threads,
)
from tests.rivals.differences import differs
from tests.rivals.test_rivals import CROWD, LOUD, spoilt
from tests.support import PATIENCE, Backend, echo, exchange, receive, receive_all, wait_for

EARLY = 0.002  # seconds

#: Toxics that a flood passes in good time.
MILD: dict[str, dict[str, Any]] = {
    "latency": {"latency": 10},
    "bandwidth": {"rate": 1_000_000},
    "slicer": {"average_size": 30_000},
    "noop": {},
}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Api() as api:
        yield api
        assert "Traceback" not in api.text, api.text


@contextlib.contextmanager
def stalled(proxy: Remote, backend: Acceptor, flood: Flood) -> Iterator[socket.socket]:
    """A client that does not read, while the backend sends it a flood; the flood comes whole."""
    with threads() as pool, proxy.dial() as client, backend.accept() as server:
        client.sendall(b"?")
        assert receive(server, 1) == b"?"
        sent = pool.submit(flood.send, server)
        wait_for(lambda: not select.select([], [server], [], 0.3)[1], "the sender is held up")
        yield client
        assert not sent.done()
        assert digest_of(client, flood.size) == (flood.size, flood.digest())
        sent.result(PATIENCE)


def test_r1_nothing_hangs_when_a_client_stops_reading(api: Api) -> None:
    with Acceptor() as backend, api.proxy(backend) as proxy:
        with stalled(proxy, backend, Flood(30 * MB)):
            for kind, attributes in MILD.items():
                for stream in ("downstream", "upstream"):
                    name = proxy.add(kind, stream=stream, **attributes)
                    proxy.update(name, toxicity=0.5)
                assert api.ask("GET", "/proxies")["p"] == proxy.show()
            for toxic in proxy.toxics()[::2]:
                proxy.remove(toxic["name"])
            api.ask("POST", "/reset", status=204)
            assert proxy.toxics() == []
            proxy.add("noop")
            api.ask("POST", "/populate", [{**proxy.show(), "listen": "127.0.0.1:0"}], 201)
            proxy.change(enabled=True)
        with proxy.dial() as client, backend.accept() as server:
            server.sendall(bytes(1 << 16))
            wait_for(lambda: select.select([client], [], [], 0)[0])
            proxy.change(enabled=False)
            proxy.change(enabled=True)
        with proxy.dial(), backend.accept() as server:
            server.sendall(bytes(1 << 16))
            api.ask("DELETE", "/proxies/p", status=204)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("reset_peer", {"timeout": 60_000}),
        ("latency", {"latency": 60_000}),
        ("timeout", {"timeout": 60_000}),
        ("slow_close", {"delay": 60_000}),
        ("bandwidth", {"rate": 1}),
        ("slicer", {"average_size": 1, "delay": 60_000_000}),
        ("pause", {}),
    ],
)
def test_r2_deleting_a_sleeping_fault_returns_at_once(
    api: Api, kind: str, attributes: dict[str, Any]
) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
        proxy.dial() as ended,
        backend.accept() as ended_server,
    ):
        name = proxy.add(kind, **attributes)
        data = bytes(10_000)
        server.sendall(data)
        ended_server.sendall(data)
        ended_server.shutdown(socket.SHUT_WR)
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        start = time.monotonic()
        proxy.remove(name)
        if kind == "timeout":
            assert receive_all(client) == receive_all(ended) == b""
            return
        if kind == "reset_peer":  # what has come is gone: nothing but the reset can follow
            for one in (client, server, ended, ended_server):
                with pytest.raises(ConnectionResetError):
                    one.recv(1)
            return
        assert receive(client, len(data)) == data
        assert receive_all(ended) == data
        client.sendall(b"on")
        assert receive(server, 2) == b"on"
        server.sendall(b"goes")
        assert receive(client, 4) == b"goes"
        assert time.monotonic() - start < 2


def test_r3_nothing_waits_for_a_connect_that_hangs(api: Api, echo_backend: Backend) -> None:
    with (
        full_listener() as (host, port),
        api.proxy(f"{host}:{port}") as proxy,
        api.proxy(echo_backend, "other") as other,
        proxy.dial() as hanging,
    ):
        hanging.sendall(b"hello?")
        assert not select.select([hanging], [], [], 0.2)[0]
        proxy.add("latency", latency=1)
        with other.dial() as client:
            assert exchange(client, b"others go on") == b"others go on"
        proxy.change(enabled=False)
        with contextlib.suppress(ConnectionResetError):
            assert receive_all(hanging) == b""
        proxy.change(enabled=True)
        with proxy.dial() as hanging_too, proxy.dial() as and_this:
            hanging_too.sendall(b"hello?")
            assert not select.select([hanging_too, and_this], [], [], 0.2)[0]
            proxy.change(upstream=echo_backend.address)
            with proxy.dial() as client:
                assert exchange(client, b"hello") == b"hello"
            proxy.change(upstream=f"{host}:{port}")
            with proxy.dial() as last:
                assert not select.select([last], [], [], 0.2)[0]
                api.ask("DELETE", "/proxies/p", status=204)


def test_r3_nothing_waits_for_a_name_of_a_backend_that_does_not_resolve(
    tmp_path: Path, echo_backend: Backend
) -> None:
    names = Names(tmp_path)
    with (
        Api(env=names.env) as api,
        names.hanging("slow.test") as wait,
        api.proxy("slow.test:80") as proxy,
        proxy.dial() as hanging,
    ):
        wait()
        proxy.add("latency", latency=1)
        proxy.change(enabled=False)
        assert receive_all(hanging) == b""
        proxy.change(enabled=True)
        proxy.change(upstream=echo_backend.address)
        with proxy.dial() as client:
            assert exchange(client, b"hello") == b"hello"


def test_r3_who_gives_an_address_that_does_not_resolve_waits_alone(
    tmp_path: Path, echo_backend: Backend
) -> None:
    names = Names(tmp_path)
    with (
        Api(env=names.env) as api,
        api.proxy(echo_backend) as proxy,
        threads() as pool,
    ):
        with names.hanging("slow.test") as wait:
            body = {"name": "slow", "listen": "slow.test:0", "upstream": "127.0.0.1:1"}
            made = pool.submit(api.call, "POST", "/proxies", body, prompt=PATIENCE)
            wait()
            body = {"listen": "slow.test:0"}
            changed = pool.submit(api.call, "POST", proxy.path, body, prompt=PATIENCE)
            for _ in range(20):
                proxy.add("noop")
                with proxy.dial() as client:
                    assert exchange(client, b"hello") == b"hello"
                proxy.change(enabled=False)
                api.ask("POST", "/reset", status=204)
            assert not made.done() and not changed.done()
        for call in (made, changed):
            answer = call.result(PATIENCE)
            assert answer.status == 500
            assert "slow.test" in answer.json["error"]
        assert list(api.ask("GET", "/proxies")) == ["p"]


@differs("polite-ends")
def test_r5_toxicity_0_does_nothing_at_all(api: Api) -> None:
    flood = Flood(8 * MB)
    with Acceptor() as backend, api.proxy(backend) as proxy, threads() as pool:
        for stream in ("upstream", "downstream"):
            for kind, options in LOUD.items():
                proxy.add(kind, f"{kind}_{stream}", stream, toxicity=0, **options)
        with proxy.dial() as client, backend.accept() as server:
            client.sendall(b"request")
            assert receive(server, 7) == b"request"
            sent = pool.submit(flood.send, server)
            assert digest_of(client, flood.size) == (flood.size, flood.digest())
            sent.result(PATIENCE)
            server.shutdown(socket.SHUT_WR)
            assert_fin(client)
            client.shutdown(socket.SHUT_WR)
            assert receive_all(server) == b""
        stats = proxy.state()["stats"]
        assert not any(one["fired"] for one in stats.values()), stats


@differs("reset-peer-open")
def test_r6_reset_peer_added_to_an_open_connection_sends_a_rst(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
        proxy.dial() as silent,
        backend.accept() as silent_server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        proxy.add("reset_peer", timeout=50)
        assert not select.select([client, silent], [], [], 0.3)[0]  # nothing was sent since
        for sock, other in ((client, server), (silent, silent_server)):
            other.sendall(b"response")
            for one in (sock, other):
                with pytest.raises(ConnectionResetError):
                    one.recv(1)


@differs("timeout-clock")
def test_r7_timeout_fires_after_1_s_though_a_byte_comes_every_200_ms(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        start = time.monotonic()
        proxy.add("timeout", timeout=1000)
        with contextlib.suppress(ConnectionError):
            while not select.select([client], [], [], 0.2)[0]:
                assert time.monotonic() - start < 2
                server.sendall(b".")
                client.sendall(b".")
        assert client.recv(1) == b""
        assert 1 - EARLY <= time.monotonic() - start < 2


@differs("toxicity-once")
def test_r8_adding_changing_and_removing_a_toxic_redraws_no_other_toxics_dice(api: Api) -> None:
    with (
        Backend(echo) as backend,
        api.proxy(backend, seed=3) as proxy,
        contextlib.ExitStack() as stack,
    ):
        socks = []
        for _ in range(CROWD):
            socks.append(stack.enter_context(proxy.dial()))
            assert exchange(socks[-1], b"x") == b"x"
        proxy.add("corrupt", "spoils", toxicity=0.5, chance=100)
        hit = spoilt(socks)
        assert 5 < sum(hit) < CROWD - 5
        proxy.add("latency", "slow", toxicity=0.5, latency=1)
        assert spoilt(socks) == hit
        proxy.update("slow", toxicity=0.9, latency=2)
        assert spoilt(socks) == hit
        proxy.add("noop", stream="upstream", toxicity=0.3)
        proxy.remove("slow")
        assert spoilt(socks) == hit
        proxy.update("spoils", chance=99.99)
        assert spoilt(socks) == hit
        api.ask("POST", "/reset", status=204)
        assert not any(spoilt(socks))
        proxy.add("corrupt", "spoils", toxicity=0.5, chance=100)
        assert spoilt(socks) == hit


def test_r9_adding_a_toxic_releases_no_bytes_that_another_holds(api: Api) -> None:
    with (
        Acceptor() as backend,
        api.proxy(backend) as proxy,
        proxy.dial() as client,
        backend.accept() as server,
    ):
        proxy.add("latency", latency=1000)
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        start = time.monotonic()
        server.sendall(b"response")
        for kind, stream in (("noop", "downstream"), ("slow_close", ""), ("noop", "upstream")):
            assert not select.select([client], [], [], 0.1)[0]
            proxy.add(kind, stream=stream)
        proxy.update("noop_downstream", toxicity=0.5)
        proxy.remove("slow_close_downstream")
        assert receive(client, 8) == b"response"
        assert 1 - EARLY <= time.monotonic() - start < 2


@differs("unknown-fields")
def test_r11_nothing_that_is_misspelt_is_dropped_in_silence(api: Api) -> None:
    with api.proxy("127.0.0.1:1") as proxy:
        toxics = f"{proxy.path}/toxics"
        api.refused("POST", toxics, {"type": "latency", "attributes": {"latnecy": 1}})
        api.refused("POST", toxics, {"type": "latency", "atributes": {"latency": 1}})
        api.refused("POST", "/populate", [{**proxy.show(), "toxic": []}])
        body = {**proxy.show(), "name": "q", "listen": "127.0.0.1:0"}
        body["toxics"] = [{"type": "latency", "attributes": {"latency": 7}}]
        answer = api.call("POST", "/proxies", body)  # honoured or refused
        assert answer.status == 400 or answer.json["toxics"][0]["attributes"]["latency"] == 7
        if answer.status == 201:
            api.ask("DELETE", "/proxies/q", status=204)
        assert proxy.toxics() == []


def test_r15_a_reader_stalled_for_over_5_s_during_a_removal_loses_no_byte(api: Api) -> None:
    with Acceptor() as backend, api.proxy(backend) as proxy:
        proxy.add("latency", "slow", latency=100)
        proxy.add("slicer", "slices", average_size=5000)
        with stalled(proxy, backend, Flood(30 * MB)):
            start = time.monotonic()
            proxy.remove("slow")
            proxy.update("slices", average_size=7000)
            proxy.add("bandwidth", rate=1_000_000)
            proxy.remove("slices")
            api.ask("POST", "/reset", status=204)
            nobody_reads = threading.Event()
            assert not nobody_reads.wait(5.1 - (time.monotonic() - start))
