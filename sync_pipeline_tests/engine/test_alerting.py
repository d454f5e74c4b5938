"""Alerts: which notes a night makes, that each arrives once, and what happens when nobody takes them."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipeline.book.book import Book
from sync_pipeline.domain.keys import KeyRange
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import Measurement
from sync_pipeline.domain.plan import OrgIdentity, Plan, PlannedRange, SourceProfile, new_plan_id
from sync_pipeline.domain.policy import Policy
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.alerting import KEPT, Alerts, Condition, Planning, Text, expected_end
from sync_pipeline_tests.notify.receivers import Mail, Web, serving

OPENED = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
FIRST, SECOND = KeyRange(None, "m"), KeyRange("m", None)
A, B = FIRST.partition, SECOND.partition


@dataclass
class Clock:
    """A wall clock that moves only when a test moves it."""

    now: datetime = OPENED

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class Nights:
    """A book, and what may happen in it."""

    book: Book
    clock: Clock
    plan_ids: list[str] = field(default_factory=list)

    def open(self) -> str:
        plan_id = new_plan_id(self.clock.now)
        self.book.open_night(
            Plan(
                plan_id=plan_id,
                org=OrgIdentity("00D000000000001AAA", "Acme", is_simulated=False, dataspace="default"),
                source_object="ExtOpportunities__dlm",
                target_object="Opportunity",
                mapping_digest="0" * 16,
                profile=SourceProfile(20, 0, 20, 20, 0, "a", "z"),
                ranges=(PlannedRange(0, FIRST, 10), PlannedRange(1, SECOND, 10)),
                created_at=self.clock.now,
            )
        )
        return plan_id

    def run(self, plan_id: str, *, failed: int = 0) -> None:
        """Both ranges are done, with this many rows of the first refused."""
        for partition, refused in ((A, failed), (B, 0)):
            self.book.begin_run(plan_id, partition, pid=1, fresh=False)
            counts = Counts(expected=10, staged=10, created=10 - refused, failed=refused)
            self.book.end_run(plan_id, partition, state=RangeState.DONE, counts=counts)

    def end(self, plan_id: str, *, missing: tuple[str, ...] = (), verdict: Verdict | None = None) -> None:
        """Measured, one row missing in each of these ranges, and judged."""
        saved = sum(entry.counts.succeeded for entry in self.book.ranges(plan_id)) or 20
        self.book.record_measurement(
            plan_id,
            Measurement(
                level="values",
                measured_at=self.clock.now,
                seconds=1.0,
                expected=saved,
                present=saved - len(missing),
                missing=len(missing),
                different=0,
                orphans=0,
                drifting=missing,
                by_range={
                    p: {"present": 10 - (p in missing), "missing": int(p in missing), "different": 0} for p in (A, B)
                },
            ),
        )
        reasons = (f"{len(missing)} rows are missing in the org",) if missing else ()
        found = verdict or (Verdict.NOT_RECONCILED if missing else Verdict.RECONCILED)
        self.book.record_verdict(plan_id, found, reasons=reasons, seconds=60.0)

    def whole(self, *, missing: tuple[str, ...] = (), failed: int = 0) -> str:
        """A night of an hour, a day after the one before it."""
        self.clock.pass_(days=1)
        plan_id = self.open()
        self.run(plan_id, failed=failed)
        self.clock.pass_(hours=1)
        self.end(plan_id, missing=missing, verdict=Verdict.WITH_REJECTS if failed else None)
        return plan_id


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nights(tmp_path: Path, clock: Clock) -> Iterator[Nights]:
    book = Book(tmp_path / "book.sqlite", now=clock)
    yield Nights(book, clock)
    book.close()


@pytest.fixture
def alerts(nights: Nights, web: Web) -> Alerts:
    return alerts_of(nights, f"json://{web.address}/note")


def alerts_of(nights: Nights, *urls: str, heartbeat: str = "", policy: Policy | None = None) -> Alerts:
    return Alerts(
        nights.book,
        policy or Policy(),
        urls=[Secret(url) for url in urls],
        heartbeat_url=Secret(heartbeat) if heartbeat else None,
        now=nights.clock,
    )


# the law of a condition

FAILING = st.frozensets(st.sampled_from(["a", "b", "c"]))


def text(title: str) -> Callable[[], Text]:
    return lambda: Text(title, "", "info")


def heard(condition: Condition, at: int, failing: frozenset[str]) -> Condition:
    return condition.judged(
        OPENED + timedelta(hours=at), failing, opening=text("opened"), closing=text("closed"), has_recipients=True
    )


@given(st.lists(FAILING, max_size=8))
def test_a_note_is_made_when_more_fails_than_before_and_when_nothing_fails_any_more(
    verdicts: list[frozenset[str]],
) -> None:
    condition, before, expected = Condition(), frozenset[str](), list[str]()
    for at, failing in enumerate(verdicts):
        condition = heard(condition, at, failing)
        if failing - before:
            expected.append("opened")
        elif before and not failing:
            expected.append("closed")
        before = failing

    assert [note.title for note in condition.due] == expected
    assert condition.is_open == bool(before)


@given(st.lists(FAILING, max_size=8), st.data())
def test_news_that_is_brought_again_changes_nothing(verdicts: list[frozenset[str]], data: st.DataObject) -> None:
    condition = Condition()
    for at, failing in enumerate(verdicts):
        condition = heard(condition, at, failing)
        again = data.draw(st.integers(0, at))
        assert heard(condition, again, verdicts[again]) == condition
    assert Condition.from_json(condition.to_json()) == condition


# the condition `night`


def test_a_clean_night_says_nothing(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole()

    alerts.tick()

    assert web.notes == []


def test_a_bad_verdict_is_one_note_with_checks_ranges_counts_and_the_next_step(
    nights: Nights, alerts: Alerts, web: Web
) -> None:
    plan_id = nights.whole(missing=(A,))

    alerts.tick()
    alerts.tick()

    [note] = web.notes
    assert (note["title"], note["type"]) == ("Night not reconciled, 1 check fails: Acme", "failure")
    assert note["message"].splitlines() == [
        f"Night {plan_id} of Acme (00D000000000001AAA) ended: not reconciled.",
        "Failing: present_equals_expected.",
        "- 1 rows are missing in the org",
        f"- range {A} is done: 10 expected, 10 staged, 10 succeeded, 1 missing",
        "Rows: 20 expected, 20 staged, 20 succeeded, 20 created, 0 updated, 0 failed, 0 unprocessed, 0 quarantined.",
        "In the org, by values: 19 present, 1 missing, 0 different, 0 orphans.",
        (
            "Next: find the cause with `sync-pipeline reconcile` and `sync-pipeline trace KEY`, then run again what fails "
            f"with `sync-pipeline restart --range {A}`, or materialize it in Dagster."
        ),
    ]


def test_a_second_bad_night_of_the_same_kind_says_nothing(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    alerts.tick()
    nights.whole(missing=(A,))
    alerts.tick()

    assert len(web.notes) == 1


def test_another_failing_range_is_a_note_and_fewer_failing_ones_are_none(
    nights: Nights, alerts: Alerts, web: Web
) -> None:
    nights.whole(missing=(A,))
    alerts.tick()
    nights.whole(missing=(A, B))
    alerts.tick()
    nights.whole(missing=(B,))
    alerts.tick()

    assert [f"range {B}" in note["message"] for note in web.notes] == [False, True]


def test_a_clean_verdict_closes_it_with_one_note(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    alerts.tick()
    nights.whole()
    alerts.tick()
    nights.whole()
    alerts.tick()

    assert web.titles == ["Night not reconciled, 1 check fails: Acme", "Night reconciled again: Acme"]
    assert web.notes[1]["type"] == "success"


def test_a_night_that_is_amended_closes_it_too(nights: Nights, alerts: Alerts, web: Web) -> None:
    plan_id = nights.whole(missing=(A,))
    alerts.tick()
    nights.clock.pass_(minutes=30)
    nights.end(plan_id)
    alerts.tick()

    assert web.titles == ["Night not reconciled, 1 check fails: Acme", "Night reconciled again: Acme"]


def test_failed_runs_drift_and_repairs_before_the_verdict_say_nothing(nights: Nights, alerts: Alerts, web: Web) -> None:
    plan_id = nights.open()
    nights.book.begin_run(plan_id, A, pid=1, fresh=False)
    nights.book.end_run(plan_id, A, state=RangeState.FAILED, error="cut off", failed_attempt=True)
    alerts.tick()
    nights.run(plan_id)
    nights.book.record_measure_failure(plan_id, "cut off")
    nights.book.count_repair(plan_id, A)
    alerts.tick()

    assert web.notes == []


def test_rejected_rows_are_one_check_whichever_ranges_have_them(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(failed=3)
    alerts.tick()
    nights.whole(failed=4)
    alerts.tick()

    [note] = web.notes
    assert note["title"] == "Night reconciled with rejects, 1 check fails: Acme"
    assert "Next: see the rows that did not get through with `sync-pipeline rejects --csv FILE`." in note["message"]


def test_an_abandoned_night_is_told_although_the_next_one_is_open(nights: Nights, alerts: Alerts, web: Web) -> None:
    plan_id = nights.open()
    nights.clock.pass_(days=1)
    nights.book.record_verdict(plan_id, Verdict.ABANDONED, reasons=("2 ranges unfinished, 20 rows left",), seconds=1.0)
    nights.clock.pass_(seconds=5)
    nights.open()

    alerts.tick()

    [note] = web.notes
    assert note["title"].startswith("Night abandoned")
    assert "2 ranges unfinished, 20 rows left" in note["message"]


def test_two_verdicts_between_two_looks_are_two_notes(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    alerts.tick()
    nights.whole()
    nights.whole(missing=(B,))
    nights.whole()

    alerts.tick()

    assert [title.split(":")[0] for title in web.titles] == [
        "Night not reconciled, 1 check fails",
        "Night reconciled again",
        "Night not reconciled, 1 check fails",
        "Night reconciled again",
    ]


def test_bad_nights_from_before_there_were_alerts_are_no_news(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    nights.whole()

    alerts.tick()

    assert web.notes == []


# the other conditions


def test_a_parked_night_is_told_once_and_once_when_it_goes_on(nights: Nights, alerts: Alerts, web: Web) -> None:
    plan_id = nights.open()
    nights.book.park(plan_id, until=OPENED + timedelta(minutes=10), reason="20 % of 100 API calls are left.")
    alerts.tick()
    nights.clock.pass_(minutes=11)
    nights.book.park(plan_id, until=OPENED + timedelta(minutes=30), reason="20 % of 100 API calls are left.")
    alerts.tick()
    nights.clock.pass_(minutes=20)
    nights.book.unpark(plan_id)
    alerts.tick()

    assert web.titles == ["Night parked: Acme", "Night parked no more: Acme"]
    assert "waits until 2026-03-01 02:10 UTC: 20 % of 100 API calls are left." in web.notes[0]["message"]


def test_a_night_that_will_miss_its_deadline_is_late_until_it_ends(nights: Nights, web: Web) -> None:
    alerts = alerts_of(nights, f"json://{web.address}", policy=Policy(deadline="06:00"))
    plan_id = nights.open()
    nights.book.begin_run(plan_id, A, pid=1, fresh=False)
    nights.clock.pass_(hours=2)
    nights.book.progress(plan_id, A, counts=Counts(expected=10, staged=10, created=2))
    alerts.tick()
    nights.clock.pass_(hours=1)
    nights.run(plan_id)
    alerts.tick()
    nights.end(plan_id)
    nights.clock.pass_(seconds=1)
    alerts.tick()

    assert web.titles == ["Night late: Acme", "Night late no more: Acme"]
    assert "is due at 2026-03-01 06:00 UTC and will take until about 2026-03-01 08:40 UTC" in web.notes[0]["message"]
    assert "ended at 2026-03-01 05:00 UTC" in web.notes[1]["message"]


def test_a_late_night_that_ends_reconciled_makes_no_other_note(nights: Nights, web: Web) -> None:
    alerts = alerts_of(nights, f"json://{web.address}", policy=Policy(deadline="03:00"))
    plan_id = nights.open()
    nights.clock.pass_(hours=2)
    alerts.tick()
    nights.run(plan_id)
    nights.end(plan_id)
    nights.clock.pass_(seconds=1)
    alerts.tick()

    assert web.titles == ["Night late: Acme", "Night late no more: Acme"]


def test_the_end_of_a_night_is_not_guessed_before_a_tenth_is_done(nights: Nights) -> None:
    plan_id = nights.open()
    nights.book.begin_run(plan_id, A, pid=1, fresh=False)
    nights.book.progress(plan_id, A, counts=Counts(expected=10, staged=3))
    early = expected_end(nights.book.ranges(plan_id), OPENED + timedelta(hours=1))
    nights.book.progress(plan_id, A, counts=Counts(expected=10, staged=4))

    assert early is None
    assert expected_end(nights.book.ranges(plan_id), OPENED + timedelta(hours=1)) == OPENED + timedelta(hours=10)


def test_a_missed_night_is_told_until_one_is_opened(nights: Nights, alerts: Alerts, web: Web) -> None:
    due_at = OPENED
    nights.clock.pass_(hours=7)
    alerts.missed(due_at, "It was due 7.0 hours ago.")
    alerts.missed(due_at, "It was due 7.0 hours ago.")
    alerts.tick()
    nights.clock.pass_(hours=1)
    plan_id = nights.open()
    alerts.tick()

    assert web.titles == ["Night missed", "Night missed no more: Acme"]
    assert "The night of 2026-03-01 02:00 UTC was not opened. It was due 7.0 hours ago." in web.notes[0]["message"]
    assert plan_id in web.notes[1]["message"]


def test_a_night_that_was_opened_by_hand_before_the_late_tick_was_not_missed(
    nights: Nights, alerts: Alerts, web: Web
) -> None:
    nights.clock.pass_(hours=1)
    nights.open()
    alerts.missed(OPENED, "It was due 7.0 hours ago.")
    alerts.tick()

    assert web.notes == []


def planning(nights: Nights, *, has_failed: bool) -> Planning:
    return Planning(nights.clock.now, has_failed=has_failed, why=lambda: "The login was refused.")


def test_a_night_that_cannot_be_planned_is_told_before_there_ever_was_one(
    nights: Nights, alerts: Alerts, web: Web
) -> None:
    failure = planning(nights, has_failed=True)
    alerts.tick(failure)
    nights.clock.pass_(seconds=15)
    alerts.tick(failure)
    nights.clock.pass_(minutes=5)
    nights.open()
    alerts.tick(failure)

    assert web.titles == ["No night could be opened", "Nights can be opened again"]
    assert "The login was refused." in web.notes[0]["message"]


def test_an_unfinished_night_that_goes_on_closes_a_failed_planning_for_both_doors(
    nights: Nights, alerts: Alerts, web: Web
) -> None:
    nights.open()
    nights.clock.pass_(hours=1)
    in_dagster = planning(nights, has_failed=True)
    alerts.tick(in_dagster)
    nights.clock.pass_(hours=1)
    alerts.tick(planning(nights, has_failed=False))  # a person at the terminal
    alerts.tick(in_dagster)  # which Dagster still takes for the newest one

    assert web.titles == ["No night could be opened", "Nights can be opened again"]


def test_the_reason_of_a_failed_planning_is_asked_for_once(nights: Nights, alerts: Alerts) -> None:
    asked: list[str] = []

    def why() -> str:
        asked.append("why")
        return ""

    failure = replace(planning(nights, has_failed=True), why=why)
    alerts.tick(failure)
    alerts.tick(failure)

    assert asked == ["why"]


# delivery


def test_a_note_that_is_not_taken_stays_due_and_is_tried_again_later(
    nights: Nights, alerts: Alerts, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    nights.whole(missing=(A,))
    web.answer = 503
    alerts.tick()
    alerts.tick()
    assert web.refused == 1
    assert "recipient 1 (json) did not take the note" in caplog.text
    assert "it answered HTTP 503; it stays due" in caplog.text

    web.answer = 200
    alerts.tick()
    assert web.notes == []
    nights.clock.pass_(minutes=1)
    alerts.tick()
    alerts.tick()

    assert len(web.notes) == 1


def test_pauses_between_tries_grow(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    web.answer = 500
    tried_after = []
    for minute in range(60):
        before = web.refused
        alerts.tick()
        if web.refused > before:
            tried_after.append(minute)
        nights.clock.pass_(minutes=1)

    assert tried_after == [0, 1, 6, 21, 51]


def test_a_recipient_who_has_the_note_is_not_told_again_because_another_has_not(nights: Nights, web: Web) -> None:
    other = Web()
    with serving(other):
        other.answer = 500
        alerts = alerts_of(nights, f"json://{web.address}/a", f"json://{other.address}/b")
        nights.whole(missing=(A,))
        alerts.tick()
        other.answer = 200
        nights.clock.pass_(minutes=1)
        alerts.tick()
        alerts.tick()

    assert (len(web.notes), len(other.notes), other.refused) == (1, 1, 1)


def test_notes_arrive_in_their_order_although_the_first_was_not_taken(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    web.answer = 500
    alerts.tick()
    nights.whole()
    alerts.tick()
    web.answer = 200
    nights.clock.pass_(minutes=5)
    alerts.tick()

    assert web.titles == ["Night not reconciled, 1 check fails: Acme", "Night reconciled again: Acme"]


def test_a_note_that_nobody_took_for_a_week_is_dropped(nights: Nights, alerts: Alerts, web: Web) -> None:
    nights.whole(missing=(A,))
    web.answer = 500
    alerts.tick()
    web.answer = 200
    nights.clock.pass_(seconds=KEPT.total_seconds() + 1)
    alerts.tick()

    assert web.notes == []
    assert alerts.conditions()["night"].due == ()


def test_without_recipients_conditions_are_kept_and_no_notes_pile_up(nights: Nights, web: Web) -> None:
    nights.whole(missing=(A,))
    alerts_of(nights).tick()
    alerts = alerts_of(nights, f"json://{web.address}")
    alerts.tick()
    assert web.notes == []

    nights.whole()
    alerts.tick()

    assert web.titles == ["Night reconciled again: Acme"]


def test_a_mail_arrives(nights: Nights) -> None:
    mail = Mail()
    with serving(mail):
        nights.whole(missing=(A,))
        alerts_of(nights, f"mailto://{mail.address}/?from=night@acme.example&to=team@acme.example&mode=insecure").tick()

    [message] = mail.messages
    assert message["Subject"] == "Night not reconciled, 1 check fails: Acme"
    assert "team@acme.example" in message["To"]
    body = message.get_body(("plain", "html"))
    assert body is not None and "1 rows are missing in the org" in body.get_content()


def test_a_broken_book_is_logged_and_goes_no_further(
    nights: Nights, alerts: Alerts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nights.book.close()
    (tmp_path / "book.sqlite").write_bytes(b"overwritten by somebody " * 1000)

    alerts.tick()

    assert "no alerts now: The book" in caplog.text


SENDER = """
import sys, time
from datetime import datetime
from pathlib import Path
from sync_pipeline.domain.policy import Policy
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.alerting import Alerts
from sync_pipeline.book.book import Book

