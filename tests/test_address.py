"""Addresses as users write them."""

from __future__ import annotations

import pytest

from vaurien.address import Address, parse
from vaurien.errors import UsageError

RIGHT = {
    "127.0.0.1:8000": Address("127.0.0.1", 8000),
    "localhost:80": Address("localhost", 80),
    "example.org:65535": Address("example.org", 65535),
    "my_host-1.internal.:1": Address("my_host-1.internal.", 1),
    "[::1]:8000": Address("::1", 8000),
    "[2001:db8::2]:443": Address("2001:db8::2", 443),
    "[::]:1": Address("::", 1),
    "0.0.0.0:1": Address("0.0.0.0", 1),
    "unix:/tmp/x.sock": Address(path="/tmp/x.sock"),
    "unix:relative": Address(path="relative"),
    "unix:with:colon and blank": Address(path="with:colon and blank"),
}


@pytest.mark.parametrize("text", RIGHT)
def test_an_address_is_read_and_written_alike(text: str) -> None:
    assert parse(text, "--local") == RIGHT[text]
    assert str(RIGHT[text]) == text


def test_blanks_around_an_address_do_not_count() -> None:
    assert parse("  localhost:80\n", "--local") == Address("localhost", 80)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "8000",
        ":8000",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:-1",
        "localhost:65536",
        "localhost:8_0",
        "localhost:٨٠",
        "localhost: 80",
        "::1:8000",
        "[::1]",
        "[::1]8000",
        "[nonsense]:80",
        "[127.0.0.1]:80",
        "local host:80",
        "a..b:80",
        "a,b:80",
        "user@host:80",
        "http://localhost:80",
        "tcp://localhost:80/",
        "localhost:80/path",
        "unix:",
        "unix:" + "x" * 108,
        "unix:" + "ü" * 54,
        "unix:a\0b",
        "a\0b:80",
        "x" * 64 + ".org:80",
        "localhost:" + "9" * 5000,
    ],
)
def test_what_is_no_address_is_refused_by_the_name_of_its_setting(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--local: .*"):
        parse(text, "--local")


def test_a_socket_path_may_be_as_long_as_the_system_allows() -> None:
    assert parse("unix:" + "x" * 107, "").path == "x" * 107


def test_port_0_is_for_listening_only() -> None:
    assert parse("localhost:0", "--local").port == 0
    with pytest.raises(UsageError, match="--distant: 'localhost:0'"):
        parse("localhost:0", "--distant", port_zero=False)


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("unix:x", True),
        ("localhost:1", False),
        ("1.example.org:1", False),
    ],
)
def test_an_address_knows_whether_it_has_to_be_resolved(text: str, literal: bool) -> None:
    assert parse(text, "").is_literal is literal


@pytest.mark.parametrize(
    ("to", "local", "leads"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.2:80", "127.0.0.1:80", False),
        ("localhost:80", "127.0.0.1:80", True),
        ("[::1]:80", "LocalHost:80", True),
        ("[::1]:80", "127.0.0.1:80", False),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("0.0.0.0:80", "[::]:80", True),
        ("10.0.0.1:80", "0.0.0.0:80", False),
        ("[0:0::1]:80", "[::1]:80", True),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("0.0.0.0:80", "10.0.0.1:80", False),
        ("[::1]:80", "0.0.0.0:80", False),  # which is IPv4 only
        ("127.0.0.2:80", "0.0.0.0:80", True),
    ],
)
def test_whether_an_address_leads_to_another(to: str, local: str, leads: bool) -> None:
    assert parse(to, "to").leads_to(parse(local, "local")) is leads


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("127.0.0.1:80", "localhost:80", True),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "[::1]:80", False),
        ("10.0.0.1:80", "0.0.0.0:80", True),
        ("10.0.0.1:80", "[::]:80", True),
        ("localhost:0", "localhost:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
    ],
)
def test_whether_two_can_listen(one: str, other: str, meet: bool) -> None:
    assert parse(one, "").meets(parse(other, "")) is meet
    assert parse(other, "").meets(parse(one, "")) is meet
