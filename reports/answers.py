"""The first screen in words: for each model what its variants save and lose, each phrase with its number.

Phrases rest on ratios that were counted or taken in alternation, on laws that are trusted, and on differences of scores
after correction. What was disturbed, or is open, is said to be so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.records.case import Resolution
from harness.records.units import ratio, spoken
from reports.compare import REFERENCE, Group, GroupKey, Series, series_order
from reports.crossings import compared
from reports.findings import Brief, Finding
from reports.law_tables import side, where
from reports.laws import Fit
from reports.ratios import CostRatio, Ratios

Laws = Mapping[GroupKey, Mapping[Series, Fit]]
THINGS = {"image_latency": "an image", "flops_image": "an image", "mixers_latency": "all mixers of a call"}
SPEED = ("latency", "image_latency", "mixers_latency")
COUNTED = ("flops", "flops_image", "layer_flops")
"""What is told of a price: the first of these that was taken."""


@dataclass(frozen=True)
class Line:
    """What is said of one variant: `saves` and `loses`, phrases without a subject."""

    series: Series
    saves: str
    loses: str
    crossing: str
    ratio: CostRatio | None
    finding: Finding | None

    @property
    def text(self) -> str:
        """All of it, in one sentence."""
        told = "; ".join(part for part in (self.saves, self.crossing, self.loses) if part)
        return f"{self.series.label}: {told}." if told else f"{self.series.label}: nothing was taken of it."


@dataclass(frozen=True)
class Answer:
    """A model in one sentence, and its variants in one each. size: the one that decides, where images were judged."""

    sentence: str
    lines: tuple[Line, ...]
    size: Resolution | None


def answer(model: str, own: Sequence[Group], briefs: Sequence[Brief], laws: Laws) -> Answer:
    """What is to be said of one model's groups."""
    judged = [brief for brief in briefs if brief.n]
    sound = [brief for brief in judged if not brief.refused]
    deciding = (sound or judged)[-1] if judged else None
    ratios = Ratios(own)
    names = {s.at_any_weights for group in own for s in group.series if s.variant != REFERENCE}
    lines = tuple(_line(series, own, deciding, laws, ratios) for series in sorted(names, key=series_order))
    sentence = _sentence(model, lines, deciding) if own else f"{model}: no cost and no score was taken."
    return Answer(sentence, lines, deciding.resolution if deciding else None)


def _line(series: Series, own: Sequence[Group], deciding: Brief | None, laws: Laws, ratios: Ratios) -> Line:
    found = next((row for row in deciding.rows if row.series.at_any_weights == series), None) if deciding else None
    saves, used = _saves(series, own, ratios)
    loses = beside_the_teacher(deciding, found) if deciding and found and found.differences else ""
    return Line(series, saves, loses, _crossing(series, own, laws), used, found)


def _saves(series: Series, own: Sequence[Group], ratios: Ratios) -> tuple[str, CostRatio | None]:
    """What a call costs at the largest size at which that is known: in time, or else in FLOPs."""
    doubtful = ""
    for tell, names in ((_faster, SPEED), (_fewer, COUNTED)):
        for group, size, one in _ranked(series, own, ratios, names):
            if one.firm:
                told = tell(one, THINGS.get(group.name, "a call"), str(size))
                return f"{told}{doubtful}", one
            why = "a timing bears ⚠ in the tables" if one.disturbed else "it was timed apart from the teacher"
            doubtful = doubtful or f" (how much time it takes at {size} px is open: {why})"
    return doubtful.strip(" ()"), None


def _ranked(
    series: Series, own: Sequence[Group], ratios: Ratios, names: Sequence[str]
) -> Iterator[tuple[Group, Resolution, CostRatio]]:
    """Ratios of those readings, the largest sizes first."""
    for group in sorted((g for g in own if g.name in names), key=lambda g: names.index(g.name)):
        for size in sorted({p.case.resolution for p in group.points}, reverse=True):
            one = ratios.of(group, series, size)
            if one is not None:
                yield group, size, one


