"""The HTTP server of the control API: gevent's, with bounds.

Laws: a client that is slow, idle, or sends too much costs its own connection only; nothing is read
without a limit and a time. A head that RFC 9112 forbids is refused: two programs that read it must
not read two things. Every answer has the header ``Vaurien``, by which a client knows us from
whatever else may listen at an address.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterable
from io import BytesIO, FileIO
from typing import Any

import gevent
from gevent import Timeout
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

import vaurien
from vaurien.address import Address
from vaurien.control.inflow import Inflow, TooMuch, discard
from vaurien.net.forked import close_in_child
from vaurien.net.listener import Bound, locate
from vaurien.net.system import KEEPALIVE
from vaurien.net.turn import give_way

log = logging.getLogger("vaurien")

IDLE = 75.0  # seconds that a connection may wait for its next request
SLOW = 10.0  # seconds that a request may take to come in, head or body
BODY = 1 << 20  # bytes of a body at most
_WIRE = 2 * BODY  # bytes of a body at most with its framing: sizes, extensions, trailers
_HEAD = 1 << 16  # bytes of a head at most
_LINGER = 1.0  # seconds in which what a refused client still sends is discarded
_BACKLOG = 1024
#: Clients that may be connected at a time: more would leave no descriptors for those of proxies.
CONNECTIONS = 300
_RESERVE = 4  # descriptors that are kept for clients of the API
_PAUSE = 0.1  # seconds without accepting, when descriptors have run out

#: A header's name, RFC 9110 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What no line of a head may have within it: all controls but the tab, RFC 9110 5.5.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: What stands for itself in a path though RFC 3986 wants it encoded; at two of them gevent splits.
_NO_ASCII = re.compile(r"[\x80-\xff]")
#: The absolute form of what is asked for, RFC 9112 3.2.2: the authority, and the rest.
_ABSOLUTE = re.compile(r"http://([^/?#]*)(.*)", re.IGNORECASE)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _check_line(line: bytes) -> bytes:
    """`line`; ValueError if there are controls within it: a bare CR is no end of a line."""
    if _CONTROL.search(line.removesuffix(b"\n").removesuffix(b"\r")):
        raise ValueError("a line of the head has control characters")
    return line


class _TooSlow(Exception):
    """A head took longer than `SLOW`. No OSError, for gevent answers none in the first line."""


class _Head:
    """Reads lines of a head, each checked."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, limit: int) -> bytes:
        """The next line; ValueError if it is none."""
        return _check_line(self._file.readline(limit))


class _Line:
    """Reads the line before a chunk, byte by byte; it takes no LF but behind a CR."""

    def __init__(self, file: Any) -> None:
        self._file, self._last = file, b""
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        """The next bytes; OSError for a LF that stands alone."""
        last, self._last = self._last, self._file.read(size)
        if self._last == b"\n" and last != b"\r":
            raise OSError("a line of a chunk ends in LF alone")
        return self._last


class _Body(Input):
    """A body whose chunks are what RFC 9112 7.1 has: a LF alone ends no line, for some only."""

    __slots__ = ()

    def _Input__read_chunk_length(self, file: Any) -> Any:  # noqa: N802
        try:
            return super()._Input__read_chunk_length(_Line(file))  # type: ignore[misc]
        except OSError:
            self._chunked_input_error = True  # nothing of the connection can be understood now
            raise


