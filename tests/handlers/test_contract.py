"""The contract of handlers, word for word: ``writing-handlers.rst`` and the issue's list."""

from __future__ import annotations

import socket
import textwrap
import time
from pathlib import Path

import pytest

from tests.laws.helpers import (
    Acceptor,
    assert_fin,
    own,
    said,
    threads,
    wait_said,
    write_module,
)
from tests.support import CONTRACT, PATIENCE, Backend, exchange, proxy, receive

ALMOST_A_SECOND = 0.95  # what a delay of 1 takes at least, by another process's clock


def write_delay(directory: Path) -> None:
    """Write the contract's example into a user's package, with nothing but its import before it."""
    package = directory / "path" / "to"
    package.mkdir(parents=True)
    (package / "the.py").write_text("import gevent\n" + CONTRACT)


def delayed(sock: socket.socket, word: bytes) -> float:
    """How long an exchange takes."""
    begun = time.monotonic()
    assert exchange(sock, word) == word
    return time.monotonic() - begun


def test_the_contracts_example_runs_by_dotted_path(tmp_path: Path, echo_backend: Backend) -> None:
    write_delay(tmp_path)
    behavior = ("--behavior", "100:path.to.the.Delay", "--handlers.delay.sleep", "1")
    with (
        proxy(echo_backend, *behavior, cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
        vaurien.dial() as other,
        threads() as pool,
    ):
        both = pool.submit(delayed, other, b"other")
        assert delayed(client, b"hello") >= ALMOST_A_SECOND
        assert delayed(client, b"again") >= ALMOST_A_SECOND  # the connection is kept alive
        assert both.result(PATIENCE) >= ALMOST_A_SECOND


def test_the_contracts_example_runs_from_an_ini_file(tmp_path: Path, echo_backend: Backend) -> None:
    write_delay(tmp_path)
    (tmp_path / "config.ini").write_text(
        textwrap.dedent(
            """\
            [vaurien]
            behavior = 100:foobar

            [handler:foobar]
            callable = path.to.the.Delay
            sleep=1
            """
        )
    )
    with (
        proxy(echo_backend, "--config", "config.ini", cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
    ):
        for _ in range(2):
            assert delayed(client, b"hello") >= ALMOST_A_SECOND


@pytest.mark.parametrize("before", ["yes", "no"])
def test_the_contracts_example_delays_the_side_it_is_told(tmp_path: Path, before: str) -> None:
    write_delay(tmp_path)
    with (
        Acceptor() as backend,
        proxy(
            backend,
            "--behavior",
            "100:path.to.the.Delay",
            f"--handlers.delay.before={before}",
            cwd=tmp_path,
        ) as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        begun = time.monotonic()
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        arrived = time.monotonic()
        server.sendall(b"answer")
        assert receive(client, 6) == b"answer"
        ended = time.monotonic()
        slow, fast = arrived - begun, ended - arrived
        if before == "no":
            slow, fast = fast, slow
        assert slow >= ALMOST_A_SECOND
        assert slow > fast


def test_the_contracts_example_lets_a_keep_alive_connection_half_close(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_delay(tmp_path)
    behavior = ("--behavior", "100:path.to.the.Delay", "--handlers.delay.sleep", "0")
    with (
        proxy(echo_backend, *behavior, cwd=tmp_path) as vaurien,
        vaurien.dial() as client,
    ):
        for number in range(100):
            word = b"%d" % number
            assert exchange(client, word) == word
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


OPTIONS = """
class Telling(BaseHandler):
    name = "telling"
    options = {
        "speed": ("How fast", int, 3),
        "sleep": ("How long", float, 1),
        "loud": ("Whether loud", bool, False),
        "word": ("What to say", str, "hello"),
        "mode": ("In which way", str, "slow", ("slow", "fast")),
        "under_score": ("With a line in its name", int, 1),
    }

    def __init__(self, settings, proxy):  # does not call super's
        self.given = settings, proxy

    def __call__(self, client_sock, backend_sock, to_backend):
        if to_backend and self._get_data(client_sock, backend_sock, to_backend):
            for name in type(self).options:
                assert self.options(name) == self.option(name)
                say("option", name, repr(self.options(name)))
            say("class", type(self).options["speed"])
            settings, proxy = self.given
            say("settings", settings["speed"], settings["word"])
            say("proxy", proxy.name)
            for ask in (self.options, self.option):
                try:
                    ask("sped")
                except Exception as error:
                    say("error", type(error).__name__, error)
            say("done")


class Calling(Telling):
    def __init__(self, settings, proxy):
        super().__init__(settings, proxy)
        say("early", repr(self.options("speed")))


class Uninherited:
    name = "uninherited"
    options = {"speed": ("How fast", int, 3), "word": ("What to say", str, "hello")}

    def __init__(self, settings, proxy):
        self.settings, self.proxy = settings, proxy

    def __call__(self, client_sock, backend_sock, to_backend):
        source, sink = (client_sock, backend_sock) if to_backend else (backend_sock, client_sock)
        data = source.recv(1000)
        if data:
            sink.sendall(data)
        say("settings", repr(self.settings["speed"]), self.settings["word"], self.proxy.name)


class Defaults(BaseHandler):
    name = "defaults"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        say("settings", dict(self.settings), self.proxy.name, self.options)
"""


def tell(directory: Path, backend: Backend, cls: str, *arguments: object) -> dict[str, str]:
    """The options as the handler sees them."""
    with own(backend, directory, cls, *arguments) as vaurien, vaurien.dial() as client:
        client.sendall(b"?")
        wait_said(vaurien, "done")
        options = dict(line.split(" ", 1) for line in said(vaurien, "option"))
        assert said(vaurien, "class") == ["('How fast', <class 'int'>, 3)"]
        assert said(vaurien, "settings") == [f"{options['speed']} {options['word'][1:-1]}"]
        assert said(vaurien, "proxy") == ["default"]
        assert all("sped" in line for line in said(vaurien, "error"))
        assert len(said(vaurien, "error")) == 2
        return options


def test_options_have_their_defaults_converted(tmp_path: Path, echo_backend: Backend) -> None:
    write_module(tmp_path, OPTIONS)
    assert tell(tmp_path, echo_backend, "Telling") == {
        "speed": "3",
        "sleep": "1.0",
        "loud": "False",
        "word": "'hello'",
        "mode": "'slow'",
        "under_score": "1",
    }


def test_options_from_the_command_line_are_converted(tmp_path: Path, echo_backend: Backend) -> None:
    write_module(tmp_path, OPTIONS)
    arguments = (
        "--handlers.telling.speed=7",
        "--handlers.telling.sleep",
        "2",
        "--handlers.telling.loud",
        "on",
        "--handlers.telling.word",
        "7",
        "--handlers.telling.mode",
        "fast",
        "--handlers.telling.under-score",
        "-5",
    )
    assert tell(tmp_path, echo_backend, "Telling", *arguments) == {
        "speed": "7",
        "sleep": "2.0",
        "loud": "True",
        "word": "'7'",
        "mode": "'fast'",
        "under_score": "-5",
    }


def test_options_from_an_ini_file_are_converted(tmp_path: Path, echo_backend: Backend) -> None:
    write_module(tmp_path, OPTIONS)
    (tmp_path / "vaurien.ini").write_text(
        "[vaurien]\n[handler:telling]\ncallable = own.Telling\nspeed = 007\nsleep = 1.10\n"
        "loud = yes\nword = 1.10\nmode = fast\nunder_score = 2\n"
    )
    with (
        proxy(
            echo_backend,
            "--config",
            "vaurien.ini",
            "--behavior",
            "100:telling",
            cwd=tmp_path,
        ) as vaurien,
        vaurien.dial() as client,
    ):
        client.sendall(b"?")
        wait_said(vaurien, "done")
        assert said(vaurien, "option") == [
            "speed 7",
            "sleep 1.1",
            "loud True",
            "word '1.10'",
            "mode 'fast'",
            "under_score 2",
        ]


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("no", False)])
def test_a_bool_is_converted_from_words(
    tmp_path: Path, echo_backend: Backend, text: str, value: bool
) -> None:
    write_module(tmp_path, OPTIONS)
    options = tell(tmp_path, echo_backend, "Telling", "--handlers.telling.loud", text)
    assert options["loud"] == str(value)


def test_options_are_there_within_an_init_that_calls_super(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, OPTIONS)
    with own(echo_backend, tmp_path, "Calling", "--handlers.telling.speed", 9) as vaurien:
        assert wait_said(vaurien, "early") == ["9"]


def test_a_class_that_inherits_nothing_is_a_handler(tmp_path: Path, echo_backend: Backend) -> None:
    write_module(tmp_path, OPTIONS)
    with (
        own(echo_backend, tmp_path, "Uninherited", "--handlers.uninherited.speed", 8) as vaurien,
        vaurien.dial() as client,
    ):
        assert exchange(client, b"hello") == b"hello"
        assert wait_said(vaurien, "settings")[0] == "8 hello default"


def test_a_handler_without_options_has_settings_and_proxy_too(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, OPTIONS)
    with own(echo_backend, tmp_path, "Defaults") as vaurien, vaurien.dial() as client:
        client.sendall(b"?")
        assert wait_said(vaurien, "settings")[0] == "{} default {}"


CALLS = """
class Watching(BaseHandler):
    name = "watching"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        say(
            "up" if to_backend else "down",
            type(data).__name__,
            len(data),
            isinstance(client_sock, gevent.socket.socket),
            isinstance(backend_sock, gevent.socket.socket),
            type(to_backend).__name__,
        )
        if data:
            say("sides", client_sock.getpeername()[1], backend_sock.getpeername()[1])
            (backend_sock if to_backend else client_sock).sendall(data)


class Returning(BaseHandler):
    name = "returning"
    options = {}

    def __call__(self, client_sock, backend_sock, to_backend):
        data = self._get_data(client_sock, backend_sock, to_backend)
        if data:
            (backend_sock if to_backend else client_sock).sendall(data)
        return eval(data) if to_backend and data else None
"""


def test_the_sockets_are_the_sides_they_are_called(tmp_path: Path) -> None:
    write_module(tmp_path, CALLS)
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Watching") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        sides = f"{client.getsockname()[1]} {backend.port}"
        for _ in range(3):
            client.sendall(b"request")
            assert receive(server, 7) == b"request"
            server.sendall(b"answer")
            assert receive(client, 6) == b"answer"
        assert wait_said(vaurien, "sides", 6) == [sides] * 6
        assert said(vaurien, "up") == ["bytes 7 True True bool"] * 3
        assert said(vaurien, "down") == ["bytes 6 True True bool"] * 3


def test_the_end_of_a_side_is_read_as_no_bytes_once(tmp_path: Path) -> None:
    write_module(tmp_path, CALLS)
    with (
        Acceptor() as backend,
        own(backend, tmp_path, "Watching") as vaurien,
        vaurien.dial() as client,
        backend.accept() as server,
    ):
        client.sendall(b"request")
        assert receive(server, 7) == b"request"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.sendall(b"answer")
        assert receive(client, 6) == b"answer"
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert vaurien.stop() == 0
        for way, sizes in (("up", ["7", "0"]), ("down", ["6", "0"])):
            assert [line.split()[1] for line in said(vaurien, way)] == sizes


def test_a_handler_that_returns_false_ends_the_connection(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, CALLS)
    with own(echo_backend, tmp_path, "Returning") as vaurien, vaurien.dial() as client:
        client.sendall(b"False")
        while client.recv(100):  # whatever of the answer came before the end
            pass
        assert_fin(client)


def test_a_handler_that_returns_anything_else_goes_on(
    tmp_path: Path, echo_backend: Backend
) -> None:
    write_module(tmp_path, CALLS)
    values = (b"None", b"0", b"0.0", b"''", b"'nonsense'", b"[]", b"True", b"NotImplemented")
    with own(echo_backend, tmp_path, "Returning") as vaurien:
        with vaurien.dial() as client:
            for value in values * 2:
                assert exchange(client, value) == value
        assert vaurien.stop() == 0
        assert "Traceback" not in vaurien.text
