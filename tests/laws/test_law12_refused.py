"""Law 12: what is configured wrongly is refused before anything listens, with a sentence that names
the setting, the value and the nearest right one; nothing is ignored in silence.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.laws.helpers import write_module
from tests.support import Backend, proxy, run

MODULE = """
class Mine(BaseHandler):
    name = "mine"
    options = {"speed": ("How fast", int, 3), "mode": ("How", str, "slow", ("slow", "fast"))}

    def __call__(self, client_sock, backend_sock, to_backend):
        pass


class Unbuildable(Mine):
    name = "unbuildable"

    def __init__(self, settings, proxy):
        raise ValueError("no such weather")


class OtherMine(Mine):
    pass


class Plain:
    name = "plain"


def function(client_sock, backend_sock, to_backend):
    pass
"""

#: Arguments, and what the one sentence has to name.
WRONG = [
    (["--behaviour", "10:delay"], ["--behaviour", "--behavior"]),
    (["--behavior", "10:dleay"], ["--behavior", "dleay", "delay"]),
    (["--behavior", "60:delay,50:error"], ["--behavior", "60:delay,50:error", "110", "100"]),
    (["--behavior", "ten:delay"], ["--behavior", "ten", "delay"]),
    (["--behavior", "-1:delay"], ["--behavior", "-1", "delay"]),
    (["--local", "nowhere"], ["--local", "nowhere", "HOST:PORT"]),
    (["--local", "127.0.0.1:70000"], ["--local", "70000", "65535"]),
    (["--distant", "127.0.0.1:0"], ["--distant", "127.0.0.1:0"]),
    (["--distant", "http://example.org/"], ["--distant", "http://example.org/", "HOST:PORT"]),
    (["--seed", "1.5"], ["--seed", "1.5"]),
    (["--timeout", "soon"], ["--timeout", "soon"]),
    (["--timeout", "-1"], ["--timeout", "-1"]),
    (["--connect-timeout", "nan"], ["--connect-timeout", "nan"]),
    (["--max-connections", "-5"], ["--max-connections", "-5"]),
    (["--log-level", "loud"], ["--log-level", "loud"]),
    (["--config", "nowhere.ini"], ["--config", "nowhere.ini"]),
    (["--handlers.dleay.sleep", "1"], ["--handlers.dleay.sleep", "dleay", "delay"]),
    (["--handlers.delay.slep", "1"], ["--handlers.delay.slep", "slep", "sleep"]),
    (["--handlers.delay.sleep", "long"], ["--handlers.delay.sleep", "long"]),
    (["--handlers.delay.before", "maybe"], ["--handlers.delay.before", "maybe", "yes"]),
    (["--handlers.error.scope", "proxi"], ["--handlers.error.scope", "proxi", "proxy"]),
    (["--behavior", "10:own.Nobody"], ["--behavior", "own", "Nobody"]),
    (["--behavior", "10:own.mine"], ["--behavior", "mine", "Mine"]),
    (["--behavior", "10:nowhere.Mine"], ["--behavior", "nowhere.Mine"]),
    (["--behavior", "10:own.Plain"], ["--behavior", "own.Plain", "options"]),
    (["--behavior", "10:own.function"], ["--behavior", "own.function", "class"]),
    (["--behavior", "10:own.Unbuildable"], ["unbuildable", "no such weather"]),
    (["--behavior", "10:own.Mine,10:own.OtherMine"], ["--behavior", "mine", "OtherMine"]),
    (
        ["--behavior", "10:own.Mine", "--handlers.mine.speed", "fast"],
        ["--handlers.mine.speed", "fast"],
    ),
    (
        ["--behavior", "10:own.Mine", "--handlers.mine.mode", "fsat"],
        ["--handlers.mine.mode", "fsat", "fast"],
    ),
]


@pytest.mark.parametrize(("arguments", "named"), WRONG, ids=lambda x: " ".join(x)[:50])
def test_what_is_wrong_is_refused_before_anything_listens(
    tmp_path: Path, arguments: list[str], named: list[str]
) -> None:
    write_module(tmp_path, MODULE)
    local = [] if "--local" in arguments else ["--local", "unix:here"]
    done = run(*local, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert not os.path.lexists(tmp_path / "here")
    (sentence,) = done.stderr.splitlines()
    for word in named:
        assert word in sentence


def test_a_wrong_option_of_a_handler_that_is_not_picked_is_refused_as_well() -> None:
    done = run("--check", "--behavior", "100:dummy", "--handlers.delay.sleep", "long")
    assert done.returncode == 2
    assert "--handlers.delay.sleep" in done.stderr


def test_an_option_of_a_handler_that_nothing_picks_is_not_ignored_in_silence(
    echo_backend: Backend,
) -> None:
    with proxy(echo_backend, "--handlers.delay.sleep", 1) as vaurien:
        vaurien.wait_log(r"--handlers\.delay.*delay")


def test_an_unknown_variable_of_the_environment_only_warns(echo_backend: Backend) -> None:
    # Kubernetes makes such.
    with proxy(echo_backend, env={"VAURIEN_SERVICE_HOST": "10.0.0.1"}) as vaurien:
        vaurien.wait_log("WARNING.*VAURIEN_SERVICE_HOST")
