"""What people are told of nights: when a condition opens, when more of its checks fail, and when it closes.

A condition is something that a person should know of and that lasts: ``night`` (a verdict that is not clean), ``parked``,
``late`` (the night will miss SYNC_DEADLINE), ``missed`` (the schedule opened no night), ``run`` (a night could not be
planned). What mends itself before the verdict raises no note: ``night`` hears verdicts alone, and a measurement that
failed for good is the verdict ``unproven``.

Everything is judged from the book, by whoever looks: the night sensor at each tick, ``sync`` while it works and at its
end. A condition changes together with its notes in one transaction, so each note is made once, and only one process at
a time sends. A note that a recipient did not take stays due for it and is tried again later; nothing about a note ever
ends a night. Killed between sending a note and writing that down, the next one sends it again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import chain
from typing import Any, Final, cast

from sync_pipeline.book.book import Book
from sync_pipeline.domain.errors import HeldElsewhere, SyncError
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import NightEntry, RangeEntry
from sync_pipeline.domain.policy import Policy
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.findings import deadline_at, night_findings
from sync_pipeline.notify.recipients import Tone, recipients_of, send
from sync_pipeline.notify.watchdog import call_heartbeat

log = logging.getLogger(__name__)

HEARTBEAT: Final = "heartbeat"
"""Kept beside the conditions: the newest night that ended well, until the watchdog has heard of it."""
LOOK_SECONDS: Final = 15.0
"""How often a process that works on a night looks."""
SENDING_SECONDS: Final = 10.0
"""After this long nobody else is told; a tick of Dagster's has 60 s, and mail may take 15 s to fail."""
PAUSES: Final = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(minutes=30))
"""Between two tries of one note; the last one repeats."""
KEPT: Final = timedelta(days=7)
"""A note that nobody took for this long is old news."""
HEARTBEAT_KEPT: Final = timedelta(hours=12)
"""A later call would speak for a night that is due again."""
NIGHTS_LOOKED_AT: Final = 5
RANGES_TOLD: Final = 10
REASONS_TOLD: Final = 10
REASON_LETTERS: Final = 500
COUNTED: Final = {"present_equals_expected": ("missing", "doubled"), "values_equal": ("different",)}
"""Checks that fail range by range, and the rows of a measurement that make them fail."""
TRUSTED_SHARE: Final = 0.1
"""Of a night's work: before this much of it is done its end is not guessed."""


# What the book keeps


@dataclass(frozen=True, slots=True)
class Note:
    """A text on its way to the recipients. ``number`` is its place among the notes of its condition."""

    number: int
    made_at: datetime
    title: str
    body: str
    tone: Tone
    taken_by: tuple[str, ...] = ()
    """Digests of the recipients that have it."""
    tries: int = 0
    next_try_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        return self.next_try_at is None or self.next_try_at <= now


