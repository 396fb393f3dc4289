"""The Python client of the control API: a method for each operation.

Law: standard library only, no gevent, nothing patched; one connection for each call, so that a
client may be shared by threads and outlives a restart of the proxy. What the API refuses is a
`ClientError` with the API's own sentence; what is not there to be asked is `Unreachable`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from vaurien import address
from vaurien.address import Address
from vaurien.errors import ClientError, Unreachable, UsageError

HOST, PORT, TIMEOUT = "localhost", 8080, 5.0
HOST_VARIABLE, TOKEN_VARIABLE = "VAURIEN_HOST", "VAURIEN_HTTP_TOKEN"
FILE_VARIABLE = f"{TOKEN_VARIABLE}_FILE"
#: What the API answers, as JSON has it; docs/client.rst tells the fields.
Json = dict[str, Any]
_QUIET = 45.0  # seconds without a byte on an event stream that has a sign of life each 15 s
_PAUSE = 0.05  # seconds between two tries of `Client.wait`
_LAST = "stopping"  # the event that says that Vaurien stops
_MARK = "Vaurien"  # the header that all answers of the API have, and nobody else's


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


class Event(NamedTuple):
    """One event of the stream: ``began``, ``ended`` or ``change``, and what is told of it.

    ``dropped`` tells how many were lost because nobody read them in time.
    """

    kind: str
    data: Json


class Client:
    """Steers a running Vaurien by its HTTP API.

    It may be shared by threads. Each method is done when it returns, and so is what it asked for.
    Methods that take ``proxy=None`` mean the first proxy, or all of them, where they say so.

    All methods raise `ClientError` for what the API refuses, and `Unreachable` if it cannot be
    reached. What they return is JSON as Python has it.
    """

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
        UsageError for an address, a token or a time that is none.
        """
        _check("host", host, (str,), "a text: a name, HOST:PORT or unix:PATH")
        _check("port", port, (int,), "a whole number")
        _check("token", token, (str,), "a text")
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
        self.timeout = _time(timeout)
        self._token = token

    def __repr__(self) -> str:
        return f"<Client {self.address}>"

    # Handlers and behaviors

    def list_handlers(self) -> list[Json]:
        """All handlers: ``name``, ``kind`` (flow, socket or connect), ``summary``, ``options``."""
        return list(self._call("GET", "/handlers")["handlers"])

    def list_presets(self) -> list[Json]:
        """All presets: ``name`` and ``summary``."""
        return list(self._call("GET", "/handlers")["presets"])

    def get_handler(self, proxy: str | None = None) -> Json:
        """The one handler of a proxy, by default the first: ``proxy``, ``name``, ``options``,
        ``behavior``. If the behavior is a mixture, ``name`` and ``options`` are None.
        """
        return self._get(_path(proxy, "handler"))

    def set_handler(
        self,
        name: str,
        /,
        proxy: str | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> Json:
        """Let the handler `name` deal with all exchanges of a proxy, by default of the first.

        `options` are the handler's own, the others keep their defaults. After `ttl` seconds, if
        given, the former behavior comes back. The answer is that of `get_handler`.
        """
        body = {"name": name, **options, **_given(ttl=ttl)}
        return self._post(_path(proxy, "handler"), body)

    def get_behavior(self, proxy: str | None = None) -> Json:
        """How a proxy, by default the first, chooses: ``proxy``, ``behavior``, ``on_connect``, and
        the options of those handlers in ``handlers``.
        """
        return self._get(_path(proxy, "behavior"))

    def set_behavior(
        self,
        behavior: str | None = None,
        on_connect: str | EllipsisType | None = ...,
        handlers: Mapping[str, Mapping[str, Any]] | None = None,
        proxy: str | None = None,
        ttl: float | None = None,
    ) -> Json:
        """Set the behavior of a proxy, by default of the first, or who meets those that connect.

        `behavior` and `on_connect` are weighted choices such as ``20:delay,5:error``; what is not
        given stays, and ``on_connect=None`` means nobody. `handlers` are options by handler. After
        `ttl` seconds, if given, the former ones come back. The answer is that of `get_behavior`.
        """
        body: Json = _given(behavior=behavior, handlers=handlers, ttl=ttl)
        if on_connect is not ...:
            body["on_connect"] = on_connect
        return self._post(_path(proxy, "behavior"), body)

    @contextlib.contextmanager
    def with_handler(
        self,
        name: str,
        /,
        proxy: str | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> Iterator[Json]:
        """`set_handler` for the time of a ``with``; what was there before comes back at its end,
        also when an exception ends it.

        With `ttl` the proxy does that itself after so many seconds, should this program not live to
        do it.
        """
        with self._restoring(proxy) as chosen:
            yield self.set_handler(name, proxy=chosen, ttl=ttl, **options)

    @contextlib.contextmanager
    def with_behavior(
        self,
        behavior: str | None = None,
        on_connect: str | EllipsisType | None = ...,
        handlers: Mapping[str, Mapping[str, Any]] | None = None,
        proxy: str | None = None,
        ttl: float | None = None,
    ) -> Iterator[Json]:
        """`set_behavior` for the time of a ``with``; as `with_handler`."""
        with self._restoring(proxy) as chosen:
            yield self.set_behavior(behavior, on_connect, handlers, proxy=chosen, ttl=ttl)

    @contextlib.contextmanager
    def _restoring(self, proxy: str | None) -> Iterator[str]:
        """The name of the proxy, whose behavior now is its behavior again afterwards."""
        before = self.get_behavior(proxy)
        # A preset's parts are told as a list; they are its own, and cannot be given.
        options = {name: o for name, o in before["handlers"].items() if isinstance(o, dict)}
        try:
            yield before["proxy"]
        finally:
            self.set_behavior(
                before["behavior"], before["on_connect"], options, proxy=before["proxy"]
            )

    # Proxies

    def proxies(self) -> list[Json]:
        """The state of each proxy, in the order in which they were made."""
        return list(self._call("GET", "/state")["proxies"])

    def proxy(self, name: str) -> Json:
        """The state of one proxy: addresses, behavior, toxics, connections, counters, and more."""
        return self._get(_path(name, "state"))

    def create(
        self,
        name: str,
        local: str,
        distant: str,
        behavior: str | None = None,
        on_connect: str | None = None,
        enabled: bool = True,
        protocol: str | None = None,
        seed: int | None = None,
        ttl: float | None = None,
    ) -> Json:
        """Make a proxy that listens at `local`, and return its state, with the real port.

        After `ttl` seconds, if given, it goes away again.
        """
        fields = _given(
            behavior=behavior, on_connect=on_connect, protocol=protocol, seed=seed, ttl=ttl
        )
        body = {"name": name, "listen": local, "upstream": distant, "enabled": enabled, **fields}
        self._post("/proxies", body)
        return self.proxy(name)

    def change(
        self,
        name: str,
        local: str | None = None,
        distant: str | None = None,
        enabled: bool | None = None,
    ) -> Json:
        """Change what is given of a proxy, and return its state.

        Another address drops the connections that there are. If the new `local` cannot be had, all
        stays as it was.
        """
        self._post(_path(name), _given(listen=local, upstream=distant, enabled=enabled))
        return self.proxy(name)

    def populate(self, proxies: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Make, replace or leave each of `proxies` as needed: ``name``, ``listen``, ``upstream``,
        and what else Toxiproxy's JSON files have; all are checked before the first is made.
        """
        _check("proxies", proxies, (Sequence,), "a list of proxies, each a dictionary")
        return list(self._call("POST", "/populate", list(proxies))["proxies"])

    def delete(self, name: str) -> None:
        """Take a proxy away, with its connections."""
        self._call("DELETE", _path(name))

    def enable(self, name: str, ttl: float | None = None) -> Json:
        """Let a proxy listen, for `ttl` seconds if given; its state."""
        return self._post(_path(name, "enable"), _given(ttl=ttl))

    def disable(self, name: str, ttl: float | None = None) -> Json:
        """Let a proxy neither listen nor keep its connections, for `ttl` seconds if given."""
        return self._post(_path(name, "disable"), _given(ttl=ttl))

    def reset(self, proxy: str | None = None) -> None:
        """One proxy, by default all: enabled, no toxics, behavior ``100:dummy``."""
        self._call("POST", _path(proxy, "reset"), {})

    # Toxics

    def toxics(self, proxy: str) -> list[Json]:
        """The toxics of a proxy: ``name``, ``type``, ``stream``, ``toxicity``, ``attributes``."""
        return list(self._call("GET", _path(proxy, "toxics")))

    def add_toxic(
        self,
        proxy: str,
        handler: str,
        /,
        name: str | None = None,
        stream: str | None = None,
        toxicity: float | None = None,
        ttl: float | None = None,
        **attributes: Any,
    ) -> Json:
        """Pin a flow handler to all connections of a proxy, open ones too; the toxic.

        `attributes` are its options; those that are not given are as configured, else its defaults.
        `stream` is ``upstream``, ``downstream`` (the default) or ``both``. `toxicity`, from 0 to
        1 (the default), is the share of the connections that it hits. `name` is HANDLER_STREAM by
        default. After `ttl` seconds, if given, it goes away. Names and units of Toxiproxy's
        attributes are Toxiproxy's: ``latency=100`` are 100 ms.
        """
        body = {"type": handler, "attributes": attributes, "defaults": True}
        body |= _given(name=name, stream=stream, toxicity=toxicity, ttl=ttl)
        return self._post(_path(proxy, "toxics"), body)

    def update_toxic(
        self,
        proxy: str,
        name: str,
        /,
        toxicity: float | None = None,
        ttl: float | None = None,
        **attributes: Any,
    ) -> Json:
        """Change some attributes of a toxic, or its toxicity; the toxic.

        After `ttl` seconds, if given, they are again what they were.
        """
        body = {"attributes": attributes, **_given(toxicity=toxicity, ttl=ttl)}
        return self._post(_path(proxy, "toxics", name), body)

    def remove_toxic(self, proxy: str, name: str) -> None:
        """Take a toxic away; what it holds goes on at once."""
        self._call("DELETE", _path(proxy, "toxics", name))

    # Connections

    def connections(self, proxy: str | None = None) -> list[Json]:
        """The open connections of a proxy, by default of the first."""
        return list(self._call("GET", _path(proxy, "connections"))["connections"])

    def drop(self, proxy: str, number: int | None = None, how: str = "fin") -> int:
        """End a connection of a proxy, or all of them, politely or with ``how="reset"``; how many.

        ClientError (404) if there is no connection of that number.
        """
        _check("number", number, (int,), "the number of a connection, or None for all")
        if number is None:
            return int(self._call("DELETE", _path(proxy, "connections"), how=how)["dropped"])
        self._call("DELETE", _path(proxy, "connections", str(number)), how=how)
        return 1

    def events(self, proxy: str | None = None) -> Events:
        """What happens from now on at a proxy, by default at all, as it happens.

        The answer is an iterator of `Event` that waits for the next one; it ends when Vaurien says
        that it stops, or when it is closed, by `Events.close` or by a ``with``. `Unreachable` if
        it breaks off.
        """
        return Events(self, _path(proxy, "events"))

    def journal(self, proxy: str | None = None, limit: int | None = None) -> list[Json]:
        """The last exchanges that a handler touched, oldest first, as lines of a journal."""
        text = self._text("GET", _path(proxy, "journal"), **_given(limit=limit))
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    # The program

    def health(self) -> Json:
        """``status``, ``version``, and ``proxies``: how many. ClientError (503) while it ends."""
        return self._get("/health")

    def metrics(self) -> str:
        """What Prometheus gets, as text."""
        return self._text("GET", "/metrics")

    def reload(self) -> dict[str, list[str]]:
        """Have the files read again; the names of proxies ``created``, ``changed``, ``deleted``
        and ``unchanged``, and in ``after_restart`` the settings that wait for a restart.

        ClientError (400) if the files are wrong, and then nothing has changed.
        """
        return self._post("/reload", {})

    def wait(self, timeout: float = 10.0) -> Json:
        """Wait until Vaurien is ready, for `timeout` seconds at most; its health.

        `Unreachable` if it is not by then, with the reason.
        """
        until = time.monotonic() + _time(timeout)
        while True:
            left = until - time.monotonic()
            try:
                return dict(self._call("GET", "/health", timeout=max(left, _PAUSE)))
            except ClientError as error:
                if error.status not in (0, 503):
                    raise
                if time.monotonic() + _PAUSE > until:
                    raise Unreachable(f"not ready after {timeout:g} s: {error}") from None
            time.sleep(_PAUSE)

    # The talk

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
        with sock, response, self._talking(self._wait(timeout)):
            return response.read().decode(errors="replace")

    def _wait(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else min(self.timeout, timeout)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        timeout: float | None = None,
        **query: Any,
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        """Make a request: the answer, not yet read, and its socket. For what has no method here.

        `body` is sent as JSON; `query` goes behind the path. The same errors as everywhere.
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
            data = _encoded(body)
            headers["Content-Type"] = "application/json"
        target = path + (f"?{urlencode(query)}" if query else "")
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            with self._talking(wait):
                connection.request(method, target, data, headers)
                sock = connection.sock
                response = connection.getresponse()
                if (refusal := self._refusal(response)) is not None:
                    response.close()
                    raise refusal
            stack.pop_all()
        return response, sock

    @contextlib.contextmanager
    def _talking(self, wait: float) -> Iterator[None]:
        """The border where what the network raises becomes `Unreachable`."""
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
        """The error that an answer tells of, None if it is what was asked for."""
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


class Events(Iterator[Event]):
    """The event stream: an iterator that waits for the next event.

    It listens from when it is made. It ends when Vaurien says that it stops, and when it is closed,
    which any thread may do; `Unreachable` if it breaks off, or if nothing, not even a sign of life,
    comes for 45 s.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._response, self._sock = client.send("GET", path)
        self._sock.settimeout(_QUIET)
        self._closed = False
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        return f"<Events of {self._client.address}{', closed' if self._closed else ''}>"

    def __next__(self) -> Event:
        kind, data = "message", list[str]()
        while line := self._line():
            name, _, value = line.rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif not name and data and not value:
                if kind == _LAST:
                    self.close()
                    raise StopIteration
                return Event(kind, dict(json.loads("\n".join(data))))
        broken = not self._closed
        self.close()
        if broken:
            raise Unreachable(
                f"Vaurien at {self._client.address} broke off: it has ended, or the"
                " connection to it"
            )
        raise StopIteration

    def _line(self) -> str:
        """A line with its end; empty when there are no more."""
        try:
            with self._reading, self._client._talking(_QUIET):
                return "" if self._closed else self._response.readline().decode(errors="replace")
        except Unreachable:
            if self._closed:  # by another thread, which woke this one
                return ""
            raise
        finally:
            self._release()

    def close(self) -> None:
        """Listen no longer."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
            self._release()

    def _release(self) -> None:
        """Free what is held once it is closed; whoever still reads does it when he is done."""
        if self._closed and self._reading.acquire(blocking=False):
            try:
                self._response.close()
                self._sock.close()
            finally:
                self._reading.release()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP by a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def api_address(text: str, where: str, port: int | None = None) -> Address:
    """The address of an API: as all addresses, but that the port may be missing (8080).

    UsageError naming `where` if it is none, or if it has a port and `port` is another one.
    """
    text = text.strip()
    bare = not text.startswith("unix:") and (text.endswith("]") or ":" not in text)
    if bare:
        text = f"{text}:{PORT if port is None else port}"
    found = address.parse(text, where)
    if not found.path and found.port == 0:
        raise UsageError(f"{where}: {text!r} has port 0; give the port that vaurien has printed")
    if port is not None and not bare and port != found.port:
        raise UsageError(f"{where}: {text!r} says where already; leave port={port!r} away")
    return found


def _path(proxy: str | None, *rest: str) -> str:
    """The path of something, of a proxy's if one is given; UsageError for a name that is none."""
    hint = "; options of a handler are keywords" if isinstance(proxy, Mapping) else ""
    _check("proxy", proxy, (str,), f"a name{hint}")
    for name in rest:
        if not isinstance(name, str):
            raise UsageError(f"name: {name!r} is not a text")
    parts = rest if proxy is None else ("proxies", proxy, *rest)
    return "".join("/" + quote(part, safe="") for part in parts)


def _check(name: str, value: object, types: tuple[type, ...], wanted: str) -> None:
    """UsageError if an argument has another type; None stands for one that is not given."""
    wrong = isinstance(value, bool) or not isinstance(value, types)
    if value is not None and wrong:
        raise UsageError(f"{name}: {value!r} is not {wanted}")


def _time(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise UsageError(f"timeout: {timeout!r} is no time; give seconds, more than 0")
    if not 0 < timeout < math.inf:
        raise UsageError(f"timeout: {timeout!r} is no time; give seconds, more than 0")
    return timeout


def _encoded(body: object) -> bytes:
    """`body` as JSON; UsageError naming what JSON does not have."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError):
        name, value = _unfit("body", body)
        raise UsageError(
            f"{name}: {value!r} cannot be sent; give a text, a number, True, False or None"
        ) from None


def _unfit(name: str, value: object) -> tuple[str, object]:
    """What JSON does not have in a value, and its name."""
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, one in value.items() if isinstance(value, Mapping) else inner:
        try:
            json.dumps({key: one}, allow_nan=False)
        except (TypeError, ValueError):
            return _unfit(str(key), one)
    return name, value


def _given(**fields: Any) -> Json:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
