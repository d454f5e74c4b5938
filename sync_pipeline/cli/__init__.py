"""The terminal door: the command ``sync-pipeline``, one function for each verb.

Here are the words of the command, its exit codes and what becomes of an error. What a verb does is in the file of its
group, which is loaded when the verb is used, so that a look at a night does not wait for what only a night needs.

Exit codes: 0 reconciled, equal, nothing to mend; 1 something is left; 2 before anything was written: usage, settings,
mapping, credentials, unreachable org; 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from sync_pipeline.cli.terminal import Terminal, start_logging
from sync_pipeline.domain.errors import SyncError
from sync_pipeline.memory import keep_for_a_while

EXIT_BROKEN_PIPE = 141
"""What a shell shows for a process whose reader went away."""

Verb = Callable[[argparse.Namespace, Terminal], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as ending:  # argparse has said what is wrong, or has helped
        return ending.code if isinstance(ending.code, int) else 2
    terminal = Terminal(
        is_json=getattr(arguments, "json", False), is_quiet=arguments.quiet, is_verbose=arguments.verbose
    )
    start_logging(terminal)
    with terminal.signals.caught():
        try:
            code: int = arguments.verb(arguments, terminal)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Python would complain once more when it flushes stdout at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_BROKEN_PIPE
        except KeyboardInterrupt:
            terminal.err.print("Interrupted.")
            return terminal.signals.exit_code
        except SyncError as error:
            if terminal.is_json:
                terminal.document({"state": "refused", "error": error.message, "hint": error.hint})
            terminal.fail(error)
            return terminal.signals.exit_code if terminal.signals.number is not None else error.exit_code
        except Exception:
            traceback.print_exc()
            terminal.err.print(
                f"This is a defect. What was staged and saved is kept in {_home(terminal)}.", soft_wrap=True
            )
            return 1


def _home(terminal: Terminal) -> str:
    try:
        return str(terminal.settings.home)
    except SyncError:
        return "SYNC_HOME"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sync-pipeline",
        description="Moves every row of a Data Cloud object into Salesforce CRM each night, and proves it.",
        epilog="Without any SALESFORCE_* setting everything happens in the simulated org. Settings: see README.md.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    sync = _add(verbs, "sync", _sync, "one night: plan, load, measure, repair, report; goes on with an unfinished one")
    _add_range(sync, "only this range of the newest night; may be repeated")
    sync.add_argument("--fresh", action="store_true", help="give an unfinished night up first and start a new one")
    _add_wait(sync)
    _add_json(sync)

    plan = _add(verbs, "plan", _plan, "what a new night would do: ranges, expected rows, forecast; keeps nothing")
    _add_json(plan)

    status = _add(verbs, "status", _status, "progress of the newest night, from the book alone")
    status.add_argument("--watch", action="store_true", help="look again every two seconds until the verdict")
    _add_json(status)

    reconcile = _add(verbs, "reconcile", _reconcile, "compare source and org as they are now; writes nothing")
    _add_json(reconcile)

    _add(verbs, "stop", _stop, "emergency stop of the newest night; its state is kept")

    restart = _add(verbs, "restart", _restart, "lift a stop and go on from the ledger")
    which = restart.add_mutually_exclusive_group()
    _add_range(which, "only this range; may be repeated")
    which.add_argument("--failed", action="store_true", help="only ranges that failed, were held or given up")
    which.add_argument("--all", action="store_true", help="every range; those finished before the verdict once more")
    restart.add_argument("--fresh", action="store_true", help="begin the range anew; what is staged of it is not used")
    _add_wait(restart)
    _add_json(restart)

    _add(verbs, "doctor", _doctor, "look at everything a night needs, with the next thing to do")

    limits = _add(verbs, "limits", _limits, "API headroom of the org and what the newest night used")
    _add_json(limits)

    rejects = _add(verbs, "rejects", _rejects, "rows that did not get through, and why")
    rejects.add_argument("--csv", metavar="FILE", help="write all of them with their source columns; - is stdout")

    trace = _add(verbs, "trace", _trace, "one key's life: source, stage, job, outcome, org")
    trace.add_argument("key", metavar="KEY", help="the key as the source writes it")

    alert = verbs.add_parser("alert", help="notes about nights: test", description="Notes about nights.")
    alerts = alert.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add(alerts, "test", _alert_test, "send a test note to every recipient of SYNC_ALERTS; show what is open and due")

    certificate = _add(
        verbs, "certificate", _certificate, "the proof document of a night; checks the chain of all of them"
    )
    certificate.add_argument("plan_id", nargs="?", metavar="PLAN_ID", help="default: the newest")
    _add_json(certificate)

    orphans = _add(
        verbs, "orphans", _orphans, "rows that only the org has: counts and lists them, deletes them on request"
    )
    orphans.add_argument("--csv", metavar="FILE", help="write all of them; - is stdout")
    orphans.add_argument("--delete", action="store_true", help="delete them from the org, together with --yes")
    orphans.add_argument(
        "--max-share",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="refuse above this share of the org's rows, 0.01",
    )
    orphans.add_argument("--yes", action="store_true", help="do not only say what would be deleted")

    org = verbs.add_parser(
        "org", help="the simulated org: serve, seed, reset, set, fault", description="The simulated org."
    )
    _add_org(org.add_subparsers(title="verbs", required=True, metavar="VERB"))
    return parser


def _add_org(verbs: Any) -> None:
    serve = _add(
        verbs, "serve", _org_serve, "answer over TCP, so that any client reaches the simulated org like a real one"
    )
    serve.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    serve.add_argument("--port", type=_port, default=0, help="default: any free one")
    serve.add_argument("--client-id", metavar="ID", help="accept this client id too, default simulated")
    serve.add_argument("--client-secret", metavar="SECRET", help="its secret, default the same text as the id")

    serve.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a knob first, see `org set`; may be repeated",
    )

    seed = _add(verbs, "seed", _org_seed, "fill the source object with rows by formula")
    seed.add_argument("--rows", type=_rows, default=None, metavar="N", help="rows of the source object, default 200000")
    seed.add_argument("--keys", choices=("dense", "clustered", "mixed"), default="dense", help="how keys are spread")
    seed.add_argument("--hot-parents", type=_share, default=0.0, metavar="SHARE", help="share of rows on few accounts")
    seed.add_argument("--in-org", type=_share, default=0.0, metavar="SHARE", help="share that the CRM holds already, 0")
    seed.add_argument("--null-keys", type=_rows, default=0, metavar="N", help="rows without a key, default 0")
    seed.add_argument("--duplicate-keys", type=_rows, default=0, metavar="N", help="rows with another's key, default 0")
    seed.add_argument("--seed", type=int, default=1, metavar="N", help="another number gives other values, default 1")
    seed.add_argument("--next-night", action="store_true", help="when it is filled already, change some rows instead")
    seed.add_argument(
        "--change", type=_share, default=0.02, metavar="SHARE", help="share that --next-night changes, 0.02"
    )
    seed.add_argument("--insert", type=_share, default=0.0, metavar="SHARE", help="new rows of --next-night, default 0")
    seed.add_argument("--delete", type=_share, default=0.0, metavar="SHARE", help="rows it takes away, default 0")

    reset = _add(verbs, "reset", _org_reset, "throw the simulated org away")
    reset.add_argument("--yes", action="store_true", help="do not ask")

    knobs = _add(verbs, "set", _org_set, "set knobs, such as nested_status=true; without any, list them all")
    knobs.add_argument("knobs", nargs="*", metavar="NAME=VALUE", help="a value is JSON; NAME= gives back the default")

    fault = verbs.add_parser("fault", help="named faults: list, add, clear", description="Faults of the simulated org.")
    faults = fault.add_subparsers(title="verbs", required=True, metavar="VERB")
    listed = _add(faults, "list", _org_fault_list, "known faults, and those that are set")
    added = _add(faults, "add", _org_fault_add, "set a fault by its kind and rule, see `org fault list`")
    added.add_argument("words", nargs="*", metavar="KIND NAME=VALUE", help="such as: lost_answer endpoint=upload nth=2")
    added.add_argument("--file", metavar="FILE", help="add the faults of a TOML or JSON file")
    cleared = _add(faults, "clear", _org_fault_clear, "lift a fault, or all of them")
    cleared.add_argument("name", nargs="?", metavar="NAME")
    for verb in (serve, seed, reset, knobs, listed, added, cleared):
        verb.add_argument("--folder", metavar="FOLDER", help="the org's folder, default the one in SYNC_HOME")


def _add(verbs: Any, name: str, verb: Verb, told: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing about what is going on")
    parser.add_argument("-v", "--verbose", action="store_true", help="every log line on stderr")
    parser.set_defaults(verb=verb)
    return parser


def _add_range(parser: Any, told: str) -> None:
    parser.add_argument("--range", action="append", default=[], metavar="KEY", help=told)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="when the night is parked, wait for headroom and go on")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _rows(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("must be between 0 and 65535")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return number


class _Version(argparse.Action):
    """Asks for the version only when it is wanted: reading the metadata of a distribution takes time."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("sync-pipeline")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"sync-pipeline {number}")
        parser.exit()


