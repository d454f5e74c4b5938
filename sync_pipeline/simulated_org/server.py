"""The TCP door: HTTP/1.1 on loopback, each request handed to one function, each connection in a thread of its own.

Any client reaches the simulated org through it as it would reach a real one. The function is ``app.handle``; for tests
it may be any other. What a fault cuts is cut here on the wire: the client's socket is closed in the middle.

HTTP/1.1: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from io import BufferedReader, BufferedWriter
from typing import Any, Final, cast

import httpx
from polars.exceptions import PanicException

from sync_pipeline.simulated_org.app import handle
from sync_pipeline.simulated_org.call import BODY_BYTES_MAX, ConnectionCut
from sync_pipeline.simulated_org.state import Org

LINE_BYTES_MAX: Final = 65_536
HEADERS_MAX: Final = 200
READ_BYTES: Final = 256 * 1024
BUFFER_BYTES: Final = 64 * 1024
GZIP_LEVEL: Final = 1
GZIP_BYTES_MIN: Final = 1_000
"""Smaller answers are not worth compressing."""
COMPRESSED_TYPES: Final = ("application/json", "text/csv")
RESET: Final = struct.pack("ii", 1, 0)
"""Closing such a socket resets the connection, as a firewall would."""
BODILESS: Final = (204, 304)
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
STOP_POLL_SECONDS: Final = 0.02
STOP_SECONDS: Final = 5.0
"""How long the end of the server waits for requests that are being answered."""

Answer = Callable[[httpx.Request], httpx.Response]


class Server(socketserver.ThreadingTCPServer):
    """Serves ``answer`` on a loopback address; ``port`` 0 takes a free one.

    ``compresses`` is asked before each answer whether it may be compressed; ``leave`` runs in a connection's thread when
    the connection ends. Raises ``ValueError`` for any address but a loopback one and ``OSError`` for a port that is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        answer: Answer,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        compresses: Callable[[], bool] = lambda: True,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        address = _loopback(host)
        self.address_family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self.answer = answer
        self.compresses = compresses
        self.leave = leave
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        super().__init__((str(address), port), _Connection)

    @property
    def base_url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="org", daemon=True)
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def stop(self) -> None:
        """Ends every connection and frees the port, once nobody serves any more; answers in the making get a moment."""
        self.server_close()
        left = dict(self._connections)  # without the lock, which a signal may have left taken
        for connection in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + STOP_SECONDS
        for thread in left.values():
            if thread.is_alive():  # a signal may have come before it was started
                thread.join(max(until - time.monotonic(), 0.0))

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection in the thread that serves it. A signal that comes while a connection is accepted makes
        ``socketserver`` call this in the main thread as well, which would take the socket away under a reader."""
        thread = self._connections.get(request)  # without the lock, which the signal may have left taken
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A defect of the door itself, told on stderr; the connection is closed."""
        traceback.print_exc()

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(request, None)
            self.leave()


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serves in a thread within the ``with`` block and gives the base URL."""
    thread = threading.Thread(target=server.serve_forever, args=(STOP_POLL_SECONDS,), name="org door", daemon=True)
    thread.start()
    try:
        yield server.base_url
    finally:
        server.shutdown()
        thread.join()
        server.stop()


def server_of(org: Org, *, host: str = "127.0.0.1", port: int = 0) -> Server:
    """A server of the org, not yet serving. Knob ``gzip``: with ``off`` nothing is compressed. Raises what it raises."""
    return Server(
        lambda request: handle(org, request),
        host=host,
        port=port,
        compresses=lambda: org.setting("gzip", "on") not in ("off", False),
        leave=org.close,
    )


@contextmanager
def running(org: Org, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The org behind a TCP door within the ``with`` block; gives its base URL."""
    with serving(server_of(org, host=host, port=port)) as base_url:
        yield base_url


