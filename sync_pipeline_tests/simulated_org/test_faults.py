"""Faults: which requests a rule strikes, what happens then, and that every process counts them alike."""

from __future__ import annotations

import gc
import gzip
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.simulated_org.call import ConnectionCut, Pieces, file_answer, json_answer, stream_answer
from sync_pipeline.simulated_org.faults import (
    ENDPOINTS,
    KINDS,
    MAINTENANCE_PAGE,
    ROW_KINDS,
    Incident,
    Match,
    Rule,
    add_fault,
    clear_faults,
    happen,
    list_faults,
    parse_fault,
    read_faults,
    row_fault,
    rule_of,
)
from sync_pipeline.simulated_org.login import find_session, new_token
from sync_pipeline.simulated_org.state import Org

BASE = "http://127.0.0.1:1"


@pytest.fixture
def org(tmp_path: Path) -> Iterator[Org]:
    org = Org(tmp_path / "org")
    yield org
    org.close()


def rule(words: str) -> Rule:
    return parse_fault(words)


def request(method: str = "GET", path: str = "/services/data", pieces: Iterable[bytes] = ()) -> httpx.Request:
    return httpx.Request(method, BASE + path, stream=Pieces(iter(pieces)))


def struck(org: Org, requests: Sequence[httpx.Request]) -> list[str | None]:
    """Names of the rules that strike these requests, one after the other."""
    incidents = [happen(org, each, each.url.path) for each in requests]
    return [None if incident is None else incident.rule.name for incident in incidents]


def received(answer: httpx.Response) -> tuple[bytes, bool]:
    """What arrives of an answer's body, and whether the connection broke."""
    arrived = b""
    try:
        for piece in cast("Iterable[bytes]", answer.stream):
            arrived += piece
    except ConnectionCut:
        return arrived, True
    return arrived, False


def answer_in(pieces: Sequence[bytes], *, status: int = 200, sized: bool = True) -> httpx.Response:
    length = sum(map(len, pieces)) if sized else None
    return stream_answer(iter(pieces), "text/csv", length=length, status=status, headers={"Sforce-Locator": "null"})


# which requests


@given(
    nth=st.lists(st.integers(1, 12), max_size=3),
    every=st.integers(0, 4),
    after=st.integers(0, 5),
    times=st.integers(0, 3),
)
def test_a_rule_strikes_by_place_spares_the_first_and_ends_after_its_times(
    nth: list[int], every: int, after: int, times: int
) -> None:
    fault = Rule(name="f", kind="cut", nth=nth, every=every, after=after, times=times)
    fired: list[int] = []
    for place in range(1, 21):
        if fault.strikes(place, len(fired)):
            fired.append(place)

    places = [place for place in range(1, 21) if place > after]
    if nth:
        places = [place for place in places if place - after in nth]
    elif every:
        places = [place for place in places if (place - after) % every == 0]
    assert fired == (places[:times] if times else places)


@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_a_share_strikes_about_that_many_and_the_same_ones_for_the_same_seed(share: float, seed: int) -> None:
    fault = Rule(name="f", kind="cut", share=share, seed=seed)
    again = Rule(name="f", kind="cut", share=share, seed=seed)

    places = [place for place in range(1, 2001) if fault.strikes(place, 0)]

    assert places == [place for place in range(1, 2001) if again.strikes(place, 0)]
    assert abs(len(places) / 2000 - share) < 0.06


def test_another_seed_strikes_other_requests() -> None:
    one, two = (Rule(name="f", kind="cut", share=0.5, seed=seed) for seed in (1, 2))

    assert [one.strikes(n, 0) for n in range(1, 101)] != [two.strikes(n, 0) for n in range(1, 101)]


REQUESTS = {
    "token": ("POST", "/services/oauth2/token"),
    "exchange": ("POST", "/services/a360/token"),
    "query": ("POST", "/services/data/v66.0/ssot/query-sql"),
    "status": ("GET", "/services/data/v66.0/ssot/query-sql/abc_1%2F2"),
    "rows": ("GET", "/services/data/v66.0/ssot/query-sql/abc_1%2F2/rows"),
    "create": ("POST", "/services/data/v66.0/jobs/ingest"),
    "upload": ("PUT", "/services/data/v66.0/jobs/ingest/7505e000000001/batches"),
    "close": ("PATCH", "/services/data/v66.0/jobs/ingest/7505e000000001"),
    "poll": ("GET", "/services/data/v66.0/jobs/ingest/7505e000000001"),
    "jobs": ("GET", "/services/data/v66.0/jobs/ingest"),
    "results": ("GET", "/services/data/v66.0/jobs/ingest/7505e000000001/failedResults"),
    "query_job": ("POST", "/services/data/v66.0/jobs/query"),
    "query_results": ("GET", "/services/data/v66.0/jobs/query/7505e000000001/results"),
    "soql": ("GET", "/services/data/v66.0/query"),
    "limits": ("GET", "/services/data/v66.0/limits"),
    "describe": ("GET", "/services/data/v66.0/sobjects/Opportunity/describe"),
    "collections": ("PATCH", "/services/data/v66.0/composite/sobjects/Opportunity/External_ID__c"),
}


