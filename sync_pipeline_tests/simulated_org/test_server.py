"""The TCP door, over real sockets: what goes in, what comes out, and how it looks when a connection is cut."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import cast

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.exceptions import PanicException

from sync_pipeline.simulated_org.call import (
    ConnectionCut,
    bytes_answer,
    empty_answer,
    file_answer,
    json_answer,
    stream_answer,
)
from sync_pipeline.simulated_org.faults import add_fault, parse_fault
from sync_pipeline.simulated_org.login import new_token
from sync_pipeline.simulated_org.server import BODY_BYTES_MAX, Answer, Server, running, serving
from sync_pipeline.simulated_org.state import Org

ROWS = b"".join(b"%d,%d\n" % (n, n * n) for n in range(20_000))


@contextmanager
def client_of(answer: Answer, *, compresses: Callable[[], bool] = lambda: True) -> Iterator[httpx.Client]:
    """A client of a server that answers with this function."""
    with (
        serving(Server(answer, compresses=compresses)) as base_url,
        httpx.Client(base_url=base_url, trust_env=False, timeout=20) as client,
    ):
        yield client


@contextmanager
def dialled(answer: Answer) -> Iterator[socket.socket]:
    """A bare connection to such a server."""
    with serving(Server(answer)) as base_url:
        url = httpx.URL(base_url)
        with socket.create_connection((url.host, url.port), timeout=20) as connection:
            yield connection


def pieces_of(request: httpx.Request) -> Iterator[bytes]:
    return iter(cast("httpx.SyncByteStream", request.stream))


def echo(request: httpx.Request) -> httpx.Response:
    """What the server made of a request."""
    body = b"".join(pieces_of(request))
    return json_answer(
        {
            "method": request.method,
            "target": request.url.raw_path.decode(),
            "host": request.url.host,
            "headers": [[name.lower(), value] for name, value in request.headers.items()],
            "body": body.decode("latin-1"),
        }
    )


def in_turn(*answers: Answer) -> Answer:
    """The first function answers the first request, and so on."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        return left.pop(0)(request)

    return answer


def said(connection: socket.socket, sent: bytes) -> bytes:
    """All that comes back until the server hangs up."""
    connection.sendall(sent)
    came = b""
    while piece := connection.recv(65_536):
        came += piece
    return came


# what goes in


def test_a_request_arrives_as_it_was_sent() -> None:
    with client_of(echo) as client:
        seen = client.patch(
            "/services/data/v66.0/Jobs/a%2Fb?q=a%20b&x", content=b'{"state": 1}', headers={"X-Odd": "é".encode()}
        ).json()

    assert seen["method"] == "PATCH"
    assert seen["target"] == "/services/data/v66.0/Jobs/a%2Fb?q=a%20b&x"
    assert seen["host"] == "127.0.0.1"
    assert ["x-odd", "é"] in seen["headers"]
    assert seen["body"] == '{"state": 1}'


def test_the_host_is_the_one_that_the_client_names() -> None:
    with client_of(echo) as client:
        seen = client.get("/", headers={"Host": "acme.my.salesforce.com"}).json()

    assert seen["host"] == "acme.my.salesforce.com"


@settings(max_examples=40)
@given(pieces=st.lists(st.binary(max_size=3_000), max_size=6), is_sized=st.booleans())
def test_a_body_of_any_pieces_arrives_whole_with_a_length_or_in_chunks(
    echoing: httpx.Client, pieces: list[bytes], is_sized: bool
) -> None:
    whole = b"".join(pieces)
    headers = {"Content-Length": str(len(whole))} if is_sized else {}

    seen = echoing.put("/upload", content=iter(pieces), headers=headers).json()

    names = [name for name, _ in seen["headers"]]
    assert ("content-length" in names, "transfer-encoding" in names) == (is_sized, not is_sized)
    assert seen["body"].encode("latin-1") == whole


@pytest.fixture(scope="module")
def echoing() -> Iterator[httpx.Client]:
    with client_of(echo) as client:
        yield client


