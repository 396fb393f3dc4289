"""What "Safe." of the control API promises, each promise tried: whom it lets in, and what it bears.

Law of these tests: a request that is refused has changed nothing, nothing in the log is a fault of
the program, and proxies go on.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.cli.helpers import refused
from tests.control.served import Answer, Api, Served, assert_quiet, connected, statuses, whatever
from tests.laws.helpers import MB, Flood, digest_of, has_ipv6, threads, unused_port
from tests.rivals.differences import differs
from tests.support import (
    PATIENCE,
    Backend,
    clients,
    dial,
    echo,
    exchange,
    resident,
    wait_for,
)
from vaurien import address
from vaurien.control import http
from vaurien.errors import ListenError, UsageError
from vaurien.options import Raw
from vaurien.settings import resolve

TOKEN = "s3cret-Token.of~this/test+="
BEARER = {"Authorization": f"Bearer {TOKEN}"}

Request = tuple[str, str, Any]  # method, path, body

#: A request of each kind that changes something: method, path, body.
CHANGES: list[Request] = [
    ("POST", "/handler", {"name": "delay", "sleep": 2}),
    ("POST", "/behavior", {"behavior": "50:delay"}),
    ("POST", "/proxies/default/behavior", {"on_connect": "100:refuse"}),
    ("POST", "/proxies/default/disable", {}),
    ("POST", "/proxies/default/enable", {"ttl": 1}),
    ("POST", "/proxies", {"name": "other", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}),
    ("POST", "/populate", [{"name": "other", "listen": "", "upstream": "127.0.0.1:9"}]),
    ("POST", "/proxies/default", {"enabled": False}),
    ("PATCH", "/proxies/default", {"enabled": False}),
    ("POST", "/proxies/default/toxics", {"type": "latency"}),
    ("POST", "/proxies/default/toxics/noop_downstream", {"toxicity": 0.5}),
    ("DELETE", "/proxies/default/toxics/noop_downstream", None),
    ("DELETE", "/proxies/default", None),
    ("DELETE", "/proxies/default/connections", None),
    ("DELETE", "/connections", None),
    ("POST", "/proxies/default/reset", None),
    ("POST", "/reset", None),
    ("POST", "/reload", None),
]
#: Requests that only tell something.
LOOKS = [
    "/proxies", "/proxies/default", "/proxies/default/toxics", "/version", "/handlers", "/handler",
    "/behavior", "/state", "/proxies/default/state", "/connections", "/journal", "/events",
    "/openapi.json", "/there/is/no/such/path",
]  # fmt: skip
OPEN = ["/health", "/metrics"]  # to everybody


class Guarded(Served):
    """One before an echoing backend, with a client that must not notice anything."""

    def __enter__(self) -> Guarded:
        self._stack = contextlib.ExitStack()
        self.echoes = self._stack.enter_context(Backend(echo))
        self.arguments += ["--distant", self.echoes.address, "--local", "127.0.0.1:0"]
        if "--toxics" not in self.arguments:
            self.arguments += ["--toxics", "noop"]
        super().__enter__()
        self.api.prompt = 10  # how prompt it is, `test_bad_days.py` tells
        self.client = self._stack.enter_context(self.dial())
        self.assert_goes_on()
        self.before = self.api.all()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._stack.close()

    def assert_goes_on(self) -> None:
        """Proxies go on: an open connection and a new one."""
        assert exchange(self.client, b"still") == b"still"
        with self.dial() as client:
            assert exchange(client, b"anew") == b"anew"

    def assert_untouched(self) -> None:
        """Nothing has changed, and nobody was dropped."""
        assert self.api.all() == self.before
        self.assert_goes_on()


@pytest.fixture(scope="module")
def plain() -> Iterator[Guarded]:
    """On loopback, without a token."""
    with Guarded() as vaurien:
        yield vaurien


@pytest.fixture(autouse=True)
def _restored(request: pytest.FixtureRequest) -> None:
    """What a test that failed has left behind does not make others fail."""
    if "plain" in request.fixturenames:
        vaurien: Guarded = request.getfixturevalue("plain")
        if vaurien.api.all() != vaurien.before:
            put_right(vaurien)


@pytest.fixture(scope="module")
def closed() -> Iterator[Guarded]:
    """On loopback, with a token."""
    with Guarded("--http-token", TOKEN, headers=BEARER) as vaurien:
        yield vaurien


def ask(api: Api, *requests: Request, **headers: str) -> list[Answer]:
    """Requests with headers of their own, ``Sec_Fetch_Site`` for ``Sec-Fetch-Site``."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return [api.call(method, path, body, names) for method, path, body in requests]


def everything() -> list[Request]:
    """All requests, but those that are open to everybody."""
    return [*(("GET", path, None) for path in LOOKS), *CHANGES]


def all_refused(vaurien: Guarded, status: int, **headers: str) -> None:
    """Whatever is asked with these headers is refused, and nothing has changed."""
    for answer in ask(vaurien.api, *everything(), **headers):
        assert answer.status == status, (headers, answer)
        assert answer.error
    vaurien.assert_untouched()


def let_in(vaurien: Guarded, **headers: str) -> None:
    """Requests with these headers are answered."""
    requests: list[Request] = [("GET", "/proxies", None), ("POST", "/proxies/default/enable", {})]
    for answer in ask(vaurien.api, *requests, **headers):
        assert answer.status == 200, (headers, answer)


# Where it listens, and tokens


def test_on_loopback_it_needs_no_token(plain: Guarded) -> None:
    host, _, _ = plain.api.address.rpartition(":")
    assert host in ("127.0.0.1", "[::1]")
    let_in(plain)


def test_without_a_token_it_refuses_to_start_elsewhere() -> None:
    port, api = unused_port(), unused_port()
    given = ["--http-host", "0.0.0.0", "--distant", "127.0.0.1:9", "--local", f"127.0.0.1:{port}"]
    for more in (["--http", "--http-port", api], ["--toxiproxy", "--toxiproxy-port", api]):
        sentence = refused(*given, *more)
        assert "--http-host" in sentence and "--http-token" in sentence
    env = {"VAURIEN_HTTP": "yes", "VAURIEN_HTTP_HOST": "0.0.0.0", "VAURIEN_HTTP_PORT": f"{api}"}
    assert "VAURIEN_HTTP_HOST" in refused(env=env)
    for number in (port, api):
        with pytest.raises(ConnectionRefusedError):
            dial(("127.0.0.1", number))


def refusal(settings: dict[str, str]) -> str:
    """The sentence with which settings of the command line are refused, without a process."""
    raws = {name: Raw(value, f"--{name}") for name, value in settings.items()}
    with pytest.raises(UsageError) as caught:
        resolve({"http": Raw("yes", "--http"), **raws}, [], {})
    return str(caught.value)


@pytest.mark.parametrize(
    "host", ["::", "[::]", "127.0.0.1.evil.example", "192.0.2.1", "2130706433.example", "0"]
)
def test_no_address_elsewhere_does_without_a_token(host: str) -> None:
    for more in ({}, {"toxiproxy": "yes"}, {"http-allowed-host": "localhost"}):
        sentence = refusal({"http-host": host, **more})
        assert "--http-host" in sentence and "--http-token" in sentence


