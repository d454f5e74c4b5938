"""One watch over all jobs that the org works on for this process, so that many lanes cost no more looks than one.

A lane that waits for its jobs looks for every other lane too; while it does so, the others sleep until it has looked.
One call of the job list tells the states of all jobs at once. What a job has processed stands only in the answer for
that one job, which is asked when no other job is left, or when the list is so long that it would cost more calls.

A look too many costs a call, and one that comes too late costs time only near the end, when the org runs out of work.
So the watch guesses when the org will be through with everything, from the rows that it has got through so far, and looks
again when half of the time until then is over; when the guess has passed, after an eighth of the time since it last saw
any progress. Before there is any, each pause is as long as all before it. Whatever the org says, a dozen looks at which no
job has ended are followed by none sooner than after a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_pipeline.domain.errors import RequestRefused, RightsError, WireError
from sync_pipeline.domain.ledger import IngestJob, JobState

if TYPE_CHECKING:
    from sync_pipeline.engine.walls import Walls

log = logging.getLogger(__name__)

HASTE = 1 / 2
"""Share of the time left by the guess after which the watch looks again."""
DOUBT = 1 / 8
"""The same share of the time without any progress, when the guess has passed."""
QUICK_LOOKS = 12
"""So many looks in a row may find no job that has ended before none is taken sooner than after ``STEADY_SECONDS``: what a
stuck job says of itself must not keep us asking."""
STEADY_SECONDS = 1.0
PRECISION = 1 / 400
"""Share of the time that the org has been at work below which no pause needs to be: nobody minds so little."""


@dataclass
class _Watched:
    """A job as it was last seen. ``refused`` is what the org answered when it was asked for this job alone."""

    job: IngestJob
    rows: int
    processed: int = 0
    refused: RequestRefused | None = None

    @property
    def is_flying(self) -> bool:
        return not self.job.state.is_terminal and self.refused is None


class Watch:
    """The jobs of one process, as they were last seen. Used by all of its lanes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[str, _Watched] = {}
        self._is_looked_after = False
        self._looks = 0
        self._list_calls: float = 1
        """Calls that the job list took when it was last asked, until it had named every job."""
        # Readings of the clock, and rows, since the org was last without any work of ours.
        self._since = self._seen_at = self._progress_at = self._due = 0.0
        self._rows_ended = 0
        self._looks_in_vain = 0

    @contextmanager
    def over(self, walls: Walls, jobs: Sequence[tuple[IngestJob, int]]) -> Iterator[None]:
        """Within this block the jobs, each with its rows, are looked at."""
        with self._changed:
            if not self._flying():
                self._begin(walls)
            self._jobs |= {job.id: _Watched(job, rows) for job, rows in jobs}
        try:
            yield
        finally:
            with self._changed:
                for job, _ in jobs:
                    self._jobs.pop(job.id, None)

    def _begin(self, walls: Walls) -> None:
        """The org gets work again: what was known of its speed is forgotten, and the pauses begin anew."""
        self._since = self._seen_at = self._progress_at = walls.clock()
        self._due = self._since + walls.policy.poll_seconds
        self._rows_ended = 0
        self._looks_in_vain = 0

    def seen(self, job_id: str) -> IngestJob:
        """The job as it was last seen; raises ``RequestRefused`` when the org has refused to tell."""
        with self._changed:
            watched = self._jobs[job_id]
            if watched.refused is not None:
                raise watched.refused
            return watched.job

    def wait(self, walls: Walls, job_ids: Collection[str], *, may_call: Callable[[int], None]) -> None:
        """Returns when one of these jobs has ended, or has been looked at once more.

        ``may_call`` is told how many calls a look takes before it is taken, and raises when there are none left. Raises
        ``Stopped`` when interrupted, and whatever a look can raise that is not the fault of one job.
        """
        with self._changed:
            looks = self._looks
            while self._is_looked_after and looks == self._looks and not self._has_ended(job_ids):
                self._changed.wait()
                walls.interruption.check()
            if looks != self._looks or self._has_ended(job_ids):
                return
            self._is_looked_after = True
        try:
            walls.sleep(max(self._due - walls.clock(), 0.0))
            self._look(walls, may_call)
        finally:
            with self._changed:
                self._is_looked_after = False
                self._changed.notify_all()

    def _has_ended(self, job_ids: Collection[str]) -> bool:
        return any(not self._jobs[job_id].is_flying for job_id in job_ids)

    def _flying(self) -> dict[str, _Watched]:
        return {job_id: watched for job_id, watched in self._jobs.items() if watched.is_flying}

    # A look

    def _look(self, walls: Walls, may_call: Callable[[int], None]) -> None:
        with self._changed:
            flying = self._flying()
        is_by_list = 1 < len(flying) >= self._list_calls
        may_call(int(self._list_calls) if is_by_list else len(flying))
        found = self._listed(walls, flying) if is_by_list else {}
        refused: dict[str, RequestRefused] = {}
        for job_id in flying:
            if job_id in found and found[job_id].state is not JobState.FAILED:
                continue
            try:  # the list may lack a job that was just made, and never says why one failed
                found[job_id] = walls.bulk.info(job_id)
            except RequestRefused as error:  # whoever waits for that job has to know
                refused[job_id] = error
        with self._changed:
            self._note(flying, found, refused, now=walls.clock())
            self._due = walls.clock() + self._pause(walls)
            self._looks += 1

    def _listed(self, walls: Walls, flying: Collection[str]) -> dict[str, IngestJob]:
        """Those of the jobs that the list names; no further pages of it are asked than that takes."""
        found: dict[str, IngestJob] = {}
        pages = 0
        try:
            for page in walls.bulk.job_pages():
                pages += 1
                found |= {job.id: job for job in page if job.id in flying}
                if len(found) == len(flying):
                    break
            self._list_calls = pages
        except (RequestRefused, RightsError) as error:
            log.warning("the list of ingest jobs is refused, each job is asked for: %s", error.message)
            self._list_calls = float("inf")
        except WireError as error:
            walls.interruption.check()
            log.warning("the list of ingest jobs does not come, each job is asked for: %s", error.message)
        return found

    def _note(
        self,
        flying: dict[str, _Watched],
        found: dict[str, IngestJob],
        refused: dict[str, RequestRefused],
        *,
        now: float,
    ) -> None:
        moves = 0
        self._looks_in_vain += 1
        for job_id, watched in flying.items():
            watched.refused = refused.get(job_id)
            watched.job = job = found.get(job_id, watched.job)
            if job.state.is_terminal:
                self._looks_in_vain = 0
            if job.state is JobState.JOB_COMPLETE:
                self._rows_ended += watched.rows
            moves += job.state.is_terminal or job.processed > watched.processed
            watched.processed = max(watched.processed, job.processed)
        if moves:  # at instants that nobody knows; the last of so many is where they would be at even distances
            self._progress_at = self._seen_at + (now - self._seen_at) * moves / (moves + 1)
        self._seen_at = now

    def _pause(self, walls: Walls) -> float:
        """Seconds from the last look to the next one."""
        flying, policy = self._flying().values(), walls.policy
        rows_done = self._rows_ended + sum(watched.processed for watched in flying)
        if rows_done == 0:
            pause = self._seen_at - self._since
        else:
            rows_left = sum(watched.rows - watched.processed for watched in flying)
            ends_at = self._progress_at + rows_left / rows_done * (self._progress_at - self._since)
            pause = max(HASTE * (ends_at - self._seen_at), DOUBT * (self._seen_at - self._progress_at))
        shortest = max(policy.poll_seconds, PRECISION * (self._seen_at - self._since))
        if self._looks_in_vain >= QUICK_LOOKS:
            shortest = max(shortest, STEADY_SECONDS)
        return min(max(pause, shortest), policy.poll_seconds_max)