def test_a_body_is_handed_over_as_it_comes() -> None:
    """An upload is never held in memory: the function sees the beginning before the client has sent the end."""
    has_begun = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        body = pieces_of(request)
        first = next(body)
        has_begun.set()
        return json_answer(len(first) + sum(map(len, body)))

    def upload() -> Iterator[bytes]:
        yield b"a" * 10
        assert has_begun.wait(20)
        yield b"b" * 10

    with client_of(answer) as client:
        assert client.put("/", content=upload()).json() == 20


def test_what_nobody_reads_of_a_body_does_not_get_into_the_next_request() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return json_answer({"refused": True}, status=401) if request.method == "PUT" else json_answer("fine")

    with client_of(answer) as client:
        statuses = [
            client.put("/", content=b"GET / HTTP/1.1\r\n\r\n" * 200_000).status_code,
            client.put("/", content=iter([b"x" * 5_000, b"y" * 500_000])).status_code,
            client.get("/").status_code,
        ]

    assert statuses == [401, 401, 200]


def test_a_client_that_waits_for_a_word_gets_it_when_its_body_is_wanted() -> None:
    with dialled(echo) as connection:
        connection.sendall(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        word = connection.recv(100)
        answer = said(connection, b"body")

    assert word == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"body":"body"' in answer


def test_a_client_that_waits_for_a_word_gets_the_refusal_instead() -> None:
    with dialled(lambda request: json_answer("no", status=401)) as connection:
        answer = said(connection, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"Connection: close\r\n" in answer


# what comes out


def test_a_connection_serves_one_request_after_the_other() -> None:
    with dialled(echo) as connection:
        answers = said(
            connection,
            b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"
            b"PUT /second HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"
            b"\r\nGET /third HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )

    assert re.findall(rb'"target":"(/\w+)"', answers) == [b"/first", b"/second", b"/third"]
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.count(b"Connection: close") == 1


def test_an_old_client_gets_its_answer_and_the_end_of_the_connection() -> None:
    with dialled(lambda request: stream_answer(iter([b"a", b"b"]), "text/plain", length=None)) as connection:
        answer = said(connection, b"GET / HTTP/1.0\r\n\r\n")

    assert answer.endswith(b"Connection: close\r\n\r\nab")


@pytest.mark.parametrize("length", [None, len(ROWS)])
def test_a_streamed_answer_arrives_with_its_length_or_in_chunks(length: int | None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        pieces = (ROWS[start : start + 999] for start in range(0, len(ROWS), 999))
        return stream_answer(pieces, "text/csv", length=length, headers={"Sforce-Locator": "null"})

    with client_of(answer, compresses=lambda: False) as client:
        answered = client.get("/")

    assert answered.content == ROWS
    assert answered.headers.get("content-length") == (None if length is None else str(length))
    assert answered.headers.get("transfer-encoding") == ("chunked" if length is None else None)
    assert answered.headers["sforce-locator"] == "null"


def test_a_file_arrives_whole_and_may_be_removed_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    content = os.urandom(3_000_000)

    def answer(request: httpx.Request) -> httpx.Response:
        file.write_bytes(content)
        answer = file_answer(file, "application/octet-stream", start=10)
        file.unlink()
        return answer

    with client_of(answer) as client:
        assert client.get("/").content == content[10:]


@pytest.mark.parametrize("status", [200, 201, 204])
def test_an_answer_without_a_body_leaves_the_connection_usable(status: int) -> None:
    with client_of(lambda request: empty_answer(status)) as client:
        answers = [client.delete("/") for _ in range(3)]

    assert [(each.status_code, each.content, each.headers["content-length"]) for each in answers] == [
        (status, b"", "0")
    ] * 3


class Watched(httpx.SyncByteStream):
    """A body that knows whether it was read and closed."""

    def __init__(self) -> None:
        self.fate: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        self.fate.append("read")
        yield ROWS

    def close(self) -> None:
        self.fate.append("closed")


def test_head_gets_the_head_alone_and_the_body_is_closed() -> None:
    body = Watched()

    with client_of(lambda request: httpx.Response(200, headers={"Content-Length": "99"}, stream=body)) as client:
        answers = [client.head("/") for _ in range(2)]

    assert [(each.status_code, each.content, each.headers["content-length"]) for each in answers] == [
        (200, b"", "99")
    ] * 2
    assert body.fate == ["closed", "closed"]


# gzip


@pytest.mark.parametrize("kind", ["application/json;charset=UTF-8", "text/csv; charset=UTF-8"])
def test_json_and_csv_are_compressed_for_those_who_take_it(kind: str) -> None:
    with client_of(lambda request: bytes_answer(ROWS, kind)) as client:
        with client.stream("GET", "/", headers={"Accept-Encoding": "br, gzip;q=0.8"}) as answer:
            raw = b"".join(answer.iter_raw())
        decoded = client.get("/").content

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(raw) == decoded == ROWS
    assert len(raw) < len(ROWS) / 2


@pytest.mark.parametrize("accepted", ["identity", "gzip;q=0", "deflate", ""])
def test_nobody_gets_gzip_who_does_not_take_it(accepted: str) -> None:
    with client_of(lambda request: bytes_answer(ROWS, "text/csv")) as client:
        answer = client.get("/", headers={"Accept-Encoding": accepted})

    assert "content-encoding" not in answer.headers
    assert answer.headers["content-length"] == str(len(ROWS))


@pytest.mark.parametrize(
    ("body", "kind", "headers"),
    [
        (b"{}", "application/json", {}),
        (ROWS, "application/vnd.apache.arrow.stream", {}),
        (gzip.compress(ROWS), "text/csv", {"Content-Encoding": "gzip"}),
    ],
)
def test_small_binary_and_compressed_answers_stay_as_they_are(body: bytes, kind: str, headers: dict[str, str]) -> None:
    with (
        client_of(lambda request: bytes_answer(body, kind, headers=headers)) as client,
        client.stream("GET", "/") as answer,
    ):
        raw = b"".join(answer.iter_raw())

    assert raw == body
    assert answer.headers["content-length"] == str(len(body))


# cut connections


def cut(request: httpx.Request) -> httpx.Response:
    raise ConnectionCut("cut")


def broken(length: int | None, *, error: Exception) -> Answer:
    """Answers half of ``ROWS`` and breaks."""

    def answer(request: httpx.Request) -> httpx.Response:
        def pieces() -> Iterator[bytes]:
            yield ROWS[: len(ROWS) // 2]
            raise error

        return stream_answer(pieces(), "text/csv", length=length)

    return answer


@pytest.mark.parametrize("body", [b"", b"x" * 3_000_000])
def test_a_cut_before_the_answer_breaks_the_connection(body: bytes) -> None:
    with client_of(cut) as client, pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.put("/", content=body)


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
@pytest.mark.parametrize("length", [None, len(ROWS)])
def test_a_cut_in_the_middle_of_an_answer_breaks_it_off(length: int | None, accepted: str) -> None:
    with (
        client_of(broken(length, error=ConnectionCut("cut"))) as client,
        client.stream("GET", "/", headers={"Accept-Encoding": accepted}) as answer,
    ):
        arrived, error = read_to_its_end(answer)

    assert answer.status_code == 200
    assert isinstance(error, httpx.RemoteProtocolError)
    assert ROWS.startswith(arrived)
    if accepted == "identity":
        assert len(arrived) == len(ROWS) // 2


def read_to_its_end(answer: httpx.Response) -> tuple[bytes, Exception | None]:
    """What arrives of an answer, and how it breaks off if it does."""
    arrived = b""
    try:
        for piece in answer.iter_bytes():
            arrived += piece
    except httpx.TransportError as error:
        return arrived, error
    return arrived, None


def test_after_a_cut_the_next_connection_is_served() -> None:
    with client_of(in_turn(cut, echo, cut, echo)) as client:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                client.get("/")
            assert client.get("/").status_code == 200


def test_a_client_that_goes_away_in_its_upload_is_a_cut_for_the_function() -> None:
    seen: list[type[BaseException]] = []
    has_ended = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        try:
            return echo(request)
        except (ConnectionCut, ConnectionError) as error:
            seen.append(type(error))
            raise
        finally:
            has_ended.set()

    with dialled(answer) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        assert has_ended.wait(20)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)

    assert seen == [ConnectionCut]


# defects


def test_a_defect_is_answered_like_one_and_told_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with client_of(in_turn(lambda request: json_answer(1 / 0), echo)) as client:
        answer, after = client.get("/"), client.get("/")

    told = answer.json()[0]
    number = re.search(r"ErrorId if you contact support: (\d+-\d+)", told["message"])
    assert (answer.status_code, told["errorCode"], after.status_code) == (500, "UNKNOWN_EXCEPTION", 200)
    assert number is not None
    err = capfd.readouterr().err
    assert number[1] in err
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("length", [None, len(ROWS)])
def test_a_defect_in_the_middle_of_an_answer_never_looks_like_its_end(
    length: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with client_of(broken(length, error=KeyError("lost"))) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/")

    assert "KeyError: 'lost'" in capfd.readouterr().err


def test_an_answer_shorter_than_it_said_is_a_defect(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        client_of(lambda request: stream_answer(iter([b"abc"]), "text/plain", length=5)) as client,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.get("/")

    assert "an answer of 5 bytes had 3" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b:c\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1), 413),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (BODY_BYTES_MAX + 1), 413),
        (b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 70_000), 414),
        (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 70_000), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
    ],
)
def test_a_client_that_does_not_speak_http_is_told_so(sent: bytes, status: int) -> None:
    with dialled(echo) as connection:
        answer = said(connection, sent)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)[0]["errorCode"] == "BAD_REQUEST"