def test_every_endpoint_means_its_own_requests_and_no_others() -> None:
    rules = {name: Rule(name=name, kind="cut", match=Match(endpoint=name)) for name in ENDPOINTS}

    meant = {name: [other for other, fault in rules.items() if fault.means(*REQUESTS[name])] for name in REQUESTS}

    assert set(REQUESTS) == set(ENDPOINTS)
    assert meant == {name: [name] for name in REQUESTS}


@pytest.mark.parametrize(
    ("endpoint", "method", "path"),
    [
        ("query", "POST", "/api/v3/query"),
        ("status", "GET", "/api/v3/query/abc"),
        ("rows", "GET", "/api/v3/query/abc/rows"),
        ("rows", "GET", "/api/v3/query/abc/chunks/12"),
        ("results", "GET", "/services/data/v59.0/jobs/ingest/750/successfulResults"),
        ("results", "GET", "/services/data/v59.0/JOBS/INGEST/750/unprocessedrecords"),
        ("soql", "GET", "/services/data/v59.0/queryAll"),
    ],
)
def test_an_endpoint_has_more_than_one_address(endpoint: str, method: str, path: str) -> None:
    assert rule(f"cut endpoint={endpoint}").means(method, path)


def test_a_path_is_found_anywhere_in_any_letter_case_and_a_method_must_be_the_one() -> None:
    fault = rule("cut method=put path=ingest/750.*/BATCHES$")

    assert fault.means("PUT", "/services/data/v66.0/jobs/ingest/7505e/batches")
    assert not fault.means("POST", "/services/data/v66.0/jobs/ingest/7505e/batches")
    assert not fault.means("PUT", "/services/data/v66.0/jobs/ingest/7505e/batches/1")


# rules in words