@dataclass(frozen=True, slots=True)
class Text:
    """What a note will say."""

    title: str
    body: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition and its notes that somebody still waits for."""

    failing: tuple[str, ...] = ()
    """What keeps it open; empty when it is closed."""
    heard_at: datetime | None = None
    """Of the newest news that changed it. Older news, which another process may still bring, changes nothing."""
    notes: int = 0
    """Made so far."""
    due: tuple[Note, ...] = ()

    @property
    def is_open(self) -> bool:
        return bool(self.failing)

    def judged(
        self,
        at: datetime,
        failing: Collection[str],
        *,
        opening: Callable[[], Text],
        closing: Callable[[], Text],
        has_recipients: bool,
    ) -> Condition:
        """What becomes of it at the news that ``failing`` fails as of ``at``; itself when nothing changes."""
        if set(failing) == set(self.failing) or (self.heard_at is not None and at <= self.heard_at):
            return self
        changed = replace(self, failing=tuple(sorted(failing)), heard_at=at)
        has_grown = bool(set(failing) - set(self.failing))
        if failing and not has_grown:
            return changed
        if not has_recipients:
            return changed
        return changed.with_note(at, opening() if has_grown else closing())

    def with_note(self, at: datetime, text: Text) -> Condition:
        note = Note(number=self.notes + 1, made_at=at, title=text.title, body=text.body, tone=text.tone)
        return replace(self, notes=note.number, due=(*self.due, note))

    def after_sending(
        self, number: int, *, taken_by: Collection[str], wanted: Collection[str], now: datetime
    ) -> Condition:
        """The note was offered to everybody; those of ``wanted`` who have it now are told no more."""
        return replace(
            self, due=tuple(left for note in self.due if (left := _left(note, number, taken_by, wanted, now)))
        )

    def without_old(self, now: datetime, kept: timedelta) -> Condition:
        young = tuple(note for note in self.due if now - note.made_at <= kept)
        return self if young == self.due else replace(self, due=young)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps(asdict(self), default=datetime.isoformat))
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any] | None) -> Condition:
        if document is None:
            return Condition()
        return Condition(
            failing=tuple(document["failing"]),
            heard_at=_instant(document["heard_at"]),
            notes=document["notes"],
            due=tuple(
                Note(
                    number=note["number"],
                    made_at=datetime.fromisoformat(note["made_at"]),
                    title=note["title"],
                    body=note["body"],
                    tone=note["tone"],
                    taken_by=tuple(note["taken_by"]),
                    tries=note["tries"],
                    next_try_at=_instant(note["next_try_at"]),
                )
                for note in document["due"]
            ),
        )


def _left(note: Note, number: int, taken_by: Collection[str], wanted: Collection[str], now: datetime) -> Note | None:
    """The note as it is still due, or ``None`` when everybody has it."""
    if note.number != number:
        return note
    taken = tuple(sorted({*note.taken_by, *taken_by}))
    if set(wanted) <= set(taken):
        return None
    pause = PAUSES[min(note.tries, len(PAUSES) - 1)]
    return replace(note, taken_by=taken, tries=note.tries + 1, next_try_at=now + pause)


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


@dataclass(frozen=True, slots=True)
class Planning:
    """How the newest try to open or continue a night ended; ``why`` is asked only for a failure that is news."""

    ended_at: datetime
    has_failed: bool
    why: Callable[[], str] = str


# Looking and sending


class Alerts:
    """The conditions and notes of one book, for one process. A method that promises nothing else raises ``StateError``."""

    def __init__(
        self,
        book: Book,
        policy: Policy,
        *,
        urls: Sequence[Secret] = (),
        heartbeat_url: Secret | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._book = book
        self._policy = policy
        self.recipients = recipients_of(urls)
        self._heartbeat_url = heartbeat_url
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._next_look = 0.0

    def tick(self, planning: Planning | None = None) -> None:
        """Looks and sends. For callers to whom a night matters more: an error is logged and goes no further."""
        try:
            self.look(planning)
            self.send_due()
        except SyncError as error:
            log.error("no alerts now: %s", error)

    def tick_now_and_then(self) -> None:
        """``tick``, at most every ``LOOK_SECONDS``."""
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_SECONDS
            self.tick()

    def look(self, planning: Planning | None = None) -> None:
        """Judges every condition by what the book says now, and by ``planning``; makes the notes that follow."""
        now = self._now()
        nights = self._book.nights(limit=NIGHTS_LOOKED_AT)
        known = self.conditions()
        self._hear_planning(known, nights, planning)
        if not nights:
            return
        newest = nights[0]
        self._hear_verdicts(known, nights)
        self._hear_parking(known, newest, now)
        self._hear_lateness(known, newest, now)
        if "missed" in known:
            self._judge(
                known, "missed", newest.opened_at, (),
                opening=partial(_missed, newest.opened_at, ""), closing=partial(_opened_after_all, newest),
            )  # fmt: skip

    def missed(self, due_at: datetime, why: str) -> None:
        """The schedule opened no night at ``due_at``; whoever looks next sends the note. As ``tick``, it raises nothing."""
        try:
            newest = self._book.newest()
            if newest is None or newest.opened_at < due_at:
                self._judge(
                    self.conditions(), "missed", due_at, ("missed",),
                    opening=partial(_missed, due_at, why), closing=partial(_missed, due_at, why),
                )  # fmt: skip
        except SyncError as error:
            log.error("no alerts now: %s", error)

    def conditions(self) -> dict[str, Condition]:
        """Everything the book knows, closed conditions too."""
        return {name: Condition.from_json(state) for name, state in self._book.conditions().items()}

    def _hear_planning(
        self, known: dict[str, Condition], nights: Sequence[NightEntry], planning: Planning | None
    ) -> None:
        opened = Planning(nights[0].opened_at, has_failed=False) if nights else None
        newest = max((p for p in (planning, opened) if p is not None), key=lambda p: p.ended_at, default=None)
        if newest is None:
            return
        self._judge(
            known, "run", newest.ended_at, ("plan",) if newest.has_failed else (),
            opening=lambda: _not_planned(newest), closing=lambda: _planned_again(nights),
        )  # fmt: skip

    def _hear_verdicts(self, known: dict[str, Condition], nights: Sequence[NightEntry]) -> None:
        judged = sorted((night for night in nights if night.verdict_at is not None), key=_verdict_at)
        if "night" not in known:
            # What nobody was told when it happened is no news now.
            judged = judged[-1:]
        for night in judged:
            entries = self._book.ranges(night.plan_id)
            failing = failing_of(night, entries, self._policy)
            self._judge(
                known, "night", _verdict_at(night), failing,
                opening=partial(_ended_badly, night, entries, failing), closing=partial(_ended_well, night, entries),
            )  # fmt: skip
            if not failing and self._heartbeat_url is not None:
                self._change(known, HEARTBEAT, partial(_well, night=night))

    def _hear_parking(self, known: dict[str, Condition], night: NightEntry, now: datetime) -> None:
        is_parked = night.parked_until is not None and night.verdict is None
        self._judge(
            known, "parked", now, (night.plan_id,) if is_parked else (),
            opening=partial(_parked, night), closing=partial(_unparked, night),
        )  # fmt: skip

    def _hear_lateness(self, known: dict[str, Condition], night: NightEntry, now: datetime) -> None:
        due = deadline_at(night.opened_at, self._policy)
        ends_at: datetime | None = None
        if due is not None and night.verdict is None:
            ends_at = expected_end(self._book.ranges(night.plan_id), now)
            is_late = now >= due or (ends_at is not None and ends_at > due)
            if not is_late and night.plan_id in known.get("late", Condition()).failing:
                # It was told already. Whether it holds is known at the end; until then the guess goes up and down.
                return
        else:
            is_late = False
        self._judge(
            known, "late", now, (night.plan_id,) if is_late else (),
            opening=partial(_late, night, due, ends_at), closing=partial(_late_no_more, night, due),
        )  # fmt: skip

    def _judge(
        self,
        known: dict[str, Condition],
        name: str,
        at: datetime,
        failing: Collection[str],
        *,
        opening: Callable[[], Text],
        closing: Callable[[], Text],
    ) -> None:
        judged = partial(
            Condition.judged,
            at=at,
            failing=failing,
            opening=cache(opening),
            closing=cache(closing),
            has_recipients=bool(self.recipients),
        )
        if self._change(known, name, judged):
            log.info("condition %s: %s", name, ", ".join(failing) or "closed")

    def _change(self, known: dict[str, Condition], name: str, step: Callable[[Condition], Condition]) -> bool:
        """Takes the step in one transaction; none is begun for a step that leads nowhere, which is told.

        ``known`` is what the book said last; it is told what became of the condition.
        """
        before = known.get(name, Condition())
        if step(before) == before:
            return False

        def change(state: Mapping[str, Any] | None) -> dict[str, Any]:
            known[name] = step(Condition.from_json(state))
            return known[name].to_json()

        self._book.change_condition(name, change)
        return True

    def send_due(self) -> int:
        """Offers every due note, oldest first, to the recipients who lack it; returns how many are due afterwards.

        A recipient who does not take one is left alone until the next call. When another process is sending, this one
        waits for it, and leaves to it what it finds done.
        """
        self._forget_old()
        if any(note.is_due(self._now()) for _, note in self._due()):
            until = self._clock() + SENDING_SECONDS
            try:
                with self._book.turn("alerts", sleep=partial(self._wait_for_turn, until)):
                    self._send_all(until)
            except HeldElsewhere as error:
                log.info("%s", error.message)
        return len(self._due())

    def _due(self) -> list[tuple[str, Note]]:
        """Every note that somebody lacks, with the name of its condition."""
        due = [(name, note) for name, condition in self.conditions().items() for note in condition.due]
        return sorted(due, key=lambda named: named[1].made_at)

    def _forget_old(self) -> None:
        known, now = self.conditions(), self._now()
        for name in known:
            kept = HEARTBEAT_KEPT if name == HEARTBEAT else KEPT
            self._change(known, name, partial(Condition.without_old, now=now, kept=kept))

    def _wait_for_turn(self, until: float, seconds: float) -> None:
        if self._clock() >= until:
            raise HeldElsewhere("Another process is sending notes; what it leaves is sent later.")
        self._sleep(seconds)

    def _send_all(self, until: float) -> None:
        silent: set[str] = set()
        for name, note in self._due():
            if not note.is_due(self._now()) or self._clock() >= until:
                continue
            if name == HEARTBEAT:
                wanted, taken = [HEARTBEAT], self._call_heartbeat()
            else:
                wanted, taken = [recipient.digest for recipient in self.recipients], self._offer(note, silent, until)
            step = partial(Condition.after_sending, number=note.number, taken_by=taken, wanted=wanted, now=self._now())
            self._change(self.conditions(), name, step)

    def _offer(self, note: Note, silent: set[str], until: float) -> list[str]:
        """Digests of the recipients who took it now; those who did not become ``silent``, so that order is kept."""
        taken = []
        for recipient in self.recipients:
            if recipient.digest in note.taken_by or recipient.digest in silent or self._clock() >= until:
                continue
            why = send(recipient, title=note.title, body=note.body, tone=note.tone)
            if why:
                silent.add(recipient.digest)
                log.warning("%s did not take the note %r: %s; it stays due", recipient.name, note.title, why)
            else:
                taken.append(recipient.digest)
        return taken

    def _call_heartbeat(self) -> list[str]:
        if self._heartbeat_url is None:
            return [HEARTBEAT]
        why = call_heartbeat(self._heartbeat_url)
        if why:
            log.warning("the watchdog was not reached: %s; it is called again", why)
            return []
        return [HEARTBEAT]


def _well(condition: Condition, night: NightEntry) -> Condition:
    """The watchdog is to hear of this night; one that it has not heard of yet matters no more."""
    at = _verdict_at(night)
    if condition.heard_at is not None and at <= condition.heard_at:
        return condition
    return replace(condition, heard_at=at, due=()).with_note(at, Text(night.plan_id, "", "success"))


# What fails


def failing_of(night: NightEntry, entries: Sequence[RangeEntry], policy: Policy) -> tuple[str, ...]:
    """The failing checks of a night with a verdict, each with its range where it has one; none for a clean night.

    An end after the deadline is the condition ``late``. Rejected rows are one check for all ranges: which ranges have
    some differs from night to night.
    """
    failing = []
    measurement = night.measurement
    by_range = measurement.by_range if measurement is not None else {}
    for finding in night_findings(night, entries, policy):
        if finding.passed or finding.severity == "warning" or finding.name == "ended_in_time":
            continue
        if finding.name == "every_range_done":
            ranges = [entry.partition for entry in entries if entry.state is not RangeState.DONE]
        else:
            counted = COUNTED.get(finding.name, ())
            ranges = [partition for partition, found in by_range.items() if any(found.get(name) for name in counted)]
        failing += [f"{finding.name} {partition}" for partition in ranges] or [finding.name]
    if _total(entries).rejected:
        failing.append("no_row_rejected")
    is_good = night.verdict is not None and (night.verdict.is_clean or night.verdict is Verdict.WITH_REJECTS)
    return tuple(failing) if failing or is_good else ("verdict",)


def expected_end(entries: Sequence[RangeEntry], now: datetime) -> datetime | None:
    """When the ranges will be done at the mean rate so far; ``None`` while too little is done to tell."""
    started_at = min((entry.started_at for entry in entries if entry.started_at is not None), default=None)
    total = _total(entries)
    done = (total.staged + total.accounted) / 2
    if started_at is None or done < total.expected * TRUSTED_SHARE or done <= 0:
        return None
    left = max(total.expected - done, 0.0)
    return now + (now - started_at) * (left / done)


def _total(entries: Sequence[RangeEntry]) -> Counts:
    return sum((entry.counts for entry in entries), Counts())


def _verdict_at(night: NightEntry) -> datetime:
    return cast("datetime", night.verdict_at)


# What is said


def _ended_badly(night: NightEntry, entries: Sequence[RangeEntry], failing: Sequence[str]) -> Text:
    total = _total(entries)
    measured = night.measurement
    checks = dict.fromkeys(check.split(" ")[0] for check in failing)
    lines = [
        f"Night {night.plan_id} of {night.plan.org} ended: {night.verdict}.",
        f"Failing: {', '.join(checks)}.",
        *(f"- {reason[:REASON_LETTERS]}" for reason in night.verdict_reasons[:REASONS_TOLD]),
        *_range_lines(night, entries, failing),
        "Rows: " + ", ".join(f"{rows} {name}" for name, rows in total.to_json().items()) + ".",
    ]
    if measured is not None and not measured.error:
        found = {
            "present": measured.present,
            "missing": measured.missing,
            "different": measured.different,
            "orphans": measured.orphans,
        }
        told = ", ".join(f"{rows} {name}" for name, rows in found.items() if rows is not None)
        lines.append(f"In the org, by {measured.level}: {told}.")
    lines += [f"Next: {step}" for step in _next_steps(night, entries, failing)]
    counted = f"{len(checks)} checks fail" if len(checks) > 1 else "1 check fails"
    return Text(f"Night {night.verdict}, {counted}: {night.plan.org.name}", "\n".join(lines), "failure")


def _range_lines(night: NightEntry, entries: Sequence[RangeEntry], failing: Sequence[str]) -> list[str]:
    """One line for each failing range, the first ``RANGES_TOLD`` of them."""
    by_range = night.measurement.by_range if night.measurement is not None else {}
    named = _ranges_of(failing)
    failed = [entry for entry in entries if entry.partition in named]
    lines = []
    for entry in failed[:RANGES_TOLD]:
        found = by_range.get(entry.partition, {})
        measured = "".join(f", {found[name]} {name}" for name in chain(*COUNTED.values()) if found.get(name))
        counts = entry.counts
        lines.append(
            f"- range {entry.partition} is {entry.state.value}: {counts.expected} expected, {counts.staged} staged, "
            f"{counts.succeeded} succeeded{measured}"
        )
    if len(failed) > RANGES_TOLD:
        lines.append(f"- and {len(failed) - RANGES_TOLD} more ranges")
    return lines


def _ranges_of(failing: Sequence[str]) -> set[str]:
    return {partition for check in failing if (partition := check.partition(" ")[2])}


def _next_steps(night: NightEntry, entries: Sequence[RangeEntry], failing: Sequence[str]) -> list[str]:
    steps = []
    if "no_row_rejected" in failing:
        steps.append("see the rows that did not get through with `sync-pipeline rejects --csv FILE`.")
    if night.verdict is Verdict.ABANDONED:
        steps.append("nothing; the night after it takes all rows again.")
    elif night.verdict is Verdict.UNPROVEN:
        steps.append("see what is in the way with `sync-pipeline doctor`, then run `sync-pipeline restart`.")
    elif any(entry.state is not RangeState.DONE for entry in entries):
        steps.append("mend what the ranges say, then run them again with `sync-pipeline restart --failed`.")
    elif night.verdict is Verdict.NOT_RECONCILED:
        ranges = sorted(_ranges_of(failing))
        command = "".join(f" --range {partition}" for partition in ranges[:RANGES_TOLD]) or " --all"
        steps.append(
            "find the cause with `sync-pipeline reconcile` and `sync-pipeline trace KEY`, then run again what fails with "
            f"`sync-pipeline restart{command}`, or materialize it in Dagster."
        )
    return steps


def _ended_well(night: NightEntry, entries: Sequence[RangeEntry]) -> Text:
    total = _total(entries)
    return Text(
        f"Night {night.verdict} again: {night.plan.org.name}",
        f"Night {night.plan_id} of {night.plan.org} ended: {night.verdict}. {total.succeeded} of {total.expected} rows "
        "succeeded, and no check fails any more.",
        "success",
    )


def _parked(night: NightEntry) -> Text:
    until = f"{night.parked_until:%Y-%m-%d %H:%M} UTC" if night.parked_until is not None else "later"
    return Text(
        f"Night parked: {night.plan.org.name}",
        f"Night {night.plan_id} of {night.plan.org} waits until {until}: {night.parked_reason}\n"
        "Next: nothing under Dagster, which goes on by itself; on the command line run `sync-pipeline sync --wait`.",
        "warning",
    )


def _unparked(night: NightEntry) -> Text:
    how = f"ended: {night.verdict}" if night.verdict is not None else "goes on"
    return Text(f"Night parked no more: {night.plan.org.name}", f"Night {night.plan_id} {how}.", "success")


def _late(night: NightEntry, due: datetime | None, ends_at: datetime | None) -> Text:
    expected = f" and will take until about {ends_at:%Y-%m-%d %H:%M} UTC" if ends_at is not None else ""
    return Text(
        f"Night late: {night.plan.org.name}",
        f"Night {night.plan_id} of {night.plan.org} is due at {due:%Y-%m-%d %H:%M} UTC{expected}.\n"
        "Next: see what it waits for with `sync-pipeline status`.",
        "warning",
    )


def _late_no_more(night: NightEntry, due: datetime | None) -> Text:
    if night.verdict_at is None or due is None:
        told = f"Night {night.plan_id} is in time."
    else:
        told = f"Night {night.plan_id} ended at {night.verdict_at:%Y-%m-%d %H:%M} UTC, due at {due:%Y-%m-%d %H:%M} UTC."
    return Text(f"Night late no more: {night.plan.org.name}", told, "success")


def _missed(due_at: datetime, why: str) -> Text:
    return Text(
        "Night missed",
        f"The night of {due_at:%Y-%m-%d %H:%M} UTC was not opened. {why}\n"
        "Next: start it with `sync-pipeline sync`, or materialize `opportunity_ranges` in Dagster.",
        "failure",
    )


def _opened_after_all(night: NightEntry) -> Text:
    return Text(
        f"Night missed no more: {night.plan.org.name}",
        f"Night {night.plan_id} was opened at {night.opened_at:%Y-%m-%d %H:%M} UTC.",
        "success",
    )


def _not_planned(planning: Planning) -> Text:
    why = planning.why()[:REASON_LETTERS]
    return Text(
        "No night could be opened",
        f"Planning failed at {planning.ended_at:%Y-%m-%d %H:%M} UTC: {why}\n"
        "Next: see what is in the way with `sync-pipeline doctor`, then start the night again.",
        "failure",
    )


def _planned_again(nights: Sequence[NightEntry]) -> Text:
    named = f"Night {nights[0].plan_id} of {nights[0].plan.org} is open." if nights else "Planning worked."
    return Text("Nights can be opened again", named, "success")
