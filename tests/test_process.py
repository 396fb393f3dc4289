"""``start_proxy`` and ``stop_proxy``: ready when they say so, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vaurien
from tests.support import PATIENCE, Backend, dial, exchange, wait_for
from vaurien import Client, ClientError, UsageError, VaurienError, start_proxy, stop_proxy

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VAURIEN_"):
            monkeypatch.delenv(name)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has asked after yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_listens_when_the_call_returns(echo_backend: Backend) -> None:
    running = start_proxy(distant=echo_backend.address)
    try:
        with dial(running.address) as sock:
            assert exchange(sock, b"hello") == b"hello"
        assert running.proxies == {"default": running.address}
        assert running.client.health()["status"] == "ok"
        assert alive(running.pid)
        assert f"pid {running.pid}: default at {running.address}" in repr(running)
    finally:
        code = stop_proxy(running)
    assert code == 0
    assert not alive(running.pid)
    assert running.stop() == 0
    assert "ended with 0" in repr(running)
    with pytest.raises(OSError, match="refused"):
        dial(running.address)


def test_settings_are_keywords(echo_backend: Backend) -> None:
    with start_proxy(
        local="127.0.0.1:0",
        distant=echo_backend.address,
        behavior="100:error",
        handlers={"error": {"inject": False, "warmup": 0}},
        on_connect="0:refuse",
        max_connections=10,
        seed=7,
        journal=None,
    ) as running:
        state = running.client.proxy("default")
        assert state["behavior"] == "100:error"
        assert state["on_connect"] == "0:refuse"
        assert state["handlers"]["error"]["inject"] is False
        assert state["seed"] == 7
        with dial(running.address) as sock:
            assert exchange(sock, b"hello") != b"hello"
        wait_for(lambda: "error" in running.log, "the line of the log")
    assert "error" in running.log


def test_a_file_may_have_many_proxies(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "farm.ini"
    names = ("one", "two")
    file.write_text(
        "".join(
            f"[proxy:{name}]\nlocal = 127.0.0.1:0\ndistant = {echo_backend.address}\n"
            for name in names
        )
    )
    with start_proxy(config=file) as running:
        assert tuple(running.proxies) == names
        assert running.address == running.proxies["one"]
        for address in running.proxies.values():
            with dial(address) as sock:
                assert exchange(sock, b"hello") == b"hello"


def test_it_may_begin_without_a_proxy(echo_backend: Backend) -> None:
    with start_proxy() as running:
        assert running.proxies == {}
        with pytest.raises(VaurienError, match=r"client\.create"):
            _ = running.address
        state = running.client.create("redis", "127.0.0.1:0", echo_backend.address)
        with dial(state["local"]) as sock:
            assert exchange(sock, b"hello") == b"hello"


def test_it_may_run_without_an_api(echo_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAURIEN_HTTP", "yes")
    with start_proxy(distant=echo_backend.address, http=False) as running:
        assert running.http is None
        with pytest.raises(VaurienError, match="http=False"):
            _ = running.client
        with dial(running.address) as sock:
            assert exchange(sock, b"hello") == b"hello"


def test_wrong_settings_are_its_own_sentence(echo_backend: Backend) -> None:
    with pytest.raises(UsageError, match=r"^behavior: .*'dleay'; did you mean 'delay'\?$"):
        start_proxy(distant=echo_backend.address, behavior="20:dleay")
    with pytest.raises(UsageError, match=r"'distnat=.*did you mean 'distant'"):
        start_proxy(distnat=echo_backend.address)
    with pytest.raises(
        UsageError, match=r"unknown argument 'log_uotput=/--a-b'; did you mean 'log_o"
    ):
        start_proxy(distant=echo_backend.address, log_uotput="/--a-b")
    with pytest.raises(UsageError, match=r"^journal: .*'/nope/--foo-bar'"):
        start_proxy(distant=echo_backend.address, journal="/nope/--foo-bar")
    with pytest.raises(UsageError, match=r"^behavior: .*'--foo-bar'"):
        start_proxy(distant=echo_backend.address, behavior="--foo-bar")
    with pytest.raises(UsageError, match=r"^http_token: http_token_file is given too; leave one"):
        start_proxy(http_token="x", http_token_file="/nope")
    with pytest.raises(UsageError, match=r"^handlers.delay.slep: .*did you mean 'sleep'"):
        start_proxy(distant=echo_backend.address, handlers={"delay": {"slep": 1}})
    with pytest.raises(UsageError, match=r"^handlers: .* is not options by handler"):
        start_proxy(handlers={"delay": 1})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=r"^running: 5 is not what start_proxy returns"):
        stop_proxy(5)  # type: ignore[arg-type]


def test_an_address_that_is_taken_is_its_own_sentence(echo_backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        local = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(VaurienError, match=local) as caught:
            start_proxy(local=local, distant=echo_backend.address)
    assert not isinstance(caught.value, UsageError)


def test_what_does_not_become_ready_is_ended(tmp_path: Path) -> None:
    fifo = tmp_path / "config.ini"
    os.mkfifo(fifo)  # whoever opens it to read waits
    with pytest.raises(VaurienError, match=r"does not listen after 1 s"):
        start_proxy(config=fifo, ready_timeout=1)
    assert _children() == []


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_failures_leave_nothing_behind(echo_backend: Backend) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with pytest.raises(UsageError):
            start_proxy(distant=echo_backend.address, behavior="x")
        start_proxy(distant=echo_backend.address).stop()
    assert len(os.listdir("/proc/self/fd")) == before
    assert _children() == []


def test_the_exit_code_is_told(echo_backend: Backend) -> None:
    running = start_proxy(distant=echo_backend.address, behavior="0:delay", strict=True)
    assert stop_proxy(running) == 3
    assert "delay" in running.log


def test_what_does_not_end_is_killed(echo_backend: Backend) -> None:
    running = start_proxy(distant=echo_backend.address)
    os.kill(running.pid, signal.SIGSTOP)
    assert running.stop(timeout=0.2) == -signal.SIGKILL


def test_one_that_died_is_stopped_all_the_same(echo_backend: Backend) -> None:
    running = start_proxy(distant=echo_backend.address)
    os.kill(running.pid, signal.SIGKILL)
    assert running.stop() == -signal.SIGKILL


def test_ctrl_c_at_the_caller_does_not_reach_it(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address) as running:
        assert os.getpgid(running.pid) != os.getpgid(0)


def test_the_token_is_not_among_its_arguments(echo_backend: Backend) -> None:
    with start_proxy(distant=echo_backend.address, http_token="secret") as running:
        assert b"secret" not in Path(f"/proc/{running.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("secret", ["http-token = secret", "http-token-file = {}"])
def test_the_client_has_the_token_of_the_file(
    secret: str, tmp_path: Path, echo_backend: Backend
) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    file = tmp_path / "vaurien.ini"
    file.write_text(
        f"[vaurien]\nlocal = 127.0.0.1:0\ndistant = {echo_backend.address}\n{secret.format(token)}"
    )
    with start_proxy(config=file) as running:
        assert len(running.client.proxies()) == 1
        with pytest.raises(ClientError, match="token"):
            Client(running.http).proxies()


def test_one_kind_of_token_in_the_arguments_wins_over_the_other_elsewhere(
    tmp_path: Path, echo_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("of-the-file\n")
    file = tmp_path / "vaurien.ini"
    file.write_text(f"[vaurien]\nhttp-token-file = {tmp_path}/nowhere\n")
    address = echo_backend.address
    monkeypatch.setenv("VAURIEN_HTTP_TOKEN", "of-the-environment")
    with start_proxy(distant=address, http_token=None, http_token_file=token) as running:
        assert len(Client(running.http, token="of-the-file").proxies()) == 1
        assert len(running.client.proxies()) == 1
    monkeypatch.delenv("VAURIEN_HTTP_TOKEN")
    monkeypatch.setenv("VAURIEN_HTTP_TOKEN_FILE", str(tmp_path / "nowhere"))
    with start_proxy(config=file, http_token="of-the-arguments") as running:
        assert running.client.proxies() == []


@pytest.mark.parametrize("given", ["file", "environment"])
def test_the_api_may_be_at_a_unix_socket(
    given: str, tmp_path: Path, echo_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"unix:{tmp_path}/api"
    settings: dict[str, object] = {"distant": echo_backend.address}
    if given == "file":
        settings["config"] = file = tmp_path / "vaurien.ini"
        file.write_text(f"[vaurien]\nhttp-host = {place}\nlocal = 127.0.0.1:0\n")
    else:
        monkeypatch.setenv("VAURIEN_HTTP_HOST", place)
    with start_proxy(**settings) as running:  # type: ignore[arg-type]
        assert running.http == place
        assert len(running.client.proxies()) == 1


CALLER = """
import os, sys, threading, vaurien
started = []
start = lambda: started.append(vaurien.start_proxy(distant=sys.argv[1]))
thread = threading.Thread(target=start)
thread.start()
thread.join()
(running,) = started
child = os.fork() if "fork" in sys.argv else None
if child == 0:
    sys.stdin.read()
    os._exit(0)