def serve(org: Org, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until this thread is interrupted; ``ready`` is called with the base URL as soon as clients may come."""
    server = server_of(org, host=host, port=port)
    try:
        ready(server.base_url)
        # In this thread, whose loop wakes up by itself: once Polars is loaded, Ctrl-C ends no wait without an end.
        server.serve_forever(STOP_POLL_SECONDS)
    finally:
        server.stop()


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(
            f"the simulated org listens on loopback addresses only, such as 127.0.0.1, and not on {host!r}"
        )
    return address


class _Malformed(Exception):
    """The client does not speak HTTP/1.1 as the door does; ``status`` says so, and the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Body(httpx.SyncByteStream):
    """A request's body as it arrives; ``length`` is None when it comes in chunks."""

    def __init__(self, reader: BufferedReader[Any], length: int | None, ask: Callable[[], None] | None) -> None:
        self._reader = reader
        self._length = length
        self._ask = ask
        self._pieces = self._sized(length) if length is not None else self._chunked()

    def __iter__(self) -> Iterator[bytes]:
        if self._ask is not None:
            self._ask()
            self._ask = None
        yield from self._pieces

    @property
    def is_awaited(self) -> bool:
        """The client waits for a word before it sends the body, and was not given one."""
        return self._ask is not None and self._length != 0

    def drain(self) -> None:
        """Reads what nobody wanted, so that the next request can be found behind it."""
        for _ in self._pieces:
            pass

    def _sized(self, length: int) -> Iterator[bytes]:
        left = length
        while left > 0:
            piece = self._reader.read1(min(left, READ_BYTES))
            if not piece:
                raise ConnectionCut("the client went away in the middle of its request")
            left -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        received = 0
        while True:
            text = _line(self._reader).partition(b";")[0].strip()
            try:
                size = int(text, 16)
            except ValueError:
                raise _Malformed(400, "bad chunk") from None
            received += size
            if size < 0 or received > BODY_BYTES_MAX:
                raise _Malformed(413, "the body is too large")
            yield from self._sized(size)
            if size == 0:
                break
            if _line(self._reader):
                raise _Malformed(400, "bad chunk")
        while _line(self._reader):  # trailers
            pass


class _Connection(socketserver.BaseRequestHandler):
    """Requests of one client, one after the other."""

    server: Server
    request: socket.socket

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader: BufferedReader[Any] = BufferedReader(socket.SocketIO(self.request, "r"), BUFFER_BYTES)
        self._writer = BufferedWriter(socket.SocketIO(self.request, "w"), BUFFER_BYTES)
        self._is_old = False
        self._is_answering = False

    def handle(self) -> None:
        try:
            while self._serve_one():
                pass
        except _Malformed as error:
            self._refuse(error)
        except ConnectionCut:
            self._hang_up()
        except ConnectionError:  # the client went away
            pass

    def finish(self) -> None:
        with suppress(OSError):
            self._writer.close()
        self._reader.close()

    def _serve_one(self) -> bool:
        """Answers one request; False when it was the last one of this connection."""
        self._is_answering = False
        request, is_last = self._read_request()
        if request is None:
            return False
        body = cast("_Body", request.stream)
        response = self._answer(request)
        try:
            is_last |= self._is_old or body.is_awaited
            if not body.is_awaited:
                body.drain()
            self._send(request, response, is_last=is_last)
        finally:
            response.close()
        return not is_last

    # Reading

    def _read_request(self) -> tuple[httpx.Request | None, bool]:
        """The next request, without its body, and whether the client wants no other; None at the end."""
        # One empty line may come before.
        line = _line(self._reader, may_end=True, status=414) or _line(self._reader, may_end=True, status=414)
        if not line:
            return None, True
        method, _, rest = line.partition(b" ")
        target, _, version = rest.rpartition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not method.isalpha() or not target:
            raise _Malformed(400, "this is no request of HTTP/1.1")
        headers: list[tuple[bytes, bytes]] = []
        while field := _line(self._reader):
            name, colon, value = field.partition(b":")
            if not colon or not name or name != name.strip():
                raise _Malformed(400, "bad header")
            if len(headers) >= HEADERS_MAX:
                raise _Malformed(431, "too many headers")
            headers.append((name, value.strip(b" \t")))
        known = httpx.Headers(headers)
        self._is_old = version == b"HTTP/1.0"
        is_last = "close" in known.get("connection", "").lower()
        ask = self._ask if known.get("expect", "").lower() == "100-continue" else None
        body = _Body(self._reader, _length(known), ask)
        if target.startswith(b"/"):
            target = b"http://" + known.get("host", "localhost").encode("latin-1") + target
        try:
            return httpx.Request(method.decode().upper(), target.decode("ascii"), headers=headers, stream=body), is_last
        except (httpx.InvalidURL, UnicodeDecodeError) as error:
            raise _Malformed(400, f"bad request target: {error}") from None

    def _ask(self) -> None:
        self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._writer.flush()

    # Answering

    def _answer(self, request: httpx.Request) -> httpx.Response:
        try:
            return self.server.answer(request)
        except (ConnectionError, ConnectionCut, _Malformed):
            raise
        except (Exception, PanicException):  # noqa: BLE001 - a defect of the org; a real one answers such a request too
            return _defect()

    def _send(self, request: httpx.Request, response: httpx.Response, *, is_last: bool) -> None:
        headers = [(n, v) for n, v in response.headers.raw if n.lower() not in (b"connection", b"transfer-encoding")]
        length = int(response.headers["content-length"]) if "content-length" in response.headers else None
        pieces = cast("Iterable[bytes]", response.stream)
        if request.method == "HEAD" or response.status_code in BODILESS:
            pieces, length = (), 0
        elif self._is_compressed(request, response, length):
            headers = [(n, v) for n, v in headers if n.lower() != b"content-length"]
            headers += [(b"Content-Encoding", b"gzip"), (b"Vary", b"Accept-Encoding")]
            pieces, length = _gzipped(pieces), None
        is_chunked = length is None and not self._is_old
        if is_chunked:
            headers.append((b"Transfer-Encoding", b"chunked"))
        try:
            self._head(response.status_code, headers, is_last=is_last)
            self._write(pieces, length, is_chunked=is_chunked)
            self._writer.flush()
        except (ConnectionError, ConnectionCut):
            raise
        except (Exception, PanicException):  # noqa: BLE001 - too late for another answer: the client must not take this one for whole
            traceback.print_exc()
            raise ConnectionCut("the answer broke off") from None

    def _refuse(self, error: _Malformed) -> None:
        if self._is_answering:
            self._hang_up()
            return
        message = json.dumps([{"message": f"{error}", "errorCode": "BAD_REQUEST"}]).encode()
        with suppress(ConnectionError):
            headers = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(message))]
            self._head(error.status, headers, is_last=True)
            self._writer.write(message)
            self._writer.flush()

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, is_last: bool) -> None:
        self._is_answering = True
        phrase = PHRASES.get(status, "")
        lines = [f"HTTP/1.1 {status} {phrase}\r\nDate: {formatdate(usegmt=True)}\r\n".encode()]
        lines += [b"%b: %b\r\n" % header for header in headers]
        lines.append(b"Connection: close\r\n\r\n" if is_last else b"\r\n")
        self._writer.write(b"".join(lines))

    def _write(self, pieces: Iterable[bytes], length: int | None, *, is_chunked: bool) -> None:
        sent = 0
        for piece in pieces:
            if not piece:
                continue
            sent += len(piece)
            if is_chunked:
                self._writer.write(b"%x\r\n" % len(piece))
            self._writer.write(piece)
            if is_chunked:
                self._writer.write(b"\r\n")
        if is_chunked:
            self._writer.write(b"0\r\n\r\n")
        elif length is not None and sent != length:
            raise RuntimeError(f"an answer of {length} bytes had {sent}")

    def _is_compressed(self, request: httpx.Request, response: httpx.Response, length: int | None) -> bool:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return (
            kind in COMPRESSED_TYPES
            and (length is None or length >= GZIP_BYTES_MIN)
            and "content-encoding" not in response.headers
            and _takes_gzip(request.headers.get("accept-encoding", ""))
            and self.server.compresses()
        )

    def _hang_up(self) -> None:
        """Closes the socket without a word. What was already written of an answer arrives, and its end never does."""
        with suppress(OSError):
            if self._is_answering:
                self._writer.flush()
            else:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.request.close()


