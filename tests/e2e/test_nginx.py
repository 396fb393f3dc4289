"""nginx with curl and requests, and Vaurien between them."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Nginx
from tests.support import Program, proxy

pytestmark = [pytest.mark.program("nginx"), pytest.mark.program("curl")]

LOSSLESS = ["100:dummy", "100:delay"]


def through(nginx: Nginx, behavior: str) -> Program:
    return proxy(
        nginx.address, "--behavior", behavior, "--handlers.delay.sleep", 0.002, "--seed", 1
    )


@pytest.fixture(params=LOSSLESS)
def program(request: pytest.FixtureRequest, nginx: Nginx) -> Iterator[Program]:
    """Vaurien before nginx, with a behavior that loses nothing."""
    with through(nginx, request.param) as running:
        yield running
        assert "Traceback" not in running.text
        assert "ERROR" not in running.text


def curl(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", *map(str, arguments)],
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_curl_keeps_its_connection(program: Program) -> None:
    url = f"http://{program.address}/"
    result = curl("--verbose", *[url] * 5)
    assert (result.returncode, result.stdout) == (0, b"<p>All is well.</p>\n" * 5)
    assert result.stderr.count(b"Re-using existing connection") == 4
    assert len(set(connections(result.stderr.decode()))) == 1


def connections(headers: str) -> list[str]:
    return [line for line in headers.splitlines() if "X-Connection" in line]


def test_requests_keeps_its_connection(program: Program) -> None:
    with requests.Session() as session:
        answers = [session.get(f"http://{program.address}/", timeout=20) for _ in range(30)]
    assert {answer.text for answer in answers} == {"<p>All is well.</p>\n"}
    assert len({answer.headers["X-Connection"] for answer in answers}) == 1


def test_curl_downloads_ten_megabytes(program: Program, nginx: Nginx, tmp_path: Path) -> None:
    file = tmp_path / "big"
    assert curl("-o", file, f"http://{program.address}/big").returncode == 0
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(nginx.big).digest()


def test_requests_streams_ten_megabytes(program: Program, nginx: Nginx) -> None:
    digest = hashlib.sha256()
    with requests.get(f"http://{program.address}/big", stream=True, timeout=20) as answer:
        for chunk in answer.iter_content(10_007):
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(nginx.big).digest()


def test_curl_uploads_ten_megabytes(program: Program, nginx: Nginx) -> None:
    url = f"http://{program.address}/up/by-curl"
    result = curl("--fail", "--upload-file", nginx.root / "big", url)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (nginx.root / "up/by-curl").read_bytes() == nginx.big


def test_requests_uploads_ten_megabytes(program: Program, nginx: Nginx) -> None:
    answer = requests.put(f"http://{program.address}/up/mine", data=nginx.big, timeout=20)
    assert answer.ok
    assert (nginx.root / "up/mine").read_bytes() == nginx.big


@pytest.mark.parametrize(
    ("behavior", "codes"),
    [  # curl(1), "EXIT CODES"
        ("100:reset", {56}),  # failure in receiving
        ("100:blackout", {52}),  # nothing was returned
        ("100:abort", {52}),
        ("100:error", {1, 8, 52, 56}),  # no HTTP that it knows
        ("100:hang", {28}),  # timed out
        ("100:dummy", {0}),
    ],
)
def test_curl_sees_what_the_handler_says(behavior: str, codes: set[int], nginx: Nginx) -> None:
    with through(nginx, behavior) as program:
        result = curl("--max-time", 1 if "hang" in behavior else 20, f"http://{program.address}/")
    assert result.returncode in codes, result.stderr
    assert (b"All is well" in result.stdout) == (codes == {0})


def test_a_share_of_the_requests_fails_as_asked(nginx: Nginx) -> None:
    outcomes = []
    with through(nginx, "30:reset") as program:
        for _ in range(60):
            try:
                answer = requests.get(f"http://{program.address}/", timeout=20)
                outcomes.append(answer.text)
            except requests.ConnectionError as error:
                outcomes.append("reset" if "reset" in str(error).lower() else str(error))
    assert set(outcomes) == {"reset", "<p>All is well.</p>\n"}
    assert 5 <= outcomes.count("reset") <= 33  # 99.99 % of the binomial distribution
