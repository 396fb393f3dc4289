"""What two programs could read in two ways, or a page of a browser could read at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.served import Served, statuses
from tests.support import Backend, echo, run

CHUNKED = "POST /reset HTTP/1.%d\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Backend(echo) as backend, Served("--distant", backend.address) as made:
        yield made


@pytest.mark.parametrize(
    "body",
    [
        b"0;a\nb\r\n\r\n",
        b"0;\n\r\n\r\n",
        b"2;a=\n\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0;x\n\r\n\r\n",
        b"0\n\r\n",
    ],
)
def test_a_lf_alone_is_none_of_a_chunk(served: Served, body: bytes) -> None:
    follows = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert statuses(served.api.talk((CHUNKED % 1).encode() + body + follows)) == [400]


@pytest.mark.parametrize(
    "body",
    [b"0\r\n\r\n", b"0;a=b\r\n\r\n", b"1;x\r\n\n\r\n0\r\n\r\n", b"2\r\n\r\n\r\n0\r\nA: b\r\n\r\n"],
)
def test_what_a_chunk_may_have_is_taken(served: Served, body: bytes) -> None:
    follows = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert statuses(served.api.talk((CHUNKED % 1).encode() + body + follows))[-1:] == [200]


def test_http_1_0_has_no_transfer_encoding(served: Served) -> None:
    assert statuses(served.api.talk((CHUNKED % 0).encode() + b"0\r\n\r\n")) == [400]
    assert statuses(served.api.talk(b"POST /reset HTTP/1.0\r\n\r\n")) == [204]


@pytest.mark.parametrize("path", ["/metrics", "/health"])
def test_what_is_open_to_all_is_open_by_no_name_of_another(served: Served, path: str) -> None:
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example"):
        answer = served.api.call("GET", path, headers={"Host": host})
        assert answer.status == 403, host
        assert "is no name of this machine" in answer.error
    for host in ("localhost", "10.1.2.3:8080", "[2001:db8::1]:8080", "127.0.0.1"):
        assert served.api.call("GET", path, headers={"Host": host}).status == 200, host


def test_a_name_that_is_allowed_may_ask_for_figures() -> None:
    with (
        Backend(echo) as backend,
        Served("--distant", backend.address, "--http-allowed-host", "vaurien") as served,
    ):
        for host, status in (("vaurien:8080", 200), ("other", 403)):
            for path in ("/metrics", "/health"):
                assert served.api.call("GET", path, headers={"Host": host}).status == status


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_api_s_socket_is_its_owner_s_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "api.sock"
    before = os.umask(umask)
    try:
        with Served("--http-host", f"unix:{path}") as served:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert served.api.call("GET", "/health").status == 200
    finally:
        os.umask(before)


@pytest.mark.parametrize("setting", ["--journal", "--log-output"])
def test_no_file_is_made_through_a_link_that_leads_nowhere(tmp_path: Path, setting: str) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    ended = run("--local", "127.0.0.1:0", "--distant", "127.0.0.1:1", setting, link)
    assert ended.returncode == 2
    assert f"{setting}: cannot write '{link}': it is a link to a file that does not" in ended.stderr
    assert not target.exists()
