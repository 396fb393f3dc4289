"""Hand-off: what a handler may do with the two sockets that it is lent (design.md)."""

from __future__ import annotations

import socket
import textwrap
from pathlib import Path

import pytest

from tests.laws.helpers import (
    CLOSE_WAIT,
    MB,
    Acceptor,
    assert_fin,
    own,
    said,
    tcp_state,
    wait_said,
    write_module,
)
from tests.support import Backend, exchange, proxy, receive, receive_all, reset, wait_for


def handler(directory: Path, body: str) -> None:
    """A module with one handler, `own.Mine`; `c`, `b` and `up` are its three arguments."""
    write_module(
        directory,
        """
class Mine(BaseHandler):
    name = "mine"
    options = {}

    def __init__(self, settings, proxy):
        self.proxy = proxy
        self.calls = 0
        self.event = Event()

    def __call__(self, c, b, up):
        self.calls += 1
"""
        + textwrap.indent(textwrap.dedent(body), "        "),
    )


PASS = """
data = self._get_data(c, b, up)
if data:
    (b if up else c).sendall(data)
"""

# Claims


READING = {
    "recv": "answer = b.recv(100)",
    "recv_into": """
        buffer = bytearray(100)
        answer = bytes(buffer[: b.recv_into(buffer)])
        """,
    "recv_into some": """
        buffer = bytearray(100)
        answer = bytes(buffer[: b.recv_into(buffer, 5)])
        """,
    "recvfrom": "answer = b.recvfrom(100)[0]",
    "recvmsg": "answer = b.recvmsg(100)[0]",
    "makefile": """
        with b.makefile("rb") as file:
            answer = file.read(5)
        """,
    "makefile rwb": """
        file = b.makefile("rwb", 0)
        answer = file.read(5)
        """,
    "peek": """
        assert b.recv(2, socket.MSG_PEEK) == b"he"
        answer = b.recv(100)
        """,
    "byte by byte": 'answer = b"".join(b.recv(1) for _ in range(5))',
}


