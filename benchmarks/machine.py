"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

TOOLS = {
    "Redis": ("redis-server", "--version"),
    "iperf3": ("iperf3", "--version"),
    "nginx": ("nginx", "-v"),
    "wrk": ("wrk", "-v"),
}
"""How the load and the backends tell their versions."""


def facts(versions: dict[str, str]) -> dict[str, str]:
    """What to know about the machine and what runs on it; `versions` are the peers'."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "gevent": _installed("gevent"),
        **{name: _says(*argv) for name, argv in TOOLS.items() if shutil.which(argv[0])},
        **versions,
    }


def busy(seconds: float) -> float:
    """Percent of the machine's CPU time that is used during so many seconds."""
    idle, total = _cpu_times()
    time.sleep(seconds)
    idle_later, total_later = _cpu_times()
    return 100 - 100 * (idle_later - idle) / max(1, total_later - total)


def _cpu_times() -> tuple[int, int]:
    """Ticks that all cores spent idle (waiting for a disk included), and all their ticks."""
    with open("/proc/stat") as stat:
        times = [int(each) for each in stat.readline().split()[1:9]]
    return times[3] + times[4], sum(times)


def _says(*argv: str) -> str:
    """The first line with a digit; the exit code says nothing, wrk's is 1 after its version."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    lines = (done.stdout + done.stderr).splitlines()
    return next((line.strip() for line in lines if re.search(r"\d", line)), "")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
