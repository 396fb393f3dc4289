"""Words of other programs on the command line of ``vaurien``, and what to write in their place.

Laws: pure; nothing is taken for another word in silence: the sentence says what to write.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from vaurien.errors import nearest
from vaurien.settings.table import instead

#: The flags of ``toxiproxy-server`` that take a value, and what they are here.
_SERVERS = {
    "host": "--http-host",
    "port": "--toxiproxy-port",
    "config": "--config",
    "seed": "--seed",
}
_SWITCHES = ("proxy-metrics", "runtime-metrics")  # here the metrics are always there


def hint(unknown: str, arguments: Sequence[str], known: Iterable[str]) -> str:
    """What to write in place of the `unknown` one of the `arguments`; `known` are our flags."""
    name = unknown.partition("=")[0].lstrip("-")
    single = is_single(unknown)
    # a port alone, with two dashes, may be anybody's
    if (single or name != "port") and name in {*_SERVERS, *_SWITCHES}:
        return f"in place of the flags of toxiproxy-server write: vaurien {_translated(arguments)}"
    flag = unknown.partition("=")[0]
    return instead(name, "--{}") or nearest(f"-{flag}" if single else flag, known, "flags")


def is_single(argument: str) -> bool:
    """Whether it is a flag of one dash and several letters, as Go has them and we do not."""
    return len(argument) > 2 and argument[0] == "-" and argument[1].isalpha()


def _translated(arguments: Sequence[str]) -> str:
    """A command line of ``toxiproxy-server`` in our words; what else it has stays as it is."""
    made = ["--toxiproxy"]
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-")
        if not flag.startswith("-") or name not in {*_SERVERS, *_SWITCHES}:
            made += [argument] if argument != "--toxiproxy" else []
        elif name in _SERVERS:
            made += [_SERVERS[name], value] if equals else [_SERVERS[name]]
    return shlex.join(made)