# many at once, and the end


def test_many_threads_are_served_at_once() -> None:
    everybody = threading.Barrier(12, timeout=20)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/0":
            everybody.wait()  # goes on only when all twelve are being answered at the same time
        return json_answer({"path": request.url.path, "bytes": sum(map(len, pieces_of(request)))})

    def work(number: int) -> list[tuple[str, int]]:
        with httpx.Client(base_url=base_url, trust_env=False, timeout=20) as client:
            answers = [client.put(f"/{place}", content=b"x" * number * 1000).json() for place in range(10)]
        return [(each["path"], each["bytes"]) for each in answers]

    with serving(Server(answer)) as base_url, ThreadPoolExecutor(12) as pool:
        results = list(pool.map(work, range(12)))

    assert results == [[(f"/{place}", number * 1000) for place in range(10)] for number in range(12)]


def test_what_a_connection_held_is_given_back_in_its_thread() -> None:
    left: list[str] = []
    server = Server(echo, leave=lambda: left.append(threading.current_thread().name))

    with serving(server) as base_url:
        httpx.get(base_url, trust_env=False)
        httpx.get(base_url, trust_env=False)

    assert left == ["org", "org"]


def test_the_end_of_the_server_ends_idle_connections_and_frees_the_port() -> None:
    others = set(threading.enumerate())
    with serving(Server(echo)) as base_url, httpx.Client(base_url=base_url, trust_env=False) as client:
        client.get("/")
        threads = set(threading.enumerate()) - others
    port = httpx.URL(base_url).port
    assert port is not None

    assert (len(threads), [thread for thread in threads if thread.is_alive()]) == (2, [])
    with serving(Server(echo, port=port)) as again:
        assert again == base_url