print(running.pid, running.address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["", "fork"])
def caller(
    request: pytest.FixtureRequest, echo_backend: Backend
) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A program that has started a proxy in a thread and goes on; the proxy's number and address.

    It may have forked, and its child goes on as well.
    """
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, echo_backend.address, request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            pid, address = process.stdout.readline().split()
            yield process, int(pid), address
        finally:
            process.kill()


def test_it_ends_when_its_caller_is_killed(
    caller: tuple[subprocess.Popen[str], int, str],
) -> None:
    process, pid, address = caller
    with dial(address) as sock:
        assert exchange(sock, b"hello") == b"hello"
        assert alive(pid)
        process.kill()
        wait_for(lambda: not alive(pid), "the proxy to go", PATIENCE)
    with pytest.raises(OSError, match="refused"):
        dial(address)


@pytest.mark.parametrize("fork", ["", "fork"])
def test_it_ends_with_its_caller_though_python_has_no_pidfd_open(
    fork: str, tmp_path: Path, echo_backend: Backend
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\ndel os.pidfd_open\n")
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, echo_backend.address, fork],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    ) as process:
        assert process.stdout is not None
        number, address = process.stdout.readline().split()
        pid = int(number)
        try:
            process.kill()
            wait_for(lambda: not alive(pid), "the proxy to go", PATIENCE)
        finally:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
    with pytest.raises(OSError, match="refused"):
        dial(address)


def test_it_ends_when_its_caller_ends_without_a_word(
    caller: tuple[subprocess.Popen[str], int, str],
) -> None:
    process, pid, _ = caller
    assert process.stdin is not None
    process.stdin.close()
    process.wait(PATIENCE)
    wait_for(lambda: not alive(pid), "the proxy to go", PATIENCE)


def test_the_public_names_are_there() -> None:
    for name in vaurien.__all__:
        assert getattr(vaurien, name) is not None
        assert name in dir(vaurien)
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        _ = vaurien.Clint


@pytest.mark.parametrize("wrong", ["x", None, True])
def test_a_time_that_is_none_is_refused_before_anything_starts(wrong: Any) -> None:
    with pytest.raises(UsageError, match=f"ready_timeout: {wrong!r} is not a time"):
        start_proxy(ready_timeout=wrong)
