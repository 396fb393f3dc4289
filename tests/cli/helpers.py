"""What the tests of the command line share."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.support import run

#: The console script beside the interpreter that runs the tests.
SCRIPT = Path(sys.executable).with_name("vaurien")


def sentence(result: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one sentence with which the program refused to run, with exit code `code`."""
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vaurien: ")
    return line


def refused(*arguments: object, code: int = 2, **kwargs: Any) -> str:
    """Run ``vaurien``; the sentence with which it refuses."""
    return sentence(run(*arguments, **kwargs), code)


def accepted(*arguments: object, **kwargs: Any) -> str:
    """Run ``vaurien``; its output, when it ends with 0 and has nothing to complain of."""
    result = run(*arguments, **kwargs)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def checked(*arguments: object, **kwargs: Any) -> dict[str, tuple[str, str]]:
    """What ``vaurien --check`` says of each setting: its value, and where it came from.

    Options of handlers are under NAME.OPTION.
    """
    return table(accepted("--check", *arguments, **kwargs))


def table(output: str) -> dict[str, tuple[str, str]]:
    """The output of ``--check``, taken apart."""
    found: dict[str, tuple[str, str]] = {}
    handler = ""
    for line in output.splitlines():
        if match := re.match(r"handler (\S+)", line):
            handler = match[1]
            continue
        name, value, source = re.split(r"\s{2,}", line.strip())
        found[f"{handler}.{name}" if line.startswith(" ") else name] = (value, source)
    return found


def module(directory: Path, name: str, source: str) -> None:
    """Write a module."""
    (directory / f"{name}.py").write_text(dedent(source))
