"""By how much a student may be worse than its teacher: the margin of a verdict of non-inferiority.

The defaults are what a student must keep to stand in for its teacher: attributes within one point, a CLIP score of at
least 0.99 of the teacher's, an FDD of at most 1.10 of the teacher's and its interval, a DS of at least 0.95.
"""

from dataclasses import dataclass, replace

from harness.records.case import BadInput
from harness.records.record import Reading


@dataclass(frozen=True)
class Margin:
    """The sum of a share of the teacher's value, so many points (hundredths of 1), and half-widths of its interval."""

    share: float = 0.0
    points: float = 0.0
    half_widths: float = 0.0

    def __post_init__(self) -> None:
        """Raise BadInput for a part below zero."""
        for name, value in vars(self).items():
            if value < 0:
                raise BadInput(f"margin.{name}={value} is not possible: give a number of at least 0")

    def beside(self, reading: Reading) -> Reading:
        """The same with two more details: `margin`, were it the teacher's, and what that is made of (`margin_is`)."""
        if reading.value is None:
            return reading
        half = 0.0 if reading.low is None or reading.high is None else (reading.high - reading.low) / 2
        margin = self.share * abs(reading.value) + self.points / 100 + self.half_widths * half
        return replace(reading, details=reading.details | {"margin": margin, "margin_is": self._in_words()})

    def _in_words(self) -> str:
        """`10 % of the teacher's and 1 half-width of its interval`."""
        parts = {
            f"{100 * self.share:g} % of the teacher's": self.share,
            f"{self.points:g} point{'s' * (self.points != 1)}": self.points,
            f"{self.half_widths:g} half-width{'s' * (self.half_widths != 1)} of its interval": self.half_widths,
        }
        return " and ".join(words for words, value in parts.items() if value)
