"""Files that are appended to: the journal, the log.

Law: a file is made where its path says, and nowhere else: a link that leads to nothing would
let another user choose where we make a file.
"""

from __future__ import annotations

import errno
import os


def open_to_append(path: str, flags: int) -> int:
    """A descriptor of the file at `path`, made if it is not there; OSError if that cannot be.

    `flags` are those of open(2), beside those for appending and making.
    """
    flags |= os.O_APPEND
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        if os.path.islink(path) and not os.path.exists(path):
            raise OSError(errno.ELOOP, "it is a link to a file that does not exist") from None
        return os.open(path, flags)  # another was quicker
