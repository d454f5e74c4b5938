"""Verbs of the simulated org: serve, seed, reset, fault."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sync_pipeline.cli.terminal import Terminal
from sync_pipeline.domain.errors import UsageError
from sync_pipeline.simulated_org.faults import KINDS, add_fault, clear_faults, list_faults, parse_fault, read_faults
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.wiring import open_home


def reset(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Throws rows, jobs, faults and knobs away; the org keeps its id, so that nights of it stay its own."""
    folder = _folder(arguments, terminal)
    if not folder.exists():
        terminal.print(f"There is no simulated org in {folder}.")
        return 0
    if not arguments.yes and not _confirmed(f"Throw away everything in {folder}? [y/N] "):
        raise UsageError("Nothing was thrown away.", hint="Answer y, or say `sync-pipeline org reset --yes`.")
    Org(folder).reset()
    terminal.print(f"The simulated org in {folder} is empty. Fill it with `sync-pipeline org seed`.")
    return 0


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(question).strip().lower() in ("y", "yes")


def fault_list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Kinds of faults with their options, and the faults that are set with what they did so far."""
    terminal.table(("kind", "options"), ((kind, " ".join(options)) for kind, options in KINDS.items()))
    terminal.print()
    faults = list_faults(_org(arguments, terminal))
    if not faults:
        terminal.print("No fault is set. Set one with, for example, `sync-pipeline org fault add cut endpoint=upload nth=1`.")
        return 0
    terminal.table(
        ("name", "kind", "endpoint", "matched", "struck"),
        ((f.rule.name, f.rule.kind, f.rule.match.endpoint or f.rule.match.path, f.matched, f.fired) for f in faults),
    )
    return 0


def fault_add(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Sets a fault in words, or those of a file. A fault of the same name is replaced."""
    try:
        if arguments.file is not None:
            rules = read_faults(Path(arguments.file))
        else:
            rules = [parse_fault(" ".join(arguments.words))]
    except (ValueError, OSError) as error:
        raise UsageError(f"{error}.".replace("..", "."), hint="See `sync-pipeline org fault list`.") from None
    org = _org(arguments, terminal)
    for rule in rules:
        add_fault(org, rule)
        terminal.print(f"Fault {rule.name} is set.")
    return 0


def fault_clear(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Lifts one fault, or all of them."""
    cleared = clear_faults(_org(arguments, terminal), arguments.name)
    if arguments.name is not None and not cleared:
        raise UsageError(f"There is no fault {arguments.name}.", hint="See `sync-pipeline org fault list`.")
    terminal.print(f"{cleared} faults lifted.")
    return 0


def _org(arguments: argparse.Namespace, terminal: Terminal) -> Org:
    return Org(_folder(arguments, terminal))


def _folder(arguments: argparse.Namespace, terminal: Terminal) -> Path:
    """Where the simulated org is: named on the command line, else the one in SYNC_HOME."""
    if arguments.folder is not None:
        return Path(arguments.folder)
    return open_home(terminal.settings).area.simulated_org