def test_a_rule_is_written_in_one_line() -> None:
    assert rule("lost_answer endpoint=upload nth=2") == Rule(
        name="lost_answer", kind="lost_answer", match=Match(endpoint="upload"), nth=[2]
    )
    assert rule("retry_after name=slow every=3 times=2 seconds=0.5 status=503 method=GET") == Rule(
        name="slow",
        kind="retry_after",
        match=Match(method="GET"),
        every=3,
        times=2,
        options={"seconds": 0.5, "status": 503},
    )
    assert rule("row_errors share=0.1 seed=7 'message=two words' nth=[1,3]") == Rule(
        name="row_errors", kind="row_errors", share=0.1, seed=7, nth=[1, 3], options={"message": "two words"}
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "begins with its kind"),
        ("endpoint=upload", "begins with its kind"),
        ("earthquake", "no kind 'earthquake'"),
        ("cut upload", "'upload' is not name=value"),
        ("cut endpoint=downlaod", "no endpoint 'downlaod'"),
        ("cut seconds=1", "cut has no option seconds"),
        ("cut share=1.5", "share must lie between 0 and 1"),
        ("cut path=[", "not a regular expression"),
        ("cut name='two words'", "must be one word"),
        ("cut every=often", "every"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_with_a_sentence(words: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        parse_fault(words)


def test_a_body_is_sent_as_it_was_written() -> None:
    answer = Incident(rule("answer status=502 'body={\"a\": 1}'")).before(cast("Org", None), request())

    assert answer is not None
    assert (answer.status_code, answer.text) == (502, '{"a": 1}')


def test_rules_come_from_toml_and_from_json_files(tmp_path: Path) -> None:
    toml, listed = tmp_path / "faults.toml", tmp_path / "faults.json"
    toml.write_text(
        '[[fault]]\nkind = "cut"\nendpoint = "upload"\nnth = 2\n\n'
        '[[fault]]\nname = "busy"\nkind = "retry_after"\nseconds = 3\n[fault.match]\nmethod = "GET"\n'
    )
    listed.write_text('[{"kind": "cut", "endpoint": "upload", "nth": [2]}]')

    expected = Rule(name="cut", kind="cut", match=Match(endpoint="upload"), nth=[2])
    assert read_faults(toml) == [
        expected,
        Rule(name="busy", kind="retry_after", match=Match(method="GET"), options={"seconds": 3}),
    ]
    assert read_faults(listed) == [expected]


@pytest.mark.parametrize("content", ['{"kind": "cut"}', "[1]", '[{"kind": 3}]', '[{"endpoint": "upload"}]', "["])
def test_a_file_without_a_list_of_rules_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "faults.json").write_text(content)

    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        read_faults(tmp_path / "faults.json")


@pytest.mark.parametrize("kind", [*KINDS, *ROW_KINDS])
def test_every_kind_is_explained(kind: str) -> None:
    from sync_pipeline.simulated_org import faults

    assert f"| ``{kind}`` |" in (faults.__doc__ or "")


# rules in the org


def test_rules_are_counted_by_all_processes_together(org: Org) -> None:
    elsewhere = Org(org.folder)
    add_fault(org, rule("cut endpoint=limits nth=3"))
    limits = request(path="/services/data/v66.0/limits")

    found = [*struck(org, [limits]), *struck(elsewhere, [limits]), *struck(org, [limits]), *struck(elsewhere, [limits])]

    assert found == [None, None, "cut", None]
    assert [(each.matched, each.fired) for each in list_faults(elsewhere)] == [(4, 1)]
    elsewhere.close()


def test_requests_that_no_rule_means_are_not_counted(org: Org) -> None:
    add_fault(org, rule("cut endpoint=limits"))

    assert struck(org, [request(path="/services/data"), request("POST", "/services/data/v66.0/limits")]) == [None, None]
    assert [(each.matched, each.fired) for each in list_faults(org)] == [(0, 0)]


def test_of_two_rules_the_first_one_added_happens_and_the_other_one_waits(org: Org) -> None:
    add_fault(org, rule("limit name=b nth=1"))
    add_fault(org, rule("cut name=a nth=1"))

    assert struck(org, [request()] * 3) == ["b", "a", None]


def test_a_rule_of_the_same_name_takes_the_place_of_the_old_one_and_counts_anew(org: Org) -> None:
    add_fault(org, rule("cut name=f nth=1"))
    struck(org, [request()])

    add_fault(org, rule("limit name=f nth=2"))

    assert struck(org, [request()] * 2) == [None, "f"]
    assert [(each.rule.kind, each.matched, each.fired) for each in list_faults(org)] == [("limit", 2, 1)]


def test_one_rule_or_all_of_them_are_taken_away(org: Org) -> None:
    for name in ("a", "b", "c"):
        add_fault(org, rule(f"cut name={name}"))

    cleared = [clear_faults(org, "b"), clear_faults(org, "b"), clear_faults(org)]

    assert cleared == [1, 0, 2]
    assert struck(org, [request()]) == [None]


def test_a_fault_inside_the_org_never_happens_to_a_request_and_counts_when_it_is_asked_for(org: Org) -> None:
    add_fault(org, rule("lock_rows share=0.5 nth=2"))

    requests = struck(org, [request()])
    asked = [row_fault(org, "lock_rows"), row_fault(org, "lock_rows"), row_fault(org, "silent_drop")]

    assert requests == [None]
    assert [each is not None for each in asked] == [False, True, False]


# what happens before the org acts


def before(org: Org, words: str, given: httpx.Request | None = None) -> httpx.Response | None:
    return Incident(rule(words)).before(org, request() if given is None else given)


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ("answer", 500, "UNKNOWN_EXCEPTION"),
        ("answer status=404 code=NOT_FOUND message=gone", 404, "NOT_FOUND"),
        ("retry_after", 429, "UNKNOWN_EXCEPTION"),
        ("limit", 403, "REQUEST_LIMIT_EXCEEDED"),
    ],
)
def test_an_answer_in_the_place_of_the_orgs_own(org: Org, words: str, status: int, code: str) -> None:
    answer = before(org, words)

    assert answer is not None
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (status, code)


def test_maintenance_is_a_page_for_people(org: Org) -> None:
    answer = before(org, "html_503")

    assert answer is not None
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (503, "text/html", MAINTENANCE_PAGE)


@pytest.mark.parametrize(("words", "header"), [("retry_after seconds=7", "7"), ("retry_after", None)])
def test_a_busy_org_may_say_when_to_come_again(org: Org, words: str, header: str | None) -> None:
    answer = before(org, words)

    assert answer is not None
    assert answer.headers.get("retry-after") == header


