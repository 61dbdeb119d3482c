"""How one score of a variant differs from its teacher's, and whether it is worse by its margin; in words too."""

from dataclasses import dataclass

from harness.records.comparison import NonInferiority
from harness.records.statistics import Estimate
from harness.records.units import human, spoken

TOO_MANY = 100_000
"""Images that nobody makes to settle one difference."""


@dataclass(frozen=True)
class Difference:
    """A score less that of the reference; `real`: told apart from nothing, after correction for their number.

    margin: by how much it may be worse; margin_is: what that is made of; verdict: whether it is worse, after the same
    correction; None without a margin.
    """

    name: str
    unit: str
    better: str
    n: int
    estimate: Estimate
    real: bool = False
    margin: float | None = None
    margin_is: str = ""
    verdict: NonInferiority | None = None

    @property
    def is_loss(self) -> bool:
        """Whether the variant is worse."""
        return self.real and (self.estimate.value < 0) == (self.better == "higher")

    @property
    def is_gain(self) -> bool:
        """Whether the variant is better."""
        return self.real and not self.is_loss

    @property
    def text(self) -> str:
        """`CLIP score −1.2 (−1.4 to −1.0)`."""
        told = f"{spoken(self.name)} {with_ends(self.estimate, self.unit)}"
        return f"{told}, {self.judged}" if self.verdict else told

    @property
    def judged(self) -> str:
        """`within its margin of 1.8`, `beyond` it, or how many images would tell."""
        if self.verdict is None or self.margin is None:
            return ""
        margin = f"its margin of {signed(self.margin, self.unit).removeprefix('+')}"
        if self.verdict.outcome != "inconclusive":
            return f"{'within' if self.verdict.outcome == 'pass' else 'beyond'} {margin}"
        needed = self.verdict.needed or 0
        return f"open against {margin}" + (f", about {needed:,} images would tell" if 0 < needed < TOO_MANY else "")


def signed(value: float, unit: str) -> str:
    """A difference in words; of shares it is in percentage points."""
    points = f"{100 * abs(value):.2g}"
    size = f"{points} point{'s' * (points != '1')}" if unit == "share" else human(abs(value), unit, 2)
    return ("+" if value > 0 else "−" if value < 0 else "") + size


def with_ends(estimate: Estimate, unit: str) -> str:
    """A difference with its interval, `−1.2 (−1.4 to −1.0)`; a thousandth of the interval's half is nothing."""
    nothing = (estimate.high - estimate.low) / 2000
    three = (estimate.value, estimate.low, estimate.high)
    value, low, high = (signed(0.0 if abs(number) < nothing else number, unit) for number in three)
    return f"{value} ({low.partition(' point')[0]} to {high.partition(' point')[0]})"
