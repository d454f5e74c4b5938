"""One answer of the org, read with suspicion.

A body is believed only when it has the announced length, a whole gzip stream, the right media type and no more bytes
than its bound. Anything else raises ``BadAnswer``, which ``session.py`` treats like an answer that was lost.

Of what JSON says no more is believed than is needed. A shape names the fields that are read; one that has a default may
be missing, null, or of a type that a later version of the API has given it, and one without is named when it is not
there. What no shape names is never looked at.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import IO, Any, TypeVar, Union, cast, get_args, get_origin

import httpx
import msgspec

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 128 * 1024 * 1024
"""Largest decoded answer that is read into memory; a page of rows is 2 to 20 MB."""
MAX_DOWNLOAD_BYTES = 4 * 1024 * 1024 * 1024
"""Largest decoded answer that is written to a file; Salesforce stops at 1 GB per result file."""
MAX_ERROR_BYTES = 64 * 1024
"""How much of an error's body is read."""
INFLATE_BYTES = 1024 * 1024
"""Decoded bytes taken from the decompressor at once, so that a few hostile bytes cannot fill the memory."""


class BadAnswer(Exception):
    """The answer cannot be believed. ``is_final`` when asking again would only bring the same."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


@dataclass(frozen=True)
class Complaint:
    """What an error answer says; ``code`` is empty when the body is not one of Salesforce's."""

    code: str
    message: str


class Answer:
    """Status, headers and, once, the body of one response."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def chunks(self, *, max_bytes: int) -> Iterator[bytes]:
        """The decoded body, piece by piece; raises ``BadAnswer`` when it is cut off, damaged or too large."""
        size = 0
        for chunk in self._decoded():
            size += len(chunk)
            if size > max_bytes:
                raise BadAnswer(f"an answer of more than {max_bytes} bytes", is_final=True)
            yield chunk

    def content(self, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The whole decoded body."""
        return b"".join(self.chunks(max_bytes=max_bytes))

    def complaint(self) -> Complaint:
        """What an error answer says, as far as it can be read."""
        body = b""
        try:
            for chunk in self.chunks(max_bytes=MAX_ERROR_BYTES):
                body += chunk
        except (BadAnswer, httpx.TransportError):
            pass  # the status alone decides then; the error keeps what could be read of the body
        return read_complaint(body)

    def _decoded(self) -> Iterator[bytes]:
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            yield from self._raw()
        elif encoding in ("gzip", "x-gzip"):
            yield from _gunzip(self._raw())
        else:
            raise BadAnswer(f"an answer in the encoding {encoding!r}, which was not asked for")

    def _raw(self) -> Iterator[bytes]:
        # Not ``iter_raw``: it refuses a response built from bytes, which is what an in-process org hands over.
        received = 0
        for chunk in cast("Iterable[bytes]", self._response.stream):
            received += len(chunk)
            yield chunk
        announced = self.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) != received:
            raise BadAnswer(f"an answer cut off after {received} of {announced} bytes")


def as_json(shape: type[T]) -> Callable[[Answer], T]:
    """Reads an answer as JSON of that shape; numbers written as text are taken for numbers."""

    def read(answer: Answer) -> T:
        return decode_json(json_body(answer), shape)

    return read


def decode_json(body: bytes, shape: type[T]) -> T:
    """JSON of that shape, or ``BadAnswer``."""
    try:
        return msgspec.json.decode(body, type=shape, strict=False)
    except msgspec.ValidationError:
        return cast("T", believed(decode_plain(body), shape))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"an answer that is not the expected JSON ({error})") from None


def decode_plain(body: bytes, *, float_hook: Callable[[str], Any] | None = None) -> Any:
    """JSON of any shape, or ``BadAnswer``."""
    try:
        return msgspec.json.Decoder(float_hook=float_hook).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"an answer that is not the expected JSON ({error})") from None


def believed(value: Any, shape: Any, *, where: str = "") -> Any:
    """A decoded value as that shape, after a strict decoder has refused it. ``where`` is its path, like ``status.rowCount``.

    A field with a default takes it when it is missing, null or cannot be read. Raises ``BadAnswer``, which names the one
    field that cannot be done without.
    """
    origin, arguments = get_origin(shape), get_args(shape)
    if origin in (Union, UnionType):
        return _first_believed(value, arguments, where=where)
    if origin is list and isinstance(value, list):
        return [believed(item, arguments[0], where=f"{where}[]") for item in value]
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct) and isinstance(value, dict):
        return shape(**_believed_fields(value, shape, where=where))
    try:
        return msgspec.convert(value, shape, strict=False)
    except msgspec.ValidationError:
        raise BadAnswer(f"an answer whose `{where}` cannot be read" if where else "an answer of another form") from None