def test_a_signal_while_a_connection_is_accepted_leaves_the_socket_to_its_thread(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Interrupted(Server):
        def process_request(self, request: socket.socket, client_address: object) -> None:
            super().process_request(request, client_address)
            raise KeyboardInterrupt

    server = Interrupted(echo)
    url = httpx.URL(server.base_url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        with pytest.raises(KeyboardInterrupt):
            server.serve_forever(0.01)
        answer = said(connection, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    server.stop()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert capfd.readouterr() == ("", "")


# where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "example.com", "127.0.0.1.example.com"])
def test_no_address_but_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="listens on loopback addresses only"):
        Server(echo, host=host)


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")]
)
def test_every_loopback_address_is_served(host: str, shown: str) -> None:
    with serving(Server(echo, host=host)) as base_url:
        assert re.fullmatch(rf"http://{re.escape(shown)}:\d+", base_url)
        assert httpx.get(base_url, trust_env=False).status_code == 200


def test_the_loopback_of_ipv6_is_served_where_there_is_one() -> None:
    try:
        server = Server(echo, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")

    with serving(server) as base_url:
        assert base_url.startswith("http://[::1]:")
        assert httpx.get(base_url, trust_env=False).json()["host"] == "::1"


def test_a_port_that_is_taken_is_an_error() -> None:
    with serving(Server(echo)) as base_url, pytest.raises(OSError, match="in use"):
        Server(echo, port=httpx.URL(base_url).port or 0)


# the org behind it


@pytest.fixture
def org(tmp_path: Path) -> Iterator[Org]:
    org = Org(tmp_path / "org")
    yield org
    org.close()


@contextmanager
def reached(org: Org) -> Iterator[httpx.Client]:
    with running(org) as base_url, httpx.Client(base_url=base_url, trust_env=False, timeout=20) as client:
        yield client


def logged_in(client: httpx.Client, name: str = "simulated", secret: str = "simulated") -> dict[str, str]:
    form = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
    answer: dict[str, str] = client.post("/services/oauth2/token", data=form).raise_for_status().json()
    return answer


def test_a_client_logs_in_and_is_led_back_to_the_door_it_came_through(org: Org) -> None:
    with reached(org) as client:
        token = logged_in(client)
        versions = client.get("/services/data").json()
        resources = client.get(
            "/services/data/v66.0", headers={"Authorization": f"Bearer {token['access_token']}"}
        ).json()

    assert token["instance_url"] == str(client.base_url).rstrip("/")
    assert token["id"].split("/")[-2] == org.org_id
    assert versions[-1]["version"] > "66.0"
    assert resources["query"] == "/services/data/v66.0/query"


def test_many_clients_of_one_org_are_all_counted(org: Org) -> None:
    def work(base_url: str) -> None:
        with httpx.Client(base_url=base_url, trust_env=False, timeout=20) as client:
            token = logged_in(client)["access_token"]
            for _ in range(10):
                client.get("/services/data/v66.0", headers={"Authorization": f"Bearer {token}"}).raise_for_status()

    with running(org) as base_url, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [base_url] * 8))

    assert org.usage()[0] == 80


