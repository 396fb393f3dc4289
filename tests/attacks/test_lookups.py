"""Names whose lookup hangs take no more than their number of threads, and it is said who waits."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest

from tests.control.helpers import PROMPT, Api
from tests.laws.helpers import Names, assert_fin
from tests.support import Backend, exchange, wait_for
from tests.support import dial as dial_of
from vaurien.net.dial import LOOKUPS

BEYOND = 20  # proxies more than there are threads


def threads_of(api: Api) -> int:
    """How many threads it has."""
    status = Path(f"/proc/{api.pid}/status").read_text()
    found = re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.long
def test_lookups_that_hang_have_a_limit_and_who_waits_for_one_is_told(
    tmp_path: Path, echo_backend: Backend
) -> None:
    names = Names(tmp_path)
    hosts = [f"h{n}.test" for n in range(LOOKUPS)]
    late = [f"late{n}.test" for n in range(BEYOND)]
    with Api("--connect-timeout", 1, env=names.env) as api, contextlib.ExitStack() as stack:
        calm = api.proxy(echo_backend, "calm").dial()
        stack.enter_context(calm)
        before = threads_of(api)
        for host in hosts + late:
            api.proxy(f"{host}:{echo_backend.port}", host)
        listens = {name: one["listen"] for name, one in api.ask("GET", "/proxies").items()}
        with names.hanging(hosts[0], "127.0.0.1", others=[*hosts[1:], *late]) as all_hang:
            del all_hang  # those beyond the limit are not even asked for
            waiting = []
            for host in hosts:
                waiting.append(stack.enter_context(dial_of(listens[host])))
            asked = Path(f"{tmp_path / 'pipe'}.hanging")
            wait_for(lambda: len(asked.read_text().split()) == LOOKUPS, "all threads hang")
            for host in late:
                waiting.append(stack.enter_context(dial_of(listens[host])))
            for client in waiting:
                assert_fin(client)
            for name in late:
                api.wait_log(
                    rf"{re.escape(name)}: connection 1: .*no connection within 1 s: {LOOKUPS} names"
                    r" are being looked up, and its own waits until one of them is done"
                )
            name = re.escape(hosts[0])
            api.wait_log(rf"{name}: connection 1: .*within 1 s: its name is still being looked up")
            # nobody else has noticed
            assert threads_of(api) <= before + LOOKUPS
            start = time.monotonic()
            assert exchange(calm, b"calm") == b"calm"
            assert time.monotonic() - start < PROMPT
            body = {"name": "w", "listen": "late.test:0", "upstream": echo_backend.address}
            error = api.call("POST", "/proxies", body, prompt=PROMPT + 5).json["error"]
            assert error.endswith(f"no answer: {LOOKUPS} names are being looked up"), error
            names.set(late[0], "127.0.0.1")  # before the others let it have its turn

        def works() -> bool:
            with dial_of(listens[late[0]]) as client:
                client.sendall(b"again")
                return bool(client.recv(5) == b"again")

        wait_for(works, "lookups go on when those that hung are over")
