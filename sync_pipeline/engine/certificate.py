"""Certificates: one document for each verdict, as JSON for machines and as Markdown for people, in a chain.

A certificate is written when the verdict falls, from what the book and the ranges' ledgers hold; nobody is asked. It
names keys of rows that differ, and no value of any row. Its file is durable before the book speaks of it and before the
verdict is recorded, so that no verdict is ever without one. Sealing and the chain: ``domain/certificate.py``.
"""

from __future__ import annotations

import json
import logging
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from sync_pipeline.book.book import Book
from sync_pipeline.domain.certificate import Certificate, broken_links, sealed, text_digest
from sync_pipeline.domain.errors import HeldElsewhere, StateError
from sync_pipeline.domain.ledger import Counts, RangeState, Verdict
from sync_pipeline.domain.night import JobEntry, Measurement, NightEntry, RangeEntry
from sync_pipeline.domain.plan import Plan
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.certificate_page import TOLD_OF_A_ROW, markdown
from sync_pipeline.engine.findings import Finding, night_findings, plan_findings, range_findings
from sync_pipeline.engine.walls import Walls
from sync_pipeline.staging.area import Area
from sync_pipeline.staging.durable import Disk, private_folder
from sync_pipeline.staging.range_store import RangeStore

log = logging.getLogger(__name__)

FOLDER: Final = "certificates"
"""Within SYNC_HOME."""
LAYOUT: Final = 1
PACKAGES: Final = ("sync_pipeline", "polars", "duckdb", "httpx", "msgspec", "dagster")


def issue(walls: Walls, night: NightEntry, verdict: Verdict, *, reasons: Sequence[str], seconds: float) -> Certificate:
    """Writes the certificate of a verdict that is about to be recorded, and lets go of those whose time is over.

    A night that is amended gets a further one. Raises ``StateError`` or ``DiskFull`` when it cannot be written.
    """
    with walls.book.turn("certificate", sleep=walls.sleep):
        folder, now = folder_of(walls.area), walls.now()
        private_folder(folder)
        files, previous = _files(folder), _previous(_files(folder), walls.book.certificate_head())
        number = previous["number"] + 1 if previous is not None else 1
        old = _outlived(files, now=now, keep=walls.policy.keep_ledgers)
        concluded = replace(
            walls.book.night(night.plan_id) or night,
            verdict=verdict, verdict_at=now, verdict_reasons=tuple(reasons), seconds=seconds,
        )  # fmt: skip
        contents: dict[str, Any] = {
            "layout": LAYOUT,
            "number": number,
            "issued_at": now.isoformat(timespec="seconds"),
            "previous": previous,
            "chain_starts_at": _number_of(files[len(old)]) if len(files) > len(old) else number,
            "amends": next((_number_of(f) for f in reversed(files) if _plan_id_of(f) == night.plan_id), None),
            **contents_of(walls, concluded, walls.book.ranges(night.plan_id)),
        }
        text = markdown(contents)
        certificate = sealed(
            contents | {"markdown_sha256": text_digest(text)}, next(iter(walls.certificate_keys), None)
        )
        _write(walls.disk, folder, certificate, text)
        walls.book.record_certificate(number, certificate.sha256)
        for file in old:
            walls.disk.remove(file)
            walls.disk.remove(file.with_suffix(".md"))
        log.info("certificate %d of night %s is in %s", number, night.plan_id, folder)
        return certificate


# What it says


