"""Records what a real Toxiproxy answers: ``python -m tests.wire.record --server PATH``.

Each script becomes NAME.json beside this file: its steps, and after each what came of it. Where the
text on the API and the real server differ, the text wins: such a step has `vaurien`, what is
answered here, and `differs`, the name of the difference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.laws.helpers import unused_port
from tests.support import dial, wait_for
from tests.wire.clients import Script
from tests.wire.differences import expected
from tests.wire.player import Player
from tests.wire.scripts import SCRIPTS

HERE = Path(__file__).parent


def document(name: str, script: Script, server: str, answers: list[Any]) -> dict[str, Any]:
    """What the file of a recording holds."""
    talk, differences = [], []
    for step, answer in zip(script, answers, strict=True):
        entry = {"request": step.asked(), "answer": answer}
        if step.vaurien is not None:
            entry |= {"vaurien": step.vaurien, "differs": step.differs}
            differences.append(step.differs)
        else:
            differences += expected(answer)[1]
        talk.append(entry)
    return {
        "recording": name,
        "server": server,
        "differences": list(dict.fromkeys(differences)),
        "talk": talk,
    }


def record(name: str, script: Script, server: str) -> dict[str, Any]:
    """Play one script to a server of its own."""
    version = subprocess.run([server, "-version"], capture_output=True, text=True, check=True)
    port = unused_port()
    command = [server, "-host", "127.0.0.1", "-port", str(port), "-proxy-metrics"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: answers_at(port), "the server answers")
            with Player(f"127.0.0.1:{port}") as player:
                answers = [player.play(step) for step in script]
        finally:
            process.kill()
            process.wait()
    return document(name, script, version.stdout.strip(), answers)


def answers_at(port: int) -> bool:
    """Whether something listens at `port`."""
    try:
        dial(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def main() -> None:
    """Record all scripts, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.wire.record", description=__doc__)
    parser.add_argument("--server", required=True, help="path of toxiproxy-server")
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(SCRIPTS)}")
    arguments = parser.parse_args()
    for name in arguments.names or SCRIPTS:
        made = record(name, SCRIPTS[name], arguments.server)
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        (HERE / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}: {len(made['talk'])} steps")


if __name__ == "__main__":
    main()
