"""Rounds of a part: played until enough of them were quiet, and their medians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.machine import QUIET_SHARE, watched
from benchmarks.sheet import Sheet, medians

TRIES = 2
"""How many times the wanted rounds are played at most, to find enough that are quiet."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round gave, and the share of the machine that others used meanwhile; ``None`` where nobody can tell."""

    sheet: Sheet
    others: float | None

    @property
    def is_quiet(self) -> bool:
        return self.others is None or self.others <= QUIET_SHARE


@dataclass(frozen=True, slots=True)
class Rounds:
    """All rounds that were played, and how many were wanted."""

    played: Sequence[Round]
    wanted: int

    @property
    def counted(self) -> Sequence[Round]:
        """The quiet ones. When there are too few of them, the quietest of all, and the figures are not to be trusted."""
        quiet = [one for one in self.played if one.is_quiet]
        if len(quiet) >= self.wanted:
            return quiet
        return sorted(self.played, key=lambda one: one.others or 0.0)[: self.wanted]

    @property
    def is_quiet(self) -> bool:
        return all(one.is_quiet for one in self.counted)

    @property
    def sheet(self) -> Sheet:
        return medians([one.sheet for one in self.counted])


def played(play: Callable[[], Sheet], *, wanted: int, say: Callable[[str], None]) -> Rounds:
    """Plays until so many rounds were quiet, or twice as many were played."""
    rounds: list[Round] = []
    while sum(one.is_quiet for one in rounds) < wanted and len(rounds) < TRIES * wanted:
        with watched() as watch:
            sheet = play()
        rounds.append(Round(sheet, watch.others))
        told = "it cannot be told what others used" if watch.others is None else f"others used {watch.others:.0%}"
        say(f"round {len(rounds)}: {told}{'' if rounds[-1].is_quiet else ', so it is dropped'}")
    return Rounds(rounds, wanted)
