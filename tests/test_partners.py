"""Settings that do nothing without another one: none is ignored in silence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support import run

REFUSED = {
    "--http-port 1": "there is no control API; give --http too",
    "--http-port 1 --toxiproxy": "served at --toxiproxy-port only; give --http too",
    "--http-host unix:x --toxiproxy": "--toxiproxy has no unix socket; give --http too",
    "--toxiproxy-port 1 --http": "Toxiproxy's port is not served; give --toxiproxy too",
    "--http-allowed-host a --http --http-host unix:x": "a unix socket; give --toxiproxy too",
    "--http-token a": "there is no control API; give --http too",
    "--http-allowed-host a": "there is no control API; give --http too",
    "--journal-all yes": "there is no journal; give --journal FILE too",
}
WARNED = {
    ("--toxiproxy", "HTTP_PORT=1"): "VAURIEN_HTTP_PORT: the API is served at --toxiproxy-port only",
    ("--http", "TOXIPROXY_PORT=1"): "set VAURIEN_TOXIPROXY too",
    ("--strict", ""): "--strict: there is no handler that could fail to fire; give --behavior",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_a_flag_without_its_partner_is_refused(flags: str) -> None:
    words = flags.split()
    ended = run("--check", "--local", "localhost:0", *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"vaurien: {words[0]}: ")
    assert REFUSED[flags] in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("given", WARNED)
def test_a_variable_without_its_partner_is_warned_of(given: Sequence[str]) -> None:
    flag, variable = given
    name, _, value = variable.partition("=")
    env = {f"VAURIEN_{name}": value} if name else {}
    ended = run("--check", "--local", "localhost:0", flag, env=env)
    assert ended.returncode == 0
    assert WARNED[given[0], given[1]] in ended.stderr


def test_a_strict_run_that_has_a_handler_or_an_api_is_not_warned_of() -> None:
    for more in (["--behavior", "1:delay"], ["--toxics", "noop"], ["--http"]):
        assert run("--check", "--local", "localhost:0", "--strict", *more).stderr == ""
