"""Answers are believed only when they are whole, of the right kind and not too large."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.domain.errors import Stopped
from sync_pipeline.salesforce.answer import (
    MAX_ERROR_BYTES,
    Answer,
    BadAnswer,
    Complaint,
    as_json,
    csv_into,
    decode_json,
    json_body,
    nothing,
    read_complaint,
)
from sync_pipeline_tests.salesforce.conftest import Piecewise

JSON = {"Content-Type": "application/json;charset=UTF-8"}
CSV = {"Content-Type": "text/csv; charset=UTF-8"}
GZIP = {"Content-Encoding": "gzip"}


def answer(*pieces: bytes | Exception, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    encoded = {name.encode(): value.encode("latin-1") for name, value in (headers or {}).items()}
    return Answer(httpx.Response(status, headers=encoded, stream=Piecewise(*pieces)))


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    """The body in pieces; places beyond its end make empty ones."""
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


# lengths


def test_a_body_of_the_announced_length_is_read_whole() -> None:
    assert answer(b"abc", b"de", headers={"Content-Length": "5"}).content() == b"abcde"
    assert answer(b"abc", b"de").content() == b"abcde"


@pytest.mark.parametrize(("announced", "received"), [("6", b"abc"), ("2", b"abc"), ("1", b"")])
def test_a_body_of_another_length_than_announced_is_cut_off(announced: str, received: bytes) -> None:
    with pytest.raises(BadAnswer, match=f"cut off after {len(received)} of {announced} bytes") as bad:
        answer(received, headers={"Content-Length": announced}).content()

    assert not bad.value.is_final


@pytest.mark.parametrize("announced", ["", "-3", "three", "\u00b2", "3, 3"])
def test_a_length_that_is_no_number_says_nothing(announced: str) -> None:
    assert answer(b"abc", headers={"Content-Length": announced}).content() == b"abc"


def test_a_body_above_its_bound_is_given_up_at_the_bound() -> None:
    read: list[bytes] = []

    with pytest.raises(BadAnswer, match="more than 5 bytes") as bad:
        read.extend(answer(b"abc", b"def", b"ghi").chunks(max_bytes=5))

    assert read == [b"abc"]
    assert bad.value.is_final


# compression


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2200), max_size=6))
def test_a_gzip_body_is_the_same_in_whatever_pieces_it_comes(body: bytes, places: list[int]) -> None:
    assert answer(*cut(gzip.compress(body), places), headers=GZIP).content() == body


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_gzip_body_cut_off_anywhere_is_never_taken_for_a_whole_one(body: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(body)
    length = data.draw(st.integers(1, len(packed) - 1))

    with pytest.raises(BadAnswer, match="gzip stream is cut off"):
        answer(packed[:length], headers=GZIP).content()


@given(st.binary(min_size=20, max_size=300), st.data())
def test_a_damaged_gzip_body_is_refused(body: bytes, data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(body))
    packed[data.draw(st.integers(len(packed) - 8, len(packed) - 1))] ^= 0xFF  # checksum or length

    with pytest.raises(BadAnswer, match="gzip stream is damaged"):
        answer(bytes(packed), headers=GZIP).content()


def test_a_gzip_body_of_several_members_is_all_of_them() -> None:
    packed = gzip.compress(b"abc") + gzip.compress(b"") + gzip.compress(b"def")

    assert answer(packed, headers=GZIP).content() == b"abcdef"
    assert answer(*cut(packed, range(len(packed))), headers={"Content-Encoding": "x-gzip"}).content() == b"abcdef"


@pytest.mark.parametrize("pieces", [(), (b"",)])
def test_an_empty_body_is_no_gzip_stream_cut_off(pieces: tuple[bytes, ...]) -> None:
    assert answer(*pieces, status=204, headers=GZIP).content() == b""


def test_the_announced_length_is_that_of_the_packed_body() -> None:
    packed = gzip.compress(b"a" * 1000)

    assert answer(packed, headers={**GZIP, "Content-Length": str(len(packed))}).content() == b"a" * 1000
    with pytest.raises(BadAnswer, match="cut off"):
        answer(packed, headers={**GZIP, "Content-Length": "1000"}).content()


def test_a_bomb_does_not_fill_the_memory() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))

    tracemalloc.start()
    try:
        with pytest.raises(BadAnswer, match="more than 2097152 bytes") as bad:
            answer(bomb, headers=GZIP).content(max_bytes=2 * 1024 * 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert bad.value.is_final
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises(BadAnswer, match="which was not asked for"):
        answer(b"abc", headers={"Content-Encoding": encoding}).content()


# JSON


class Shape(msgspec.Struct):
    n: int


def test_json_is_read_into_its_shape_and_numbers_may_come_as_text() -> None:
    assert as_json(Shape)(answer(b'{"n": 3, "more": []}', headers=JSON)) == Shape(3)
    assert as_json(Shape)(answer(b'{"n": "3"}', headers=JSON)) == Shape(3)
    assert as_json(list[Shape])(answer(b"[]", headers=JSON)) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"n": 3}x',
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"n": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="not the expected JSON") as bad:
        as_json(Shape)(answer(body, headers=JSON))

    assert not bad.value.is_final


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"m": 3}', "an answer that has no `n`"),
        (b'{"n": null}', "an answer that has no `n`"),
        (b'{"n": 3.5}', "an answer whose `n` cannot be read"),
        (b'{"n": {"amount": 3}}', "an answer whose `n` cannot be read"),
        (b"[1]", "an answer of another form"),
    ],
)
def test_a_field_that_is_needed_is_named_when_it_is_not_there(body: bytes, reason: str) -> None:
    with pytest.raises(BadAnswer, match=f"^{reason}$") as bad:
        as_json(Shape)(answer(body, headers=JSON))

    assert not bad.value.is_final


class Inner(msgspec.Struct):
    """An entry of which one field is needed."""

    name: str
    size: int = 0


class Outer(msgspec.Struct):
    """An answer of which only one field is needed."""

    inner: Inner
    entries: list[Inner] | None = None
    note: str | None = None
    count: int = 7


ODD = st.sampled_from([None, "text", 3.5, True, [], [1], {}, {"name": None}, [{"name": 3}], [{"size": 1}]])


@given(st.dictionaries(st.sampled_from(["entries", "note", "count", "later", "inner size"]), ODD))
def test_a_field_that_can_be_done_without_may_be_anything(given_fields: dict[str, Any]) -> None:
    inner = {"name": "key", "size": given_fields.pop("inner size", 1)}

    read = decode_json(msgspec.json.encode({"inner": inner, **given_fields}), Outer)

    assert read.inner.name == "key"
    assert isinstance(read.count, int)
    assert read.note is None or isinstance(read.note, str)
    assert all(isinstance(entry.name, str) for entry in read.entries or ())


def test_a_needed_field_inside_of_another_is_named_by_its_path() -> None:
    with pytest.raises(BadAnswer, match=r"has no `inner\.name`$"):
        decode_json(b'{"inner": {"size": 1}}', Outer)


@pytest.mark.parametrize("media_type", ["text/html; charset=utf-8", "text/csv", ""])
def test_an_answer_that_does_not_say_it_is_json_is_refused(media_type: str) -> None:
    with pytest.raises(BadAnswer, match=f"of type {media_type.partition(';')[0] or 'unknown'} instead of JSON"):
        json_body(answer(b'{"n": 3}', headers={"Content-Type": media_type}))


def test_a_body_that_does_not_matter_is_still_read_to_its_end() -> None:
    nothing(answer(b"<html>", headers={"Content-Length": "6"}))

    with pytest.raises(BadAnswer, match="cut off"):
        nothing(answer(b"<html>", headers={"Content-Length": "7"}))


# CSV


def no_break() -> None:
    pass


def test_a_repeated_download_leaves_one_whole_body() -> None:
    file = io.BytesIO()
    read = csv_into(file, between=no_break)

    with pytest.raises(BadAnswer, match="cut off"):
        read(answer(b"a,b\n1,2\n3,4\n", headers={**CSV, "Content-Length": "99"}))
    headers = read(answer(b"a,b\n", b"1,2\n", headers={**CSV, "Sforce-Locator": "null"}))

    assert file.getvalue() == b"a,b\n1,2\n"
    assert headers["sforce-locator"] == "null"


def test_a_page_of_html_is_no_csv() -> None:
    with pytest.raises(BadAnswer, match="text/html instead of CSV"):
        csv_into(io.BytesIO(), between=no_break)(answer(b"<html>", headers={"Content-Type": "text/html"}))


@pytest.mark.parametrize("status", [200, 204])
def test_an_empty_body_is_csv_without_rows_whatever_its_type(status: int) -> None:
    file = io.BytesIO()

    csv_into(file, between=no_break)(answer(status=status))

    assert file.getvalue() == b""


def test_a_download_can_be_interrupted_between_its_pieces() -> None:
    file = io.BytesIO()

    def stop() -> None:
        raise Stopped("Stopped: a person pressed stop.")

    with pytest.raises(Stopped):
        csv_into(file, between=stop)(answer(b"a,b\n", b"1,2\n", headers=CSV))

    assert file.getvalue() == b"a,b\n"


# errors


TENANT = (
    b'{"timestamp":1,"error":"Unauthorized","message":"Authorization header verification failed",'
    b'"internalErrorCode":"COMMON_ERROR_GENERIC","details":{"statusCode":401}}'
)
REST = b'[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]'


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (REST, "INVALID_SESSION_ID", "Session expired or invalid"),
        (b'{"errorCode":"NOT_FOUND","message":"no"}', "NOT_FOUND", "no"),
        (b'[{"errorCode":"A","message":"first"},{"errorCode":"B","message":"second"}]', "A", "first"),
        (b'[{"errorCode":"A","message":null,"fields":["Name"]}]', "A", ""),
        (b'{"error":"invalid_grant","error_description":"no valid scopes"}', "invalid_grant", "no valid scopes"),
        (b'{"error":"invalid_grant","error_description":null}', "invalid_grant", ""),
        (b'{"error":"42601","message":"syntax error","details":{"errorSource":"User"}}', "42601", "syntax error"),
        (TENANT, "Unauthorized", "Authorization header verification failed"),
        (b'{"internalErrorCode":"COMMON_ERROR_GENERIC","error":null}', "COMMON_ERROR_GENERIC", ""),
        (
            rb'[{"errorCode":"BAD_REQUEST","message":"{\"error\":\"42P01\",\"message\":\"no such table\"}"}]',
            "42P01",
            "no such table",
        ),
        (rb'[{"errorCode":"BAD_REQUEST","message":"{\"message\":\"no code\"}"}]', "BAD_REQUEST", "no code"),
        (rb'[{"errorCode":"BAD_REQUEST","message":"{not json"}]', "BAD_REQUEST", "{not json"),
        (rb'[{"errorCode":"BAD_REQUEST","message":"{\"other\":1}"}]', "BAD_REQUEST", '{"other":1}'),
        (b"[]", "", ""),
        (b"{}", "", ""),
        (b"", "", ""),
        (b"<html><body>Down for maintenance</body></html>", "", ""),
        (b"upstream\n  connect error", "", "upstream connect error"),
        (b'"text"', "", '"text"'),
        (b"\xff\xfe", "", "\ufffd\ufffd"),
    ],
)
def test_code_and_message_are_found_in_every_kind_of_error_body(body: bytes, code: str, message: str) -> None:
    assert read_complaint(body) == Complaint(code, message)


def test_a_body_nested_without_end_is_only_text() -> None:
    assert read_complaint(b"[" * 100_000).code == ""


def test_an_error_whose_body_breaks_off_keeps_what_came() -> None:
    assert answer(REST, httpx.ReadError("reset"), status=401).complaint().code == "INVALID_SESSION_ID"
    assert answer(REST, status=401, headers={"Content-Length": "999"}).complaint().code == "INVALID_SESSION_ID"
    assert answer(b"no gzip", status=503, headers=GZIP).complaint() == Complaint("", "")


class Endless(httpx.SyncByteStream):
    """One piece again and again; ``read`` counts the bytes that were taken."""

    def __init__(self, piece: bytes) -> None:
        self._piece = piece
        self.read = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.read += len(self._piece)
            yield self._piece


def test_an_endless_error_body_is_not_read() -> None:
    body = Endless(b"x" * 1000)

    found = Answer(httpx.Response(500, stream=body)).complaint()

    assert body.read <= MAX_ERROR_BYTES + 1000
    assert len(found.message) <= MAX_ERROR_BYTES
