"""For tests of flow handlers: run them in virtual time, without sockets or waiting.

::

    from vaurien.flow import EOF, Data
    from vaurien.handlers.latency import Latency
    from vaurien.testing import play

    assert play([Latency({"latency": 20})], [(0, Data(b"ping")), (0.005, EOF)]) == [
        (0.02, Data(b"ping")),
        (0.025, EOF),
    ]
"""

from vaurien.flow.play import play

__all__ = ["play"]
