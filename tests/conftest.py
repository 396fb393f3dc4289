"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.support import Backend, echo


@pytest.fixture
def echo_backend() -> Iterator[Backend]:
    """A backend that sends back what it gets."""
    with Backend(echo) as backend:
        yield backend


def pytest_configure() -> None:
    """Have children begin with the usual SIGINT: ``nohup make test &`` has it ignored in all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, and in CI fail, a test whose program is missing: ``@pytest.mark.program("nginx")``."""
    for mark in item.iter_markers("program"):
        (name,) = mark.args
        if shutil.which(name) is None:
            package = {"node": "nodejs"}.get(name, name)
            message = f"{name} is not on PATH; the Debian package {package} has it"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
