"""The verb certificate: the proof document of a night, and whether the chain of all of them is whole."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sync_pipeline.cli.terminal import Terminal, printable
from sync_pipeline.domain.certificate import Certificate
from sync_pipeline.domain.secret import Secret
from sync_pipeline.engine.certificate import Chain, markdown_of, read_chain
from sync_pipeline.wiring import Home, open_home


def certificate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Prints one certificate and checks all of them; asks no org. Exit code 1 when one is missing or was changed."""
    home = open_home(terminal.settings)
    keys = terminal.settings.certificate_keys
    chain = read_chain(home.area, home.book if home.has_book else None, keys=keys)
    found = _wanted(chain, arguments.plan_id)
    problems = [*chain.problems, *([] if found is not None else [_nothing_found(home, arguments.plan_id)])]
    notes = _notes(chain.certificates, keys)
    if terminal.is_json:
        terminal.document(
            {
                "certificate": found.to_json() if found is not None else None,
                "chain": {
                    "certificates": len(chain.certificates),
                    "signed": sum(c.signature is not None for c in chain.certificates),
                    "is_whole": not problems,
                    "problems": problems,
                    "notes": notes,
                },
            }
        )
    else:
        if found is not None:
            terminal.print(markdown_of(home.area, found))
        for problem in problems:
            terminal.print(printable(problem))
        for note in notes:
            terminal.print(note)
        if not problems:
            terminal.print(f"The chain of {len(chain.certificates)} certificates is whole.")
    return 1 if problems else 0


def _wanted(chain: Chain, plan_id: str | None) -> Certificate | None:
    if plan_id is not None:
        return chain.of(plan_id)
    return chain.certificates[-1] if chain.certificates else None


def _nothing_found(home: Home, plan_id: str | None) -> str:
    """Why there is nothing to show."""
    if plan_id is None:
        return "There is no certificate yet: one is written when a night has its verdict."
    night = home.book.night(plan_id) if home.has_book else None
    if night is None:
        return f"There is no night {plan_id}."
    if night.verdict is None:
        return f"Night {plan_id} has no verdict yet, and so no certificate."
    return f"Night {plan_id} has its verdict ({night.verdict.value}), and its certificate is not here."


def _notes(certificates: Sequence[Certificate], keys: Sequence[Secret]) -> list[str]:
    """What the check could not look at."""
    signed = sum(c.signature is not None for c in certificates)
    if signed and not keys:
        return [f"The signatures of {signed} certificates were not checked: SYNC_CERTIFICATE_KEY is not set."]
    if keys and signed < len(certificates):
        return [f"{len(certificates) - signed} of {len(certificates)} certificates have no signature."]
    return []