@pytest.mark.parametrize("how", READING)
def test_a_handler_reads_the_answer_in_the_call_on_the_request(
    tmp_path: Path, echo_backend: Backend, how: str
) -> None:
    reading = textwrap.indent(textwrap.dedent(READING[how]), "    ")
    handler(
        tmp_path,
        f"""
data = self._get_data(c, b, up)
if up and data:
    b.sendall(data)
{reading}
    c.sendall(answer.upper())
elif data:
    c.sendall(data)
""",
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        for _ in range(3):
            assert exchange(client, b"hello") == b"HELLO"


def test_a_descriptor_that_a_handler_asks_for_is_its_own_to_read(
    tmp_path: Path, echo_backend: Backend
) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if up and data:
    import os
    descriptor = b.fileno()
    b.sendall(data)
    gevent.socket.wait_read(descriptor)
    c.sendall(os.read(descriptor, 100).upper())
elif data:
    c.sendall(data)
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        for _ in range(3):
            assert exchange(client, b"hello") == b"HELLO"


def test_select_on_the_other_side_claims_it(tmp_path: Path, echo_backend: Backend) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if up and data:
    import select
    assert select.select([b], [], [], 0)[0] == []
    b.sendall(data)
    assert select.select([b], [], [])[0] == [b]
    c.sendall(b.recv(100).upper())
elif data:
    c.sendall(data)
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        assert exchange(client, b"hello") == b"HELLO"


def test_looking_at_a_socket_claims_nothing(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
if up:
    looked = repr(b), str(b), b.getpeername(), b.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    b.sendall(self._get_data(c, b, up))
    say("waits")
    self.event.wait()  # for the response, which the other call gets
    say("over")
else:
    self.event.set()
    c.sendall(self._get_data(c, b, up))
""",
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"hello")
        wait_said(vaurien, "waits")
        assert receive(server, 5) == b"hello"
        server.sendall(b"hello")
        assert receive(client, 5) == b"hello"
        wait_said(vaurien, "over")


def test_the_other_flow_goes_on_while_a_call_does_not_read_it(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if data == b"sleep":
    say("sleeps")
    self.event.wait()
elif data:
    if data == b"wake":
        self.event.set()
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"sleep")
        wait_said(vaurien, "sleeps")
        client.sendall(b"later")  # waits for the return of the call
        for number in range(50):
            server.sendall(b"%2d" % number)
            assert receive(client, 2) == b"%2d" % number
        server.sendall(b"wake")
        assert receive(client, 4) == b"wake"
        assert receive(server, 5) == b"later"


def test_a_claim_ends_with_its_call(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if up and data:
    b.sendall(data)
    c.sendall(b"in one call: " + b.recv(100))
elif data:
    c.sendall(b"alone: " + data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for _ in range(3):
            client.sendall(b"?")
            assert receive(server, 1) == b"?"
            server.sendall(b"1")
            assert receive(client, 14) == b"in one call: 1"
            server.sendall(b"2")
            assert receive(client, 8) == b"alone: 2"


def test_a_claim_waits_for_a_running_call_that_owns_the_side(tmp_path: Path) -> None:
    # The call on "slow" owns the backend until the call on "claim" waits for it.
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if data == b"claim":
    gevent.spawn(self.event.set)  # done once this call waits
    say("claims")
    c.sendall(b"claim got " + b.recv(100) + b";")
elif data == b"slow":
    say("slow")
    self.event.wait()
    c.sendall(b"slow is over;")
elif data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"go")
        assert receive(server, 2) == b"go"
        server.sendall(b"slow")
        wait_said(vaurien, "slow")
        client.sendall(b"claim")
        wait_said(vaurien, "claims")
        assert receive(client, 13) == b"slow is over;"
        server.sendall(b"next")
        assert receive(client, 15) == b"claim got next;"
        server.sendall(b"free")
        assert receive(client, 4) == b"free"


def test_a_claim_that_waits_respects_the_sockets_timeout(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if data == b"claim":
    b.settimeout(0.1)
    try:
        b.recv(100)
    except socket.timeout:
        say("timeout")
    b.settimeout(None)
    self.event.set()
elif data == b"slow":
    say("slow")
    self.event.wait()
    c.sendall(b"slow is over;")
elif data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"go")
        assert receive(server, 2) == b"go"
        server.sendall(b"slow")
        wait_said(vaurien, "slow")
        client.sendall(b"claim")
        assert receive(client, 13) == b"slow is over;"
        assert wait_said(vaurien, "timeout") == [""]
        server.sendall(b"free")
        assert receive(client, 4) == b"free"


CIRCLE = """
data = self._get_data(c, b, up)
if data == b"one":
    say("one")
    self.event.wait()
    b.recv(100)
elif data == b"two":
    gevent.spawn(self.event.set)  # done once this call waits
    say("two")
    c.recv(100)
elif data:
    (b if up else c).sendall(data)
"""


def test_a_circle_of_claims_raises_and_is_logged(tmp_path: Path) -> None:
    handler(tmp_path, CIRCLE)
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as other,
        backend.accept() as other_server,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"go")
        assert receive(server, 2) == b"go"
        client.sendall(b"one")
        wait_said(vaurien, "one")
        server.sendall(b"two")
        assert_fin(client)
        assert_fin(server)
        vaurien.wait_log("HandlerDeadlock")
        other.sendall(b"untouched")
        assert receive(other_server, 9) == b"untouched"
        assert vaurien.text.count("Traceback") == 1


def test_a_circle_of_claims_can_be_caught(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
from vaurien import HandlerDeadlock
"""
        + CIRCLE.replace(
            "    b.recv(100)",
            """    try:
        b.recv(100)
    except HandlerDeadlock:
        say("deadlock")""",
        ).replace("    c.recv(100)", '    c.sendall(b"two got " + c.recv(100))'),
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"go")
        assert receive(server, 2) == b"go"
        client.sendall(b"one")
        wait_said(vaurien, "one")
        server.sendall(b"two")
        wait_said(vaurien, "deadlock")
        client.sendall(b"three")  # the first call has returned: its side goes to the other
        assert receive(client, 13) == b"two got three"
        client.sendall(b"four")
        assert receive(server, 4) == b"four"


def test_bytes_whose_call_has_not_begun_go_to_the_one_who_reads_first(tmp_path: Path) -> None:
    # The response comes while the call on the request computes, and so does the call on it.
    handler(
        tmp_path,
        """
if up:
    data = self._get_data(c, b, up)
    if data:
        b.sendall(data)
        say("sent")
        self.event.wait()
        gevent.sleep(0)
        c.sendall(b"got " + b.recv(100))
else:
    self.event.set()
    data = self._get_data(c, b, up)
    c.sendall(b"other got " + data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"?")
        assert receive(server, 1) == b"?"
        server.sendall(b"1")
        assert receive(client, 11) == b"other got 1"
        server.sendall(b"2")
        assert receive(client, 5) == b"got 2"


# Reading


def test_a_handler_that_does_not_read_is_called_again_and_loses_nothing(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
if self.calls % 4 == 0:
"""
        + textwrap.indent(PASS, "    "),
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for size in (1, 1000, 100_000):
            data = bytes(range(250)) * (size // 250 + 1)
            client.sendall(data[:size])
            assert receive(server, size) == data[:size]
            server.sendall(data[:size])
            assert receive(client, size) == data[:size]
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""


def test_what_a_handler_left_goes_to_the_handler_of_the_next_exchange(tmp_path: Path) -> None:
    # After 3 of 8 bytes it returns; it is called again for the rest.
    handler(
        tmp_path,
        """
data = (c if up else b).recv(3)
if data:
    (b if up else c).sendall(b"<" + data + b">")
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"12345678")
        assert receive(server, 14) == b"<123><456><78>"
        server.sendall(b"abcd")
        assert receive(client, 8) == b"<abc><d>"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""


def test_the_end_is_handed_over_once_to_each_side(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
say("up" if up else "down", data)
if data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"x")
        assert receive(server, 1) == b"x"
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        client.sendall(b"y")
        assert receive(server, 1) == b"y"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        assert vaurien.stop() == 0
        assert said(vaurien, "up") == ["b'x'", "b'y'", "b''"]
        assert said(vaurien, "down") == ["b''"]


def test_an_end_that_a_call_has_read_is_not_handed_over_again(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
say("up" if up else "down")
source, sink = (c, b) if up else (b, c)
while True:
    data = source.recv(100)
    if not data:
        assert source.recv(100) == b""
        break
    sink.sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"x")
        assert receive(server, 1) == b"x"
        client.sendall(b"y")
        assert receive(server, 1) == b"y"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.sendall(b"z")
        assert receive(client, 1) == b"z"
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert vaurien.stop() == 0
        assert said(vaurien, "up") == said(vaurien, "down") == [""]
        assert "Traceback" not in vaurien.text


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
def test_a_reset_of_the_client_is_read_as_its_end(tmp_path: Path, reading: bool) -> None:
    handler(
        tmp_path,
        f"""
while True:
    data = self._get_data(c, b, up)
    say("up" if up else "down", data)
    if not data or not {reading}:
        return
        """,
    )
    with Acceptor() as backend, own(backend, tmp_path, "Mine") as vaurien:
        client = vaurien.dial()
        with backend.accept() as server:
            client.sendall(b"x")
            assert wait_said(vaurien, "up") == ["b'x'"]
            reset(client)
            assert wait_said(vaurien, "up", 2) == ["b'x'", "b''"]
            with pytest.raises(ConnectionResetError):  # the backend sees what the client did
                server.recv(1)
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text
        assert "ERROR" not in vaurien.text


def test_a_timeout_set_on_a_lent_socket_holds_for_its_reads(
    tmp_path: Path, echo_backend: Backend
) -> None:
    handler(
        tmp_path,
        """
if up:
    data = self._get_data(c, b, up)
    if not data:
        return
    for sock in (c, b):
        sock.settimeout(0.05)
        try:
            sock.recv(100)
        except TimeoutError as error:
            say("timeout", type(error) is socket.timeout)
        assert sock.gettimeout() == 0.05
    c.setblocking(False)
    try:
        c.recv(100)
    except BlockingIOError:
        say("blocking")
    for sock in (c, b):
        sock.settimeout(None)
    b.sendall(data)
else:
    c.sendall(self._get_data(c, b, up))
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        assert exchange(client, b"hello") == b"hello"
        assert wait_said(vaurien, "blocking") == [""]
        assert said(vaurien, "timeout") == ["True", "True"]
        assert exchange(client, b"again") == b"again"


def test_a_timeout_set_on_a_lent_socket_ends_with_the_call(
    tmp_path: Path, echo_backend: Backend
) -> None:
    # Else one handler's setting would break the next one's sendall to a slow client.
    handler(
        tmp_path,
        """
if up:
    say("timeouts", c.gettimeout(), b.gettimeout())
"""
        + PASS
        + """
for sock in (c, b):
    sock.settimeout(0.05)
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        for _ in range(3):
            assert exchange(client, b"hello") == b"hello"
        assert wait_said(vaurien, "timeouts", 3) == ["None None"] * 3


# Writing


def test_a_timeout_set_on_a_lent_socket_holds_for_its_writes(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
if up and self._get_data(c, b, up):
    c.settimeout(0.1)
    try:
        c.sendall(b"x" * 50_000_000)
    except socket.timeout:
        say("timeout")
    return False
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        assert wait_said(vaurien, "timeout") == [""]


def test_a_non_blocking_send_takes_what_fits(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
if up and self._get_data(c, b, up):
    c.setblocking(False)
    n = 0
    try:
        while n < 100_000_000:
            n += c.send(b"x" * 100_000)
    except BlockingIOError:
        say("sent", n)
    c.setblocking(True)
    c.sendall(b"!")
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        n = int(wait_said(vaurien, "sent")[0])
        assert 0 < n < 100_000_000
        assert receive(client, n + 1) == b"x" * n + b"!"


@pytest.mark.parametrize(
    "writing",
    [
        "c.sendall(data)",
        "assert c.send(data) == len(data)",
        "c.sendall(bytearray(data))",
        "c.sendall(memoryview(data))",
        "c.sendmsg([data[:2], data[2:]])",
        'f = c.makefile("wb"); f.write(data); f.flush()',
        'c.sendall(b""); c.sendall(data)',
        "import io; c.sendfile(io.BytesIO(data))",
        "import array; c.sendall(array.array('B', data))",
    ],
)
def test_a_handler_writes_in_all_of_a_sockets_ways(tmp_path: Path, writing: str) -> None:
    handler(
        tmp_path,
        f"""
data = self._get_data(c, b, up)
if data:
    {writing}
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"hello") == b"hello"
        assert exchange(client, b"x" * 500_000) == b"x" * 500_000


# Ending


ENDS = {"fin": False, "rst": True}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("side", ["c", "b"])
def test_a_handlers_close_ends_the_connection(tmp_path: Path, side: str, how: str) -> None:
    linger = (
        f'{side}.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))'
        if ENDS[how]
        else "pass"
    )
    handler(
        tmp_path,
        f"""
{linger}
{side}.close()
say("closed", {side}.fileno())
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        before = vaurien.descriptors()
        client.sendall(b"x" * 100_000)
        closed, other = (client, server) if side == "c" else (server, client)
        if ENDS[how]:
            with pytest.raises(ConnectionResetError):
                receive_all(closed)
        else:
            assert_fin(closed)
        assert_fin(other)
        for sock in (client, server):
            sock.close()
        wait_for(lambda: vaurien.descriptors() == before - 2, "both descriptors are given back")
        assert wait_said(vaurien, "closed") == ["-1"]
        assert "Traceback" not in vaurien.text


def test_closing_a_file_of_a_socket_does_not_end_the_connection(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
with (c if up else b).makefile("rb", 0) as read, (b if up else c).makefile("wb", 0) as write:
    data = read.read(100)
    if data:
        write.write(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for _ in range(3):
            client.sendall(b"x")
            assert receive(server, 1) == b"x"
            server.sendall(b"y")
            assert receive(client, 1) == b"y"


def test_a_handler_half_closes_one_side(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if data == b"last":
    b.sendall(data)
    b.shutdown(socket.SHUT_WR)
elif data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"last")
        assert receive_all(server) == b"last"
        server.sendall(b"answer")
        assert receive(client, 6) == b"answer"
        server.sendall(b"and more")
        assert receive(client, 8) == b"and more"
        client.sendall(b"what nobody will read")
        server.shutdown(socket.SHUT_WR)
        assert_fin(client)


def test_a_handler_may_read_on_after_it_shut_down_both_sides(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if up and data:
    b.sendall(data)
    b.shutdown(socket.SHUT_WR)
    c.sendall(b"bye")
    c.shutdown(socket.SHUT_WR)
    drained = 0
    while data := b.recv(1000):
        drained += len(data)
    say("drained", drained)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"hello")
        assert receive(client, 3) == b"bye"
        assert_fin(client)
        assert receive_all(server) == b"hello"
        server.sendall(b"x" * 5000)
        server.shutdown(socket.SHUT_WR)
        assert wait_said(vaurien, "drained") == ["5000"]
        client.close()
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text


def test_a_handler_that_shuts_down_the_client_both_ways_ends_it(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
say("call")
c.shutdown(socket.SHUT_RDWR)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"hello")
        assert_fin(client)
        assert_fin(server)
        assert wait_said(vaurien, "call") == [""]


# Greenlets


def test_a_handler_spawns_greenlets_and_joins_them(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
def relay(source, sink):
    while data := source.recv(1000):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

say("call")
gevent.joinall([gevent.spawn(relay, c, b), gevent.spawn(relay, b, c)], raise_error=True)
say("joined")
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        for number in range(50):
            client.sendall(b"%2d" % number)
            assert receive(server, 2) == b"%2d" % number
            server.sendall(b"%2d" % -number)
            assert receive(client, len(b"%2d" % -number)) == b"%2d" % -number
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.sendall(b"late")
        assert receive(client, 4) == b"late"
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert wait_said(vaurien, "joined") == [""]
        assert wait_said(vaurien, "call") == [""]


def test_a_pool_of_a_handler_may_use_the_sockets(tmp_path: Path, echo_backend: Backend) -> None:
    handler(
        tmp_path,
        """
from gevent.pool import Pool
data = self._get_data(c, b, up)
if up and data:
    b.sendall(data)
    answer = Pool(3).apply(b.recv, (100,))
    Pool(3).map(c.sendall, [answer.upper()])
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        assert exchange(client, b"hello") == b"HELLO"


def test_a_worker_that_outlives_calls_may_serve_later_ones(
    tmp_path: Path, echo_backend: Backend
) -> None:
    # Spawned in the first call of the first connection, used by all.
    handler(
        tmp_path,
        """
from gevent.queue import Queue

def work():
    while True:
        sock, done = self.work.get()
        try:
            done.put(sock.recv(100))
        except Exception as error:
            done.put(repr(error).encode())

data = self._get_data(c, b, up)
if up and data:
    if not hasattr(self, "work"):
        self.work = Queue()
        gevent.spawn(work)
    b.sendall(data)
    done = Queue()
    self.work.put((b, done))
    c.sendall(done.get().upper())
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien:
        for _ in range(3):
            with vaurien.dial() as client:
                for _ in range(2):
                    assert exchange(client, b"hello") == b"HELLO"


OUTLIVING = {
    "recv": "sock.recv(1)",
    "recv_into": "sock.recv_into(bytearray(1))",
    "send": 'sock.send(b"stray")',
    "sendall": 'sock.sendall(b"stray")',
    "shutdown": "sock.shutdown(socket.SHUT_WR)",
    "makefile": 'sock.makefile("rb")',
}


@pytest.mark.parametrize("side", ["c", "b"])
@pytest.mark.parametrize("use", OUTLIVING)
def test_a_socket_used_after_the_call_returned_raises(
    tmp_path: Path, echo_backend: Backend, use: str, side: str
) -> None:
    handler(
        tmp_path,
        f"""
def late(sock):
    self.event.wait()
    try:
        {OUTLIVING[use]}
    except OSError as error:
        say("late", "OSError", error)
    else:
        say("late", "went through")

data = self._get_data(c, b, up)
if data == b"first":
    gevent.spawn(late, {side})
if data == b"second":
    gevent.spawn(self.event.set)
if data:
    (b if up else c).sendall(data)
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien, vaurien.dial() as client:
        assert exchange(client, b"first") == b"first"
        assert exchange(client, b"second") == b"second"
        assert wait_said(vaurien, "late")[0].startswith("OSError")
        assert exchange(client, b"third") == b"third"


@pytest.mark.parametrize("side", ["b", "c"])
def test_a_greenlet_that_still_reads_when_its_call_returns_steals_nothing(
    tmp_path: Path, side: str
) -> None:
    handler(
        tmp_path,
        f"""
def late():
    try:
        say("late", "got", {side}.recv(100))
    except OSError as error:
        say("late", "OSError")

data = self._get_data(c, b, up)
if data == b"first":
    gevent.spawn(late)
    gevent.sleep(0)  # it waits now
if data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"first")
        assert receive(server, 5) == b"first"
        for number in range(5):
            server.sendall(b"%d" % number)
            assert receive(client, 1) == b"%d" % number
            client.sendall(b"%d" % number)
            assert receive(server, 1) == b"%d" % number
        assert wait_said(vaurien, "late") == ["OSError"]


def test_a_greenlet_that_still_reads_from_a_chain_when_its_call_returns_is_told(
    tmp_path: Path, echo_backend: Backend
) -> None:
    handler(
        tmp_path,
        """
def late():
    try:
        say("late", "got", b.recv(100))
    except OSError as error:
        say("late", "OSError")

data = self._get_data(c, b, up)
if up and data:
    gevent.spawn(late)
    gevent.sleep(0)  # it waits now
    c.sendall(data)
        """,
    )
    with (
        own(echo_backend, tmp_path, "Mine", "--toxics", "latency latency=0 stream=both") as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"first") == b"first"
        assert wait_said(vaurien, "late") == ["OSError"]


def test_a_greenlet_that_still_waits_for_a_claim_when_its_call_returns_is_told(
    tmp_path: Path,
) -> None:
    handler(
        tmp_path,
        """
def late():
    try:
        say("late", "got", b.recv(100))
    except OSError as error:
        say("late", "OSError")

data = self._get_data(c, b, up)
if data == b"slow":
    say("slow")
    self.event.wait()
if data == b"claim":
    gevent.spawn(late)
    gevent.sleep(0)  # it waits now for the call on "slow"
if data == b"go on":
    self.event.set()
if data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"first")
        assert receive(server, 5) == b"first"
        server.sendall(b"slow")
        wait_said(vaurien, "slow")
        for word in (b"claim", b"go on"):
            client.sendall(word)
            assert receive(server, len(word)) == word
        assert receive(client, 4) == b"slow"
        server.sendall(b"next")
        assert receive(client, 4) == b"next"
        assert wait_said(vaurien, "late") == ["OSError"]


def test_a_greenlet_that_still_sends_when_its_call_returns_is_not_torn(tmp_path: Path) -> None:
    # Begun within the call, so it may end; but no other writer's bytes come between.
    size = 20 * MB
    handler(
        tmp_path,
        f"""
def late():
    try:
        c.sendall(b"h" * {size} + b".")
    except OSError:
        pass
    say("late")

data = self._get_data(c, b, up)
if data == b"first":
    gevent.spawn(late)
    gevent.sleep(0)  # it sends now
if data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"first")
        assert receive(server, 5) == b"first"
        server.sendall(b"answer")
        assert receive(client, size + 1 + 6) == b"h" * size + b"." + b"answer"
        wait_said(vaurien, "late")


def test_a_socket_of_another_connection_raises(tmp_path: Path, echo_backend: Backend) -> None:
    # Kept by the call on one connection, used by a call on another: no call of its own runs.
    handler(
        tmp_path,
        """
data = self._get_data(c, b, up)
if data == b"keep":
    self.kept = c
if data == b"use":
    for use in (lambda: self.kept.sendall(b"stray"), lambda: self.kept.recv(1)):
        try:
            with gevent.Timeout(1, ValueError("it was lent")):
                use()
            say("went through")
        except OSError:
            say("OSError")
        except ValueError as error:
            say(error)
if data:
    (b if up else c).sendall(data)
        """,
    )
    with (
        own(echo_backend, tmp_path, "Mine") as vaurien,
        vaurien.dial() as first,
        vaurien.dial() as second,
    ):
        assert exchange(first, b"keep") == b"keep"
        second.sendall(b"use")
        assert wait_said(vaurien, "OSError", 2)
        assert exchange(first, b"mine") == b"mine"


def test_a_call_ends_with_its_connection(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
try:
    say("waits")
    Event().wait()
finally:
    say("ended")
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine", "--timeout", 0.3) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        wait_said(vaurien, "waits")
        assert_fin(client)
        assert wait_said(vaurien, "ended") == [""]
        assert "Traceback" not in vaurien.text


@pytest.mark.parametrize("toxics", [(), ("--toxics", "latency latency=0 stream=both")])
@pytest.mark.parametrize("doing", ["c.recv(1)", "b.recv(1)", 'c.sendall(b"x" * 50_000_000)'])
def test_a_greenlet_of_a_call_ends_with_its_connection(
    tmp_path: Path, doing: str, toxics: tuple[str, ...]
) -> None:
    handler(
        tmp_path,
        f"""
def work():
    try:
        {doing}
    except OSError:
        pass
    finally:
        say("ended")

if up:
    self._get_data(c, b, up)
    gevent.spawn(work).join()
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine", "--timeout", 0.3, *toxics) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        assert wait_said(vaurien, "ended") == [""]
        assert "Traceback" not in vaurien.text


def test_an_exit_of_a_handler_that_swallows_all_ends_all_the_same(tmp_path: Path) -> None:
    handler(
        tmp_path,
        """
try:
    say("waits")
    Event().wait()
except:
    say("swallowed")
try:
    c.sendall(b"more")
except OSError as error:
    say("refused")
        """,
    )
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Mine", "--timeout", 0.3) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"x")
        wait_said(vaurien, "swallowed")
        wait_said(vaurien, "refused")
        assert_fin(client)


def test_nothing_is_left_of_many_connections_that_were_lent(
    tmp_path: Path, echo_backend: Backend
) -> None:
    handler(
        tmp_path,
        PASS
        + """
if data == b"objects":
    import gc
    from vaurien.relay.connection import Connection
    gc.collect()
    say("objects", sum(isinstance(thing, Connection) for thing in gc.get_objects()))
        """,
    )
    with own(echo_backend, tmp_path, "Mine") as vaurien:
        before = vaurien.descriptors()
        for number in range(60):
            client = vaurien.dial()
            assert exchange(client, b"hello") == b"hello"
            reset(client) if number % 3 == 0 else client.close()
        wait_for(lambda: vaurien.descriptors() == before, "all descriptors are given back")
        with vaurien.dial() as client:
            exchange(client, b"objects")
            assert int(wait_said(vaurien, "objects")[0]) == 1


def test_the_pump_goes_on_after_the_sockets_were_lent(
    tmp_path: Path, echo_backend: Backend
) -> None:
    handler(tmp_path, PASS)
    with (
        proxy(echo_backend, "--behavior", "30:own.Mine", "--seed", 3, cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
    ):
        for number in range(300):
            word = b"%d" % number * 100
            assert exchange(client, word) == word
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert tcp_state(client) != CLOSE_WAIT
