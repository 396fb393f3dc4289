"""What reviews of the data path have found; each was seen to fail before."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
import time
import weakref
from typing import Any

import gevent
from gevent import socket as gsocket
from gevent.event import Event

from tests.relay.rig import Wire, specification, wire
from tests.support import receive_all, reset, wait_for
from vaurien.flow import Data
from vaurien.flow.handler import FlowHandler
from vaurien.handlers import BaseHandler
from vaurien.net.alarms import Alarms
from vaurien.net.loop import current
from vaurien.relay.looks import is_idle


def lent(call: Any, **more: Any) -> Any:
    """A connection whose every exchange goes to `call`, as `call(client, backend, to_backend)`."""

    class Mine(BaseHandler):
        name = "mine"
        options: Any = {}

        def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> Any:
            return call(client_sock, backend_sock, to_backend)

    return wire("100:mine", specification(Mine), protocol="tcp", **more)


def only(w: Wire) -> Any:
    """The connection itself, once its backend has answered."""
    found = next(iter(w.served.proxy._server.connections.values()))
    wait_for(lambda: found.flows, "it has been dialled")
    return found


def passes(client: Any, backend: Any, to_backend: bool) -> None:
    """Pass on what is there."""
    data = (client if to_backend else backend).recv(65536)
    if data:
        (backend if to_backend else client).sendall(data)


# Descriptors


def test_what_is_left_in_a_bridge_is_for_the_next_call() -> None:
    calls: list[int] = []

    def call(client: Any, backend: Any, to_backend: bool) -> None:
        calls.append(1)
        if len(calls) == 1:
            gsocket.wait_read(client.fileno())
            return
        passes(client, backend, to_backend)

    with lent(call) as w:
        w.send(b"hello")
        w.at_backend(b"hello")
        assert not w.served.totals().internal_errors


def test_what_was_sent_by_descriptor_is_sent_though_the_handler_ends_the_connection() -> None:
    def call(client: Any, backend: Any, _to_backend: bool) -> bool:
        os.write(backend.fileno(), client.recv(100))
        os.write(client.fileno(), b"bye")
        return False

    with lent(call) as w:
        w.send(b"hello")
        assert receive_all(w.server) == b"hello"
        assert receive_all(w.client) == b"bye"


def test_what_was_sent_by_descriptor_is_sent_before_a_close() -> None:
    def call(client: Any, _backend: Any, _to_backend: bool) -> None:
        client.recv(100)
        os.write(client.fileno(), b"bye")
        client.close()

    with lent(call) as w:
        w.send(b"hello")
        assert receive_all(w.client) == b"bye"


def test_what_was_sent_by_descriptor_is_sent_before_a_half_close() -> None:
    def call(client: Any, backend: Any, to_backend: bool) -> None:
        if not to_backend:
            passes(client, backend, to_backend)
            return
        client.recv(100)
        os.write(client.fileno(), b"bye")
        client.shutdown(socket.SHUT_WR)
        backend.sendall(b"on")
        event.wait()

    event = Event()
    with lent(call) as w:
        w.send(b"hello")
        assert receive_all(w.client) == b"bye"
        w.at_backend(b"on")
        w.served.loop.call(event.set)


def test_what_woke_a_call_is_in_its_descriptor_at_once() -> None:
    def call(client: Any, backend: Any, _to_backend: bool) -> None:
        client.setblocking(False)
        client.fileno()
        try:
            backend.sendall(client.recv(100))
        except BlockingIOError:
            backend.sendall(b"nothing")

    with lent(call) as w:
        w.send(b"hello")
        w.at_backend(b"hello")


def test_what_is_sent_by_descriptor_comes_after_what_a_chain_holds() -> None:
    def call(client: Any, backend: Any, _to_backend: bool) -> None:
        data = client.recv(100)
        os.write(client.fileno(), b"now")
        backend.sendall(data)
        event.wait()

    event = Event()
    with lent(call) as w:
        w.served.toxic("latency", latency=200, stream="downstream")
        w.answer(b"late")
        wait_for(lambda: only(w).down.waiting, "it is in the chain")
        w.send(b"hello")
        w.at_backend(b"hello")
        w.at_client(b"latenow")
        w.served.loop.call(event.set)


def test_a_detached_descriptor_is_not_read_by_recv() -> None:
    raised: list[Any] = []

    def call(client: Any, _backend: Any, _to_backend: bool) -> None:
        os.close(client.detach())
        try:
            client.recv(100)
        except OSError as error:
            raised.append(error.errno)

    with lent(call) as w:
        w.send(b"hello")
        wait_for(lambda: raised)
        assert raised[0] == errno.EBADF


# Ends


def test_an_end_that_came_while_a_call_ran_goes_through_a_toxic_that_came_too() -> None:
    def call(client: Any, backend: Any, to_backend: bool) -> None:
        passes(client, backend, to_backend)
        event.wait()

    event = Event()
    with lent(call) as w:
        w.send(b"hello")
        w.at_backend(b"hello")
        w.served.toxic("latency", latency=1, stream="upstream")
        w.client.shutdown(socket.SHUT_WR)
        connection = only(w)
        wait_for(lambda: connection.up.over, "the end has been read")
        w.served.loop.call(event.set)
        assert w.server.recv(1) == b""


def test_nothing_is_read_after_the_reading_was_shut_down() -> None:
    got: list[bytes] = []

    def call(client: Any, backend: Any, to_backend: bool) -> None:
        if not to_backend:
            passes(client, backend, to_backend)
            return
        client.recv(100)
        client.shutdown(socket.SHUT_RD)
        backend.sendall(b"now")
        event.wait()
        got.append(client.recv(100))

    event = Event()
    with lent(call) as w:
        w.send(b"hello")
        w.at_backend(b"now")
        w.send(b"more")
        w.answer(b"done")  # comes later, so that "more" would have been read
        w.at_client(b"done")
        w.served.loop.call(event.set)
        wait_for(lambda: got)
        assert got == [b""]


def test_reading_no_bytes_says_nothing_of_the_end() -> None:
    seen: list[Any] = []

    def call(client: Any, backend: Any, to_backend: bool) -> None:
        if len(seen) == 0:
            backend.sendall(client.recv(100))
            event.wait()
            seen.append(client.recv(0))
            return
        seen.append((client if to_backend else backend).recv(100))

    event = Event()
    with lent(call) as w:
        w.send(b"hello")
        w.at_backend(b"hello")
        w.client.shutdown(socket.SHUT_WR)
        connection = only(w)
        wait_for(lambda: connection.up.over, "the end has been read")
        w.served.loop.call(event.set)
        assert w.server.recv(1) == b""
        assert seen == [b"", b""]


def test_shutting_down_both_ways_after_a_reset_raises_an_error_of_sockets() -> None:
    raised: list[Any] = []

    def call(client: Any, backend: Any, _to_backend: bool) -> None:
        if client.recv(100):
            backend.sendall(b"on")
            return
        try:
            backend.shutdown(socket.SHUT_RDWR)
            raised.append(None)
        except BaseException as error:
            raised.append(error)
            raise

    with lent(call) as w:
        w.send(b"hello")
        w.at_backend(b"on")
        reset(w.client)
        wait_for(lambda: raised)
        assert raised[0] is None or isinstance(raised[0], OSError), raised


def test_what_a_handler_was_sending_is_not_its_memory_any_more_once_the_connection_ends() -> None:
    memory = bytearray(b"a" * 8_000_000)
    done: list[Any] = []

    def call(client: Any, _backend: Any, _to_backend: bool) -> None:
        client.recv(100)
        try:
            client.sendall(memory)
        finally:
            memory[:] = b"b" * len(memory)
            done.append(1)

    with lent(call) as w:
        w.send(b"hello")
        flow = only(w).down
        wait_for(lambda: flow.sink.held is not None, "it waits")
        w.served.loop.call(w.served.proxy._server.end_all, "dropped")
        wait_for(lambda: done)
        assert b"b" not in receive_all(w.client)


# The loop


def test_alarms_given_up_while_they_ring_are_counted_once() -> None:
    class Bell:
        held = False

        def set(self, due: float) -> None: ...

        def hold_loop(self, held: bool) -> None:
            self.held = held

        def close(self) -> None: ...

    class Sleeper:
        def wake(self, now: float) -> None:
            for alarm in others:
                alarms.give_up(alarm)

    class Nobody:
        def wake(self, now: float) -> None:
            raise AssertionError

    bell = Bell()
    alarms = Alarms(None, lambda: 2.0, lambda _loop, _ring: bell)
    alarms.join()
    alarms.set(0.5, Sleeper())
    others = [alarms.set(1.0, Nobody()) for _ in range(2500)]
    alarms._ring()
    assert repr(alarms) == "<Alarms: 0 set, 1 users>"
    assert not bell.held


def test_the_loop_of_a_thread_goes_with_the_thread() -> None:
    found: list[Any] = []

    def run() -> None:
        loop = current()
        assert loop is current()
        found.append(weakref.ref(loop))
        loop.hub.destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    gc.collect()
    assert found[0]() is None


# Owners


class Begins(FlowHandler):
    """Holds what comes for a while; as most handlers of users it is told of beginnings."""

    name = "begins"
    options: Any = {}

    def on(self, event: Any, now: float) -> Any:
        yield (0.2 if type(event) is Data else 0), event


def test_what_begins_an_exchange_goes_to_the_call_that_claims_it_meanwhile() -> None:

    class Both(BaseHandler):
        name = "both"
        options: Any = {}

        def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
            if to_backend:
                passes(client_sock, backend_sock, True)
                return
            data = backend_sock.recv(100)
            client_sock.sendall(data)
            backend_sock.sendall(client_sock.recv(100).upper())

    begins = specification(Begins, stream="downstream")
    with wire("100:begins+both", begins, specification(Both), protocol="tcp") as w:
        w.send(b"one")
        w.at_backend(b"one")
        connection = only(w)
        w.answer(b"answer")
        wait_for(lambda: connection.down.waiting, "the answer is in the chain")
        blocked = threading.Thread(target=w.served.loop.call, args=(hold_up, w.client))
        blocked.start()
        blocked.join()
        w.at_client(b"answer")
        w.at_backend(b"TWO")
        assert not w.served.totals().internal_errors


def hold_up(client: socket.socket) -> None:
    """The loop comes late: what the chain held is due, and what the client sends is there."""
    due = time.monotonic() + 0.4
    while time.monotonic() < due:
        pass
    client.sendall(b"two")


def test_what_a_call_left_goes_to_one_call_though_the_next_exchange_begins() -> None:
    running: list[int] = []
    most: list[int] = []

    class Both(BaseHandler):
        name = "both"
        options: Any = {}

        def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
            if to_backend:
                data = client_sock.recv(100)
                backend_sock.sendall(data)
                if data == b"one":
                    client_sock.sendall(backend_sock.recv(1))
                    event.wait()
                return
            running.append(1)
            most.append(len(running))
            gevent.sleep(0.05)  # as `delay` does before it reads
            client_sock.sendall(backend_sock.recv(100))
            running.pop()

    event = Event()
    begins = specification(Begins, stream="downstream")
    with wire("100:begins+both", begins, specification(Both), protocol="tcp") as w:
        w.send(b"one")
        w.at_backend(b"one")
        w.answer(b"answer")
        w.at_client(b"a")
        connection = only(w)
        w.answer(b"more")
        wait_for(lambda: connection.down.shaping.chain.out, "it has left the chain")
        w.send(b"two")
        wait_for(lambda: connection.up.unread, "the next request is there")
        w.served.loop.call(event.set)
        w.at_backend(b"two")
        w.at_client(b"nswermore")
        wait_for(lambda: not connection.calls, "no call runs any more")
        assert most == [1]


def test_a_request_that_the_loop_has_not_read_yet_keeps_its_connection_while_draining() -> None:
    # The system has it, and the loop has not come to read it: as after a dial that took long.
    with wire(protocol="tcp") as w:
        connection = only(w)
        assert w.served.loop.call(is_idle, connection)

        def unread() -> bool:
            w.send(b"hello")
            return is_idle(connection)

        assert not w.served.loop.call(unread)
        w.at_backend(b"hello")
        w.answer(b"hello")
        w.at_client(b"hello")
        assert w.served.loop.call(is_idle, connection)
