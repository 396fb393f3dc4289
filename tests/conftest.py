"""Fixtures of all tests."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import signal
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.needs import need_program
from tests.support import Backend, echo

#: Open files that the tests of one process need at most.
FILES = 8192


@pytest.fixture
def echo_backend() -> Iterator[Backend]:
    """A backend that sends back what it gets."""
    with Backend(echo) as backend:
        yield backend


# How long an example takes says how busy the machine is; what must be fast has a test that says so.
settings.register_profile("vaurien", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vaurien")


def pytest_configure() -> None:
    """Have tests begin alike, wherever they are run."""
    _raise_file_limit()
    _handle_signals()


def _raise_file_limit() -> None:
    """Hundreds of clients and their backend are in one process here; 1,024 files are too few.

    That is what an ordinary user has, who may raise it, mostly.
    """
    with contextlib.suppress(ImportError):  # Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _handle_signals() -> None:
    """Have children begin with the usual signals: ``nohup make test &`` has some ignored in all.

    A signal that is handled here, if only by doing nothing, is its default again in a child.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test of what is not here: a program, which fails it in CI, or a call of the system.

    ``@pytest.mark.program("nginx")``; ``@pytest.mark.needs("signal.SIGHUP")``, a dotted path, or
    ``libc.`` and a function.
    """
    _need_a_port()
    for mark in item.iter_markers("needs"):
        for path in mark.args:
            if not _is_here(path):
                pytest.skip(f"it is about {path}, which is not on this system")
    for mark in item.iter_markers("program"):
        need_program(*mark.args)


def _need_a_port() -> None:
    """Stop where no port is left: hundreds of tests would fail without a word of why."""
    try:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
    except OSError as error:
        pytest.exit(
            f"no port of 127.0.0.1 is free for a test ({error.strerror}): wait a minute until those"
            " of closed connections are, or widen net.ipv4.ip_local_port_range",
            returncode=1,
        )


def _is_here(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        owner = ctypes.CDLL(None) if module == "libc" else importlib.import_module(module or name)
    except ImportError:
        return False
    return not module or hasattr(owner, name)