def test_a_host_that_does_not_resolve_is_told_of_its_setting() -> None:
    given = ("--http", "--http-host", "no.such.host.invalid", "--http-token", TOKEN)
    sentence = refused(*given, code=1)
    assert sentence.startswith(
        "vaurien: --http-host: 'no.such.host.invalid:8080' does not resolve ("
    )
    assert "--local" not in sentence


def test_neither_the_file_nor_half_a_token_opens_it(tmp_path: Path) -> None:
    ini = tmp_path / "vaurien.ini"
    ini.write_text("[vaurien]\nhttp = yes\nhttp_host = 0.0.0.0\nhttp_port = 0\n")
    assert "http_host" in refusal({"config": str(ini)})
    for token in ("", "two words", "t\u00f6ken", " "):
        assert "--http-token" in refusal({"http-host": "0.0.0.0", "http-token": token})
    for bad in (tmp_path / "missing", tmp_path, os.devnull):
        assert str(bad) in refusal({"http-host": "0.0.0.0", "http-token-file": str(bad)})


def test_a_token_comes_by_environment_or_by_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    ini = tmp_path / "vaurien.ini"
    ini.write_text(f"[vaurien]\nhttp_token = {TOKEN}\n")
    ways: list[tuple[list[object], dict[str, str]]] = [
        ([], {"VAURIEN_HTTP_TOKEN": TOKEN}),
        (["--http-token-file", file], {}),
        (["--config", ini], {}),
    ]
    for arguments, env in ways:
        with Served("--http-host", "0.0.0.0", *arguments, env=env) as vaurien:
            api = vaurien.api
            assert api.call("GET", "/proxies").status == 401
            assert api.call("GET", "/proxies", headers=BEARER).status == 200
            assert api.call("GET", "/health").status == 200
            assert TOKEN not in vaurien.text + "".join(vaurien.output)


def test_a_wrong_token_is_none(closed: Guarded) -> None:
    api = closed.api
    assert api.call("GET", "/proxies").status == 200
    api.headers.clear()
    try:
        for shown in (
            None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
            f"Bearer {TOKEN.swapcase()}", f"Bearer {TOKEN.upper()}", f"Basic {TOKEN}", TOKEN,
            f"Bearer{TOKEN}", f"Bearer {TOKEN} {TOKEN}", f"Bearer {TOKEN}, Bearer x",
            f'Bearer "{TOKEN}"', "Bearer none", "Bearer None", "Bearer null", f"Token {TOKEN}",
            f"Bearer x{TOKEN}", "Bearer t\u00f6ken", "Bearer \u00ff\u00fe", f"Bearer {TOKEN}\u00e9",
            "\u00e9", "Bearer " + "x" * 5000, f"Bearer\t{TOKEN}\u00a0x",
        ):  # fmt: skip
            headers = {} if shown is None else {"Authorization": shown}
            for method, path, body in (("GET", "/proxies", None), ("POST", "/reset", None)):
                answer = api.call(method, path, body, headers)
                assert answer.status == 401, (shown, answer)
                assert TOKEN not in answer.error
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for answer in ask(api, *everything()):
            assert answer.status == 401, answer
    finally:
        api.headers.update(BEARER)
    closed.assert_untouched()


def test_the_scheme_may_be_in_any_case_and_the_token_may_not(closed: Guarded) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        let_in(closed, Authorization=f"{scheme} {TOKEN}")
    all_refused(closed, 401, Authorization=f"Bearer {TOKEN.lower()}")


def test_health_and_metrics_need_no_token_and_nothing_else_goes_with_them(closed: Guarded) -> None:
    closed.api.headers.clear()
    try:
        for path in OPEN:
            assert closed.api.call("GET", path).status == 200
            for method in ("POST", "DELETE", "PUT"):
                assert closed.api.call(method, path, {}).status in (401, 405)
        for path in (
            "/health/../proxies", "/health/%2e%2e/proxies", "//health", "/metrics/", "/health/",
            "/HEALTH", "/health;/proxies", "/health%00", "/proxies?/health", "/proxies#/health",
        ):  # fmt: skip
            answer = closed.api.call("GET", path)
            assert answer.status in (400, 401, 404), (path, answer)
            assert b"listen" not in answer.body
    finally:
        closed.api.headers.update(BEARER)
    closed.assert_untouched()


def test_token_none_opens_it_knowingly() -> None:
    with Guarded("--http-host", "0.0.0.0", "--http-token", "none") as vaurien:
        let_in(vaurien)
        let_in(vaurien, Host="chaos.example:8080")  # whoever opens it has names for it
        let_in(vaurien, Authorization="Bearer whatever")
        all_refused(vaurien, 403, Origin="http://evil.example")
        all_refused(vaurien, 403, Host="evil.example", Origin="http://evil.example")
        all_refused(vaurien, 403, Sec_Fetch_Site="cross-site")


# Web pages


@differs("host")
def test_only_names_of_this_machine_are_answered(plain: Guarded) -> None:
    port = plain.api.address.rpartition(":")[2]
    for host in (
        "127.0.0.1", f"127.0.0.1:{port}", "[::1]", f"[::1]:{port}", "localhost",
        f"localhost:{port}", f"LocalHost:{port}", "LOCALHOST", "sub.localhost", "localhost.",
        f"sub.localhost.:{port}", "127.8.9.10", "localhost:1",
    ):  # fmt: skip
        let_in(plain, Host=host)
    for host in (
        "evil.example", f"evil.example:{port}", "EVIL.EXAMPLE.", "localhost.evil.example",
        "127.0.0.1.evil.example", "evillocalhost", "notlocalhost.", "192.0.2.1", "0.0.0.0",
        f"0.0.0.0:{port}", "[2001:db8::1]", f"[::]:{port}", "10.0.0.1", "localhost.localdomain",
        "xn--localhost-", "l\u00f6calhost",
    ):  # fmt: skip
        for answer in ask(plain.api, ("GET", "/proxies", None), *CHANGES, Host=host):
            assert answer.status in ((403,) if host.isascii() else (400, 403)), (host, answer)
    plain.assert_untouched()


def test_a_host_that_is_no_host_is_refused(plain: Guarded) -> None:
    for host in (
        "", " ", ":", ":80", "[", "]", "[::1", "::1]", "[]", "[::1]]", "[127.0.0.1", ".", "..",
        "evil.example@127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1/evil.example",
        "localhost#evil.example", "localhost?evil.example", "evil.example#localhost",
        "localhost,evil.example", "localhost evil.example", "http://localhost", "//localhost",
        "localhost:port", "localhost:99999999", "localhost:-1", "localhost\\evil.example",
        "\u00ff\u00fe", "%6cocalhost", "localhost%00.evil.example", "x" * 5000,
    ):  # fmt: skip
        for answer in ask(
            plain.api, ("GET", "/proxies", None), ("POST", "/reset", None), Host=host
        ):
            assert answer.status in (400, 403), (host, answer)
    plain.assert_untouched()


def test_two_hosts_or_none_are_refused_where_http_1_1_wants_one(plain: Guarded) -> None:
    own = f"Host: {plain.api.address}\r\n".encode()
    evil = b"Host: evil.example\r\n"
    for head in (b"", own + evil, evil + own, b"Host:\r\n", b" " + own, b"X:\r\n " + own):
        for request in (b"GET /proxies", b"POST /reset"):
            back = plain.api.talk(request + b" HTTP/1.1\r\n" + head + b"\r\n")
            assert statuses(back)[0] in (400, 403), (head, back)
    # Programs of HTTP/1.0 name none, and no browser is one
    assert statuses(plain.api.talk(b"GET /proxies HTTP/1.0\r\n\r\n")) == [200]
    assert statuses(plain.api.talk(b"GET /proxies HTTP/1.0\r\n" + evil + b"\r\n")) == [403]
    plain.assert_untouched()


