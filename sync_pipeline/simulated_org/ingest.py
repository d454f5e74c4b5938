"""Ingest jobs: from the upload to the result files, in batches of 10,000 rows and chunks of 200.

When a job is closed its batches are put on the org's clock: at once, or at the pace of a real org (knob ``pace``), some
batches side by side. Whatever is due by then is saved when somebody asks, in one transaction with its result files, so
that a process may die at any instant. A batch that shares a parent with one that is in flight already loses its lock on
those rows; after 100 of them the rest of the batch goes back to the queue.

How requests are processed: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/how_requests_are_processed.htm

``pace``: ``rows_per_second`` of one batch, ``batches`` at once, ``query_seconds`` of a statement. Other knobs:
``batch_rows``, ``job_polls`` (looks that still find a job InProgress), ``plain_results`` (result files have commas and
line feeds whatever their job has; without it they have what the job has, which no document says of ingest jobs).
"""

from __future__ import annotations

import fcntl
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from sync_pipeline.simulated_org.faults import Rule, row_fault
from sync_pipeline.simulated_org.objects import SObject, find_object
from sync_pipeline.simulated_org.saving import CHUNK_ROWS, error_text, is_parent_header, save_rows
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.simulated_org.uploads import DELIMITERS, LINE_ENDINGS, BadUpload, Upload, read_upload, upload_file
from sync_pipeline.simulated_org.values import double_text

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, object TEXT NOT NULL, operation TEXT NOT NULL,
    key_field TEXT NOT NULL DEFAULT '', delimiter TEXT NOT NULL, line_ending TEXT NOT NULL, version TEXT NOT NULL,
    created_by TEXT NOT NULL, created_at REAL NOT NULL, changed_at REAL NOT NULL, uploads INTEGER NOT NULL DEFAULT 0,
    looks INTEGER NOT NULL DEFAULT 0, processed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0, pieces INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    faults TEXT NOT NULL DEFAULT '{}', query TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (
    job TEXT NOT NULL, number INTEGER NOT NULL, first_row INTEGER NOT NULL, "rows" INTEGER NOT NULL, slot INTEGER NOT NULL,
    starts_at REAL NOT NULL, ends_at REAL NOT NULL, tries INTEGER NOT NULL, locked TEXT NOT NULL, is_done INTEGER NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batch_by_end ON batch (ends_at);
CREATE INDEX IF NOT EXISTS batch_left ON batch (ends_at, job) WHERE NOT is_done;
"""

BATCH_ROWS: Final = 10_000
LOCK_FAILURES_MAX: Final = 100
"""Rows of a batch that may fail on a lock before its rest is put back into the queue."""
TRIES_MAX: Final = 20
PARENTS: Final = {"Opportunity": "AccountId"}
"""The reference whose row is locked when a row is written."""
JOB_FAULTS: Final = (
    "row_errors", "lock_rows", "unprocessed", "silent_drop", "job_fails", "job_aborted", "job_stuck", "wrong_counters",
    "empty_results", "lost_results", "odd_headers", "automation_locks", "automation_limit", "parent_limit",
)  # fmt: skip
LOCKED: Final = "unable to obtain exclusive access to this record or 1 records: {}"
AUTOMATION_LOCKS: Final = {
    "trigger": (
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        (
            "OpportunityRollUp: execution of AfterUpdate caused by: System.DmlException: Update failed. First exception on row 0 "
            f"with id {{}}; first error: UNABLE_TO_LOCK_ROW, {LOCKED}: [] Trigger.OpportunityRollUp: line 7, column 1"
        ),
    ),
    "flow": (
        "CANNOT_EXECUTE_FLOW_TRIGGER",
        (
            "We can't save this record because the “Opportunity: roll up” process failed. Give your Salesforce admin these "
            f"details. This error occurred when the flow tried to update records: UNABLE_TO_LOCK_ROW: {LOCKED}. "
        ),
    ),
    "package": (
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        (
            "dlrs_OpportunityTrigger: execution of AfterInsert caused by: System.DmlException: Upsert failed. First "
            f"exception on row 0; first error: UNABLE_TO_LOCK_ROW, {LOCKED}: [] (dlrs)"
        ),
    ),
}
"""Codes and messages of automations that met a lock, ``{}`` standing for the id of the record. Their forms are those of
public reports, such as https://github.com/SFDO-Community/declarative-lookup-rollup-summaries/issues/1241"""
AUTOMATION_LIMITS: Final = {
    "cpu": "Apex CPU time limit exceeded",
    "soql": "Too many SOQL queries: 101",
    "dml": "Too many DML rows: 10001",
}
"""What a trigger says that met a governor limit:
https://salesforce.stackexchange.com/questions/96410/solution-for-apex-cpu-time-limit-exceeded-exception"""
OPEN: Final = ("Open", "UploadComplete", "InProgress")
RETRIED_OUT: Final = f"InternalServerError : Retried more than {TRIES_MAX} times"
JOBS: Final = "jobs"
TORN: Final = "INVALID_FIELD:Failed to parse CSV. Found a space before or after a double quote:--"
"""That such a row is an error is documented, the words are not."""


@dataclass(frozen=True)
class Job:
    """An ingest or query job as the org keeps it."""

    id: str
    kind: str
    state: str
    object: str
    operation: str
    key_field: str
    delimiter: str
    line_ending: str
    version: str
    created_by: str
    created_at: float
    changed_at: float
    uploads: int
    looks: int
    processed: int
    failed: int
    retries: int
    pieces: int
    error: str
    faults: dict[str, Any]
    query: str

    @property
    def is_terminal(self) -> bool:
        return self.state not in OPEN

    def form_of_results(self, org: Org) -> tuple[str, str]:
        """Delimiter and line ending of the job's result files."""
        is_plain = self.kind == "ingest" and org.setting("plain_results", False)
        delimiter, line_ending = ("COMMA", "LF") if is_plain else (self.delimiter, self.line_ending)
        return DELIMITERS[delimiter], LINE_ENDINGS[line_ending]


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of an upload that are worked on as one. ``locked`` are rows that lose their lock."""

    number: int
    first_row: int
    rows: int
    slot: int
    starts_at: float
    ends_at: float
    tries: int
    locked: tuple[int, ...]


def find_job(org: Org, job_id: str, kind: str) -> Job | None:
    """The job of that id, whatever its letter case is not."""
    org.schema(SCHEMA)
    row = org.db().execute("SELECT * FROM job WHERE id = ? AND kind = ?", (job_id, kind)).fetchone()
    return None if row is None else job_of(row)


def job_of(row: tuple[Any, ...]) -> Job:
    """A row of the table as a job."""
    named = dict(zip(Job.__dataclass_fields__, row, strict=True))
    return Job(**{**named, "faults": json.loads(named["faults"])})


def change_job(org: Org, job_id: str, **values: object) -> None:
    """Sets columns of a job; its last change is now."""
    named = {**values, "changed_at": org.now()}
    with org.write() as connection:
        listed = ", ".join(f"{name} = ?" for name in named)
        connection.execute(f"UPDATE job SET {listed} WHERE id = ?", (*named.values(), job_id))


# Closing: the batches on the org's clock


def close_job(org: Org, job: Job) -> tuple[int, Upload]:
    """Puts a job with its upload into the queue; gives the number of its batches, and their rows. Nothing is saved yet."""
    try:
        upload = read_upload(org, job.id, delimiter=job.delimiter, line_ending=job.line_ending)
    except BadUpload as error:
        change_job(org, job.id, state="Failed", error=error.message)
        return 0, Upload(pl.DataFrame())
    rows = upload.rows
    unknown = _unknown_header(org, job, rows)
    if unknown is not None:
        change_job(org, job.id, state="Failed", error=f"InvalidBatch : Field name not found : {unknown}")
        return 0, upload
    faults = {kind: _told(rule) for kind in JOB_FAULTS if (rule := row_fault(org, kind)) is not None}
    pace = org.setting("pace", {})
    parents = _parents(job, rows) if pace.get("rows_per_second") else None
    with org.write():
        batches = _Schedule(org, job.id, pace, parents).of(rows.height, int(org.setting("batch_rows", BATCH_ROWS)))
        if parents is not None:
            parents.write_parquet(_parents_file(org, job.id))
        org.db().executemany(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            [
                (job.id, b.number, b.first_row, b.rows, b.slot, b.starts_at, b.ends_at, b.tries, json.dumps(b.locked))
                for b in batches
            ],
        )
        change_job(
            org, job.id, state="UploadComplete", faults=json.dumps(faults), retries=sum(b.tries > 1 for b in batches)
        )
    return len(batches), upload


class _Schedule:
    """When each batch of a job runs, given those that are queued already, and which of its rows lose their lock."""

    def __init__(self, org: Org, job_id: str, pace: dict[str, Any], parents: pl.DataFrame | None) -> None:
        self._org = org
        self._job_id = job_id
        self._seconds_per_row = 1 / float(pace["rows_per_second"]) if pace.get("rows_per_second") else 0.0
        self._slots = int(pace.get("batches", 5))
        self._parents = parents
        self._now = org.now()
        taken = org.db().execute("SELECT slot, max(ends_at) FROM batch WHERE ends_at > ? GROUP BY slot", (self._now,))
        self._free_at = dict.fromkeys(range(self._slots), self._now) | {
            slot: ends for slot, ends in taken.fetchall() if slot < self._slots
        }
        self._made: list[Batch] = []

    def of(self, rows: int, batch_rows: int) -> list[Batch]:
        queue = [(start, min(batch_rows, rows - start), 1, self._now) for start in range(0, rows, batch_rows)]
        while queue:
            start, count, tries, not_before = queue.pop(0)
            rest = self._put(start, count, tries, not_before)
            if rest is not None:
                queue.append(rest)
        return self._made

    def _put(self, start: int, count: int, tries: int, not_before: float) -> tuple[int, int, int, float] | None:
        slot = min(self._free_at, key=lambda number: (self._free_at[number], number))
        starts_at = max(self._free_at[slot], not_before)
        ends_at = starts_at + count * self._seconds_per_row
        locked = self._locked(start, count, starts_at)
        rest = None
        if len(locked) > LOCK_FAILURES_MAX:
            locked = locked[:LOCK_FAILURES_MAX]
            done = locked[-1] + 1 - start
            if done < count and tries < TRIES_MAX:
                ends_at = starts_at + done * self._seconds_per_row
                rest = (start + done, count - done, tries + 1, ends_at)
                count = done
        self._free_at[slot] = ends_at
        number = len(self._made) + 1
        self._made.append(Batch(number, start, count, slot, starts_at, ends_at, tries, tuple(locked)))
        return rest

    def _locked(self, start: int, count: int, starts_at: float) -> list[int]:
        """Rows whose parent a batch that began earlier is still working on."""
        if self._parents is None:
            return []
        held = [
            self._parents.slice(made.first_row, made.rows)["parent"]
            for made in self._made
            if made.starts_at <= starts_at < made.ends_at
        ]
        others = self._org.db().execute(
            'SELECT job, first_row, "rows" FROM batch WHERE job <> ? AND starts_at <= ? AND ends_at > ?',
            (self._job_id, starts_at, starts_at),
        )
        for job_id, first_row, rows in others.fetchall():
            file = _parents_file(self._org, job_id)
            if file.exists():
                held.append(pl.scan_parquet(file).slice(first_row, rows).collect()["parent"])
        if not held:
            return []
        mine = self._parents.slice(start, count)
        taken = pl.concat(held).drop_nulls().unique()
        return [int(row) for row in mine.filter(pl.col("parent").is_in(taken.implode()))["row"]]


def _parents(job: Job, rows: pl.DataFrame) -> pl.DataFrame:
    name = next((n for n in rows.columns if n.lower() == PARENTS.get(job.object, "").lower()), None)
    parent = pl.col(name).replace("", None) if name is not None else pl.lit(None, dtype=pl.String)
    return rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), parent.alias("parent"))


def _parents_file(org: Org, job_id: str) -> Path:
    return org.files(JOBS) / f"{job_id}-parents.parquet"


def _unknown_header(org: Org, job: Job, rows: pl.DataFrame) -> str | None:
    sobject = _object_of(org, job)
    for name in rows.columns:
        if sobject.find(name) is None and not ("." in name and is_parent_header(org, sobject, name)):
            return name
    return None


def _object_of(org: Org, job: Job) -> SObject:
    sobject = find_object(org, job.object)
    if sobject is None:
        raise LookupError(f"job {job.id} is of the object {job.object}, which is gone")
    return sobject


def _told(rule: Rule) -> dict[str, Any]:
    return {"share": rule.share, "seed": rule.seed, **rule.options}


# Settling: saving what is due


def settle(org: Org, job: Job, *, upload: Upload | None = None, wait: bool = False) -> Job:
    """Saves the batches of the job that are due, and gives the job as it is then. While another thread or process does
    the same, the job is shown as it is, or waited for. ``upload`` is what it was sent, if that has been read."""
    if job.kind != "ingest" or job.state not in ("UploadComplete", "InProgress"):
        return job
    with _working_on(org, job.id, wait=wait) as is_mine:
        if is_mine:
            current = find_job(org, job.id, "ingest")
            if current is not None and current.state in ("UploadComplete", "InProgress"):
                _settle(org, current, upload)
    return find_job(org, job.id, "ingest") or job


def settle_due(org: Org) -> None:
    """Saves whatever is due in any job, as a real org would have done by itself."""
    org.schema(SCHEMA)
    due = org.db().execute("SELECT DISTINCT job FROM batch WHERE NOT is_done AND ends_at <= ?", (org.now(),)).fetchall()
    for (job_id,) in due:
        job = find_job(org, job_id, "ingest")
        if job is not None:
            settle(org, job)


def stop_job(org: Org, job: Job, *, state: str, error: str = "") -> None:
    """Ends a job before its time; what is due has been saved, the rest never will be."""
    with _working_on(org, job.id, wait=True), org.write() as connection:
        connection.execute("DELETE FROM batch WHERE job = ? AND NOT is_done", (job.id,))
        change_job(org, job.id, state=state, error=error)


def _settle(org: Org, job: Job, upload: Upload | None) -> None:
    now, faults = org.now(), job.faults
    if "job_stuck" in faults:
        if job.state != "InProgress":
            change_job(org, job.id, state="InProgress")
        return
    listed: list[tuple[Any, ...]] = org.db().execute(
        'SELECT number, first_row, "rows", slot, starts_at, ends_at, tries, locked FROM batch '
        "WHERE job = ? AND NOT is_done ORDER BY first_row", (job.id,)
    ).fetchall()  # fmt: skip
    left = [Batch(*row[:-1], tuple(json.loads(row[-1]))) for row in listed]  # type: ignore[call-arg]
    due = [batch for batch in left if batch.ends_at <= now]
    if not due and left:
        if job.state != "InProgress" and any(batch.starts_at <= now for batch in left):
            change_job(org, job.id, state="InProgress")
        return
    upload = (
        read_upload(org, job.id, delimiter=job.delimiter, line_ending=job.line_ending) if upload is None else upload
    )
    end = _end(job, upload.rows.height)
    spans = [(batch, max(min(batch.first_row + batch.rows, end.row) - batch.first_row, 0)) for batch in due]
    with org.write() as connection:
        processed = failed = 0
        if any(count for _, count in spans):
            processed, failed = _save(org, job, upload, [(batch, count) for batch, count in spans if count])
        connection.executemany(
            "UPDATE batch SET is_done = 1 WHERE job = ? AND number = ?", [(job.id, batch.number) for batch in due]
        )
        is_over = len(due) == len(left)
        wrong = faults.get("wrong_counters", {}) if is_over else {}
        change_job(
            org,
            job.id,
            state=end.state if is_over else "InProgress",
            error=end.error if is_over else job.error,
            processed=job.processed + processed + int(wrong.get("processed", 0)),
            failed=job.failed + failed + int(wrong.get("failed", 0)),
            pieces=job.pieces + (1 if processed else 0),
        )


@dataclass(frozen=True)
class _End:
    """Where a job ends: rows from ``row`` on are never processed."""

    row: int
    state: str
    error: str = ""


def _end(job: Job, rows: int) -> _End:
    faults = job.faults
    if "job_fails" in faults:
        message = faults["job_fails"].get("message", RETRIED_OUT)
        return _End(int(rows * faults["job_fails"]["share"]), "Failed", message)
    if "job_aborted" in faults:
        return _End(int(rows * faults["job_aborted"]["share"]), "Aborted")
    if "unprocessed" in faults:
        return _End(rows - int(rows * faults["unprocessed"]["share"]), "JobComplete")
    return _End(rows, "JobComplete")


def _save(org: Org, job: Job, upload: Upload, spans: list[tuple[Batch, int]]) -> tuple[int, int]:
    """Saves rows of some batches at once and writes their result files; gives how many were processed and failed."""
    sobject = _object_of(org, job)
    piece = pl.concat([upload.rows.slice(batch.first_row, count) for batch, count in spans], rechunk=True)
    numbers = pl.concat(
        [pl.int_range(b.first_row, b.first_row + count, dtype=pl.UInt32, eager=True) for b, count in spans]
    )
    locked = {row for batch, _ in spans for row in batch.locked}
    saved = save_rows(
        org,
        job.created_by,
        sobject,
        job.operation,  # type: ignore[arg-type]
        piece,
        key_field=sobject.find(job.key_field) if job.key_field else None,
        refused=_refused(job, piece, numbers, locked, upload.torn),
        dropped=_struck(job, "silent_drop", piece),
    )
    _write_results(org, job, sobject, piece, saved)
    return saved.height, saved.height - saved["error"].null_count()


def _refused(
    job: Job, piece: pl.DataFrame, numbers: pl.Series, locked: set[int], torn: tuple[int, ...]
) -> pl.Series | None:
    """Rows that are refused whatever they hold: torn ones, lost locks, and faults."""
    reasons: pl.Series | None = None
    if torn:
        reasons = pl.select(pl.when(numbers.is_in(list(torn))).then(pl.lit(TORN)).alias("_")).to_series()
    lost = _struck(job, "lock_rows", piece)
    if locked:
        by_batch = numbers.is_in(sorted(locked))
        lost = by_batch if lost is None else lost | by_batch
    if lost is not None:
        parent = next((n for n in piece.columns if n.lower() == PARENTS.get(job.object, "").lower()), None)
        told = pl.format(
            "UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record or 200 records: {}:--",
            pl.col(parent).fill_null("") if parent is not None else pl.lit(""),
        )
        more = piece.select(pl.when(lost).then(told).alias("_")).to_series()
        reasons = more if reasons is None else pl.select(pl.coalesce(reasons, more)).to_series()
    struck = _struck(job, "row_errors", piece)
    if struck is not None:
        options = job.faults["row_errors"]
        told = pl.lit(
            error_text(options.get("code", "FIELD_CUSTOM_VALIDATION_EXCEPTION"), options.get("message", "not valid"))
        )
        more = pl.select(pl.when(struck).then(told).alias("_")).to_series()
        reasons = more if reasons is None else pl.select(pl.coalesce(reasons, more)).to_series()
    for met in (_by_automation_lock(job, piece), _by_automation_limit(job, piece, numbers)):
        if met is not None:
            reasons = met if reasons is None else pl.select(pl.coalesce(reasons, met)).to_series()
    return reasons


def _by_automation_lock(job: Job, piece: pl.DataFrame) -> pl.Series | None:
    struck = _struck(job, "automation_locks", piece)
    if struck is None:
        return None
    told = error_text(*AUTOMATION_LOCKS[job.faults["automation_locks"].get("by", "trigger")])
    parent = pl.lit(_parent_of(job, piece).fill_null(""))
    return pl.select(pl.when(struck).then(pl.format(told, *[parent] * told.count("{}")))).to_series()


def _by_automation_limit(job: Job, piece: pl.DataFrame, numbers: pl.Series) -> pl.Series | None:
    """Rows of chunks in which a trigger met a governor limit: it takes all rows of its chunk with it."""
    chunk = (numbers // CHUNK_ROWS).alias("chunk")
    reasons: pl.Series | None = None
    for kind, counted in (("automation_limit", [chunk]), ("parent_limit", [chunk, _parent_of(job, piece)])):
        options = job.faults.get(kind)
        if options is None:
            continue
        sizes = (
            pl.DataFrame(counted).with_columns(n=pl.len().over(counted)).with_columns(n=pl.col("n").max().over("chunk"))
        )
        limit = AUTOMATION_LIMITS[options.get("limit", "cpu")]
        told = error_text(
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
            f"OpportunityTrigger: execution of BeforeInsert caused by: System.LimitException: {limit} "
            "Class.OpportunityHandler.run: line 116, column 1 Trigger.OpportunityTrigger: line 13, column 1",
        )
        more = sizes.select(pl.when(pl.col("n") > int(options.get("rows", 100))).then(pl.lit(told))).to_series()
        reasons = more if reasons is None else pl.select(pl.coalesce(reasons, more)).to_series()
    return reasons


def _parent_of(job: Job, piece: pl.DataFrame) -> pl.Series:
    """The parent of each row, null where the upload names none."""
    name = next((n for n in piece.columns if n.lower() == PARENTS.get(job.object, "").lower()), None)
    parents = pl.repeat(None, piece.height, dtype=pl.String, eager=True) if name is None else piece[name]
    return parents.alias("parent")


def _struck(job: Job, kind: str, piece: pl.DataFrame) -> pl.Series | None:
    """The rows a fault strikes: those it names, or a share that differs from job to job."""
    options = job.faults.get(kind)
    if options is None:
        return None
    name = next((n for n in piece.columns if n.lower() == (job.key_field or "Id").lower()), piece.columns[0])
    keys = piece[name].fill_null("")
    if "keys" in options:
        return keys.is_in([str(key) for key in options["keys"]])
    seed = random.Random(f"{options['seed']}/{kind}/{job.id}").randrange(2**32)
    return keys.hash(seed=seed) <= min(int(options["share"] * 2**64), 2**64 - 1)


# Result files


def result_file(org: Org, job_id: str, name: str, piece: int) -> Path:
    """One piece of a result file, without its header."""
    return org.files(JOBS) / f"{job_id}-{name}-{piece:05d}.csv"


def _write_results(org: Org, job: Job, sobject: SObject, piece: pl.DataFrame, saved: pl.DataFrame) -> None:
    """Rows come in no order that anybody promised."""
    separator, line_terminator = job.form_of_results(org)
    order = _shuffled(piece.height, random.Random(job.id))
    echoed = _echoed(org, sobject, piece)
    for name, is_wanted, columns in (
        (
            "successful",
            saved["error"].is_null(),
            {"sf__Id": saved["id"], "sf__Created": saved["created"].cast(pl.String)},
        ),
        ("failed", saved["error"].is_not_null(), {"sf__Id": saved["id"], "sf__Error": saved["error"]}),
    ):
        whole = pl.DataFrame(
            {**columns, **{f"c{place}": echoed[column] for place, column in enumerate(echoed.columns)}}
        )
        chosen = order.filter(is_wanted.gather(order))
        with result_file(org, job.id, name, job.pieces + 1).open("wb") as file:
            whole[chosen].fill_null("").write_csv(
                file,
                include_header=False,
                separator=separator,
                line_terminator=line_terminator,
                quote_style="always",
            )


def _shuffled(rows: int, chance: random.Random) -> pl.Series:
    """Row numbers in no order, batch by batch: texts are written faster in an order in which they lie near each other."""
    starts = chance.sample(range(0, rows, BATCH_ROWS), -(-rows // BATCH_ROWS))
    batches = [pl.int_range(start, min(start + BATCH_ROWS, rows), eager=True) for start in starts]
    return pl.concat([batch.shuffle(seed=chance.randrange(2**32)) for batch in batches])


def _echoed(org: Org, sobject: SObject, piece: pl.DataFrame) -> pl.DataFrame:
    """What was uploaded, after conversion: doubles as Java writes them. A header in odd letter case comes back empty."""
    columns = {}
    for name in piece.columns:
        found = sobject.find(name)
        if found is None or found.name == name:
            text = piece[name]
            if found is not None and found.dtype == pl.Float64:
                number = text.str.strip_chars().cast(pl.Float64, strict=False)
                text = pl.select(pl.coalesce(double_text(number), text)).to_series()
            columns[name] = text
        else:
            columns[name] = pl.repeat("", piece.height, eager=True)
    return pl.DataFrame(columns)


def unprocessed_rows(org: Org, job: Job) -> pl.DataFrame:
    """Rows of the upload that no batch came to, as they were uploaded; none where rows could not be told apart."""
    if job.state == "JobComplete" and "unprocessed" not in job.faults:
        return pl.DataFrame()  # every batch has been worked on
    try:
        rows = read_upload(org, job.id, delimiter=job.delimiter, line_ending=job.line_ending).rows
    except BadUpload:
        return pl.DataFrame()
    if job.state == "Failed" and not job.pieces:
        return rows
    done = org.db().execute('SELECT first_row, "rows" FROM batch WHERE job = ? AND is_done', (job.id,)).fetchall()
    end = _end(job, rows.height).row
    spans = [
        pl.int_range(first, min(first + count, end), dtype=pl.UInt32, eager=True)
        for first, count in done
        if first < end
    ]
    reached = pl.concat(spans) if spans else pl.Series([], dtype=pl.UInt32)
    position = pl.int_range(rows.height, dtype=pl.UInt32, eager=True)
    return rows.filter(~position.is_in(reached.implode()))


def forget_files(org: Org, job_id: str) -> None:
    """Removes everything that is kept of a job beside the database."""
    upload_file(org, job_id).unlink(missing_ok=True)
    for path in org.files(JOBS).glob(f"{job_id}-*"):
        path.unlink(missing_ok=True)


@contextmanager
def _working_on(org: Org, job_id: str, *, wait: bool) -> Iterator[bool]:
    """The job's lock, between threads and processes alike."""
    path = org.files(JOBS) / f"{job_id}-lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
