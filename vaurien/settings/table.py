"""The table of all settings: one declaration each, from which every source and the docs are made.

Law: data only. The command line's flags, the keys of the INI file, the environment's variables and
the reference are all read off this table, so that none of them can know a setting that the others
do not.
"""

from __future__ import annotations

from vaurien.observe.log import FORMATS, LEVELS, STDERR
from vaurien.options import LARGEST, Bounded, Option, count, number, seconds, whole
from vaurien.registry import protocol

PREFIX = "VAURIEN_"
DEFAULT = "default"  # the proxy of the plain command line

connect_seconds = Bounded(number, "seconds", 0.001, 1e6)
held_bytes = Bounded(whole, "bytes", 1, LARGEST)
idle_seconds = Bounded(number, "seconds", 0.001, 1e9, or_zero=True)  # looked for that often
spin_microseconds = Bounded(whole, "microseconds", 0, 1_000_000)  # more is never to sleep
port_number = Bounded(whole, "port", 0, 65535)
#: More the system does not take: MAX_TCP_KEEPIDLE, linux/tcp.h.
keepalive_seconds = Bounded(whole, "seconds", 1, 32767, or_zero=True)
backlog_count = Bounded(whole, "count", 1, 65535)

SETTINGS: tuple[Option, ...] = (
    Option("local", "Where clients connect: HOST:PORT, [IPV6]:PORT or unix:PATH", str,
           "localhost:8000"),
    Option("distant", "The backend: HOST:PORT, [IPV6]:PORT or unix:PATH", str, "localhost:80"),
    Option("behavior", "Which handlers deal with which share of the exchanges, in percent, such as"
           " 20:delay,5:error; the rest is passed on", str, "100:dummy"),
    Option("on-connect", "Which handlers meet which share of the clients that connect, in percent,"
           " such as 10:refuse,5:slow_accept; the rest is let in", str, None),
    Option("protocol", "How to find where exchanges begin: tcp, or the dotted path of a framer",
           protocol, "tcp"),
    Option("toxics", "Flow handlers for all exchanges: [NAME:] TYPE [OPTION=VALUE ...], separated"
           " by commas, such as latency latency=100 stream=upstream", str, None),
    Option("seed", "The seed of all random decisions; drawn and printed if not set", whole, None),
    Option("timeout", "End a connection that is idle for this many seconds; 0 for never",
           idle_seconds, 0),
    Option("connect-timeout", "Give up connecting to an address of the backend after this many"
           " seconds",
           connect_seconds, 10),
    Option("dns-ttl", "Resolve a backend's name again after this many seconds, while connections"
           " use its known addresses; 0 resolves it before each", seconds, 5),
    Option("keepalive", "Probe a peer that has been silent for this many seconds (TCP keepalive),"
           " and end the connection if it does not answer; 0 for never",
           keepalive_seconds, 15),
    Option("max-connections", "The most connections at a time; 0 for any number",
           count, 0),
    Option("backlog", "How many clients may wait to be accepted", backlog_count, 4096),
    Option("spin", "Poll for this many microseconds after the last event before sleeping: less"
           " latency for more processor time; 0 for never", spin_microseconds, 50),
    Option("max-held", "The most bytes that each flow holds while handlers delay it; then its"
           " sender waits", held_bytes, 1 << 20),
    Option("journal", "The file to which a line of JSON is appended for each exchange that a"
           " handler touched", str, None),
    Option("journal-all", "Put exchanges that no handler touched into the journal too", bool,
           False),
    Option("replay", "A journal whose decisions are repeated, in place of the draws", str, None),
    Option("strict", "End with exit code 3 if a handler of the behavior never fired", bool, False),
    Option("drain", "On SIGINT or SIGTERM, the most seconds to let connections end", seconds, 5),
    Option("http", "Serve the control API", bool, False),
    Option("http-host", "Where the control API listens: a host, or unix:PATH", str, "localhost"),
    Option("http-port", "The port of the control API; 0 for any free one", port_number, 8080),
    Option("http-token", "The token that requests must send, as Authorization: Bearer TOKEN; the"
           " word none turns it off, wherever the API listens", str, None),
    Option("http-token-file", "The file with the token", str, None),
    Option("http-allowed-host", "Names, separated by commas, by which clients may call the control"
           " API, besides those of this machine", str, None),
    Option("toxiproxy", "Serve the control API at Toxiproxy's port too", bool, False),
    Option("toxiproxy-port", "That port; 0 for any free one", port_number, 8474),
    Option("log-level", "How much is logged", str, "info", LEVELS),
    Option("log-output", "The file to which the log is appended; - is standard error", str, STDERR),
    Option("log-format", "How its lines are written", str, "text", FORMATS),
    Option("statsd", "The statsd server to which the metrics are sent once a second, by UDP:"
           " HOST:PORT", str, None),
)  # fmt: skip

#: What a ``[proxy:NAME]`` section may say.
OF_A_PROXY = ("local", "distant", "behavior", "on-connect", "protocol", "toxics", "seed")
PROXY: dict[str, Option] = {
    **{option.key: option for option in SETTINGS if option.key in OF_A_PROXY},
    "enabled": Option("enabled", "Whether it listens from the start", bool, True),
}
#: What the two addresses of a proxy are called elsewhere: in Toxiproxy, in Vaurien 1, by others.
ELSEWHERE = {
    **dict.fromkeys(("listen", "proxy", "bind", "frontend"), "local"),
    **dict.fromkeys(("upstream", "backend", "target", "remote"), "distant"),
}
MAKES_DEFAULT = ("local", "distant", "behavior")


def instead(word: str, mark: str = "{}") -> str:
    """The closing half of an error sentence for a word of `ELSEWHERE`; for others nothing.

    `mark` makes of the name of a setting how it is written there.
    """
    if word.replace("_", "-").lower() not in ELSEWHERE:
        return ""
    local, distant = (mark.format(name) for name in ("local", "distant"))
    return f"where clients connect is {local!r}, and the backend is {distant!r}"