def contents_of(walls: Walls, night: NightEntry, ranges: Sequence[RangeEntry]) -> dict[str, Any]:
    """Everything that is known of a night at its verdict."""
    total = sum((entry.counts for entry in ranges), Counts())
    ledgers = {entry.partition: _ledger(walls, night, entry) for entry in ranges}
    jobs = walls.book.jobs(night.plan_id)
    measurement = night.measurement
    return {
        "plan_id": night.plan_id,
        "org": asdict(night.plan.org),
        "source": night.plan.source_object,
        "target": night.plan.target_object,
        "mapping": {
            "digest": night.plan.mapping_digest,
            "fields": _fields(walls, night.plan),
        },
        "versions": _versions(walls),
        "verdict": night.verdict.value if night.verdict is not None else None,
        "proves": night.verdict.sentence if night.verdict is not None else None,
        "reasons": list(night.verdict_reasons),
        "plan": _plan(night.plan),
        "totals": total.to_json() | {"set_aside": total.set_aside},
        "ranges": [_range(night.plan, entry, measurement, jobs, ledgers[entry.partition]) for entry in ranges],
        "checks": [_check(finding) for finding in _checks(walls, night, ranges)],
        "timings": _timings(night, total),
        "api_calls": {
            "used": night.api_calls,
            "by_endpoint": walls.book.calls(night.plan_id),
            "forecast": night.plan.forecast.api_calls if night.plan.forecast is not None else None,
        },
        "rejects": _rejects([ledger for ledger in ledgers.values() if ledger is not None]),
        "measurement": _measurement(measurement) if measurement is not None else None,
    }


@dataclass(frozen=True)
class _Ledger:
    """What the files of one range say."""

    codes: list[tuple[str, str, str, bool, int]]
    archive: list[tuple[int, str, str, int, int, datetime]]


def _ledger(walls: Walls, night: NightEntry, entry: RangeEntry) -> _Ledger | None:
    """``None`` when nothing is kept of the range, or somebody works on it."""
    folder = walls.area.range_folder(night.plan_id, entry.partition, entry.generation)
    if not folder.is_dir() or walls.area.is_range_locked(entry.partition):
        return None
    try:
        with RangeStore.read_only(folder) as store:
            return _Ledger(store.reject_codes(), store.archive())
    except (StateError, HeldElsewhere) as error:
        log.warning("the certificate has no ledger of range %s: %s", entry.partition, error.message)
        return None


def _versions(walls: Walls) -> dict[str, str]:
    found = {"python": platform.python_version(), "salesforce_api": walls.session.api_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _fields(walls: Walls, plan: Plan) -> list[list[str]]:
    """Source column and target field of each value, the key first; nothing when another mapping is set by now."""
    if walls.mapping.digest != plan.mapping_digest:
        return []
    fields = [[mapped.source, mapped.target] for mapped in walls.mapping.fields]
    return [[walls.mapping.source_key, walls.mapping.target_key], *fields]


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "created_at": plan.created_at.isoformat(timespec="seconds"),
        "profile": asdict(plan.profile),
        "expected": plan.expected,
        "ranges": len(plan.ranges),
        "forecast": asdict(plan.forecast) if plan.forecast is not None else None,
        "notes": list(plan.notes),
    }


def _range(
    plan: Plan, entry: RangeEntry, measurement: Measurement | None, jobs: Sequence[JobEntry], ledger: _Ledger | None
) -> dict[str, Any]:
    planned = plan.range(entry.partition)
    archive = {job_id: (file, size, crc) for _, job_id, file, size, crc, _ in ledger.archive} if ledger else {}
    return {
        "partition": entry.partition,
        "after": planned.range.after if planned is not None else None,
        "through": planned.range.through if planned is not None else None,
        "state": entry.state.value,
        **entry.counts.to_json(),
        "set_aside": entry.counts.set_aside,
        "measured": measurement.by_range.get(entry.partition, {}) if measurement is not None else {},
        "runs": entry.runs,
        "generation": entry.generation,
        "repairs": entry.repairs,
        "started_at": _instant(entry.started_at),
        "finished_at": _instant(entry.finished_at),
        "error": entry.error if entry.state is not RangeState.DONE else "",
        "jobs": [_job(job, archive.get(job.job_id)) for job in jobs if job.partition == entry.partition],
    }