def _first_believed(value: Any, shapes: Iterable[Any], *, where: str) -> Any:
    failure = BadAnswer("an answer of another form")
    for shape in shapes:
        try:
            return believed(value, shape, where=where)
        except BadAnswer as error:
            failure = error
    raise failure


def _believed_fields(value: dict[str, Any], shape: type[msgspec.Struct], *, where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        place = f"{where}.{field.encode_name}" if where else field.encode_name
        item = value.get(field.encode_name)
        try:
            if item is None and field.required:
                raise BadAnswer(f"an answer that has no `{place}`")
            if item is not None:
                given[field.name] = believed(item, field.type, where=place)
        except BadAnswer as error:
            if field.required:
                raise
            log.debug("%s; it is read without", error.reason)
    return given


def json_body(answer: Answer) -> bytes:
    """The whole body of an answer that says it is JSON."""
    body = answer.content()
    if "json" not in answer.media_type:
        raise BadAnswer(f"an answer of type {answer.media_type or 'unknown'} instead of JSON")
    return body


def nothing(answer: Answer) -> None:
    """Reads an answer whose body, if any, does not matter."""
    answer.content(max_bytes=MAX_ERROR_BYTES)


def csv_into(file: IO[bytes], *, between: Callable[[], None]) -> Callable[[Answer], Mapping[str, str]]:
    """Writes a CSV answer into ``file`` from its start, so that a repeated request leaves one whole body; gives the
    headers. An empty body is taken whatever its type says. ``between`` two pieces the work may be interrupted."""

    def read(answer: Answer) -> Mapping[str, str]:
        file.seek(0)
        file.truncate()
        for chunk in answer.chunks(max_bytes=MAX_DOWNLOAD_BYTES):
            file.write(chunk)
            between()
        if file.tell() and "csv" not in answer.media_type:
            raise BadAnswer(f"an answer of type {answer.media_type or 'unknown'} instead of CSV")
        return answer.headers

    return read


class _ErrorObject(msgspec.Struct):
    """The union of what the core host, the token endpoints, the tenant host and its gateway say in an error."""

    errorCode: str | None = None
    message: str | None = None
    error: str | None = None
    error_description: str | None = None
    internalErrorCode: str | None = None


def read_complaint(body: bytes) -> Complaint:
    """Code and message of an error body: an array of ``errorCode``/``message`` (REST), ``error``/``error_description``
    (OAuth), ``error``/``message``/``details`` (tenant host). Data Cloud puts a JSON text into ``message``."""
    try:
        found = decode_plain(body)
        first = found[0] if isinstance(found, list) and found else found
        return _unwrapped(_ErrorObject() if first == [] else believed(first, _ErrorObject))
    except BadAnswer:
        return _unreadable(body)


def _unreadable(body: bytes) -> Complaint:
    text = body.decode("utf-8", "replace")
    return Complaint(code="", message="" if "<" in text[:200] else " ".join(text.split()))


def _unwrapped(error: _ErrorObject) -> Complaint:
    code = error.errorCode or error.error or error.internalErrorCode or ""
    message = error.message or error.error_description or ""
    if message.lstrip().startswith("{"):
        try:
            inner = decode_json(message.encode("utf-8", "surrogatepass"), _ErrorObject)
        except BadAnswer:
            return Complaint(code, message)
        inner_message = inner.message or inner.error_description
        if inner_message:
            return Complaint(inner.error or inner.errorCode or code, inner_message)
    return Complaint(code, message)


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=31)
    has_data = False
    for chunk in chunks:
        pending, has_data = chunk, has_data or bool(chunk)
        while pending:
            if inflate.eof:  # a gzip body may be several members one after the other
                inflate = zlib.decompressobj(wbits=31)
            yield _inflated(inflate, pending)
            pending = inflate.unconsumed_tail or inflate.unused_data
        while not inflate.eof and (held_back := _inflated(inflate, b"")):
            yield held_back
    if has_data and not inflate.eof:
        raise BadAnswer("an answer whose gzip stream is cut off")


def _inflated(inflate: zlib._Decompress, data: bytes) -> bytes:
    try:
        return inflate.decompress(data, INFLATE_BYTES)
    except zlib.error:
        raise BadAnswer("an answer whose gzip stream is damaged") from None
