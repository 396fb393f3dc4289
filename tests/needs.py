"""What a test needs that a machine may lack: there it is skipped. CI has all of it, or fails."""

from __future__ import annotations

import os
import shutil

import pytest

#: The Debian packages of programs whose name is another.
PACKAGES = {"node": "nodejs"} | dict.fromkeys(("nsenter", "setpriv", "unshare"), "util-linux")


def need_program(name: str) -> None:
    """Skip the test if there is no such program on PATH; in CI that is a failure."""
    if shutil.which(name) is None:
        package = PACKAGES.get(name, name)
        not_here(f"{name} is not on PATH; the Debian package {package} has it")


def not_here(why: str) -> None:
    """Skip the test for something that a machine may lack, and CI's must not: there it fails."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