def _job(job: JobEntry, archived: tuple[str, int, int] | None) -> dict[str, Any]:
    """One ingest job, and the file in the range's folder that holds its outcomes after the org has forgotten them."""
    told: dict[str, Any] = {
        "id": job.job_id,
        "generation": job.generation,
        "part": job.part,
        "round": job.round,
        "rows": job.rows,
        "state": job.state,
        "intended_at": job.intended_at.isoformat(timespec="seconds"),
    }
    if archived is not None:
        told["outcomes"] = dict(zip(("file", "bytes", "crc32"), archived, strict=True))
    return told


def _checks(walls: Walls, night: NightEntry, ranges: Sequence[RangeEntry]) -> list[Finding]:
    """Those of the plan and the night, and of the ranges those that failed."""
    of_ranges = [finding for entry in ranges for finding in range_findings(entry) if not finding.passed]
    return [*plan_findings(night.plan), *night_findings(night, ranges, walls.policy), *of_ranges]


def _check(finding: Finding) -> dict[str, Any]:
    return asdict(finding)


def _timings(night: NightEntry, total: Counts) -> dict[str, Any]:
    measurement = night.measurement
    return {
        "opened_at": _instant(night.opened_at),
        "concluded_at": _instant(night.verdict_at),
        "seconds": round(night.seconds, 3),
        "rows_per_second": round(total.succeeded / night.seconds, 1) if night.seconds else 0.0,
        "measured_at": _instant(measurement.measured_at) if measurement is not None else None,
        "measuring_seconds": round(measurement.seconds, 3) if measurement is not None else None,
    }