class _Handler(WSGIHandler):
    """One connection of a client."""

    _timer: Any = None
    _refused: tuple[int, str] | None = None
    _authority: str | None = None

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        self._inflow = Inflow(sock)
        self._server: _Server = server
        init: Any = super().__init__  # its stubs leave out the last
        init(sock, address, server, self._inflow.reader)

    def MessageClass(self, file: Any, *more: Any) -> Any:  # noqa: N802
        """The headers; ValueError if they leave open where the body ends (RFC 9112 6.3)."""
        head: Any = _Head(file)
        headers = super().MessageClass(head, *more)
        lengths = headers.get_all("content-length", [])
        codings = headers.get_all("transfer-encoding", [])
        chunked = [coding.strip(" \t").lower() for coding in codings] == ["chunked"]
        if headers.defects or any(not _TOKEN.fullmatch(name) for name in headers):
            raise ValueError("a header is none")
        if len(lengths) > 1 or (codings and (lengths or not chunked)):
            raise ValueError("the body's length is not told in one way")
        if not all(re.fullmatch("[0-9]+", length.strip(" \t")) for length in lengths):
            raise ValueError("the body's length is not a number")
        return headers

    def handle(self) -> None:
        try:
            if self._server.has_room():
                super().handle()
            else:
                told = f"{CONNECTIONS} clients are connected, which is as many as there can be"
                self._refuse(_raw(503, told))
        except OSError:
            pass  # the client has gone before it had its answer
        finally:
            self._server.waiting.pop(self, None)

    def give_up(self) -> None:
        """Its client has asked for nothing yet, and others want to."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(2)

    def handle_one_request(self) -> Any:
        try:
            result: Any = super().handle_one_request()
        except _TooSlow as error:
            result = self._handle_client_error(error)
        finally:
            if self._timer is not None:
                self._timer.close()
        if not isinstance(result, tuple):
            return result
        status, answer = result
        self._refuse(_raw(414, "the request line is too long") if status == "414" else answer)
        return None

    def read_requestline(self) -> str:
        """Wait for a request; from its first byte on it has `SLOW` seconds."""
        self._inflow.allow(_HEAD)
        self._server.waiting[self] = None
        with Timeout(IDLE, TimeoutError()):
            self.rfile.peek(1)
        self._timer = Timeout.start_new(SLOW, _TooSlow("the request came in too slowly"))
        return str(super().read_requestline())

    def read_request(self, raw_requestline: str) -> Any:
        try:
            _check_line(raw_requestline.encode("latin-1"))
            line = _NO_ASCII.sub(lambda byte: f"%{ord(byte[0]):02X}", raw_requestline)
            result = super().read_request(line)
            if self.request_version == "HTTP/1.0" and "transfer-encoding" in self.headers:
                raise ValueError("HTTP/1.0 knows no Transfer-Encoding")  # RFC 9112 6.1
            self._take_authority()
            return result
        finally:
            self._timer.close()

    def _take_authority(self) -> None:
        """If what is asked for is a URL, its host counts, and not that of the header."""
        found = _ABSOLUTE.fullmatch(self.path or "")
        self._authority = None
        if found is not None:
            rest = found[2]
            self.path = rest if rest.startswith("/") else f"/{rest}"
            hosts = len(self.headers.get_all("host", []))
            if hosts == 1 or (not hosts and self.request_version == "HTTP/1.0"):
                self._authority = found[1]  # else the request is wrong all the same

    def get_environ(self) -> dict[str, Any]:
        """The environment, the body read."""
        environ: dict[str, Any] = super().get_environ()
        if self._authority is not None:
            environ["HTTP_HOST"] = self._authority
        self._refused = None
        source: Any = self.wsgi_input
        source.__class__ = _Body
        body = self._body()
        self._server.waiting.pop(self, None)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(body), str(len(body))
        return environ

    def _body(self) -> bytes:
        if (self.content_length or 0) > BODY:
            self._refused = (413, f"the body is larger than {BODY} bytes")
            return b""
        source: Any = self.wsgi_input
        self._inflow.allow(_WIRE)
        try:
            with Timeout(SLOW, TimeoutError()):
                body: bytes = source.read(BODY + 1)
        except TimeoutError:
            self._refused = (408, f"the body took longer than {SLOW:g} s")
        except TooMuch:
            self._refused = (
                413,
                f"the body and its framing are larger than {_WIRE} bytes",
            )
        except (OSError, ValueError) as error:
            self._refused = (400, f"the body cannot be read: {error}")
        else:
            if len(body) <= BODY:
                return body
            self._refused = (413, f"the body is larger than {BODY} bytes")
        return b""

    def handle_one_response(self) -> None:
        if self._refused is None:
            super().handle_one_response()
            give_way()  # who sends without waiting for answers must not starve others
            return
        self.close_connection = True
        self._refuse(_raw(*self._refused))

    def _refuse(self, answer: bytes) -> None:
        """Answer, and read no more than for the answer to arrive.

        Closing with unread bytes would be a reset, and the client might miss it.
        """
        with contextlib.suppress(OSError, TimeoutError):  # it has gone
            self.socket.sendall(answer)
            self.socket.shutdown(1)
            with Timeout(_LINGER, TimeoutError()):
                discard(self.socket)

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        if isinstance(error, _TooSlow):
            return "408", _raw(408, str(error))
        if isinstance(error, TooMuch):
            return "431", _raw(431, f"the head is larger than {_HEAD} bytes")
        return "400", _raw(400, "no HTTP request")

    def finalize_headers(self) -> None:
        headers: Any = self.response_headers  # pairs of bytes, whatever its stubs say
        headers.append((b"Vaurien", vaurien.__version__.encode()))
        super().finalize_headers()

    def log_request(self) -> None:
        log.debug("http: %s", self.format_request())


def _raw(status: int, reason: str) -> bytes:
    """A whole response, after which the connection closes."""
    names = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large",
             414: "URI Too Long", 431: "Request Header Fields Too Large",
             503: "Service Unavailable"}  # fmt: skip
    body = json.dumps({"error": reason, "status": status}).encode()
    head = (
        f"HTTP/1.1 {status} {names[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nVaurien: {vaurien.__version__}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


class _Errors:
    """Where the server writes its errors: our log."""

    def write(self, text: str) -> None:
        for line in filter(None, text.splitlines()):
            log.error("http: %s", line)

    def flush(self) -> None: ...


class _Server(WSGIServer):
    """Accepts, whatever the system says to that.

    It keeps some descriptors back: when clients of proxies have taken all others, a request to
    end their connections must still get in.
    """

    _kept: list[FileIO]
    waiting: dict[_Handler, None]  # whose request is not there yet; who waits longest is the first

    def has_room(self) -> bool:
        """Whether one more, who is in the pool already, may be served; makes room if it can."""
        pool: Any = self.pool
        if len(pool) > CONNECTIONS:
            if not self.waiting:
                return False
            longest = next(iter(self.waiting))
            del self.waiting[longest]
            longest.give_up()
        return True

    def do_read(self) -> Any:
        try:
            return super().do_read()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._kept:
                self._kept.pop().close()  # gevent's os.close would come too late
                accepted = self.do_read()
                if accepted is None:  # the system wants one before it looks whether anybody waits
                    self.keep_some()
                return accepted
            self.stop_accepting()
            resume: Any = self._start_accepting_if_started  # type: ignore[attr-defined]
            gevent.spawn_later(_PAUSE, resume)
            log.warning("http: accepting pauses for %g s: %s", _PAUSE, error.strerror)
            return None

    def do_close(self, *arguments: Any) -> None:
        super().do_close(*arguments)
        self.keep_some()

    def keep_some(self) -> None:
        """Have as many descriptors in reserve as can be had."""
        with contextlib.suppress(OSError):
            while len(self._kept) < _RESERVE and self.started:
                self._kept.append(FileIO(os.devnull))

    def forked(self) -> None:
        """In a process that a handler has forked: it serves nobody."""
        self.close()

    def close(self) -> None:
        super().close()
        while self._kept:
            self._kept.pop().close()


class HttpServer:
    """Serves a WSGI application at one address."""

    def __init__(self, local: Address, what: str, keepalive: int = KEEPALIVE) -> None:
        """Bind; ListenError, naming the setting `what`, if the address cannot be had.

        A client that is silent for `keepalive` seconds is asked whether it is there; 0 is never.
        """
        self._bound = Bound(local, locate(local, "--http-host"), what, keepalive)
        if local.path:
            os.chmod(local.path, 0o600)  # before anybody can connect, and whatever the umask
        self._server: Any = None

    @property
    def address(self) -> Address:
        """Where it listens; port 0 has become the port that was given."""
        return self._bound.address

    def start(self, application: Application) -> None:
        """Listen and serve from now on."""
        self._bound.listen(_BACKLOG)
        made: Any = _Server  # its stubs want a certificate
        self._server = made(
            self._bound.sock,
            application,
            handler_class=_Handler,
            spawn=Pool(),
            log=None,
            error_log=_Errors(),
        )
        self._server._kept, self._server.waiting = [], {}
        close_in_child(self._server)
        self._server.start()
        self._server.keep_some()

    def stop(self) -> None:
        """Serve no more; who waits for events is cut off."""
        if self._server is not None:
            self._server.stop(timeout=0.2)
        self._bound.close()
