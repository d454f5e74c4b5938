"""Rows that only the org has: found against the source as it is now, and deleted only when a person says so.

Nothing here belongs to a night, and nothing runs while one does. Before a row is deleted it is looked up once more on
both sides and written, with its values, into an archive in SYNC_HOME. A share above which nothing is deleted keeps a
source that lost its rows from emptying the org.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import polars as pl

from sync_pipeline.domain.errors import HeldElsewhere, JobStuck, Refused, StateError
from sync_pipeline.domain.ledger import IngestJob, JobState
from sync_pipeline.domain.plan import Plan, new_plan_id
from sync_pipeline.domain.policy import Verify
from sync_pipeline.engine.budget import check_calls
from sync_pipeline.engine.equality import Equality
from sync_pipeline.engine.planning import make_plan
from sync_pipeline.engine.reconciliation import measure
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.durable import private_folder

log = logging.getLogger(__name__)

ARCHIVE: Final = "deleted"
"""Folder in SYNC_HOME: what was deleted, a CSV for each time."""
LOOKED_UP: Final = 2_000
"""Keys that are looked up at once."""
JOB_ROWS: Final = 100_000
"""Records of one deletion job."""


@dataclass(frozen=True)
class Orphans:
    """``keys`` of rows that only the org has, as the org writes them, among ``present`` rows with a key. ``equality`` says
    which spellings are one key."""

    keys: pl.Series
    rows: int
    present: int
    equality: Equality

    @property
    def share(self) -> float:
        return self.rows / self.present if self.present else 0.0


@dataclass(frozen=True)
class Deletion:
    """What became of a deletion; ``refused`` are ids with the org's reason."""

    deleted: int
    refused: tuple[tuple[str, str], ...]
    spared: int
    """Keys that were orphans no more when they were looked up again."""
    archive: Path


def find_orphans(walls: Walls, *, on_event: Callable[[str], None] = log.info) -> Orphans:
    """Reads source and org now, by their keys alone. Rows of the source that cannot be sent protect theirs all the same.

    Raises ``MappingError`` when keys of the two cannot be compared.
    """
    target = walls.soql.describe()
    walls.mapping.check_comparable(target)
    found: list[pl.Series] = [pl.Series("key", [], dtype=pl.String)]
    plan = _plan(walls)
    measured = measure(
        walls,
        plan.plan_id,
        level=Verify.KEYS,
        against="source",
        record=False,
        plan=plan,
        on_event=on_event,
        on_orphans=found.append,
    )
    keys = pl.concat(found)
    equality = Equality(walls.mapping, target)
    return Orphans(keys.unique().sort(), rows=len(keys), present=measured.present or 0, equality=equality)


def rows_of(walls: Walls, orphans: Orphans, *, keys_at_once: int = LOOKED_UP) -> Iterator[pl.DataFrame]:
    """The org's rows of these keys, with Id and who touched them last, for so many keys at once."""
    equality = orphans.equality
    for start in range(0, len(orphans.keys), keys_at_once):
        walls.interruption.check()
        keys = orphans.keys.slice(start, keys_at_once)
        found = walls.soql.rows_of(keys.to_list(), as_numbers=equality.has_number_key)
        # The org's queries may take keys for one that its upserts tell apart by their letter case.
        is_meant = equality.matched(found[walls.mapping.target_key]).is_in(equality.matched(keys).implode())
        yield found.filter(is_meant)


def delete_orphans(
    walls: Walls, orphans: Orphans, *, max_share: float, on_event: Callable[[str], None] = log.info
) -> Deletion:
    """Deletes the rows from the org (into its recycle bin) and says what became of them.

    Raises ``Refused`` when they are more than ``max_share`` of the org's rows or a night is unfinished, ``HeldElsewhere``
    while somebody works on one.
    """
    if orphans.share > max_share:
        raise Refused(
            f"{orphans.rows} of {orphans.present} rows are only in the org; that is more than a share of {max_share:g}.",
            hint="Look whether the source is whole. If it is, say so with --max-share.",
        )
    with _no_night(walls):
        folder = walls.area.home / ARCHIVE
        private_folder(folder)
        archive = folder / f"{new_plan_id(walls.now())}.csv"
        ids, spared = _archived(walls, orphans, archive)
        on_event(f"{len(ids)} rows are kept in {archive} and deleted now")
        refused: list[tuple[str, str]] = []
        deleted = 0
        for start in range(0, len(ids), JOB_ROWS):
            done, failed = _delete(walls, ids.slice(start, JOB_ROWS), folder)
            deleted += done
            refused += failed
        return Deletion(deleted, tuple(refused), spared, archive)