def _rejects(ledgers: Sequence[_Ledger]) -> list[dict[str, Any]]:
    counted: Counter[tuple[str, str, str, bool]] = Counter()
    for ledger in ledgers:
        for outcome, code, column, set_aside, rows in ledger.codes:
            counted[outcome, code, column, set_aside] += rows
    return [
        {"outcome": outcome, "code": code, "column": column, "set_aside": set_aside, "rows": rows}
        for (outcome, code, column, set_aside), rows in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


def _measurement(measurement: Measurement) -> dict[str, Any]:
    told = asdict(measurement) | {"measured_at": _instant(measurement.measured_at)}
    told["sample"] = [{name: row.get(name) for name in TOLD_OF_A_ROW} for row in measurement.sample]
    told["seconds"] = round(measurement.seconds, 3)
    return told


def _instant(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="seconds") if instant is not None else None


# The chain on disk


@dataclass(frozen=True)
class Chain:
    """All certificates that are here, oldest first, and what is wrong with them."""

    certificates: tuple[Certificate, ...]
    problems: tuple[str, ...]

    def of(self, plan_id: str) -> Certificate | None:
        """The newest certificate of that night."""
        return next((c for c in reversed(self.certificates) if c.plan_id == plan_id), None)


def read_chain(area: Area, book: Book | None, *, keys: Sequence[Secret] = ()) -> Chain:
    """Reads and checks every certificate, against the one before it and against what the book knows of the newest."""
    certificates: list[Certificate] = []
    problems: list[str] = []
    for file in _files(folder_of(area)):
        try:
            certificate = Certificate.from_json(file.read_text(encoding="utf-8"))
        except (StateError, OSError, UnicodeDecodeError) as error:
            told = error.message if isinstance(error, StateError) else type(error).__name__
            problems.append(f"{file.name} cannot be read: {told}")
            continue
        if (certificate.number, certificate.plan_id) != (_number_of(file), _plan_id_of(file)):
            problems.append(f"{file.name} holds certificate {certificate.number} of night {certificate.plan_id}.")
        problems += _markdown_problems(file.with_suffix(".md"), certificate)
        certificates.append(certificate)
    problems += broken_links(certificates, keys=keys)
    head = book.certificate_head() if book is not None else None
    problems += _head_problems(certificates, head)
    return Chain(tuple(certificates), tuple(problems))


def markdown_of(area: Area, certificate: Certificate) -> str:
    """Its text for people; made anew when the file is not there."""
    file = folder_of(area) / f"{_stem(certificate.number, certificate.plan_id)}.md"
    return file.read_text(encoding="utf-8") if file.exists() else markdown(dict(certificate.contents))


def folder_of(area: Area) -> Path:
    return area.home / FOLDER


def _markdown_problems(file: Path, certificate: Certificate) -> list[str]:
    if not file.exists():
        return [f"{file.name} is missing."]
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    is_whole = text_digest(text) == certificate.contents["markdown_sha256"]
    return [] if is_whole else [f"{file.name} was changed: it is not what certificate {certificate.number} says."]


def _head_problems(certificates: Sequence[Certificate], head: tuple[int, str] | None) -> list[str]:
    if head is None:
        return []
    number, sha256 = head
    if not certificates or certificates[-1].number < number:
        here = f"the newest that is here is {certificates[-1].number}" if certificates else "none is here"
        return [f"Certificate {number} is missing: the book knows of it, and {here}."]
    named = next((c for c in certificates if c.number == number), None)
    if named is not None and named.sha256 != sha256:
        return [f"Certificate {number} of night {named.plan_id} was changed: the book knows another hash of it."]
    return []


def _files(folder: Path) -> list[Path]:
    """The JSON files in the order of their numbers."""
    found = [file for file in folder.glob("*.json") if file.stem.partition("-")[0].isdigit()] if folder.is_dir() else []
    return sorted(found, key=_number_of)


def _number_of(file: Path) -> int:
    return int(file.stem.partition("-")[0])


def _plan_id_of(file: Path) -> str:
    return file.stem.partition("-")[2]


def _stem(number: int, plan_id: str) -> str:
    return f"{number:06d}-{plan_id}"


def _previous(files: Sequence[Path], head: tuple[int, str] | None) -> dict[str, Any] | None:
    """What the next certificate says of the newest one. The book is believed more than the files, so that one which was
    taken away or written anew stays noticed; a file that is newer than the book was left by a crash."""
    newest = _number_of(files[-1]) if files else 0
    if head is not None and head[0] >= newest:
        number, sha256 = head
    elif files:
        number, sha256 = newest, _sha256_of(files[-1])
    else:
        return None
    plan_id = next((_plan_id_of(file) for file in files if _number_of(file) == number), "")
    return {"number": number, "plan_id": plan_id, "sha256": sha256}


def _sha256_of(file: Path) -> str:
    """The hash that a certificate carries, empty when it cannot be read."""
    try:
        return Certificate.from_json(file.read_text(encoding="utf-8")).sha256
    except (StateError, OSError, UnicodeDecodeError):
        log.warning("certificate %s cannot be read; the next one follows it all the same", file.name)
        return ""


def _outlived(files: Sequence[Path], *, now: datetime, keep: timedelta) -> list[Path]:
    """The oldest certificates whose time is over; one that cannot be read is kept, and so is all that follows it."""
    old: list[Path] = []
    for file in files[:-1]:
        try:
            certificate = Certificate.from_json(file.read_text(encoding="utf-8"))
            is_old = now - certificate.issued_at > keep
        except (StateError, OSError, ValueError):
            break
        if not is_old:
            break
        old.append(file)
    return old


def _write(disk: Disk, folder: Path, certificate: Certificate, text: str) -> None:
    """The Markdown first: where there is a JSON file, both are there."""
    stem = _stem(certificate.number, certificate.plan_id)
    document = json.dumps(certificate.to_json(), indent=1, ensure_ascii=True)
    try:
        disk.write(folder / f"{stem}.md", text.encode("utf-8", "surrogatepass"))
        disk.write(folder / f"{stem}.json", f"{document}\n".encode())
        disk.sync_folder(folder)
    except OSError as error:
        raise StateError(
            f"Certificate {certificate.number} of night {certificate.plan_id} cannot be written: {error.strerror}.",
            hint=f"No verdict is given without one. Make {folder} writable for this user, then go on with `sync-pipeline sync`.",
        ) from None
