"""The handler that fails first and then works."""

from __future__ import annotations

from vaurien.handlers.error import Error
from vaurien.options import count


class Transient(Error):
    """Answers with random bytes for the first exchanges that it is picked for, then works.

    With ``agitate`` 2, the first two exchanges get random bytes instead of their response, as
    with ``error``, and all later ones pass.
    """

    name = "transient"
    options = {
        "agitate": (
            "Exchanges that get an error before all works; another name for times",
            count,
            1,
        ),
    }
    points = {"times": "agitate"}