def _line(reader: BufferedReader[Any], *, may_end: bool = False, status: int = 431) -> bytes:
    """One line without its end. Raises ``ConnectionCut`` at the end of the stream, unless it may come here."""
    line = reader.readline(LINE_BYTES_MAX + 1)
    if len(line) > LINE_BYTES_MAX:
        raise _Malformed(status, "a line of the request is too long")
    if not line.endswith(b"\n"):
        if may_end and not line:
            return b""
        raise ConnectionCut("the client went away in the middle of its request")
    return line.rstrip(b"\r\n")


def _length(headers: httpx.Headers) -> int | None:
    """Bytes of the request's body; None when it comes in chunks. Raises ``_Malformed``."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.strip().lower() != "chunked" or length is not None:
            raise _Malformed(400, "a body has a length or comes in chunks, and nothing else")
        return None
    if length is None:
        return 0
    if not length.isdecimal() or not length.isascii():
        raise _Malformed(400, "bad Content-Length")
    if int(length) > BODY_BYTES_MAX:
        raise _Malformed(413, "the body is too large")
    return int(length)


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _defect() -> httpx.Response:
    """What Salesforce answers when it has a defect; the traceback goes to stderr under the same id."""
    number = f"{secrets.randbelow(10**9)}-{secrets.randbelow(10**5)}"
    print(f"ErrorId {number}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    message = f"An unexpected error occurred. Please include this ErrorId if you contact support: {number}"
    return httpx.Response(500, json=[{"message": message, "errorCode": "UNKNOWN_EXCEPTION"}])
