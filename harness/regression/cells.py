"""One verdict a case: a gain of speed counts only where quality is not inferior, one of quality beside its cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.regression.verdict import Outcome, Verdict, worst

FINE = ("pass", "improvement")


@dataclass(frozen=True)
class Cell:
    """A case with its verdicts and what they amount to."""

    case: str
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of them."""
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
    why = (
        "costs were not compared"
        if not costs
        else "it costs: " + "; ".join(one.reason for one in costs if one.outcome not in FINE)
    )
    return replace(verdict, outcome="pass", reason=f"{verdict.reason}; no gain: {why}")