def test_every_version_since_1_1_names_its_host(plain: Guarded) -> None:
    for version in ("1.1", "1.2", "1.9", "01.1"):
        back = plain.api.talk(f"GET /proxies HTTP/{version}\r\n\r\n".encode())
        assert statuses(back) == [400], (version, back)


def test_a_url_may_be_asked_for_and_its_host_counts(plain: Guarded) -> None:
    own = plain.api.address
    for target, host, status in (
        (f"http://{own}/proxies", own, 200),
        ("HTTP://localhost/version?x", "localhost", 200),
        ("http://localhost", "localhost", 200),
        ("http://localhost?x=1", "localhost", 400),
        (f"http://{own}/proxies", "evil.example", 200),  # RFC 9112 3.2.2: it is to be ignored
        ("http://evil.example/proxies", own, 403),
        ("http://localhost@evil.example/proxies", own, 400),
        ("http:///proxies", own, 400),
        ("http://localhost:x/proxies", own, 400),
        ("https://localhost/proxies", own, 404),
        ("http://localhost/nothing", own, 404),
    ):
        back = plain.api.talk(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert statuses(back) == [status], (target, host, back)
    for heads in ("", "Host: localhost\r\nHost: localhost\r\n"):
        back = plain.api.talk(f"GET http://localhost/proxies HTTP/1.1\r\n{heads}\r\n".encode())
        assert statuses(back) == [400], (heads, back)
    for host, status in (("localhost", 200), ("evil.example", 403)):
        back = plain.api.talk(f"GET http://{host}/proxies HTTP/1.0\r\n\r\n".encode())
        assert statuses(back) == [status], (host, back)
    # what was said of one request is not said of the next
    both = f"GET http://{own}/version HTTP/1.1\r\nHost: x\r\n\r\n" + (
        "GET /version HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    )
    assert statuses(plain.api.talk(both.encode())) == [200, 403]


SMUGGLED = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_controls_in_a_head_are_refused(plain: Guarded) -> None:
    for control in (*range(9), *range(11, 32), 127):
        mark = bytes([control])
        for head in (
            b"POST /reset HTTP/1.1\r\nHost: localhost\r\nX: a" + mark + b"b\r\n",
            b"POST /reset HTTP/1.1\r\nHost: localhost\r\nX" + mark + b": b\r\n",
            b"POST /reset" + mark + b" HTTP/1.1\r\nHost: localhost\r\n",
            b"POST" + mark + b"/reset" + mark + b"HTTP/1.1\r\nHost: localhost\r\n",
            b"POST /reset HTTP/1.1\r\nX: a" + mark + b"Host: localhost\r\n",
        ):
            back = plain.api.talk(head + b"Content-Length: 0\r\n\r\n" + SMUGGLED)
            assert statuses(back) == [400], (head, back)
    for space in (b"\x85", b"\xa0"):
        back = plain.api.talk(b"POST" + space + b"/reset HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert statuses(back) == [400], (space, back)
    for fine in (b"X: a\tb\r\n", b"X: \xc3\xa0\r\n", b"X:\xff\r\n"):
        sent = b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + fine + b"\r\n"
        assert statuses(plain.api.talk(sent)) == [200], fine
    plain.assert_untouched()


def test_a_length_is_digits_and_a_coding_is_a_word(plain: Guarded) -> None:
    own = b"POST /reset HTTP/1.1\r\nHost: localhost\r\n"
    for length in (b"+5", b"0_5", b"5_", b"\xa05", b"5\x85", b"5\x0c", b"-0", b"5,5", b"", b"0x5",
                   b"\xd9\xa5", b"5 5"):  # fmt: skip
        back = plain.api.talk(own + b"Content-Length: " + length + b"\r\n\r\nabcde" + SMUGGLED)
        assert statuses(back) == [400], (length, back)
    for coding in (b"\x0bchunked", b"chunked\xa0", b"\x85chunked", b"chunked;x", b""):
        sent = own + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n" + SMUGGLED
        assert statuses(plain.api.talk(sent)) == [400], coding
    plain.assert_untouched()
    for fine in (b"Content-Length: \t 2 \t", b"Transfer-Encoding: \t Chunked \t"):
        body = b"{}" if b"Length" in fine else b"2\r\n{}\r\n0\r\n\r\n"
        back = plain.api.talk(own + fine + b"\r\n\r\n" + body + SMUGGLED)
        assert statuses(back) == [204, 200], (fine, back)
    put_right(plain)


def test_the_target_of_a_request_is_no_way_round_the_host(plain: Guarded) -> None:
    for target in ("http://evil.example/proxies", "//evil.example/proxies", "evil.example:80", "*"):
        back = plain.api.talk(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert statuses(back)[0] in (400, 403, 404), (target, back)
        assert b"listen" not in back


def test_other_names_are_allowed_by_name() -> None:
    with Guarded("--http-allowed-host", "Chaos.Example, toxiproxy") as vaurien:
        for host in (
            "chaos.example",
            "CHAOS.example:99",
            "toxiproxy:8474",
            "localhost",
            "chaos.example.",
        ):
            let_in(vaurien, Host=host)
        all_refused(vaurien, 403, Host="evil.example")
        all_refused(vaurien, 403, Host="sub.chaos.example")
        all_refused(vaurien, 403, Host="chaos.example.evil.example")
    for names in ("", ",", "a b", "http://x", "a,,b", "*", "x/y"):
        assert "--http-allowed-host" in refusal({"http-allowed-host": names})


def test_with_a_token_elsewhere_the_allowed_names_are_the_only_ones() -> None:
    given = (
        "--http-host",
        "0.0.0.0",
        "--http-token",
        TOKEN,
        "--http-allowed-host",
        "chaos.example",
    )
    with Guarded(*given, headers=BEARER) as vaurien:
        let_in(vaurien, Host="chaos.example")
        let_in(vaurien, Host="localhost")
        all_refused(vaurien, 403, Host="evil.example")


@pytest.mark.parametrize("server", ["plain", "closed"])
def test_pages_of_other_origins_are_refused_even_with_the_token(
    server: str, request: pytest.FixtureRequest
) -> None:
    vaurien: Guarded = request.getfixturevalue(server)
    own = vaurien.api.address
    for origin in (
        "http://evil.example", "https://evil.example", "null", "file://", "http://localhost",
        "http://localhost:1", f"https://{own}", f"http://{own}.evil.example",
        f"http://{own}@evil.example", "chrome-extension://abc", "http://127.0.0.1", "garbage",
        f"http://{own} http://evil.example", f"http://{own}/", "http://[",
    ):  # fmt: skip
        answers = ask(vaurien.api, ("GET", "/proxies", None), *CHANGES, Origin=origin)
        for answer in answers:
            assert answer.status == 403, (origin, answer)
            assert "access-control-allow-origin" not in answer.headers
    for site in ("cross-site", "same-site", "CROSS-SITE", "garbage"):
        all_refused(vaurien, 403, Sec_Fetch_Site=site)
    vaurien.assert_untouched()


def test_its_own_pages_and_typed_addresses_are_let_in(plain: Guarded) -> None:
    port = plain.api.address.rpartition(":")[2]
    for host in (plain.api.address, f"localhost:{port}"):
        let_in(plain, Host=host, Origin=f"http://{host}")
        let_in(plain, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")
    let_in(plain, Sec_Fetch_Site="none")


def test_dns_rebinding_and_forms_are_refused(plain: Guarded) -> None:
    port = plain.api.address.rpartition(":")[2]
    name = f"evil.example:{port}"
    all_refused(plain, 403, Host=name, Origin=f"http://{name}", Sec_Fetch_Site="same-origin")
    all_refused(plain, 403, Host=name)
    # a form of a page, which needs no preflight: text that is JSON
    all_refused(
        plain, 403, Origin="http://evil.example", Content_Type="text/plain",
        Sec_Fetch_Mode="no-cors",
    )  # fmt: skip
    preflight = plain.api.call(
        "OPTIONS", "/handler", None,
        {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )  # fmt: skip
    assert preflight.status == 403
    assert not any(name.startswith("access-control") for name in preflight.headers)
    plain.assert_untouched()


# What a request may not name


TRAP = """
import pathlib

pathlib.Path({here!r}).touch()

from vaurien.handlers import BaseHandler
from vaurien.flow.handler import FlowHandler


class Evil(BaseHandler):
    name = "evil"
    options = {{}}

    def __call__(self, client_sock, backend_sock, to_backend):
        pass


class Flow(FlowHandler):
    name = "flow"
    options = {{}}
"""


def reach(what: str) -> list[Request]:
    """Requests that try to have the dotted path `what` imported."""
    proxy = {"name": "other", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
    flow = what.replace("Evil", "Flow")
    requests: list[Request] = []
    for path in ("", "/proxies/default"):
        requests += [
            ("POST", f"{path}/handler", {"name": what}),
            ("POST", f"{path}/handler", {"name": flow}),
            ("POST", f"{path}/handler", {"name": "mine", "callable": what}),
            ("POST", f"{path}/handler", {"name": "delay", "callable": what}),
            ("POST", f"{path}/handler", {"name": f"dummy+{what}"}),
            ("POST", f"{path}/behavior", {"behavior": f"100:{what}"}),
            ("POST", f"{path}/behavior", {"behavior": f"0:{what}"}),
            ("POST", f"{path}/behavior", {"behavior": f"10:latency+{flow}"}),
            ("POST", f"{path}/behavior", {"on_connect": f"100:{what}"}),
            ("POST", f"{path}/behavior", {"behavior": "5:delay", "handlers": {what: {}}}),
            ("POST", f"{path}/behavior", {"behavior": "5:delay", "callable": what}),
            (
                "POST", f"{path}/behavior",
                {"behavior": "100:delay", "handlers": {"delay": {"callable": what}}},
            ),
            (
                "POST", f"{path}/behavior",
                {"behavior": "100:mine", "handlers": {"mine": {"callable": what}}},
            ),
        ]  # fmt: skip
    requests += [
        ("POST", "/proxies", {**proxy, "behavior": f"100:{what}"}),
        ("POST", "/proxies", {**proxy, "on_connect": f"100:{what}"}),
        ("POST", "/proxies", {**proxy, "protocol": what}),
        ("POST", "/proxies", {**proxy, "callable": what}),
        ("POST", "/proxies", {**proxy, "handlers": {"mine": {"callable": what}}}),
        ("POST", "/proxies", {**proxy, "toxics": [{"type": flow}]}),
        ("POST", "/populate", [{**proxy, "toxics": [{"type": flow}]}]),
        ("POST", "/populate", [{**proxy, "behavior": f"100:{what}"}]),
        ("POST", "/populate", [{**proxy, "callable": what}]),
        ("POST", "/proxies/default", {"callable": what}),
        ("POST", "/proxies/default/toxics", {"type": flow}),
        ("POST", "/proxies/default/toxics", {"type": "latency", "callable": what}),
        ("POST", "/proxies/default/toxics", {"type": "pause", "attributes": {"callable": what}}),
        ("POST", "/proxies/default/toxics/noop_downstream", {"attributes": {"callable": what}}),
        ("POST", "/proxies/default/toxics/noop_downstream", {"type": flow, "callable": what}),
    ]  # fmt: skip
    return requests


def test_a_dotted_path_by_request_is_refused_and_not_imported(tmp_path: Path) -> None:
    here = tmp_path / "imported"
    (tmp_path / "trapmodule.py").write_text(TRAP.format(here=str(here)))
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    with Guarded(env=env, cwd=tmp_path) as vaurien:
        for what in ("trapmodule.Evil", "trapmodule:Evil", "trapmodule", "os.system", "xml.dom.x"):
            for method, path, body in reach(what):
                answer = vaurien.api.call(method, path, body)
                assert answer.status in (400, 404), (path, body, answer)
                assert answer.error
        for path in ("/proxies/trapmodule.Evil/handler", "/handlers/trapmodule.Evil"):
            assert vaurien.api.call("GET", path).status == 404
        vaurien.assert_untouched()
        listed = json.dumps(vaurien.api.get("/handlers"))
        assert "trapmodule" not in listed
    assert not here.exists()

    # The trap snaps, and what the configuration names may be named by requests, by its path too.
    ini = tmp_path / "vaurien.ini"
    ini.write_text("[handler:mine]\ncallable = trapmodule.Evil\n")
    with Guarded("--config", ini, env=env, cwd=tmp_path) as vaurien:
        assert here.exists()
        assert vaurien.api.post("/handler", {"name": "mine"})["behavior"] == "100:mine"
        assert vaurien.api.call("POST", "/handler", {"name": "trapmodule.Flow"}).status == 400


def files(path: object) -> list[Request]:
    """Requests that name a file."""
    proxy = {"name": "other", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
    toxic = {"type": "latency", "attributes": {"distribution": path}}
    requests: list[Request] = []
    for start in ("", "/proxies/default"):
        requests += [
            ("POST", f"{start}/handler", {"name": "latency", "distribution": path}),
            ("POST", f"{start}/handler", {"name": "latency", "Distribution": path}),
            (
                "POST", f"{start}/behavior",
                {"behavior": "10:latency", "handlers": {"latency": {"distribution": path}}},
            ),
        ]  # fmt: skip
    requests += [
        ("POST", "/proxies/default/toxics", toxic),
        ("POST", "/proxies/default/toxics", {**toxic, "toxicity": 0}),
        ("POST", "/proxies/default/toxics/late", {"attributes": {"distribution": path}}),
        ("PATCH", "/proxies/default/toxics/late", {"attributes": {"distribution": path}}),
        ("POST", "/proxies", {**proxy, "toxics": [toxic]}),
        ("POST", "/populate", [{**proxy, "toxics": [toxic]}]),
    ]
    return requests


def test_a_request_names_no_file_and_none_is_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "samples.txt"
    os.mkfifo(pipe)  # whoever opens it hangs until somebody writes, and that is seen
    with Guarded("--toxics", "late: latency latency=0", cwd=tmp_path) as vaurien:
        for path in (
            str(pipe), "./samples.txt", "samples.txt", "../" + tmp_path.name + "/samples.txt",
            f"file://{pipe}", [str(pipe)], {"path": str(pipe)}, {"__class__": str(pipe)},
            "/etc/passwd", "/dev/zero", "/dev/stdin", "nofile.txt", "./", "/", "uniform/../x",
            f"{pipe}\u0000", " " + str(pipe), str(pipe) + "\n",
        ):  # fmt: skip
            for method, where, body in files(path):
                answer = vaurien.api.call(method, where, body)
                assert answer.status == 400, (where, body, answer)
                assert "root:" not in answer.error
        with pytest.raises(OSError, match="No such device"):  # ENXIO: nobody waits for a writer
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        vaurien.assert_untouched()
        for name in ("normal", "pareto", "uniform"):
            vaurien.api.post("/handler", {"name": "latency", "latency": 1, "distribution": name})


def test_a_file_that_the_configuration_names_serves_requests_and_is_read_once(
    tmp_path: Path,
) -> None:
    samples = tmp_path / "samples.txt"
    samples.write_text("300 300\n")
    ini = tmp_path / "vaurien.ini"
    ini.write_text(f"[handler:latency]\ndistribution = {samples}\n")
    toxics = "late: latency toxicity=0"
    with Guarded("--config", ini, "--toxics", toxics) as vaurien:
        samples.unlink()
        api = vaurien.api
        found = api.post("/handler", {"name": "latency"})
        assert found["options"]["distribution"] == str(samples)
        start = time.monotonic()
        assert exchange(vaurien.client, b"slow") == b"slow"
        assert time.monotonic() - start > 0.29
        api.post("/handler", {"name": "latency", "jitter": 5})
        api.post("/behavior", {"behavior": "0:latency"})
        api.post("/proxies/default/toxics", {"type": "latency", "name": "more", "toxicity": 0})
        for name in ("late", "more"):
            api.post(f"/proxies/default/toxics/{name}", {"attributes": {"latency": 5}})
            api.post(f"/proxies/default/toxics/{name}", {"toxicity": 0})
        vaurien.assert_goes_on()


@differs("unix")
def test_files_that_are_there_are_safe_from_unix_addresses_of_requests(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("gold")
    link = tmp_path / "link"
    link.symlink_to(precious)
    with Guarded() as vaurien:
        for path in (precious, link, tmp_path):
            for listen in (f"unix:{path}", f"unix:{path}/../{path.name}"):
                body = {"name": "other", "listen": listen, "upstream": "127.0.0.1:9"}
                answer = vaurien.api.call("POST", "/populate", [body])
                assert answer.status == 400, answer
                for method, where in (("POST", "/proxies"), ("PATCH", "/proxies/default")):
                    raw = {**body, "name": "default"} if method == "PATCH" else body
                    data = json.dumps(raw).encode()
                    back = vaurien.api.talk(
                        f"{method} {where} HTTP/1.1\r\nHost: localhost\r\n"
                        f"Content-Length: {len(data)}\r\n\r\n".encode()
                        + data
                    )
                    assert statuses(back)[0] == 400, back
        free = {"name": "other", "listen": f"unix:{tmp_path}/new", "upstream": "127.0.0.1:9"}
        assert vaurien.api.call("POST", "/proxies", free).status == 400
        vaurien.assert_untouched()
    assert precious.read_text() == "gold" and link.is_symlink() and tmp_path.is_dir()
    assert not (tmp_path / "new").exists()


@differs("names")
def test_names_that_look_like_paths_reach_nothing(plain: Guarded) -> None:
    names = [
        "../../etc/passwd", "..", ".", "/etc/passwd", "a/b", "a\u0000b", "a\nb", "\u202e", "",
        "a\rb", "%2e%2e", "..%2f..", "x" * 10_000, "\ud800", "a\\..\\b", "~root", "$(id)", "`id`",
    ]  # fmt: skip
    for name in names:
        body = {"name": name, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
        answer = plain.api.call("POST", "/proxies", body)
        assert answer.status in (201, 400), (name, answer)
        if answer.status == 201:  # then it is a name like any other
            own = name.replace("\ud800", "\ufffd")  # which is no character
            assert plain.api.get("/proxies")[own]["name"] == own
            plain.api.post("/populate", [{**body, "upstream": "127.0.0.1:10"}])
            quoted = quote(own, safe="")
            assert plain.api.call("GET", f"/proxies/{quoted}").status == 200, name
            assert plain.api.call("DELETE", f"/proxies/{quoted}").status == 204, name
        toxic = plain.api.call("POST", "/proxies/default/toxics", {"type": "noop", "name": name})
        assert toxic.status in (200, 400, 409), (name, toxic)
        if toxic.status == 200:
            own = toxic.json["name"]
            quoted = quote(own, safe="")
            assert plain.api.call("DELETE", f"/proxies/default/toxics/{quoted}").status == 204, name
    for path in (
        "/../../etc/passwd", "/proxies/../../../etc/passwd", "/proxies/..%2f..%2fetc%2fpasswd",
        "/proxies/%2e%2e/%2e%2e/etc/passwd", "/openapi.json/../../../etc/passwd", "//etc/passwd",
        "/proxies/default/../default/toxics/../../x", "/proxies/%00", "/proxies/default%0d%0aX:y",
        "/proxies/default/connections/../../x", "/proxies/default/connections/1e9",
        "/proxies/default/connections/-1", "/proxies/default/connections/" + "9" * 5000,
        "/events/../../etc/passwd", "/journal?limit=../../etc", "/%c0%ae%c0%ae/etc/passwd",
    ):  # fmt: skip
        for method in ("GET", "DELETE"):
            answer = plain.api.call(method, path)
            assert answer.status in (400, 404, 405, 414), (path, answer)
            assert b"root:" not in answer.body
    plain.assert_untouched()


# Its unix socket


def test_a_unix_socket_serves_the_api_and_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with Served("--http-host", f"unix:{path}") as vaurien:
        assert vaurien.api.address == f"unix:{path}"
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert not path.stat().st_mode & stat.S_IWOTH, "everybody may drive it"
        api = vaurien.api
        with Backend(echo) as backend:
            address = vaurien.create("other", backend.address)
            with connected(address) as (client,):
                api.post("/handler", {"name": "dummy"})
                assert exchange(client, b"through") == b"through"
        assert api.call("GET", "/health", headers={"Host": "whatever"}).status == 200
        assert vaurien.stop() == 0
    assert not path.exists()


def test_a_stale_socket_file_is_replaced_a_living_or_foreign_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with Served("--http-host", f"unix:{path}") as vaurien:
        vaurien.stop(signal.SIGKILL)
    assert path.exists()
    with Served("--http-host", f"unix:{path}") as vaurien:
        sentence = refused("--http", "--http-host", f"unix:{path}", code=1)
        assert str(path) in sentence
        assert vaurien.api.call("GET", "/health").status == 200
        assert vaurien.stop(signal.SIGINT) == 0
    assert not path.exists()
    others = [tmp_path / name for name in ("file", "directory", "link", "missing/api.sock")]
    others[0].write_text("gold")
    others[1].mkdir()
    others[2].symlink_to(others[0])
    assert str(others[0]) in refused("--http", "--http-host", f"unix:{others[0]}", code=1)
    for other in others:
        with pytest.raises(ListenError, match=str(other)):
            http.HttpServer(address.parse(f"unix:{other}", "--http-host"), "--http-host")
    assert others[0].read_text() == "gold" and others[1].is_dir() and others[2].is_symlink()


def test_a_token_holds_on_a_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with Served("--http-host", f"unix:{path}", "--http-token", TOKEN) as vaurien:
        assert vaurien.api.call("GET", "/proxies").status == 401
        assert vaurien.api.call("GET", "/proxies", headers=BEARER).status == 200


# Bounds


def head(api: Api, more: str, method: str = "POST", path: str = "/handler") -> bytes:
    """The head of a request."""
    return f"{method} {path} HTTP/1.1\r\nHost: {api.address}\r\n{more}\r\n".encode()


def pour(sock: socket.socket, piece: bytes, n: int) -> int:
    """Send `piece` up to `n` times; how many times it was possible."""
    for number in range(n):
        try:
            sock.sendall(piece)
        except OSError:
            return number
    return n


def test_bodies_over_1_mib_are_refused_whether_announced_or_not(plain: Guarded) -> None:
    size = (1 << 20) + 1
    body = b'{"name": "' + b"x" * size + b'"}'
    for path in ("/handler", "/proxies", "/populate", "/behavior", "/reset", "/there/is/none"):
        sent = head(plain.api, f"Content-Length: {len(body)}\r\n", path=path) + body
        assert statuses(plain.api.talk(sent)) == [413]
    chunks = b"".join(b"%x\r\n%s\r\n" % (65536, b"x" * 65536) for _ in range(17)) + b"0\r\n\r\n"
    back = plain.api.talk(head(plain.api, "Transfer-Encoding: chunked\r\n") + chunks)
    assert statuses(back) == [413]
    answer = Answer(413, back.partition(b"\r\n\r\n")[2])
    assert answer.error
    plain.assert_untouched()
    # what is smaller is read
    fits = b'{"name": "dummy"' + b" " * ((1 << 20) - 17) + b"}"
    assert plain.api.call("POST", "/handler", fits).status == 200


def test_a_body_of_100_mb_stops_early(plain: Guarded) -> None:
    megabyte = b"x" * MB
    chunk = b"%x\r\n%s\r\n" % (len(megabyte), megabyte)
    before = resident(plain.pid)
    for more, piece in (
        (f"Content-Length: {100 * MB}\r\n", megabyte),
        ("Transfer-Encoding: chunked\r\n", chunk),
    ):
        with dial(plain.api.address) as sock:
            sock.sendall(head(plain.api, more))
            start = time.monotonic()
            pour(sock, piece, 3)
            assert statuses(whatever(sock))[:1] in ([413], [])
            assert time.monotonic() - start < 3
    # who asks first need not send it at all
    with dial(plain.api.address) as sock:
        sock.sendall(head(plain.api, f"Content-Length: {100 * MB}\r\nExpect: 100-continue\r\n"))
        assert statuses(whatever(sock)) == [413]
    assert resident(plain.pid) - before < 20 * MB
    plain.assert_untouched()


def test_heads_are_bounded(plain: Guarded) -> None:
    api = plain.api
    longer: list[bytes] = [
        head(api, "".join(f"X-{n}: y\r\n" for n in range(1000))),
        head(api, f"X: {'y' * 100_000}\r\n"),
        head(api, "X: y\r\n" * 200),
        head(api, "", "GET", "/" + "x" * 100_000),
        head(api, "", "GET" * 30_000),
        head(api, "", "GET", "/proxies?" + "x=y&" * 30_000),
    ]
    for request in longer:
        back = api.talk(request)
        assert statuses(back)[0] in (400, 414, 431), back
        assert Answer(statuses(back)[0], back.partition(b"\r\n\r\n")[2]).error
    before = resident(plain.pid)
    for piece in (b"y" * MB, b"X: y\r\n" * 100_000, b"X: " + b"y" * 60_000 + b"\r\n"):
        with dial(api.address) as sock:
            sock.sendall(b"GET /proxies HTTP/1.1\r\n")
            pour(sock, piece, 200)
            assert all(status in (400, 414, 431) for status in statuses(whatever(sock)))
    assert resident(plain.pid) - before < 20 * MB
    plain.assert_untouched()


@pytest.mark.long
def test_who_is_slow_is_dropped_and_the_others_go_on(plain: Guarded) -> None:
    api = plain.api
    slow: list[tuple[bytes, bytes]] = [
        (b"G", b"E"),  # a request line
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        (b"GET /version HTTP/1.1\r\nX: ", b"y"),
        (head(api, "Content-Length: 1000\r\n"), b"x"),
        (head(api, "Content-Length: 1000\r\n"), b""),
        (head(api, "Transfer-Encoding: chunked\r\n"), b"1\r\nx\r\n"),
        (head(api, "Transfer-Encoding: chunked\r\n"), b""),
        (head(api, "Transfer-Encoding: chunked\r\n") + b"ffff\r\n", b"x"),
        (head(api, "", "GET", "/version") + b"GET /version HTTP/1.1\r\n", b"X: y\r\n"),
        (head(api, "", "GET", "/version") + head(api, "Content-Length: 99\r\n"), b"x"),
    ]

    def trickle(first: bytes, more: bytes) -> tuple[float, bytes]:
        with dial(api.address, timeout=0.5) as sock:
            start, back = time.monotonic(), b""
            sock.sendall(first)
            while time.monotonic() - start < http.SLOW + 6:
                try:
                    if not (data := sock.recv(65536)):
                        break
                    back += data
                except TimeoutError:
                    with contextlib.suppress(OSError):
                        sock.sendall(more)
                except ConnectionError:
                    break
            return time.monotonic() - start, back

    with threads() as pool:
        dropped = [pool.submit(trickle, *one) for one in slow]
        while not all(one.done() for one in dropped):
            plain.assert_untouched()
            with contextlib.suppress(TimeoutError):
                dropped[0].exception(0.2)
        for (first, _), one in zip(slow, dropped, strict=True):
            took, back = one.result()
            assert http.SLOW - 0.1 < took < http.SLOW + 4, (took, first)
            assert set(statuses(back)) <= {200, 400, 408}, (first, back)
    plain.assert_untouched()


def test_as_many_idle_connections_as_there_can_be_hold_up_nobody(plain: Guarded) -> None:
    flood = Flood(20 * MB)
    with contextlib.ExitStack() as stack, threads() as pool:
        socks = stack.enter_context(clients(plain.api.address, http.CONNECTIONS - 20))
        for number, sock in enumerate(socks):
            if number % 5 == 1:
                sock.sendall(b"GET /version HTT")
            elif number % 5 == 2:
                sock.sendall(head(plain.api, "Content-Length: 50\r\n") + b"{")
            elif number % 5 == 3:
                sock.sendall(head(plain.api, "", "GET", "/events"))
            elif number % 5 == 4:
                sock.sendall(head(plain.api, "", "GET", "/state") * 20)  # never reads
        through = [stack.enter_context(plain.dial()) for _ in range(4)]
        sent = [pool.submit(flood.send, sock) for sock in through]
        got = [pool.submit(digest_of, sock, flood.size) for sock in through]
        while not all(one.done() for one in got):
            plain.assert_untouched()
            assert len(plain.api.get("/connections")["connections"]) >= 1
        for one, other in zip(sent, got, strict=True):
            one.result(PATIENCE)
            assert other.result() == (flood.size, flood.digest())
        for _ in range(20):
            with contextlib.closing(Api(plain.api.address)) as fresh:
                assert fresh.call("GET", "/health").status == 200
        plain.assert_untouched()


def test_who_asks_and_never_reads_costs_bounded_memory(plain: Guarded) -> None:
    before = resident(plain.pid)
    request = head(plain.api, "", "GET", "/handlers")
    with clients(plain.api.address, 20) as socks:
        for sock in socks:
            sock.settimeout(0.05)
            with contextlib.suppress(OSError):
                pour(sock, request * 1000, 100)
        plain.assert_untouched()
        assert resident(plain.pid) - before < 30 * MB


# Nonsense


def deep(n: int, opening: str = "[", closing: str = "]", middle: str = "") -> str:
    """Something nested."""
    return opening * n + middle + closing * n


def posts() -> list[str]:
    """Every path that takes a body."""
    own = "/proxies/default"
    return [
        "/handler", "/behavior", f"{own}/handler", f"{own}/behavior", f"{own}/enable",
        f"{own}/disable", "/proxies", "/populate", own, f"{own}/toxics",
        f"{own}/toxics/noop_downstream", f"{own}/reset", "/reset", "/reload",
    ]  # fmt: skip


NONSENSE: list[bytes] = [
    b"\xff\xfe\xfd", b'{"name": "\xff"}', b'{"\xc3\x28": 1}', b'{"name": "\xed\xa0\x80"}',
    '{"name": "delay"}'.encode("utf-16"), '{"name": "delay"}'.encode("utf-32"),
    b"\xef\xbb\xbf[]", b"{", b"}", b'{"name"', b'{"name": }', b'{"name": "delay"',
    b'{"name": "delay"} trailing', b"{'name': 'delay'}", b"name=delay", b"null", b"true", b"1",
    b'"text"', b"NaN", b"Infinity", b"-Infinity", b'{"ttl": NaN}', b'{"sleep": Infinity}',
    b'{"name": "delay", "sleep": NaN}', b'{"name": "delay", "sleep": -Infinity}',
    b'{"name": "delay", "sleep": 1e999}', b'{"name": "delay", "sleep": 1' + b"0" * 5000 + b"}",
    b'{"name": "delay", "sleep": 1' + b"0" * 400 + b"}", b"1" * 100_000, b"-", b"0x10",
    deep(100_000).encode(), deep(100_000, '{"a":', "}", "1").encode(), b"[" * 500_000,
    b'{"name":' * 100_000, b'{"name": "delay", "x": ' + deep(900).encode() + b"}",
    b'{"name": "delay", "name": {}}', b'{"ttl": 1, "ttl": "x"}', b"\x00" * 1000,
    gzip.compress(b'{"name": "delay"}'), b'{"name": "delay\\u0000"}', b'{"": ""}',
    b'{"__class__": "os"}', b'{"name": "\\ud800"}', b'{"\\ud800": 1}', b'{"behavior": "\\udfff"}',
    b"[[]]", b"[null]", b'[{"name": 1}]', b"[1, 2]", b'{"name": "delay", "sleep": "1e400"}',
]  # fmt: skip


@pytest.mark.parametrize("path", posts())
def test_nonsense_in_bodies_is_refused_with_a_sentence(plain: Guarded, path: str) -> None:
    own = "/proxies/default"
    bodiless = path.rpartition("/")[2] in ("reset", "reload")
    for body in NONSENSE:
        answer = plain.api.call("POST", path, body)
        if bodiless and answer.status in (200, 204):
            put_right(plain)
            continue
        if answer.status == 200 and body.startswith(b'{"name": "') and path.startswith(own):
            continue  # what is changed keeps its name, whatever is sent
        if body == b"null" and path in (own, f"{own}/toxics/noop_downstream", "/populate"):
            assert answer.status in (200, 201), (path, answer)  # as Toxiproxy: nothing is given
            continue
        assert answer.status == 400, (path, body[:80], answer)
        assert answer.error
    plain.assert_untouched()


def test_json_of_any_depth_is_no_matter(plain: Guarded) -> None:
    for depth in (*range(1, 30), *range(100, 1300, 25), 5000, 20_000):
        for value in (deep(depth), deep(depth, '{"a":', "}", "1")):
            bodies = [f'{{"name": "delay", "sleep": {value}}}', f'{{"ttl": {value}}}', value]
            bodies += [f'{{"type": "latency", "attributes": {{"latency": {value}}}}}']
            for body, path in zip(bodies, ("/handler", *posts()[4:7]), strict=False):
                answer = plain.api.call("POST", path, body.encode())
                assert answer.status == 400, (depth, body[:60], answer)
            answer = plain.api.call("POST", "/proxies/default/toxics", bodies[3].encode())
            assert answer.status == 400, (depth, answer)
    plain.assert_untouched()


#: Values for any field, as JSON.
VALUES = [
    "null", "true", "false", "0", "-0.0", "-1", "1", "0.5", "1e308", "-1e308", "1e-320", "1e999",
    "1" + "0" * 400, "-1" + "0" * 400, "9223372036854775808", "18446744073709551616", "4294967296",
    '""', '" "', '"x"', '"0"', '"-1"', '"1e999"', '"nan"', '"inf"', '"\\u0000"', '"\\ud800"',
    '"\\u0661"', '"\\uff11"', '"\\u00e9"', '"\\r\\nX: y"', '"100"', '"100:delay"', '"0:delay"',
    '"-5:delay"', '"nan:delay"', '"1e999:delay"', '"50:delay,60:error"', '"100:' + "a" * 5000 + '"',
    '"' + "x" * 100_000 + '"', '"' + "1:delay," * 2000 + '"', '"' + "+".join(["noop"] * 5000) + '"',
    '"localhost"', '"127.0.0.1:99999"', '"127.0.0.1:-1"', '"127.0.0.1:\\u0661"', '":"', '"[::1"',
    '"unix:"', '"unix:\\u0000"', '"unix:' + "/x" * 5000 + '"', '"@:0"', '"a..b:80"',
    '"' + "a" * 300 + ':80"', '"\\ud800:80"', '"xn--\\u00e9:80"', '"256.256.256.256:80"',
    "[]", "{}", "[1]", '["x"]', '{"a": 1}', '{"delay": 1}', '{"delay": {}}', '{"delay": []}',
    '{"delay": {"sleep": []}}', '{"latency": null}', '{"latency": {"latency": {}}}', "[{}]",
    '[{"type": "latency", "attributes": []}]', '{"\\ud800": "\\ud800"}', "[[[[[[]]]]]]",
]  # fmt: skip


def fields() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every field of every body: path, a body that would do, the field."""
    proxy = {"name": "other", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
    more = ("toxics", "enabled", "behavior", "on_connect", "protocol", "seed", "ttl", "unknown")
    toxic = {"type": "latency", "name": "late", "stream": "upstream", "toxicity": 1}
    for field in (*proxy, *more):
        yield "/proxies", proxy, field
        yield "/populate", proxy, field
        yield "/proxies/default", {}, field
    for field in (*toxic, "attributes", "ttl", "unknown"):
        yield "/proxies/default/toxics", toxic, field
        yield "/proxies/default/toxics/noop_downstream", {}, field
    for field in ("name", "sleep", "before", "ttl", "unknown"):
        yield "/handler", {"name": "delay"}, field
    for field in ("latency", "jitter", "distribution", "correlation", "stream"):
        yield "/handler", {"name": "latency"}, field
    for field in ("behavior", "on_connect", "handlers", "ttl", "unknown"):
        yield "/behavior", {"behavior": "100:delay"}, field
    for switch in ("enable", "disable"):
        for field in ("ttl", "unknown"):
            yield f"/proxies/default/{switch}", {}, field


@pytest.mark.long
def test_any_value_in_any_field_is_taken_or_refused_and_never_our_fault(plain: Guarded) -> None:
    api = plain.api
    faults = []
    for path, body, field in fields():
        for value in VALUES:
            if field == "name" and len(value) > 5000:
                continue  # a name that no path can hold: tried on its own
            whole = {**body, field: "VALUE"}
            data = json.dumps([whole] if path == "/populate" else whole)
            data = data.replace('"VALUE"', value, 1)
            try:
                answer = api.call("POST", path, data.encode())
            except AssertionError:
                faults.append((path, data[:200]))
                continue
            if answer.status < 300:
                put_right(plain)
            elif answer.status != 500:
                assert answer.status in (400, 404, 409), (path, data[:200], answer)
                assert answer.error
    assert not faults, (len(faults), faults)
    put_right(plain)
    plain.assert_untouched()


def put_right(vaurien: Guarded) -> None:
    """Take back what a request has done."""
    api = vaurien.api
    for name in api.get("/proxies"):
        if name != "default":
            gone = api.call("DELETE", f"/proxies/{quote(name, safe='')}")
            assert gone.status in (204, 404), gone  # its time may have been over
    before = vaurien.before["default"]
    api.post("/proxies/default", {key: before[key] for key in ("listen", "upstream")})
    api.post("/reset")
    api.post("/proxies/default/toxics", {"type": "noop"})
    vaurien.client.close()
    vaurien.client = vaurien._stack.enter_context(vaurien.dial())


def test_compressed_bodies_are_not_unpacked(plain: Guarded) -> None:
    bomb = gzip.compress(b'{"name": "delay", "x": "' + b"x" * (50 * MB) + b'"}', 9)
    before = resident(plain.pid)
    for encoding in ("gzip", "deflate", "br", "identity, gzip"):
        answer = plain.api.call("POST", "/handler", bomb, {"Content-Encoding": encoding})
        assert answer.status in (400, 415), answer
    assert resident(plain.pid) - before < 10 * MB
    plain.assert_untouched()


def test_pipelined_requests_are_answered_in_their_order(plain: Guarded) -> None:
    body = b'{"behavior": "0:delay"}'
    sent = head(plain.api, f"Content-Length: {len(body)}\r\n", path="/behavior") + body
    sent += head(plain.api, "", "GET", "/version") + head(plain.api, "", "GET", "/none")
    sent += head(plain.api, "Transfer-Encoding: chunked\r\n", path="/reset") + b"0\r\n\r\n"
    sent += head(plain.api, "Connection: close\r\n", "GET", "/proxies")
    assert statuses(plain.api.talk(sent, finish=False)) == [200, 200, 404, 204, 200]
    put_right(plain)
    # what a refused body has in it is no request
    inner = head(plain.api, "", path="/reset")
    big = head(plain.api, f"Content-Length: {(1 << 20) + len(inner)}\r\n") + inner
    assert statuses(plain.api.talk(big)) == [413]
    for two in (
        f"Content-Length: 0\r\nContent-Length: {len(inner)}\r\n",
        f"Content-Length: {len(inner)}\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: +5\r\n", "Content-Length: 1_0\r\n", "Content-Length: 0x5\r\n",
        "Content-Length : 5\r\n",
    ):  # fmt: skip
        back = plain.api.talk(head(plain.api, two, path="/handler") + inner)
        assert 204 not in statuses(back), (two, back)
        assert statuses(back)[:1] == [400], (two, back)
    plain.assert_untouched()


CHUNKED = b"POST /handler HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
JUNK: list[bytes] = [
    b"", b"\r\n", b"\r\n" * 100, b"\x00" * 100, b"\xff" * 5000, os.urandom(5000),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"GET /\r\n", b"GET\r\n",
    b"GET /version\r\n\r\n", b"/version\r\n\r\n", b"GET  /version  HTTP/1.1\r\n\r\n",
    b"get /version HTTP/1.1\r\n\r\n", b"GET /version HTTP/9.9\r\n\r\n", b"GET /version HTTP/1.1",
    b"GET /version HTP/1.1\r\n\r\n", b"GET /version HTTP/1.\r\n\r\n", b"SSH-2.0-x\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"EHLO x\r\n", b"{}\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\xe9 /version HTTP/1.1\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\n: empty\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nA: b\r\n folded\r\n\r\n",
    b"GET /version HTTP/1.1\nHost: localhost\n\n", b"GET /version HTTP/1.1\rHost: localhost\r\r",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nExpect: everything\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: x\r\n\r\n",
    b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET ?x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET # HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%zz%% HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /journal?limit=1&limit=2&%ff=%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    CHUNKED + b"ZZ\r\nxx\r\n",
    CHUNKED + b"-5\r\nxx\r\n",
    CHUNKED + b"5\r\nxxxxxyy",
    CHUNKED + b"5;" + b"x" * 70000,
    CHUNKED + b"" + b"f" * 70000,
    b"POST /handler HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{",
    b"POST /handler HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{",
    b"POST /handler HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{",
]  # fmt: skip


def test_what_is_no_http_is_refused(plain: Guarded) -> None:
    for junk in JUNK:
        for finish in (True, False):
            with dial(plain.api.address) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(junk)
                if finish:
                    sock.shutdown(socket.SHUT_WR)
                    back = whatever(sock)
                    assert not any(code >= 500 for code in statuses(back)), (junk[:80], back)
    for junk in JUNK:  # those who vanish midway
        with contextlib.suppress(OSError), dial(plain.api.address) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *[0] * 7]))
            sock.sendall(junk)
    plain.assert_untouched()


def test_who_goes_while_being_answered_leaves_no_trace(plain: Guarded) -> None:
    for path in ("/events", "/handlers", "/state", "/metrics", "/openapi.json"):
        for _ in range(10):
            with dial(plain.api.address) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *[0] * 7]))
                sock.sendall(head(plain.api, "", "GET", path) * 20)
    before = plain.descriptors()
    plain.assert_untouched()
    wait_for(lambda: plain.descriptors() <= before, "the descriptors of those who have gone")


def test_methods_that_a_path_has_not_are_refused(plain: Guarded) -> None:
    for path in [*LOOKS[:-1], *OPEN]:
        for method in (
            "PUT",
            "TRACE",
            "CONNECT",
            "LINK",
            "GETT",
            "\u00e9".encode().decode("latin-1"),
        ):
            with contextlib.suppress(ValueError, UnicodeError):
                answer = plain.api.call(method, path)
                assert answer.status in (400, 404, 405), (method, path, answer)
                assert answer.error
        assert plain.api.call("HEAD", path).status in (200, 405)
    plain.assert_untouched()


def test_ipv6_loopback_needs_no_token_either() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    with Served("--http-host", "::1") as vaurien:
        assert vaurien.api.get("/health")["status"] == "ok"
        assert vaurien.api.call("GET", "/proxies", headers={"Host": "evil.example"}).status == 403


def test_after_all_that_its_log_has_no_fault(plain: Guarded, closed: Guarded) -> None:
    for vaurien in (plain, closed):
        assert_quiet(vaurien)
        assert vaurien.process.poll() is None
