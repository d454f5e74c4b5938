"""One call as the functions behind the routes see it, and what they answer.

A function behind a route is ``def create_job(call: Call) -> httpx.Response``; it raises ``Refused`` for an error answer.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, Literal

import httpx
import msgspec

from sync_pipeline.simulated_org.state import Org

Door = Literal["open", "session", "core", "tenant"]
"""What a route asks for: nothing; a token; a token and one API call; a token of the Data Cloud host."""

JSON_TYPE: Final = "application/json;charset=UTF-8"
PIECE_BYTES: Final = 1024 * 1024
ANY_METHOD: Final = "*"
"""The method of a route that takes whatever comes."""
GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
BODY_BYTES_MAX: Final = 512 * 1024 * 1024
"""The largest body that is taken, packed or not; what an API allows is less, and the API says so itself."""


@dataclass(frozen=True)
class Session:
    """Whom a token belongs to."""

    token: str
    client: str
    user_id: str
    dataspace: str = "default"


@dataclass(frozen=True)
class Call:
    """A request that found its route. ``parts`` are the named groups of the route's pattern, percent-decoded."""

    org: Org
    request: httpx.Request
    parts: Mapping[str, str]
    query: Mapping[str, str]
    """The query string; of a repeated name the last value counts."""
    session: Session
    version: str = ""
    """API version in the path, such as ``66.0``; empty outside ``/services/data/vNN.0``."""
    base_url: str = ""
    """Scheme and host as the client wrote them, without a slash at the end."""

    @property
    def headers(self) -> httpx.Headers:
        return self.request.headers

    @property
    def media_type(self) -> str:
        given: str = self.headers.get("content-type", "")
        return given.partition(";")[0].strip().lower()

    def pieces(self, *, unpacked: bool = True) -> Iterator[bytes]:
        """The body as it arrives; for large bodies, once only. A compressed one is unpacked.

        Compression Headers: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest_compression.htm
        Raises ``Refused`` (400) when it cannot be unpacked, and 415 for a coding that REST does not know.
        """
        stream = self.request.stream
        if not isinstance(stream, httpx.SyncByteStream):
            raise TypeError("an asynchronous body cannot be read here")
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if not unpacked or coding in ("", "identity"):
            yield from stream
        elif coding in ("gzip", "x-gzip", "deflate"):
            yield from _unpacked(stream)
        else:
            raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", f"The content encoding {coding} is not supported.")

    @cached_property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    @cached_property
    def json(self) -> Any:
        """The body as JSON. Raises ``Refused`` (400 JSON_PARSER_ERROR) when it is not."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(400, "JSON_PARSER_ERROR", f"Unexpected content in the request body: {error}") from None


Function = Callable[[Call], httpx.Response]


@dataclass(frozen=True)
class Route:
    """One line of the route table: ``pattern`` must match the whole path, in any letter case, without its last slash."""

    method: str
    pattern: str
    function: Function
    door: Door = "core"
    since: int = 0
    """The first API version that has it."""


class Refused(Exception):
    """An error of the REST API: an array of one object.

    Status Codes and Error Responses:
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
    """

    def __init__(self, status: int, code: str, message: str, *, fields: Iterable[str] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.fields = None if fields is None else list(fields)

    def answer(self) -> httpx.Response:
        error: dict[str, object] = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            error["fields"] = self.fields
        return json_answer([error], status=self.status)


class TenantRefused(Exception):
    """An error of the Data Cloud host, or of the login: an object with a shape of its own."""

    def __init__(self, status: int, body: Mapping[str, object]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body

    def answer(self) -> httpx.Response:
        return json_answer(self.body, status=self.status)


class ConnectionCut(httpx.ReadError):
    """The connection breaks here without a word. A client at the embedded door sees just this; the TCP door hangs up."""


def json_answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """An answer in JSON."""
    return bytes_answer(msgspec.json.encode(body), JSON_TYPE, status=status, headers=headers)


def bytes_answer(
    body: bytes, content_type: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """An answer whose body is at hand."""
    return httpx.Response(status, headers={"Content-Type": content_type, **(headers or {})}, content=body)


def empty_answer(status: int = 204) -> httpx.Response:
    """An answer without a body."""
    return httpx.Response(status, headers={"Content-Length": "0"})


def stream_answer(
    pieces: Iterator[bytes],
    content_type: str,
    *,
    length: int | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    held: IO[bytes] | None = None,
) -> httpx.Response:
    """An answer made while it is sent; without ``length`` it is sent in chunks. ``held`` is closed with it."""
    size = {} if length is None else {"Content-Length": str(length)}
    return httpx.Response(
        status, headers={"Content-Type": content_type, **size, **(headers or {})}, stream=Pieces(pieces, held)
    )


def file_answer(
    path: Path,
    content_type: str,
    *,
    start: int = 0,
    length: int | None = None,
    head: bytes = b"",
    tail: bytes = b"",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """A file, or a slice of it, between ``head`` and ``tail``, sent piece by piece. The file may be removed as soon as
    this has returned."""
    file = path.open("rb")
    size = os.fstat(file.fileno()).st_size - start if length is None else length

    def pieces() -> Iterator[bytes]:
        yield head
        file.seek(start)
        left = size
        while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece
        yield tail

    whole = len(head) + size + len(tail)
    return stream_answer(pieces(), content_type, length=whole, status=status, headers=headers, held=file)


@dataclass
class Pieces(httpx.SyncByteStream):
    """A body out of an iterator; what is ``held`` open is closed with it, also when nobody began to read."""

    pieces: Iterator[bytes] = field(repr=False)
    held: IO[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.pieces
        finally:
            self.close()

    def close(self) -> None:
        close = getattr(self.pieces, "close", None)
        if close is not None:
            close()
        if self.held is not None:
            self.held.close()


def _unpacked(stream: Iterable[bytes]) -> Iterator[bytes]:
    unpacker, size = zlib.decompressobj(GZIP_OR_ZLIB), 0
    try:
        for packed in stream:
            left = packed
            while left:
                piece = unpacker.decompress(left, PIECE_BYTES)
                size += len(piece)
                if size > BODY_BYTES_MAX:
                    raise Refused(413, "REQUEST_ENTITY_TOO_LARGE", f"The body has more than {BODY_BYTES_MAX} bytes")
                yield piece
                left = unpacker.unconsumed_tail
    except zlib.error as error:
        raise Refused(400, "BAD_REQUEST", f"The body cannot be unpacked: {error}") from None
    yield unpacker.flush()
    if not unpacker.eof:
        raise Refused(400, "BAD_REQUEST", "The body cannot be unpacked: it ends too early")