# The verbs, each loaded when it is used


def _sync(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.night import sync

    return sync(arguments, terminal)


def _restart(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.night import restart

    return restart(arguments, terminal)


def _stop(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.night import stop

    return stop(arguments, terminal)


def _plan(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.compare import plan

    return plan(arguments, terminal)


def _reconcile(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.compare import reconcile

    return reconcile(arguments, terminal)


def _status(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.status import status

    return status(arguments, terminal)


def _doctor(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.doctor import doctor

    return doctor(arguments, terminal)


def _limits(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.doctor import limits

    return limits(arguments, terminal)


def _rejects(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.rows import rejects

    return rejects(arguments, terminal)


def _trace(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.rows import trace

    return trace(arguments, terminal)


def _alert_test(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.alert import test

    return test(arguments, terminal)


def _certificate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.certificate import certificate

    return certificate(arguments, terminal)


def _orphans(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.orphans import orphans

    return orphans(arguments, terminal)


def _org_serve(arguments: argparse.Namespace, terminal: Terminal) -> int:
    keep_for_a_while()
    from sync_pipeline.cli.org import serve

    return serve(arguments, terminal)


def _org_seed(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.org import seed

    return seed(arguments, terminal)


def _org_reset(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.org import reset

    return reset(arguments, terminal)


def _org_set(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Knobs of the simulated org."""
    from sync_pipeline.cli.org import set_knobs

    return set_knobs(arguments, terminal)


def _org_fault_list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.org import fault_list

    return fault_list(arguments, terminal)


def _org_fault_add(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.org import fault_add

    return fault_add(arguments, terminal)


def _org_fault_clear(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from sync_pipeline.cli.org import fault_clear

    return fault_clear(arguments, terminal)