folder, url, now = Path(sys.argv[1]), sys.argv[2], datetime.fromisoformat(sys.argv[3])
alerts = Alerts(Book(folder / "book.sqlite"), Policy(), urls=[Secret(url)], now=lambda: now)
print("ready", flush=True)
sys.stdin.readline()
alerts.tick()
print("apprise" in sys.modules)
"""


def senders(nights: Nights, web: Web, folder: Path, number: int) -> list[str]:
    """What that many processes say which look at the same instant: whether each imported Apprise."""
    command = [sys.executable, "-c", SENDER, str(folder), f"json://{web.address}", nights.clock.now.isoformat()]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in started]


def test_a_note_arrives_once_whatever_number_of_processes_look(nights: Nights, web: Web, tmp_path: Path) -> None:
    nights.whole(missing=(A,))

    said = senders(nights, web, tmp_path, number=4)

    assert len(said) == 4
    assert len(web.notes) == 1


def test_apprise_is_not_imported_while_nothing_is_due(nights: Nights, web: Web, tmp_path: Path) -> None:
    nights.whole()

    assert senders(nights, web, tmp_path, number=1) == ["False"]


# the watchdog


def test_the_watchdog_is_called_once_after_a_night_that_ended_well(nights: Nights, web: Web) -> None:
    alerts = alerts_of(nights, heartbeat=f"http://{web.address}/ping/s3cret")
    plan_id = nights.open()
    nights.run(plan_id)
    alerts.tick()
    assert web.requests == []

    nights.end(plan_id)
    alerts.tick()
    alerts.tick()
    nights.whole(missing=(A,))
    alerts.tick()
    nights.whole(failed=1)
    alerts.tick()

    assert [(method, path) for method, path, _ in web.requests] == [("GET", "/ping/s3cret")]


def test_a_watchdog_that_does_not_answer_is_called_again(
    nights: Nights, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = alerts_of(nights, heartbeat=f"http://{web.address}/ping/s3cret")
    nights.whole()
    web.answer = 502
    alerts.tick()
    web.answer = 200
    nights.clock.pass_(minutes=1)
    alerts.tick()

    assert (len(web.requests), web.refused) == (1, 1)
    assert "the watchdog was not reached: it answered HTTP 502; it is called again" in caplog.text


def test_the_watchdog_does_not_hear_of_a_night_of_yesterday(nights: Nights, web: Web) -> None:
    nights.whole()
    nights.clock.pass_(hours=13)

    alerts_of(nights, heartbeat=f"http://{web.address}/ping").tick()

    assert web.requests == []


# secrets


@pytest.mark.parametrize("ending", ["taken", "refused", "no connection"])
@pytest.mark.parametrize(
    "url",
    [
        "json://us3r:p4ssw0rd@{web}/s3cret-path?+X-Token=h34der",
        "slack://T0SECRETT/B0SECRETB/s3cretS3cretS3cretS3cret/",
        "mailto://us3r:p4ssw0rd@{mail}?from=a@acme.example&to=b@acme.example&mode=insecure",
        "nosuchservice://s3cret-path",
    ],
    ids=["webhook", "slack", "mail", "unknown"],
)
def test_nothing_of_a_recipient_is_ever_shown(
    nights: Nights, url: str, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    nights.whole(missing=(A,))
    web, mail = Web(), Mail()
    web.answer, mail.is_full = (200, False) if ending == "taken" else (404, True)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://{web.address}")  # what means the real Slack does not leave this machine
    with serving(web), serving(mail):
        alerts = alerts_of(nights, url.format(web=web.address, mail=mail.address))
        if ending != "no connection":
            alerts.tick()
    if ending == "no connection":
        alerts.tick()
    shown = [repr(alerts.recipients), str(alerts.recipients), caplog.text, *capfd.readouterr()]
    shown += [file.read_bytes().decode("latin-1") for file in tmp_path.iterdir()]

    secrets = ("us3r", "p4ssw0rd", "s3cret", "S3cret", "T0SECRETT", "B0SECRETB", "h34der", "acme.example")
    assert "Night not reconciled" in "".join(shown)
    assert [secret for secret in secrets for text in shown if secret in text] == []