def test_faults_of_the_org_happen_on_the_wire(org: Org) -> None:
    for words in (
        "cut name=a endpoint=token nth=1",
        "cut_body name=b path=data$ nth=1",
        "html_503 name=c path=data$ nth=1",
    ):
        add_fault(org, parse_fault(words))

    with reached(org) as client:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            logged_in(client)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/services/data", headers={"Accept-Encoding": "identity"})
        statuses = [client.get("/services/data").status_code for _ in range(2)]
        logged_in(client)

    assert statuses == [503, 200]


def test_the_knob_gzip_is_obeyed(org: Org) -> None:
    with reached(org) as client:
        before = client.get("/services/data")
        org.set_setting("gzip", "off")
        after = client.get("/services/data")

    assert (before.headers.get("content-encoding"), after.headers.get("content-encoding")) == ("gzip", None)
    assert before.json() == after.json()


PATHS = (
    "/", "//", "*", "?", "#", "/services/data", "/services/data/v66.0/limits", "/services/data/v66.0/sobjects/Opportunity/",
    "/services/data/v66.0/query?q=", "/services/data/v66.0/query?explain=", "/services/data/v66.0/query/01g",
    "/services/data/v66.0/composite", "/services/data/v66.0/composite/batch", "/services/data/v66.0/composite/tree/Account",
    "/services/data/v66.0/composite/sobjects/Account?ids=", "/services/data/v66.0/sobjects/Account/updated?start=",
    "/services/data/v66.0/jobs/ingest", "/services/data/v66.0/jobs/ingest?queryLocator=", "/services/oauth2/token",
    "/services/oauth2/introspect", "/services/data/v66.0/ssot/query-sql", "/services/async/66.0/job", "/services/Soap/u/59.0",
    "/id/",
)  # fmt: skip
BODIES = (
    "",
    "null",
    "[]",
    "{}",
    '"',
    '{"records":[null]}',
    '{"compositeRequest":[{}]}',
    '{"sql":1}',
    "grant_type=password&=&%",
)
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "BREW"]),
    path=st.sampled_from(PATHS),
    rest=PRINTABLE,
    name=st.sampled_from(
        ["Authorization", "Content-Type", "Content-Encoding", "Accept", "Sforce-Query-Options", "X-PrettyPrint"]
    ),
    value=st.binary(max_size=8).map(lambda raw: bytes(byte for byte in raw if byte not in b"\r\n\0")),
    body=st.sampled_from(BODIES),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_request_is_answered_and_so_is_the_next(
    door: tuple[socket.socket, bytes], capfd: pytest.CaptureFixture[str], *,
    method: str, path: str, rest: str, name: str, value: bytes, body: str,
) -> None:  # fmt: skip
    connection, bearer = door
    strange = f"{method} {path}{rest} HTTP/1.1\r\nHost: door\r\nContent-Length: {len(body)}\r\n".encode()
    strange += bearer + (b"" if name == "Authorization" else name.encode() + b": " + value + b"\r\n")

    connection.sendall(strange + b"\r\n" + body.encode())
    answered = status_of(connection, has_body=method != "HEAD")
    connection.sendall(b"GET /services/data HTTP/1.1\r\nHost: door\r\n\r\n")

    assert 200 <= answered < 500 or "/services/Soap" in path, answered
    assert status_of(connection, has_body=True) == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def door(org: Org) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection to the org's door, and the header of somebody who is logged in."""
    token = new_token(org, kind="core", client="simulated", user_id=org.user_id)
    with running(org) as base_url:
        url = httpx.URL(base_url)
        with socket.create_connection((url.host, url.port), timeout=20) as connection:
            yield connection, f"Authorization: Bearer {token}\r\n".encode()