def _plan(walls: Walls) -> Plan:
    newest = walls.book.newest()
    if newest is not None:
        return newest.plan
    return make_plan(walls, plan_id=new_plan_id(walls.now()), previous=None)[0]


@contextmanager
def _no_night(walls: Walls) -> Iterator[None]:
    """No night runs, none is unfinished, and none can begin."""
    with ExitStack() as held:
        held.enter_context(walls.area.lock_night())
        held.enter_context(walls.area.lock_driver())
        newest = walls.book.newest()
        if newest is not None:
            check_calls(walls, newest.plan)
            if newest.verdict is None:
                raise Refused(
                    f"Night {newest.plan_id} is unfinished; nothing is deleted in a night.",
                    hint="Finish it with `sync-pipeline sync`, or give it up with `sync-pipeline sync --fresh`.",
                )
            busy = [r.partition for r in newest.plan if walls.area.is_range_locked(r.partition)]
            if busy or walls.area.is_measure_locked():
                raise HeldElsewhere(
                    f"Night {newest.plan_id} is being worked on; nothing is deleted in a night.",
                    hint="Watch it with `sync-pipeline status --watch`.",
                )
        yield


def _archived(walls: Walls, orphans: Orphans, archive: Path) -> tuple[pl.Series, int]:
    """Writes down the rows that are orphans still, and gives their ids and how many keys are none any more."""
    ids: list[pl.Series] = [pl.Series("Id", [], dtype=pl.String)]
    equality = orphans.equality
    spared = 0
    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for frame in rows_of(walls, orphans):
            keys = frame[walls.mapping.target_key]
            # The source may write a key otherwise than the org has it, and it is the org's row all the same.
            named = walls.data_cloud.rows_named(equality.as_source(keys), fold_case=equality.folds_case)
            back = named[walls.mapping.source_key]
            is_back = equality.matched(keys).is_in(equality.matched(back).implode())
            spared += int(is_back.sum())
            kept = frame.filter(~is_back)
            _append(kept, file, is_first=len(ids) == 1)
            ids.append(kept["Id"])
        file.flush()
        os.fsync(file.fileno())
    walls.disk.sync_folder(archive.parent)
    return pl.concat(ids), spared


def _append(frame: pl.DataFrame, file: IO[bytes], *, is_first: bool) -> None:
    file.write(frame.write_csv(include_header=is_first).encode())


def _delete(walls: Walls, ids: pl.Series, folder: Path) -> tuple[int, list[tuple[str, str]]]:
    """One deletion job from its creation to its results."""
    job = walls.bulk.create_deletion()
    upload = folder / f"{job.id}.csv.tmp"
    try:
        descriptor = os.open(upload, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(ids.to_frame("Id").write_csv().encode())
        walls.bulk.upload(job.id, upload)
        job = walls.bulk.close(job.id)
    except BaseException:
        walls.bulk.abort(job.id)
        raise
    finally:
        upload.unlink(missing_ok=True)
    _wait(walls, job, rows=len(ids))
    deleted = sum(frame.height for frame in walls.bulk.deleted(job.id))
    refused = [
        (row[0], row[1]) for frame in walls.bulk.not_deleted(job.id) for row in frame.select("id", "error").rows()
    ]
    left = len(ids) - deleted - len(refused)
    if left:
        raise StateError(
            f"Job {job.id} says nothing of {left} of the {len(ids)} records it was to delete.",
            hint="Run `sync-pipeline orphans` again: it looks at the org as it is now.",
        )
    return deleted, refused


def _wait(walls: Walls, job: IngestJob, *, rows: int) -> None:
    deadline = walls.clock() + walls.policy.job_deadline_seconds
    with walls.watch.over(walls, [(job, rows)]):
        while not job.state.is_terminal:
            if walls.clock() > deadline:
                raise JobStuck(
                    f"The deletion {job.id} is still {job.state.value}.",
                    hint="Look at it in Setup, Bulk Data Load Jobs.",
                )
            walls.watch.wait(walls, [job.id], may_call=lambda calls: None)
            job = walls.watch.seen(job.id)
    if job.state is not JobState.JOB_COMPLETE:
        log.warning("the deletion %s ended as %s: %s", job.id, job.state.value, job.error)
