"""What the command lines ask of the operating system that not every system has.

Law: each such thing stands here once, with a portable way beside it that does the same, if later or
dearer. `resource` is missing on Windows; SO_PEERCRED and pidfd_open(2) are Linux's. Which of them
there are is asked when they are needed, so that importing this works everywhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import struct

log = logging.getLogger("vaurien")

_POLL = (
    0.5  # seconds between two looks whether the parent is there, where nothing says so by itself
)


def say(line: str) -> None:
    """A line on standard output, at once; OSError if it cannot be written."""
    os.write(1, (line + "\n").encode(errors="surrogateescape"))


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us."""
    try:
        import resource
    except ImportError:  # Windows, whose sockets are no files and have no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS says "unlimited" and takes less
        log.debug("the limit of open files stays at %d", soft)


def wait_for_end(parent: socket.socket) -> None:
    """Wait until the process that made this pair of sockets is gone, or its end is closed.

    The other end may be open in what that process has forked off, so that its closing is not all.
    """
    with contextlib.ExitStack() as stack:
        try:
            watched = _descriptor_of(parent)
        except ProcessLookupError:
            return
        if watched is None:
            _wait_by_looking(parent)
            return
        stack.callback(os.close, watched)
        while True:
            ready, _, _ = select.select([parent.fileno(), watched], [], [])
            if watched in ready or not parent.recv(1024):
                return


def _descriptor_of(parent: socket.socket) -> int | None:
    """What becomes readable when the process at the other end is gone; None if none can be had.

    ProcessLookupError if it is gone.
    """
    try:
        credentials = parent.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("3i", credentials)
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (OSError, AttributeError):
        return None  # another system, an old one, or a sandbox


def _wait_by_looking(parent: socket.socket) -> None:
    """`wait_for_end` where nothing wakes the waiting thread: look now and then.

    The number to look for is the first that the other end sends. Our own parent's would not do:
    who is adopted before the first look has a new one.
    """
    said, ours = b"", None
    while True:
        ready, _, _ = select.select([parent], [], [], _POLL)
        if ready:
            data = parent.recv(1024)
            if not data:
                return
            said += data
        number, end, _ = said.partition(b"\n")
        if not end or os.name != "posix":
            # Windows keeps the number of a parent that is gone, and os.kill(pid, 0) would end that
            # process there; but then the socket says all, for there is no fork that could hold it.
            continue
        pid = int(number)
        ours = os.getppid() == pid if ours is None else ours
        # A child gets another parent at once; who has a launcher in between sees the number go.
        if os.getppid() != pid if ours else not _is_there(pid):
            return


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def end_with_reader() -> None:
    """End the process when the reader of its output has gone: there may be nothing to write.

    It waits for that in the calling thread. Where it cannot be waited for, it returns: the process
    then ends when it next writes.
    """
    if hasattr(select, "poll") and stat.S_ISFIFO(os.fstat(1).st_mode):
        poll = select.poll()
        poll.register(1, 0)  # an error is told in any case
        poll.poll()
        os._exit(0)
