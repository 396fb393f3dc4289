"""The Python client of the control API: a method for each operation.

Law: standard library only, no gevent, nothing patched; one connection for each call, so that a
client may be shared by threads and outlives a restart of the proxy. What the API refuses is a
`ClientError` with the API's own sentence; what is not there to be asked is `Unreachable`.

`wire` makes the requests, `behaviors`, `proxies` and `toxics` have the methods for what their names
say, `stream` is what happens as it happens, `steering` puts them together to `Client`.
"""

from vaurien.client.steering import Client
from vaurien.client.stream import Event, Events
from vaurien.client.wire import (
    FILE_VARIABLE,
    HOST_VARIABLE,
    TIMEOUT,
    TOKEN_VARIABLE,
    Json,
    api_address,
)

__all__ = [
    "FILE_VARIABLE",
    "HOST_VARIABLE",
    "TIMEOUT",
    "TOKEN_VARIABLE",
    "Client",
    "Event",
    "Events",
    "Json",
    "api_address",
]
