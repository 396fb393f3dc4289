"""What cannot be about messages is refused before anything listens, in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.lines import Busy, Lines
from tests.relay.rig import Served, builtin, specification
from tests.support import Backend, dial, exchange, run
from vaurien import ClientError, MessageHandler, registry, start_proxy
from vaurien.address import parse as address
from vaurien.behavior import parse as behavior
from vaurien.errors import UsageError
from vaurien.plan import Plan, Specification, Toxic

BUSY = specification(Busy)


def plan(text: str, *specs: Specification, protocol: str = "tests.lines.Lines", **kw: Any) -> Plan:
    """A plan of that behavior."""
    return Plan(
        local=address("127.0.0.1:0", "test"),
        distant=address("127.0.0.1:9", "test"),
        behavior=behavior(text, "test"),
        handlers={one.name: one for one in specs},
        seed=1,
        protocol=protocol,
        **kw,
    )


def refused(what: str, *words: str) -> None:
    """It is one sentence, with all of these in it."""
    assert "\n" not in what and all(word in what for word in words), what


def test_a_message_handler_under_tcp() -> None:
    with pytest.raises(UsageError) as caught:
        plan("20:busy", BUSY, protocol="tcp")
    refused(str(caught.value), "behavior", "'busy'", "'tcp'", "--protocol")


def test_a_message_handler_under_tcp_by_the_command_line() -> None:
    done = run("--behavior", "20:tests.lines.Busy", "--distant", "127.0.0.1:9", "--check")
    assert done.returncode == 2
    refused(done.stderr.strip(), "--behavior", "'busy'", "'tcp'", "--protocol")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http", ["'http'", "'tcp'", "package.module.Class"]),
        ("no.such.Framer", ["'no.such.Framer'", "No module named 'no'", "dotted path"]),
        ("tests.lines.Nothing", ["'tests.lines.Nothing'", "no attribute 'Nothing'"]),
        ("tests.lines.KEPT", ["'tests.lines.KEPT'", "not callable"]),
        ("tests.lines.deque", ["'tests.lines.deque'", "feed()", "instead()"]),
    ],
)
def test_a_protocol_that_is_none(name: str, words: list[str]) -> None:
    done = run("--protocol", name, "--distant", "127.0.0.1:9", "--check")
    assert done.returncode == 2
    refused(done.stderr.strip(), "--protocol", *words)


def test_a_protocol_by_its_path() -> None:
    assert registry.framer("tests.lines.Lines", "test") is Lines
    assert registry.framer("tcp", "test") is None
    done = run("--protocol", "tests.lines.Lines", "--distant", "127.0.0.1:9", "--check")
    assert done.returncode == 0 and "tests.lines.Lines" in done.stdout


def test_a_change_to_a_protocol_that_is_none_changes_nothing(echo_backend: Backend) -> None:
    given = plan("100:dummy")
    given = replace(given, distant=address(echo_backend.address, "test"))
    with Served(given) as served:
        with pytest.raises(UsageError, match=r"no\.Such"):
            served.loop.call(served.proxy.change, replace(given, protocol="no.Such"))
        assert served.proxy.plan is given
        served.loop.call(served.proxy.change, replace(given, protocol="tcp"))
        with served.dial() as client:
            client.sendall(b"no line")
            assert client.recv(10) == b"no line"


def test_a_message_handler_in_a_toxic() -> None:
    with pytest.raises(UsageError, match=r"busy.* is not a flow handler"):
        Toxic(BUSY)


def test_a_message_handler_that_is_to_meet_clients() -> None:
    with pytest.raises(UsageError) as caught:
        plan("100:dummy", BUSY, on_connect=behavior("20:busy", "test"))
    refused(str(caught.value), "on_connect", "'busy'", "--behavior")


def test_a_message_handler_behind_a_socket_handler() -> None:
    error = builtin("error")
    plan("20:busy+error", BUSY, error)
    plan("20:busy+latency", BUSY, builtin("latency"))
    plan("20:latency+busy+error", BUSY, builtin("latency"), error)
    with pytest.raises(UsageError) as caught:
        plan("20:error+busy", BUSY, error)
    refused(str(caught.value), "behavior", "'error+busy'", "'error'", "last")


class Unwritten(MessageHandler):
    name = "unwritten"


class Odd(MessageHandler):
    name = "odd"

    def __init__(self) -> None:
        pass

    def on_request(self, request: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("cls", "words"),
    [(Unwritten, ["on_request(self, request)"]), (Odd, ["__init__", "(options, proxy)"])],
)
def test_a_class_that_is_no_message_handler(cls: type, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        registry.check(cls, "--behavior", "own.Class")
    refused(str(caught.value), "--behavior", "'own.Class'", *words)


def test_a_message_handler_is_one() -> None:
    assert registry.check(Busy, "test", "busy") is Busy
    assert registry.kind(Busy) == "message"
    assert repr(Busy({"text": "x"})) == "<Busy 'busy' text=x early=no>"
    done = run("--behavior", "1:tests.lines.Busy", "--protocol", "tests.lines.Lines", "--check")
    assert done.returncode == 0, done.stderr


def test_a_request_names_no_path_of_a_protocol(echo_backend: Backend) -> None:
    """But it may pick a message handler that is configured, where the protocol has messages."""
    with start_proxy(
        distant=echo_backend.address,
        local="127.0.0.1:0",
        protocol="tests.lines.Lines",
        behavior="0:tests.lines.Busy",
        handlers={"busy": {"text": "so busy"}},
    ) as running:
        client = running.client
        with pytest.raises(ClientError, match=r"'tests\.lines\.Lines' is not a protocol"):
            client.create("b", "127.0.0.1:0", echo_backend.address, protocol="tests.lines.Lines")
        with dial(running.address) as sock:
            assert exchange(sock, b"one\n") == b"one\n"
            client.set_behavior("100:busy")
            assert exchange(sock, b"two\n", 8) == b"so busy\n"
        client.create("plain", "127.0.0.1:0", echo_backend.address)
        with pytest.raises(ClientError, match="'busy' decides about requests"):
            client.set_behavior("100:busy", proxy="plain")
        assert {"busy"} <= {one["name"] for one in client.list_handlers()}
