"""The proxies that are measured and how each is started: one process, one listener, one backend.

A peer is named by a *spec*: its name, and for Vaurien's also settings to compare, most of which
become flags: `vaurien:spin=100;seed=7` is run with `--spin=100 --seed=7`. Two are no flags: `root`
is the checkout to run from, `python` the interpreter, so that `vaurien,vaurien:root=/tmp/before`
compares two states of the code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from .processes import Address, RunError, free_address, started

ROOT = Path(__file__).resolve().parent.parent

HANDLERS = {"PYTHONPATH": str(ROOT / "benchmarks" / "handlers")}
"""What Vaurien's environment has beside ours: where `Fault`s find handlers that are not its own."""

NO_FLAGS = ("root", "python")
"""The settings that are not passed on to Vaurien."""

BEFORE = "before"
"""The spec of the version before, which takes no settings and has its checkout from elsewhere."""

OTHER_BLOCKS = ("bulk-64", "bulk-1024")
"""Measures of bulk that say no more of some peers than the first one does."""

MAXIMUM = 8000
"""Connections that a peer is set up for, where it wants to know; more than any measure opens."""


@dataclass(frozen=True)
class Fault:
    """What a proxy is to do to what comes from the backend.

    Toxiproxy and Vaurien have the same names for a fault and its attributes. `share` is the percent
    it comes up in: of the exchanges with Vaurien, of the connections with Toxiproxy.
    """

    name: str
    attributes: dict[str, int] = field(default_factory=dict)
    share: str = "100"


@dataclass(frozen=True)
class Setup:
    """One of the ways in which a measure has a peer started.

    `key` is the measure's name for it. `flags` are Vaurien's, beside those of the peer and of the
    fault; None is for one that is not given at all, `{scratch}` stands for a directory for files.
    `one_core` is for peers that would use all there are.
    """

    fault: Fault | None = None
    key: str = ""
    flags: dict[str, str | None] = field(default_factory=dict)
    only_vaurien: bool = False
    one_core: bool = False


@dataclass(frozen=True)
class Launch:
    """Where a peer is to listen, what it is to stand before, and a directory for its files.

    `api` is a free address for its control, if it has one; a peer that can do without is to use it
    if it is `controlled`.
    """

    local: Address
    backend: Address
    scratch: Path
    settings: dict[str, str]
    api: Address
    fault: Fault | None = None
    controlled: bool = False
    flags: dict[str, str | None] = field(default_factory=dict)
    one_core: bool = False


@dataclass(frozen=True)
class Peer:
    """A proxy, how it is started and how it tells its version.

    `command` is None for direct. `version` is a command, too; Vaurien's follows from its settings.
    `idle` is the number of connections that idle memory is measured with, `skips` names the
    measures that make no sense for it. `settings` are Vaurien's. `faults` says whether it is
    measured with faults; `inject` brings about the fault of a launch once the peer listens, where
    the command could not.
    """

    spec: str
    label: str
    command: Callable[[Launch], list[str]] | None = None
    version: tuple[str, ...] = ()
    idle: int = 2000
    skips: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    faults: bool = False
    inject: Callable[[Launch], None] | None = None

    @property
    def root(self) -> Path:
        """The directory it is started in; `python -m` looks there first."""
        return Path(self.settings.get("root", ROOT))

    @property
    def is_vaurien(self) -> bool:
        """Whether it is Vaurien, with whatever settings and of whatever version."""
        return self.command is _vaurien


@dataclass(frozen=True)
class Subject:
    """What a measure looks at: where to connect, the backend, the process (None for direct).

    `api` is where its control API is, if it was started with one; `scratch` has its files.
    """

    peer: Peer
    address: Address
    backend: Address
    pid: int | None
    api: Address | None = None
    setup: Setup = Setup()
    scratch: Path = Path()


def split(specs: str) -> list[str]:
    """Split at the commas before a peer's name: those within a behavior stay."""
    names = "|".join(sorted(PEERS, key=len, reverse=True))
    return re.split(rf",(?=(?:{names})(?:[:,]|$))", specs)


def parse(spec: str) -> Peer:
    """The peer of a spec; raises ValueError with a sentence if it makes no sense."""
    name, colon, rest = spec.partition(":")
    if name not in PEERS:
        raise ValueError(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
    peer = PEERS[name]
    if not colon:
        return peer
    if not peer.is_vaurien:
        raise ValueError(f"{spec!r}: only Vaurien takes settings")
    settings = dict(peer.settings)
    for pair in rest.split(";"):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"{spec!r}: {pair!r} is not KEY=VALUE")
        settings[key] = value
    return replace(peer, spec=spec, label=spec, settings=settings)


