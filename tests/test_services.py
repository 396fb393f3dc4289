"""Ports by their names, in all places that take an address."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.helpers import Api
from tests.laws.helpers import Acceptor
from tests.rivals.differences import differs
from tests.support import Backend, echo, exchange, receive, run
from vaurien import services
from vaurien.address import Address
from vaurien.errors import UsageError

#: Ports from 1024 on that tables of services have had for decades.
LIKELY = (1080, 1194, 1352, 1433, 1524, 1863, 2049, 3050, 3306, 3690, 5432, 5672, 6000, 8080, 9418)


@contextlib.contextmanager
def named_backend() -> Iterator[tuple[Backend, str]]:
    """A backend at a port that has a name, and the name."""
    for port in LIKELY:
        with contextlib.suppress(OSError):
            name = socket.getservbyport(port, "tcp")
            backend = Backend(echo, port=port)
            break
    else:
        pytest.skip("this machine has no free port with a name (/etc/services)")
    with backend:
        yield backend, name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost:http", Address("localhost", 80)),
        ("example.org:HTTPS", Address("example.org", 443)),
        ("[::1]:ssh", Address("::1", 22)),
        (" 127.0.0.1:domain ", Address("127.0.0.1", 53)),
    ],
)
def test_a_port_may_be_named_and_is_shown_so(text: str, found: Address) -> None:
    made = services.parse(text, "--distant")
    assert made == found
    assert str(made) == text.strip()
    assert str(made.canonical) == text.strip()


def test_a_named_port_is_that_port_where_addresses_are_compared() -> None:
    named, number = services.parse("localhost:http", ""), services.parse("127.0.0.1:80", "")
    assert named.leads_to(number)
    assert named.meets(number)


@pytest.mark.parametrize("name", ["htpp-x", "z39.50x", "a" * 32])
def test_a_name_that_no_port_has_is_refused_in_one_sentence(name: str) -> None:
    sentence = f"--distant: '{name}' is not the name of a port on this machine; give its number"
    with pytest.raises(UsageError) as caught:
        services.parse(f"localhost:{name}", "--distant")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("port", ["", "-", "8_0", "-1", "65536", "٨٠", "ftp x", "ü", "a" * 33])
def test_what_can_be_no_name_is_no_port(port: str) -> None:
    with pytest.raises(UsageError, match=r"^--distant: .* is no port; give a number from 0 to"):
        services.parse(f"localhost:{port}", "--distant")


@pytest.mark.parametrize("name", services.KNOWN)
def test_a_machine_without_a_table_knows_what_go_knows(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def nothing(*_: object) -> int:
        raise OSError("service/proto not found")

    monkeypatch.setattr(socket, "getservbyname", nothing)
    services._found.cache_clear()
    try:
        assert services.port_of(name) == services.port_of(name.upper()) == services.KNOWN[name]
        assert services.port_of("mysql") is None
    finally:
        services._found.cache_clear()


def test_the_backend_of_a_request_is_dialled_at_the_port_of_its_name() -> None:
    with named_backend() as (backend, name), Api() as api:
        host = backend.address.partition(":")[0]
        proxy = api.proxy(f"{host}:{name}")
        assert proxy.show()["upstream"] == f"{host}:{name}"
        with proxy.dial() as client:
            assert exchange(client, b"named") == b"named"
            proxy.change(upstream=backend.address)  # it is the same
            assert exchange(client, b"again") == b"again"


def test_the_command_line_and_files_take_names(tmp_path: Path) -> None:
    ini, file = tmp_path / "v.ini", tmp_path / "toxiproxy.json"
    ini.write_text("[proxy:one]\nlocal = 127.0.0.1:0\ndistant = localhost:https\n")
    file.write_text(json.dumps([{"name": "two", "listen": "[::1]:0", "upstream": "h:ssh"}]))
    for arguments, shown in (
        (("--local", "127.0.0.1:0", "--distant", "localhost:http"), "localhost:http"),
        (("--config", ini), "localhost:https"),
        (("--config", file), "h:ssh"),
    ):
        done = run(*arguments, "--check")
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
    done = run("--distant", "localhost:htpp-x", "--check")
    assert done.returncode == 2
    assert done.stderr == (
        "vaurien: --distant: 'htpp-x' is not the name of a port on this machine; give its number\n"
    )


@differs("backend-address")
def test_a_request_with_an_unknown_name_is_refused() -> None:
    with Acceptor() as backend, Api() as api:
        proxy = api.proxy(backend.address)
        body = {"name": "q", "listen": "127.0.0.1:htpp-x", "upstream": "localhost:http"}
        sentence = "'htpp-x' is not the name of a port on this machine; give its number"
        assert api.refused("POST", "/proxies", body) == f"listen: {sentence}"
        change = {"upstream": "localhost:htpp-x"}
        assert api.refused("POST", proxy.path, change) == f"upstream: {sentence}"
        with proxy.dial() as client, backend.accept() as server:
            client.sendall(b"still")
            assert receive(server, 5) == b"still"


def test_a_statsd_server_is_looked_for_among_the_names_of_udp() -> None:
    assert services.parse("localhost:syslog", "--statsd", transport="udp").port == 514
