"""In short: what every variant saves and what it loses against self-attention, said as far as intervals carry.

Scores of the same prompts and seeds are compared in pairs. A score is lost, or gained, where the difference from the
teacher is real after Holm's correction for all differences of the model; otherwise more images may tell. Where the
teacher itself does not work at a size, there is no verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.records.case import Resolution
from harness.records.comparison import NonInferiority, Outcome, difference, non_inferiority, told_apart
from harness.records.units import human, ratio, spoken
from reports.compare import REFERENCE, Group, Point, Series
from reports.differences import Difference
from reports.ratios import CostRatio, Ratios

COSTS = (("latency", "image_latency"), ("flops", "flops_image"), ("peak_memory", "projected_memory"))
"""What is told of the price: the first of each that has a ratio."""
ENOUGH = 500
NEAR_REAL = 0.75
"""Share of the real images' score that a working teacher reaches; where only chance is known, half the way from it."""


@dataclass(frozen=True)
class Finding:
    """One variant at one size: how its scores differ, and the ratios of its costs by reading."""

    series: Series
    differences: tuple[Difference, ...]
    ratios: Mapping[str, CostRatio]
    refused: str = ""

    @property
    def n(self) -> int:
        """Images of its scores; some scores look at fewer."""
        return max((one.n for one in self.differences), default=0)

    @property
    def lost(self) -> list[str]:
        """Scores that are worse."""
        return [spoken(one.name) for one in self.differences if one.is_loss and not self.refused]

    @property
    def gained(self) -> list[str]:
        """Scores that are better."""
        return [spoken(one.name) for one in self.differences if one.is_gain and not self.refused]

    def judged(self, outcome: Outcome) -> list[str]:
        """Scores of which the verdict of non-inferiority is this."""
        return [spoken(one.name) for one in self.differences if one.verdict and one.verdict.outcome == outcome]

    @property
    def not_inferior(self) -> bool:
        """Whether every score that has a margin is shown to lie within it."""
        return bool(self.judged("pass")) and not self.judged("fail") and not self.judged("inconclusive")

    @property
    def stands_in(self) -> bool:
        """Whether its images are as good as the teacher's, by margins where there are some."""
        has_margins = any(one.verdict for one in self.differences)
        return self.not_inferior if has_margins else bool(self.differences) and not self.lost

    @property
    def inferiority(self) -> str:
        """`not inferior`, `inferior in FDD`, or what is open; nothing where no score has a margin."""
        if failed := self.judged("fail"):
            return f"inferior in {', '.join(failed)}"
        if self.not_inferior:
            return "not inferior"
        undecided = self.judged("inconclusive")
        return f"open in {', '.join(undecided)}" if undecided else ""

    @property
    def verdict(self) -> str:
        """`not inferior; loses CLIP score and gains FDD`."""
        if self.refused and self.differences:
            return "no verdict"
        told = [f"{verb} {', '.join(names)}" for verb, names in (("loses", self.lost), ("gains", self.gained)) if names]
        apart = " and ".join(told) or ("not told apart" if self.differences else "no scores taken")
        return "; ".join(part for part in (self.inferiority, apart) if part)

    @property
    def tone(self) -> str:
        """How the verdict is coloured: a loss within its margin is none."""
        held = self.judged("pass")
        if self.judged("fail") or any(name not in held for name in self.lost):
            return "worse"
        return "better" if self.gained and not self.lost else ""

    @property
    def open(self) -> bool:
        """Whether more images may tell."""
        return bool(self.judged("inconclusive")) or not (self.inferiority or self.lost or self.gained)

    @property
    def scores(self) -> tuple[str, ...]:
        """The differences in words, each with what its margin is made of."""
        return tuple(one.text + f" ({one.margin_is})" * bool(one.judged and one.margin_is) for one in self.differences)

    @property
    def costs(self) -> tuple[str, ...]:
        """The ratios in words."""
        return tuple(f"{spoken(name)} {said(one)}" for name, one in self.ratios.items())


@dataclass(frozen=True)
class Brief:
    """A model at one size. refused: why there is no verdict; n: images of its scores; open: more images may tell."""

    model: str
    resolution: Resolution
    rows: tuple[Finding, ...]
    refused: str
    n: int
    open: bool

    @property
    def images(self) -> str:
        """`200`, or `60 to 200` where its variants were judged by unlike numbers of images."""
        ends = sorted(row.n for row in self.rows if row.n) or [self.n]
        return " to ".join(f"{n:,}" for n in dict.fromkeys((ends[0], ends[-1])))


def said(one: CostRatio) -> str:
    """`0.75× (0.70 to 0.81, of separate runs)`."""
    ends = "" if one.low is None or one.high is None else f"{ratio(one.low)} to {ratio(one.high)}"
    notes = [ends, "of separate runs" if one.basis == "separate runs" else "", "disturbed" if one.disturbed else ""]
    told = ", ".join(note for note in notes if note)
    return f"{ratio(one.value)}{f' ({told})' if told else ''}"