def before(root: Path, skips: tuple[str, ...] = ()) -> Peer:
    """The Vaurien of another checkout; raises ValueError with a sentence if there is none."""
    if not (root / "vaurien" / "__init__.py").is_file():
        raise ValueError(f"{root} is not a checkout of Vaurien: it has no vaurien/__init__.py")
    vaurien = PEERS["vaurien"]
    settings = {**vaurien.settings, "root": str(root.resolve())}
    return replace(vaurien, spec=BEFORE, label=BEFORE, settings=settings, skips=skips)


def version(peer: Peer) -> str:
    """The version of a peer, empty for direct; raises RunError with a sentence if it cannot run."""
    argv = (*_vaurien_program(peer.settings), "--version") if peer.is_vaurien else peer.version
    try:
        said = says(*argv, cwd=peer.root) if argv else ""
        if peer.command is _nginx:
            _nginx_load_module()
    except FileNotFoundError as error:
        raise RunError(f"{error.filename} is not there") from None
    if peer.is_vaurien:
        with suppress(RunError, FileNotFoundError):
            said += f" ({says('git', 'describe', '--always', '--dirty', cwd=peer.root)})"
    return said


@contextmanager
def running(
    peer: Peer,
    backend: Address,
    scratch: Path,
    setup: Setup = Setup(),
    controlled: bool = False,
    core: int | None = None,
) -> Iterator[Subject]:
    """Run the peer before the backend until the block ends; `scratch` is for its files alone.

    It is kept to `core`, if there is one.
    """
    if peer.command is None:
        yield Subject(peer, backend, backend, None, None, setup, scratch)
        return
    fault = setup.fault
    launch = Launch(
        free_address(),
        backend,
        scratch,
        peer.settings,
        free_address(),
        fault,
        controlled,
        setup.flags,
        setup.one_core,
    )
    argv = peer.command(launch)
    if core is not None:
        argv = ["taskset", "-c", str(core), *argv]
    listens_on = [launch.local, launch.api] if peer.inject or controlled else [launch.local]
    with started(argv, listens_on, scratch / "peer.log", peer.root, HANDLERS) as process:
        if fault is not None and peer.inject is not None:
            peer.inject(launch)
        api = launch.api if controlled else None
        yield Subject(peer, launch.local, backend, process.pid, api, setup, scratch)


def says(*argv: str, cwd: Path | None = None) -> str:
    """The first line a command prints that has a digit in it, for versions."""
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=30)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    if done.returncode:
        raise RunError(f"`{' '.join(argv)}` fails: {lines[-1] if lines else 'no output'}")
    return next((line for line in lines if re.search(r"\d", line)), "")


def _haproxy(launch: Launch) -> list[str]:
    config = launch.scratch / "haproxy.cfg"
    config.write_text(
        f"global\n  nbthread 1\n  maxconn {MAXIMUM}\n"
        f"defaults\n  mode tcp\n  maxconn {MAXIMUM}\n"
        "  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen bench\n  bind {launch.local}\n  server backend {launch.backend}\n"
    )
    return ["haproxy", "-db", "-q", "-f", str(config)]


def _nginx(launch: Launch) -> list[str]:
    config = launch.scratch / "nginx.conf"
    server = f"listen {launch.local} backlog=4096; proxy_pass {launch.backend};"
    config.write_text(
        f"{_nginx_load_module()}daemon off;\nworker_processes 1;\n"
        f"pid {launch.scratch}/nginx.pid;\nerror_log stderr crit;\n"
        f"events {{ worker_connections {2 * MAXIMUM}; }}\n"
        f"stream {{\n  access_log off;\n  proxy_timeout 1h;\n  server {{ {server} }}\n}}\n"
    )
    return ["nginx", "-p", str(launch.scratch), "-e", "stderr", "-c", str(config)]


def _nginx_load_module() -> str:
    """The directive that loads the stream module; empty where it is built in.

    Raises RunError if there is none: Debian's nginx-light has it in a package of its own.
    """
    built = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
    if re.search(r"--with-stream(?!=dynamic|_)", built):
        return ""
    modules = re.search(r"--modules-path=(\S+)", built)
    module = Path(modules[1] if modules else "", "ngx_stream_module.so")
    if "--with-stream=dynamic" not in built or not module.is_file():
        raise RunError("nginx has no stream module (apt-get install libnginx-mod-stream)")
    return f"load_module {module};\n"


