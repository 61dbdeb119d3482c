"""Verdicts: what became of one reading, of one case, and of all; and the exit status that they amount to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "improvement", "regression", "inconclusive"]
Tier = Literal["exact", "speed", "quality", "run"]


@dataclass(frozen=True)
class Verdict:
    """What became of one reading of one case: what the run gave, what was expected, why so judged.

    decide: what would decide an inconclusive one. tier: which part of the gate judged.
    """

    name: str
    case: str
    outcome: Outcome
    given: float | None
    expected: float | None
    reason: str
    tier: Tier = "run"
    decide: str = ""

    @property
    def told(self) -> str:
        """The reason, and what would decide where that is another thing."""
        more = self.decide if self.decide not in self.reason else ""
        return f"{self.reason}; what would decide: {more}" if more else self.reason


def worst(verdicts: Sequence[Verdict]) -> Outcome:
    """One outcome for several: a regression outweighs what is inconclusive, that an improvement, that a pass."""
    outcomes = {verdict.outcome for verdict in verdicts}
    order: tuple[Outcome, ...] = ("regression", "inconclusive", "improvement")
    return next((outcome for outcome in order if outcome in outcomes), "pass")


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """0 if nothing is worse, 1 if there is a regression, else 3."""
    return {"regression": 1, "inconclusive": 3}.get(worst(verdicts), 0)


def several(sites: Sequence[str]) -> str:
    """The first of them, and how many more."""
    return sites[0] if len(sites) == 1 else f"{sites[0]} and {len(sites) - 1} more"