def briefs(own: Sequence[Group]) -> list[Brief]:
    """Of one model's groups: every size with scores, or else the largest with costs; none without the teacher."""
    if not has_teacher(own):
        return []
    scored = [group for group in own if not group.is_cost and group.better != "neither"]
    sizes = _sizes(scored) or _sizes(own)[-1:]
    ratios = Ratios(own)
    made = [_brief(own, scored, size, ratios) for size in sizes]
    return [brief for brief in _corrected(made) if brief.rows]


def has_teacher(own: Iterable[Group]) -> bool:
    """Whether anything was taken of the model as it is."""
    return any(series.variant == REFERENCE for group in own for series in group.series)


def teacher_fails(scored: Iterable[Group], size: Resolution) -> str:
    """Why the teacher's images say nothing at a size; empty where they do, or where nothing tells."""
    for group in scored:
        teacher = _reference(group, size)
        if teacher is None or teacher.reading.value is None:
            continue
        reading, value = teacher.reading, teacher.reading.value
        if doubt := reading.details.get("untrusted"):
            return f"{spoken(group.name)} cannot be trusted at {size} px: {doubt}"
        real, chance = reading.detail("real"), reading.detail("chance")
        least = NEAR_REAL * real if real is not None else None if chance is None else (1 + chance) / 2
        if least is not None and value < least:
            shown = f"{spoken(group.name)} {human(value, group.unit, 3)}"
            return f"the teacher itself fails at {size} px: {shown}, and {human(least, group.unit, 3)} is what works"
    return ""


def _sizes(found: Sequence[Group]) -> list[Resolution]:
    taken = [point.record for group in found for point in group.points if point.reading.value is not None]
    return sorted({record.case.resolution for record in taken})


def _brief(own: Sequence[Group], scored: Sequence[Group], size: Resolution, ratios: Ratios) -> Brief:
    order = dict.fromkeys(series for group in scored or own for series in group.at(size))
    refused = teacher_fails(scored, size)
    rows = tuple(
        Finding(series, _differences(scored, series, size), _costs(own, series, size, ratios), refused)
        for series in order
        if series.variant != REFERENCE
    )
    taken = (point.reading for group in scored for point in group.at(size).values())
    n = max((reading.n for reading in taken if reading.value is not None), default=0)
    return Brief(own[0].model, size, rows, refused, n, open=False)


def _differences(scored: Sequence[Group], series: Series, size: Resolution) -> tuple[Difference, ...]:
    found = []
    for name in dict.fromkeys(group.name for group in scored):
        pair = _pair([group for group in scored if group.name == name], series, size)
        estimate = difference(pair[1].reading, pair[2].reading) if pair else None
        if pair and estimate:
            group, mine, other = pair
            margin, made_of = other.reading.detail("margin"), str(other.reading.details.get("margin_is", ""))
            found.append(
                Difference(name, group.unit, group.better, mine.reading.n, estimate, margin=margin, margin_is=made_of)
            )
    return tuple(found)


def _corrected(made: Sequence[Brief]) -> list[Brief]:
    """All differences of a model, told apart from nothing by Holm's rule over those where the teacher works."""
    tested = [one for brief in made if not brief.refused for row in brief.rows for one in row.differences]
    real = dict(zip(map(id, tested), told_apart([one.estimate for one in tested]), strict=True))
    verdicts = _verdicts(tested)
    corrected = []
    for brief in made:
        rows = tuple(
            replace(
                row,
                differences=tuple(
                    replace(one, real=real.get(id(one), False), verdict=verdicts.get(id(one)))
                    for one in row.differences
                ),
            )
            for row in brief.rows
        )
        is_open = any(row.differences and row.open for row in rows) and not brief.refused and brief.n < ENOUGH
        corrected.append(replace(brief, rows=rows, open=is_open))
    return corrected


def _verdicts(tested: Sequence[Difference]) -> dict[int, NonInferiority]:
    """Whether each is worse by its margin or more, corrected for all that have one."""
    held = [(one, one.margin) for one in tested if one.margin is not None]
    gains = [(one.estimate if one.better == "higher" else -one.estimate, margin, one.n) for one, margin in held]
    return {id(one): verdict for (one, _), verdict in zip(held, non_inferiority(gains), strict=True)}


def _costs(own: Sequence[Group], series: Series, size: Resolution, ratios: Ratios) -> dict[str, CostRatio]:
    told = {}
    for names in COSTS:
        ranked = sorted((group for group in own if group.name in names), key=lambda group: names.index(group.name))
        for group in ranked:
            found = ratios.of(group, series.at_any_weights, size)
            if found is not None:
                told[group.name] = found
                break
    return told


def _pair(same: Sequence[Group], series: Series, size: Resolution) -> tuple[Group, Point, Point] | None:
    """Of the groups in which both the variant and the reference have a number at a size: the one of most images."""
    found = []
    for group in same:
        points = group.at(size)
        mine = points.get(series) or points.get(series.at_any_weights)
        other = _reference(group, size)
        if mine and other and mine.reading.value is not None and other.reading.value is not None:
            found.append((group, mine, other))
    return max(found, key=lambda pair: pair[1].reading.n, default=None)


def _reference(group: Group, size: Resolution) -> Point | None:
    return next((point for series, point in group.at(size).items() if series.variant == REFERENCE), None)