def _socat(launch: Launch) -> list[str]:
    host, port = launch.local
    listen = f"TCP4-LISTEN:{port},bind={host},fork,backlog=4096,nodelay"
    return ["socat", listen, f"TCP4:{launch.backend},nodelay"]


def _toxiproxy(launch: Launch) -> list[str]:
    config = launch.scratch / "toxiproxy.json"
    ends = {"listen": str(launch.local), "upstream": str(launch.backend)}
    config.write_text(json.dumps([{"name": "bench", "enabled": True, **ends}]))
    flags = ["-host", launch.api.host, "-port", str(launch.api.port), "-config", str(config)]
    # Left to itself it logs each connection, which none of the others does.
    environment = ["LOG_LEVEL=error", *(["GOMAXPROCS=1"] if launch.one_core else [])]
    return ["env", *environment, "toxiproxy-server", *flags]


def _toxiproxy_toxic(launch: Launch) -> None:
    """Add the toxic: its configuration file cannot hold one."""
    fault = launch.fault
    assert fault is not None
    toxicity = float(fault.share) / 100
    wanted = {"type": fault.name, "attributes": fault.attributes, "toxicity": toxicity}
    url = f"http://{launch.api}/proxies/bench/toxics"
    try:
        with urllib.request.urlopen(url, json.dumps(wanted).encode(), timeout=10) as answer:
            made = json.load(answer)
    except OSError as error:
        raise RunError(f"Toxiproxy refused {wanted}: {error}") from None
    if made["stream"] != "downstream" or not fault.attributes.items() <= made["attributes"].items():
        raise RunError(f"Toxiproxy was asked for {wanted} and made {made}")


def _vaurien(launch: Launch) -> list[str]:
    settings = {
        "local": str(launch.local),
        "distant": str(launch.backend),
        "log-level": "warning",
        **launch.settings,
    }
    if launch.controlled:
        settings.update(http="yes", **{"http-host": launch.api.host})
        settings["http-port"] = str(launch.api.port)
    if launch.fault is not None:
        fault = launch.fault
        settings["behavior"] = f"{fault.share}:{fault.name}"
        for name, value in fault.attributes.items():
            settings[f"handlers.{fault.name}.{name}"] = str(value)
    for key, text in launch.flags.items():
        settings.pop(key, None)
        if text is not None:
            settings[key] = text.replace("{scratch}", str(launch.scratch))
    flags = [f"--{key}={value}" for key, value in settings.items() if key not in NO_FLAGS]
    return [*_vaurien_program(launch.settings), *flags]


def _vaurien_program(settings: dict[str, str]) -> list[str]:
    return [settings.get("python", sys.executable), "-m", "vaurien"]


PEERS = {
    peer.spec: peer
    for peer in (
        Peer("direct", "direct", skips=("idle",)),
        Peer("haproxy", "HAProxy", _haproxy, ("haproxy", "-v")),
        Peer("nginx", "nginx stream", _nginx, ("nginx", "-v"), skips=OTHER_BLOCKS),
        # A process a connection: 200 tell what one costs, 2,000 are more than a machine may take.
        Peer("socat", "socat", _socat, ("socat", "-V"), idle=200, skips=OTHER_BLOCKS),
        Peer(
            "toxiproxy",
            "Toxiproxy",
            _toxiproxy,
            ("toxiproxy-server", "-version"),
            skips=("native", "wrk-delay-20", "wrk-delay", "wrk-handler"),
            faults=True,
            inject=_toxiproxy_toxic,
        ),
        Peer("vaurien", "vaurien", _vaurien, settings={"behavior": "100:dummy"}, faults=True),
        # A plan of nothing but dummy skips the pick. A share too small to come up makes it pick,
        # and harms nobody.
        Peer(
            "vaurien-picks",
            "vaurien picks",
            _vaurien,
            skips=(*OTHER_BLOCKS, "bulk", "pipeline-16", "wrk-plain"),
            settings={"behavior": "0.000001:delay", "handlers.delay.sleep": "0"},
        ),
        Peer(
            "vaurien-delay",
            "vaurien 20:delay",
            _vaurien,
            # One stream is one exchange: it is delayed as a whole or not at all.
            skips=(*OTHER_BLOCKS, "bulk", "pipeline-16", "wrk-plain"),
            settings={"behavior": "20:delay", "handlers.delay.sleep": "0"},
        ),
    )
}