def test_a_cut_comes_before_anything_is_read(org: Org) -> None:
    body = iter([b"a"])

    with pytest.raises(ConnectionCut):
        before(org, "cut", request("PUT", pieces=body))

    assert list(body) == [b"a"]


def test_a_cut_upload_is_read_in_part(org: Org) -> None:
    body = iter([b"aaaa", b"bbbb", b"cccc"])

    with pytest.raises(ConnectionCut):
        before(org, "cut_upload bytes=5", request("PUT", pieces=body))

    assert list(body) == [b"cccc"]


def test_a_delay_lets_the_org_act_afterwards(org: Org) -> None:
    started = time.monotonic()

    answer = before(org, "delay seconds=0.02")

    assert answer is None
    assert time.monotonic() - started >= 0.02


def test_an_expired_token_is_unknown_to_the_org(org: Org) -> None:
    token, other = (new_token(org, kind="core", client="c", user_id=org.user_id) for _ in range(2))
    given = httpx.Request("GET", BASE, headers={"Authorization": f"Bearer {token}"})

    answer = before(org, "expire_token", given)

    assert answer is None
    assert find_session(org, token, kind="core") is None
    assert find_session(org, other, kind="core") is not None


@pytest.mark.parametrize("words", ["lost_answer", "late_answer", "cut_body", "truncated_gzip", "empty_answer"])
def test_these_faults_let_the_org_act_first(org: Org, words: str) -> None:
    assert before(org, words) is None


# what becomes of the org's answer


def after(words: str, answer: httpx.Response) -> httpx.Response:
    return Incident(rule(words)).after(answer)


@pytest.mark.parametrize("words", ["delay", "expire_token"])
def test_the_orgs_own_answer_is_left_as_it_is(words: str) -> None:
    answer = json_answer({"a": 1})

    assert after(words, answer) is answer


def test_a_lost_answer_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_bytes(b"Id\n1\n")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ConnectionCut):
            after("lost_answer", file_answer(tmp_path / "results.csv", "text/csv"))
        gc.collect()

    assert [str(each.message) for each in caught] == []


def test_a_late_answer_is_an_error_in_its_place() -> None:
    answer = after("late_answer status=503 code=SERVER_UNAVAILABLE", json_answer({"id": "750"}, status=201))

    assert (answer.status_code, answer.json()[0]["errorCode"]) == (503, "SERVER_UNAVAILABLE")


@given(pieces=st.lists(st.binary(max_size=40), max_size=6), share=st.floats(0, 0.99))
def test_a_cut_body_announces_all_and_sends_a_share(pieces: list[bytes], share: float) -> None:
    whole = b"".join(pieces)

    answer = after(f"cut_body share_sent={share}", answer_in(pieces, status=201))

    arrived, broke = received(answer)
    assert (answer.status_code, answer.headers["content-length"]) == (201, str(len(whole)))
    assert answer.headers["sforce-locator"] == "null"
    assert arrived == whole[: int(len(whole) * share)]
    assert broke


@pytest.mark.parametrize("size", [10, 5_000])
def test_a_body_of_unknown_length_is_cut_too(size: int) -> None:
    arrived, broke = received(after("cut_body", answer_in([b"x" * size], sized=False)))

    assert broke
    assert len(arrived) <= 1_000


def test_truncated_gzip_cannot_be_read_to_its_end() -> None:
    rows = b"".join(b"%d,%d\n" % (n, n * n) for n in range(2000))

    answer = after("truncated_gzip", answer_in([rows[:5000], rows[5000:]], status=201))

    body, broke = received(answer)
    assert (answer.status_code, answer.headers["content-encoding"]) == (201, "gzip")
    assert int(answer.headers["content-length"]) == len(body)
    assert not broke
    with pytest.raises(EOFError):
        gzip.decompress(body)
    assert rows.startswith(zlib.decompressobj(wbits=31).decompress(body))


def test_an_empty_answer_keeps_status_and_headers() -> None:
    answer = after("empty_answer", answer_in([b"a,b\n"], status=200))

    assert (answer.status_code, answer.headers["content-length"], answer.headers["sforce-locator"]) == (
        200,
        "0",
        "null",
    )
    assert received(answer) == (b"", False)


def test_a_rule_may_be_given_as_it_is_kept() -> None:
    kept = {"name": "f", "kind": "answer", "match": {"endpoint": "poll"}, "options": {"status": 500}, "nth": 1}

    assert rule_of(kept) == Rule(
        name="f", kind="answer", match=Match(endpoint="poll"), nth=[1], options={"status": 500}
    )