def _faster(one: CostRatio, thing: str, size: str) -> str:
    ends = f" ({ratio(one.low)} to {ratio(one.high)} of the teacher's time)" if one.low and one.high else ""
    if not one.apart:
        return f"at {size} px {thing} takes as long as the teacher's{ends}"
    if 0.5 < one.value < 2:
        return f"at {size} px {thing} takes {many(one.value)} {'less' if one.value < 1 else 'more'} time{ends}"
    return f"at {size} px {thing} is {many(one.value)} {'faster' if one.value < 1 else 'slower'}{ends}"


def _fewer(one: CostRatio, thing: str, size: str) -> str:
    if round(one.value, 3) == 1:
        return f"at {size} px {thing} does as many FLOPs"
    return f"at {size} px {thing} does {many(one.value)} {'fewer' if one.value < 1 else 'more'} FLOPs"


def many(value: float) -> str:
    """`7.4 times`, whichever way round; `12 %` where it is little."""
    size = value if value > 1 else 1 / value
    if size < 2:
        return f"{100 * abs(value - 1):.0f} %"
    return f"{size:,.0f} times" if size >= 10 else f"{size:.1f} times"


def _crossing(series: Series, own: Sequence[Group], laws: Laws) -> str:
    """From which size on it is cheaper, by a law that is trusted and ends that are known."""
    for name, unit in (("latency", "faster"), ("flops", "cheaper in FLOPs")):
        for fits in (laws.get(group.key, {}) for group in own if group.name == name):
            mine, reference = fits.get(series), fits.get(Series(REFERENCE))
            seen = compared(mine, reference) if mine and reference else None
            if seen is None or len(seen.crossings) != 1:
                continue
            (crossing,) = seen.crossings
            if crossing.low and math.isfinite(crossing.high):
                wide = crossing.high > 1.001 * crossing.low
                ends = f" ({side(crossing.low)} to {side(crossing.high)})" if wide else ""
                told = f"{where(seen, True)}{' on' if crossing.cheaper else ''}"
                return f"{told} it is {unit}{ends}"
    return ""


def beside_the_teacher(deciding: Brief, found: Finding) -> str:
    """What becomes of its images, in words."""
    size = f"at {deciding.resolution} px"
    n = f"n = {deciding.n:,}"
    if deciding.refused:
        return f"{size} its images have no verdict, {deciding.refused}"
    worse, undecided = found.judged("fail"), found.judged("inconclusive")
    told = ", ".join(one.text for one in found.differences if one.real or spoken(one.name) in undecided)
    if worse:
        how = f"are inferior to the teacher's in {', '.join(worse)}"
    elif undecided:
        how = f"may be inferior to the teacher's in {', '.join(undecided)}"
    elif not told:
        how = "are not told apart from the teacher's" + ", nor inferior" * found.not_inferior
    elif found.not_inferior:
        how = "are not inferior to the teacher's"
    else:
        how = f"{'lose' if found.lost else 'gain'} against the teacher's"
    return f"{size} its images {how}{f': {told}' if told else ''}, {n}"


def _sentence(model: str, lines: Sequence[Line], deciding: Brief | None) -> str:
    """The variant that saves most of those whose images stand in for the teacher's, or else of all."""
    fast = [line for line in lines if line.ratio is not None and line.ratio.apart and line.ratio.value < 1]
    whole = [line for line in fast if line.finding and line.finding.stands_in and deciding]
    if not lines:
        return f"{model}: only {REFERENCE} was taken, so there is nothing to compare."
    if not any(line.ratio or line.saves for line in lines):
        return f"{model}: what its variants cost was not taken here (metrics=[flops,latency] takes it)."
    if not fast:
        return f"{model}: no variant is shown to cost less than {REFERENCE}."
    chosen = min(whole or fast, key=lambda line: line.ratio.value if line.ratio else math.inf)
    which = "of those whose images stand in for the teacher's, it saves most" if whole else "nothing saves more"
    told = "; ".join(part for part in (chosen.saves, chosen.crossing, chosen.loses) if part)
    return f"{model} with {chosen.series.label}: {told}{f' ({which})' if len(fast) > 1 else ''}."
