"""The verb orphans: rows that only the org has. It counts and lists them; it deletes nothing unless told to twice."""

from __future__ import annotations

import argparse

from sync_pipeline.cli.rows import STDOUT, csv_file
from sync_pipeline.cli.terminal import ROWS_SHOWN, Terminal, printable
from sync_pipeline.engine.orphans import Orphans, delete_orphans, find_orphans, rows_of
from sync_pipeline.engine.walls import Walls


def orphans(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Compares source and org by their keys now. Deletes with ``--delete --yes``, outside of a night, below a share."""
    with terminal.walls() as walls:
        found = find_orphans(walls, on_event=terminal.say)
        terminal.say(f"{found.rows:,} of {found.present:,} rows with a key are only in the org")
        if arguments.csv is not None:
            _write(walls, found, arguments.csv, terminal)
        else:
            _show(walls, found, terminal)
        if not arguments.delete or not found.rows:
            return 0
        if not arguments.yes:
            terminal.print(f"{found.rows:,} rows would be deleted. Next: the same with `--yes`.")
            return 0
        done = delete_orphans(walls, found, max_share=arguments.max_share, on_event=terminal.say)
    terminal.print(f"{done.deleted:,} rows were deleted; their values are kept in {done.archive}.")
    if done.spared:
        terminal.print(f"{done.spared:,} rows were left alone: the source has their keys by now.")
    for record_id, reason in done.refused[:ROWS_SHOWN]:
        terminal.print(f"{record_id}: {printable(reason)}")
    if done.refused:
        terminal.print(f"{len(done.refused):,} rows were not deleted.")
    return 1 if done.refused else 0


def _show(walls: Walls, found: Orphans, terminal: Terminal) -> None:
    terminal.print(f"{found.rows:,} of {found.present:,} rows with a key are only in the org ({found.share:.2%}).")
    if not found.rows:
        return
    sample = next(rows_of(walls, found, keys_at_once=ROWS_SHOWN))
    terminal.print()
    terminal.table(sample.columns, sample.head(ROWS_SHOWN).iter_rows())
    if found.rows > ROWS_SHOWN:
        terminal.print(f"... and {found.rows - ROWS_SHOWN:,} more; all of them: `sync-pipeline orphans --csv FILE`")


def _write(walls: Walls, found: Orphans, name: str, terminal: Terminal) -> None:
    rows = 0
    with csv_file(name) as file:
        for frame in rows_of(walls, found):
            file.write(frame.write_csv(include_header=not rows).encode())
            rows += frame.height
        if not rows:
            file.write(walls.soql.rows_of([]).write_csv().encode())
    if name != STDOUT:
        terminal.print(f"{rows:,} rows written to {name}")
