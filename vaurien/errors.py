"""The one tree of errors that Vaurien raises on purpose.

Law: an error is raised where it is found and turned into an exit code or an HTTP status at one
border each (`vaurien.cli` and, later, the control API); its text is one sentence that names the
setting, the value and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_WORD = 255  # characters that a word may have to be taken for another one, misspelt
_WORK = 100_000  # pairs of characters that are compared at most, which takes 20 ms at worst
_LISTED = 100  # names that a sentence lists at most
#: What users' code may raise that is an error of its own and no more: a handler that calls
#: ``sys.exit`` ends its connection, not the process.
RAISED = (Exception, SystemExit)


class VaurienError(Exception):
    """Anything that Vaurien refuses or fails to do, with a sentence for the user."""

    exit_code = 1
    http_status = 500


class UsageError(VaurienError):
    """A setting, option, behavior, address or file that is wrong; nothing was started."""

    exit_code = 2
    http_status = 400


class NotFound(VaurienError):
    """There is no proxy, toxic or connection of that name."""

    exit_code = 4
    http_status = 404


class AlreadyThere(VaurienError):
    """A proxy or toxic of that name exists."""

    http_status = 409

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class Stopping(VaurienError):
    """Vaurien is ending, and nothing is begun any more."""

    http_status = 503


class TooMany(VaurienError):
    """There are as many of something as there can be."""

    http_status = 503


class ListenError(VaurienError):
    """The local address could not be bound.

    `address` is that address, `reason` what the system said, if it was asked.
    """

    def __init__(self, message: str, address: object = None, reason: str = "") -> None:
        super().__init__(message)
        self.address, self.reason = address, reason


class ClientError(VaurienError):
    """The control API refused what a `vaurien.Client` asked for; its text is the API's sentence.

    `status` is the HTTP status: 400 for something wrong, 401 for the token, 404 for what is not
    there, 409 for what is there already; 0 if no answer came.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Unreachable(ClientError):
    """The control API cannot be reached, does not answer in time, or is none; `status` is 0."""

    exit_code = 3

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 0)


class HandlerDeadlock(VaurienError):
    """Two calls on one connection would wait for each other's side; the later claim raises."""


class HandlerRaised(VaurienError):
    """A flow handler raised; what it raised is the cause."""

    def __init__(self, handler: object) -> None:
        super().__init__(f"{handler!r} raised")
        self.handler = handler


def many(number: int, what: str, one: str = "", more: str = "") -> str:
    """So many of something, in words that agree.

    >>> many(1, "connection", "was", "were")
    '1 connection was'
    >>> many(0, "line")
    '0 lines'
    """
    verb = one if number == 1 else more
    return f"{number} {what}{'' if number == 1 else 's'}{verb and ' '}{verb}"


def _likely(word: str, names: list[str]) -> list[str]:
    """Those of `names` of which `word` may be a misspelling, as many as there is time for.

    A long text is no misspelt word. Of the others those of about its length come first: to compare
    takes as long as the lengths multiplied, or longer.
    """
    if len(word) > _WORD:
        return []
    likely, left = [], _WORK
    for name in sorted(names, key=lambda name: abs(len(name) - len(word))):
        left -= len(name) * len(word)
        if left < 0:
            break
        likely.append(name)
    return likely


def nearest(word: str, known: Iterable[str], what: str = "known") -> str:
    """The closing half of an error sentence: the nearest known word, or all of them.

    >>> nearest("dleay", ["delay", "error"])
    "did you mean 'delay'?"
    >>> nearest("xyz", ["delay", "error"], "handlers")
    'handlers: delay, error'
    """
    names = sorted(set(known))
    lower = word.lower()
    same = [name for name in names if name.lower() == lower]
    close = same
    if not close and (likely := _likely(word, names)):
        close = difflib.get_close_matches(word, likely, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{what}: {', '.join(names[:_LISTED])}{more}" if names else f"there are no {what}"
