"""What a variant costs over its teacher: one ratio, the same in the page, its files and the tracker.

What is counted has an exact quotient; a latency that was taken in alternation with the teacher's has that ratio. The
interval of a quotient of separate timings is widened by the drift of the teacher's own call, which every timed case
takes again, and nothing is concluded from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.records.case import Resolution
from harness.records.record import Reading
from reports.compare import REFERENCE, Group, Point, Series

COLD = "a single cold call"
Basis = Literal["counted", "alternation", "measured", "separate runs"]


@dataclass(frozen=True)
class CostRatio:
    """Cost of a variant over the reference's. low, high: None where the interval is not known. disturbed: by what,
    while one of the two was measured.
    """

    value: float
    low: float | None
    high: float | None
    basis: Basis
    disturbed: str = ""

    @property
    def firm(self) -> bool:
        """Whether something may be concluded from it."""
        return self.basis != "separate runs" and not self.disturbed

    @property
    def apart(self) -> bool:
        """Whether it is firm, and its whole interval lies on one side of equality, by more than a display shows."""
        low, high = self.value if self.low is None else self.low, self.value if self.high is None else self.high
        return self.firm and (low > 1 or high < 1) and round(self.value, 2) != 1


def disturbance(reading: Reading) -> str:
    """Why a number is not to be relied upon: other work on the machine, or a single cold call; empty where it is."""
    noisy = reading.details.get("noisy")
    if isinstance(noisy, str) and noisy:
        return noisy
    if reading.unit == "ms" and reading.details.get("warm_up_calls") == 0:
        return COLD
    return ""


def is_counted(reading: Reading) -> bool:
    """Whether it was computed and not measured: exact, on any machine."""
    return reading.unit in ("FLOP", "parameter") or reading.name.startswith("projected_")


class Ratios:
    """The cost ratios of one model's groups."""

    def __init__(self, own: Sequence[Group]) -> None:
        self._alternated = {(g.name.removesuffix("_ratio"), g.settings): g for g in own if g.name.endswith("_ratio")}
        self._drifts = {group.key: _drifts(group) for group in own if group.unit == "ms"}
        self._worst = max((drift for found in self._drifts.values() for drift in found.values()), default=None)

    def of(self, group: Group, series: Series, size: Resolution) -> CostRatio | None:
        """Of a group's cost at a size; None where one of the two has no number, or is no base for a ratio."""
        points = group.at(size)
        mine, reference = points.get(series), points.get(Series(REFERENCE)) or _only_reference(points)
        if series.variant == REFERENCE or mine is None or mine.reading.value is None:
            return None
        if group.name.endswith("_ratio"):
            return _alternated(mine.reading)
        beside = self._alternated.get((group.name, group.settings))
        taken = beside.at(size).get(series) if beside else None
        if taken is not None and taken.reading.value:
            return _alternated(taken.reading)
        if reference is None or not reference.reading.value or disturbance(reference.reading) == COLD:
            return None
        return self._quotient(group, mine.reading, reference.reading, size)

    def _quotient(self, group: Group, mine: Reading, other: Reading, size: Resolution) -> CostRatio:
        value = float(mine.value or 0) / float(other.value or 1)
        if is_counted(mine):
            return CostRatio(value, None, None, "counted")
        low, high = _ends(mine, other)
        disturbed = disturbance(mine) or disturbance(other)
        if group.unit != "ms":
            return CostRatio(value, low, high, "measured", disturbed)
        drift = self._drifts.get(group.key, {}).get(size, self._worst)
        if drift is None or low is None or high is None:
            return CostRatio(value, None, None, "separate runs", disturbed)
        return CostRatio(value, low / drift, high * drift, "separate runs", disturbed)


def _only_reference(points: dict[Series, Point]) -> Point | None:
    """The teacher, where it is told apart from another of its name."""
    found = [point for series, point in points.items() if series.variant == REFERENCE]
    return found[0] if len(found) == 1 else None


def _alternated(reading: Reading) -> CostRatio:
    return CostRatio(float(reading.value or 0), reading.low, reading.high, "alternation", disturbance(reading))


def _ends(mine: Reading, other: Reading) -> tuple[float | None, float | None]:
    """Ends of a quotient: no narrower than a paired one, and of nothing but what the records hold."""
    if mine.low is None or mine.high is None or not other.low or not other.high:
        return None, None
    return mine.low / other.high, mine.high / other.low


def _drifts(group: Group) -> dict[Resolution, float]:
    """By how much the teacher's own call moved between the cases of each size, as a factor of at least one."""
    paces: dict[Resolution, list[float]] = {}
    for point in group.points:
        teacher = point.reading.details.get("teacher")
        pace = teacher.get("median") if isinstance(teacher, dict) else None
        if isinstance(pace, int | float) and pace > 0:
            paces.setdefault(point.case.resolution, []).append(float(pace))
    return {size: max(found) / min(found) for size, found in paces.items() if len(found) > 1}
