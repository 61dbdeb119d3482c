"""Verdicts: what became of one reading, of one case, and of all; and the exit status that they amount to.

A gain of speed counts only where quality is not inferior, and one of quality only at no higher cost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["pass", "improvement", "regression", "inconclusive"]
Tier = Literal["exact", "speed", "quality", "run"]
FINE = ("pass", "improvement")
RENEW = "if that is meant, gate.update=true writes it down"


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


@dataclass(frozen=True)
class Cell:
    """A case with its verdicts."""

    case: str
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        return worst(self.verdicts)


def cells(verdicts: Iterable[Verdict]) -> list[Cell]:
    """Verdicts by case, in the order of first appearance; the exact tier's cases bear no device and join theirs."""
    found: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda one: one.tier == "exact"):
        case = next((known for known in found if known.startswith(f"{verdict.case} ")), verdict.case)
        found.setdefault(case, []).append(verdict)
    return [Cell(case, tuple(given)) for case, given in found.items()]


def weighed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The same verdicts, gains held to what they cost."""
    return [_weighed(verdict, cell) for cell in cells(verdicts) for verdict in cell.verdicts]


def _weighed(verdict: Verdict, cell: Cell) -> Verdict:
    if verdict.outcome != "improvement":
        return verdict
    quality = [one for one in cell.verdicts if one.tier == "quality"]
    costs = [one for one in cell.verdicts if one.tier in ("exact", "speed")]
    if verdict.tier == "speed":
        if quality and all(one.outcome in FINE for one in quality):
            return replace(verdict, reason=f"{verdict.reason}; quality is not inferior")
        why = "is not known to be as good" if quality else "was not compared"
        return replace(verdict, outcome="pass", reason=f"{verdict.reason}; no gain: quality {why}")
    if costs and all(one.outcome in FINE for one in costs):
        return replace(verdict, reason=f"{verdict.reason}; at no higher cost")
    dear = "; ".join(one.reason for one in costs if one.outcome not in FINE)
    why = f"it costs: {dear}" if costs else "costs were not compared"
    return replace(verdict, outcome="pass", reason=f"{verdict.reason}; no gain: {why}")