def status_of(connection: socket.socket, *, has_body: bool) -> int:
    """The status of the next answer, which is read to its end."""
    answer = HTTPResponse(connection, method="GET" if has_body else "HEAD")
    answer.begin()
    answer.read()
    return answer.status


def test_a_panic_of_a_library_is_a_defect_like_any_other(capfd: pytest.CaptureFixture[str]) -> None:
    def panic(request: httpx.Request) -> httpx.Response:
        raise PanicException("not yet implemented")

    with client_of(in_turn(panic, echo)) as client:
        statuses = [client.get("/").status_code for _ in range(2)]

    assert statuses == [500, 200]
    assert "not yet implemented" in capfd.readouterr().err


# the command


@pytest.mark.parametrize(
    ("number", "code", "arguments", "client_id", "secret"),
    [
        (signal.SIGINT, 130, [], "simulated", "simulated"),
        (signal.SIGTERM, 143, ["--client-id", "acme", "--client-secret", "s3cret"], "acme", "s3cret"),
    ],
)
def test_the_command_prints_the_settings_serves_and_ends_with_a_signal(
    tmp_path: Path, number: signal.Signals, code: int, arguments: list[str], client_id: str, secret: str
) -> None:
    folder = str(tmp_path / "org")
    command = [sys.executable, "-m", "sync_pipeline", "org", "serve", "--folder", folder, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(4)]
            settings = dict(line.split("=", 1) for line in lines)
            with httpx.Client(base_url=settings["SALESFORCE_LOGIN_URL"], trust_env=False) as client:
                token = logged_in(client, settings["SALESFORCE_CLIENT_ID"], settings["SALESFORCE_CLIENT_SECRET"])
                process.send_signal(number)
                out, err = process.communicate(timeout=20)
        finally:
            process.kill()

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", settings["SALESFORCE_LOGIN_URL"])
    assert settings["SYNC_HOME"] == f"{folder}_nights"
    assert (settings["SALESFORCE_CLIENT_ID"], settings["SALESFORCE_CLIENT_SECRET"]) == (client_id, secret)
    assert token["instance_url"] == settings["SALESFORCE_LOGIN_URL"]
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
