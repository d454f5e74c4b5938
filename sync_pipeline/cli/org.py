"""Verbs of the simulated org: serve, seed, reset, set, fault."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from sync_pipeline.cli.terminal import Terminal
from sync_pipeline.domain.errors import SettingsError, UsageError
from sync_pipeline.simulated_org.faults import (
    KINDS,
    ROW_KINDS,
    add_fault,
    clear_faults,
    list_faults,
    parse_fault,
    read_faults,
)
from sync_pipeline.simulated_org.knobs import KNOBS, read_knob
from sync_pipeline.simulated_org.login import CLIENTS
from sync_pipeline.simulated_org.state import Org
from sync_pipeline.wiring import open_home

ROWS = 200_000
"""Rows of the source object when nobody says how many."""


def serve(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Answers over TCP until a signal comes. What is printed are the settings by which this pipeline reaches the org."""
    from sync_pipeline.simulated_org.server import serve

    knobs = _knobs(arguments.set)
    org = _org(arguments, terminal)
    for name, value in knobs:
        org.set_setting(name, value)
    client, secret = _client(org, arguments.client_id, arguments.client_secret)

    def ready(base_url: str) -> None:
        terminal.print(f"SYNC_HOME={org.folder.with_name(f'{org.folder.name}_nights').resolve()}")
        terminal.print(f"SALESFORCE_LOGIN_URL={base_url}")
        terminal.print(f"SALESFORCE_CLIENT_ID={client}")
        terminal.print(f"SALESFORCE_CLIENT_SECRET={secret}")
        sys.stdout.flush()
        terminal.say(f"The simulated org in {org.folder} answers at {base_url}; Ctrl-C ends it.")

    try:
        serve(org, host=arguments.host, port=arguments.port, ready=ready)
    except ValueError as error:
        raise UsageError(f"{str(error)[0].upper()}{str(error)[1:]}.", hint="Leave --host out.") from None
    except OSError as error:
        raise UsageError(
            f"{arguments.host}:{arguments.port} cannot be used: {error.strerror}.", hint="Name another --port."
        ) from None
    return 0


def _client(org: Org, client: str | None, secret: str | None) -> tuple[str, str]:
    """Client id and secret that the org accepts from now on; without any given, those that it accepts already."""
    accepted: dict[str, str] = org.setting("clients", CLIENTS)
    client = next(iter(accepted)) if client is None else client
    secret = accepted.get(client, client) if secret is None else secret
    if accepted.get(client) != secret:
        org.set_setting("clients", {**accepted, client: secret})
    return client, secret


def seed(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Fills the source object, or lets a day pass in one that is filled."""
    from sync_pipeline.simulated_org.seed import SOURCE, is_seeded, next_night, seed

    folder = _folder(arguments, terminal)
    is_filled = is_seeded(folder)
    org = _org(arguments, terminal)
    try:
        if arguments.next_night and is_filled:
            day = next_night(
                org, change=arguments.change, insert=arguments.insert, delete=arguments.delete, seed=arguments.seed
            )
            terminal.print(
                f"{SOURCE}: {day.changed:,} rows changed, {day.inserted:,} new, {day.deleted:,} gone; {day.rows:,} rows in all."
            )
            return 0
        made = seed(
            org,
            ROWS if arguments.rows is None else arguments.rows,
            keys=arguments.keys,
            hot_parents=arguments.hot_parents,
            seed=arguments.seed,
            in_org=arguments.in_org,
            null_keys=arguments.null_keys,
            duplicate_keys=arguments.duplicate_keys,
        )
    except (ValueError, LookupError) as error:
        raise UsageError(
            f"{str(error)[0].upper()}{str(error)[1:]}.", hint="See `sync-pipeline org seed --help`."
        ) from None
    held = f"; the CRM holds {made.in_org:,} of them already" if made.in_org else ""
    terminal.print(f"{SOURCE}: {made.rows:,} rows of {made.accounts:,} accounts made{held}.")
    return 0


def reset(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Throws rows, jobs, faults and knobs away; the org keeps its id, so that nights of it stay its own."""
    folder = _folder(arguments, terminal)
    if not folder.exists():
        terminal.print(f"There is no simulated org in {folder}.")
        return 0
    if not arguments.yes and not _confirmed(f"Throw away everything in {folder}? [y/N] "):
        raise UsageError("Nothing was thrown away.", hint="Answer y, or say `sync-pipeline org reset --yes`.")
    _org(arguments, terminal).reset()
    terminal.print(f"The simulated org in {folder} is empty. Fill it with `sync-pipeline org seed`.")
    return 0


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(question).strip().lower() in ("y", "yes")


def set_knobs(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Sets knobs for all processes; without any, lists them with their values."""
    knobs = _knobs(arguments.knobs)
    org = _org(arguments, terminal)
    for name, value in knobs:
        org.set_setting(name, value)
        told = "its default again" if value is None else _shown(name, value)
        terminal.print(f"{name} is {told}.")
    if not knobs:
        terminal.table(
            ("knob", "default", "set", "what it says"),
            (
                (name, json.dumps(default), _shown(name, org.setting(name)), told)
                for name, (default, told) in KNOBS.items()
            ),
        )
    return 0


def _shown(name: str, value: object) -> str:
    """A knob's value, without the secrets of clients."""
    if value is None:
        return ""
    return ", ".join(value) if name == "clients" and isinstance(value, dict) else json.dumps(value)


def _knobs(words: list[str]) -> list[tuple[str, object]]:
    try:
        return [read_knob(word) for word in words]
    except ValueError as error:
        raise UsageError(
            f"{str(error)[0].upper()}{str(error)[1:]}.", hint="`sync-pipeline org set` lists the knobs."
        ) from None


def fault_list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Kinds of faults with their options, and the faults that are set with what they did so far."""
    kinds = {**KINDS, **ROW_KINDS}
    terminal.table(("kind", "options"), ((kind, " ".join(options)) for kind, options in kinds.items()))
    terminal.print()
    faults = list_faults(_org(arguments, terminal))
    if not faults:
        terminal.print(
            "No fault is set. Set one with, for example, `sync-pipeline org fault add cut endpoint=upload nth=1`."
        )
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
            # One word alone may be the whole line in quotes; of several, each keeps the blanks inside of it.
            words: list[str] = arguments.words
            rules = [parse_fault(words[0] if len(words) == 1 else shlex.join(words))]
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
    """The org, made when there is none yet. Raises ``SettingsError`` when its folder cannot be used."""
    folder = _folder(arguments, terminal)
    try:
        return Org(folder)
    except OSError as error:
        raise SettingsError(
            f"The simulated org cannot be kept in {folder}: {error.strerror or error}.",
            hint="Set SYNC_HOME to a folder of yours on a local disk, or name another --folder.",
        ) from None


def _folder(arguments: argparse.Namespace, terminal: Terminal) -> Path:
    """Where the simulated org is: named on the command line, else the one in SYNC_HOME."""
    if arguments.folder is not None:
        return Path(arguments.folder)
    return open_home(terminal.settings).area.simulated_org
