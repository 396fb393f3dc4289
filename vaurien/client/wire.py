"""The talk with the API: its address, the token, a request and its answer.

Law: one connection for each request. This is the border at which what the network raises becomes
`Unreachable`, and what the API refuses `ClientError`; nothing else of ``http.client`` gets out.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from vaurien import services
from vaurien.address import Address
from vaurien.client.asked import check, encoded, time_of
from vaurien.errors import ClientError, Unreachable, UsageError

HOST, PORT, TIMEOUT = "localhost", 8080, 5.0
HOST_VARIABLE, TOKEN_VARIABLE = "VAURIEN_HOST", "VAURIEN_HTTP_TOKEN"
FILE_VARIABLE = f"{TOKEN_VARIABLE}_FILE"
#: What the API answers, as JSON has it; docs/api.rst has the fields.
Json = dict[str, Any]
_MARK = "Vaurien"  # the header that all answers of the API have, and nobody else's


class Wire:
    """Makes requests to the API at one address, and understands the answers."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """`host` is a name, an address, ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

        If it is not given, the environment's ``VAURIEN_HOST`` counts, and then ``localhost``;
        `port` is 8080 by default. `token` is what the API was started with, by default the
        environment's ``VAURIEN_HTTP_TOKEN``, or what the file ``VAURIEN_HTTP_TOKEN_FILE`` has.
        `timeout`: the most seconds that connecting, and each wait for an answer, may take.
        5 by default. UsageError for an address, a token or a time that is not valid.
        """
        check("host", host, (str,), "a text: a name, HOST:PORT or unix:PATH")
        check("port", port, (int,), "a whole number")
        check("token", token, (str,), "a text")
        where = "host"
        if host is None:
            where = HOST_VARIABLE
            host = os.environ.get(HOST_VARIABLE) or HOST
        self.address = api_address(host, where, port)
        if token is None:
            token = os.environ.get(TOKEN_VARIABLE) or _token_in(os.environ.get(FILE_VARIABLE))
        token = None if token == "none" else token  # as `--http-token none` has it
        if token is not None and not (token.isascii() and token.isprintable()):
            raise UsageError("the token has characters that no HTTP header may have")
        self.timeout = time_of(timeout)
        self._token = token

    def __repr__(self) -> str:
        return f"<Client {self.address}>"

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        timeout: float | None = None,
        **query: Any,
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        """Make a request: the answer, not yet read, and its socket. For what has no method here.

        `body` is sent as JSON; `query` goes behind the path. `timeout` is the most seconds of each
        wait, where that is less than the client's own. The same errors as everywhere.
        """
        wait = self._wait(timeout)
        connection = (
            _UnixConnection(self.address.path, wait)
            if self.address.path
            else http.client.HTTPConnection(self.address.host, self.address.port, timeout=wait)
        )
        headers = {"Accept": "*/*", "User-Agent": "vaurien-client", "Connection": "close"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data = encoded(body)
            headers["Content-Type"] = "application/json"
        target = path + (f"?{urlencode(query)}" if query else "")
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            with self.talking(wait):
                connection.request(method, target, data, headers)
                sock = connection.sock
                response = connection.getresponse()
                if (refusal := self._refusal(response)) is not None:
                    response.close()
                    raise refusal
            stack.pop_all()
        return response, sock

    def _get(self, path: str) -> Json:
        return dict(self._call("GET", path))

    def _post(self, path: str, body: Json) -> Json:
        return dict(self._call("POST", path, body))

    def _call(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The answer, decoded; None if there is none."""
        text = self._text(method, path, body, **query)
        return json.loads(text) if text.strip() else None

    def _text(
        self,
        method: str,
        path: str,
        body: object = None,
        timeout: float | None = None,
        **query: Any,
    ) -> str:
        response, sock = self.send(method, path, body, timeout, **query)
        with sock, response, self.talking(self._wait(timeout)):
            return response.read().decode(errors="replace")

    def _wait(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else min(self.timeout, timeout)

    @contextlib.contextmanager
    def talking(self, wait: float) -> Iterator[None]:
        """The border where what the network raises becomes `Unreachable`; `wait`, in seconds, is
        how long it was waited for each answer.
        """
        try:
            yield
        except TimeoutError:
            raise Unreachable(
                f"Vaurien's API at {self.address} has not answered within {wait:.3g} s"
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unreachable(
                f"cannot reach Vaurien's API at {self.address}: {reason};"
                " is `vaurien --http` running there?"
            ) from error
        except http.client.HTTPException as error:
            raise self._stranger(str(error) or type(error).__name__) from error

    def _refusal(self, response: http.client.HTTPResponse) -> ClientError | None:
        """The error in an answer, None if it is the one asked for."""
        if response.headers[_MARK] is None:  # whatever it says, it is not for us
            return self._stranger(f"it says {response.status} {response.reason}".rstrip())
        if response.status < 300:
            return None
        try:
            answer = json.loads(response.read())
        except ValueError:  # from below the API
            return ClientError(f"{response.status} {response.reason}", response.status)
        if "error" not in answer:
            return ClientError(f"Vaurien at {self.address} is {answer['status']}", response.status)
        return ClientError(str(answer["error"]), response.status)

    def _stranger(self, answer: str) -> Unreachable:
        return Unreachable(
            f"what answers at {self.address} is not Vaurien's API ({answer});"
            " give the address that vaurien prints behind `http listening on`"
        )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP by a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _token_in(path: str | None) -> str | None:
    """The token in a file, None if none is named; UsageError if it cannot be read."""
    if not path:
        return None
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise UsageError(f"{FILE_VARIABLE}: cannot read {path!r}: {reason}") from None


def api_address(text: str, where: str, port: int | None = None) -> Address:
    """The address of an API: as all addresses, but that the port may be missing (8080).

    UsageError naming `where` if it is none, or if it has a port and `port` is another one.
    """
    text = text.strip()
    bare = not text.startswith("unix:") and (text.endswith("]") or ":" not in text)
    if bare:
        text = f"{text}:{PORT if port is None else port}"
    found = services.parse(text, where)
    if not found.path and found.port == 0:
        raise UsageError(f"{where}: {text!r} has port 0; give the port that vaurien has printed")
    if port is not None and not bare and port != found.port:
        raise UsageError(f"{where}: {text!r} says where already; leave out port={port!r}")
    return found
