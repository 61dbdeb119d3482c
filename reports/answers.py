"""The first screen in words: for each model what its variants save and lose, each phrase with its number.

Phrases rest on ratios that were counted or taken in alternation, on laws that are trusted, and on differences of scores
after correction. What was disturbed, or is open, is said to be so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.records.case import Resolution
from harness.records.units import ratio
from reports.compare import REFERENCE, Group, GroupKey, Series, series_order
from reports.crossings import compared
from reports.findings import Brief, Finding, has_teacher
from reports.law_tables import side, where
from reports.laws import Fit
from reports.ratios import CostRatio, Ratios

Laws = Mapping[GroupKey, Mapping[Series, Fit]]
THINGS = {"image_latency": "an image", "flops_image": "an image", "mixers_latency": "all mixers of a call"}
SPEED = ("latency", "image_latency", "mixers_latency")
COUNTED = ("flops", "flops_image", "layer_flops")
"""What is told of a price: the first of these that was taken."""
TAKES_COST = "metrics=[flops,latency] takes it"


@dataclass(frozen=True)
class Line:
    """What is said of one variant: `saves` and `loses`, phrases without a subject; `doubt`: a time left open."""

    series: Series
    saves: str
    loses: str
    crossing: str
    ratio: CostRatio | None
    finding: Finding | None
    doubt: str

    @property
    def told(self) -> str:
        """All of it, without a subject."""
        return "; ".join(part for part in (self.saves, self.crossing, self.loses) if part)

    @property
    def text(self) -> str:
        """All of it, in one sentence."""
        return f"{self.series.label}: {self.told or 'nothing was taken of it'}."


@dataclass(frozen=True)
class Answer:
    """A model in one sentence, and its other variants in one each.

    doubts: which times are left open, and why; size: the one that decides, where images were judged.
    """

    sentence: str
    lines: tuple[Line, ...]
    doubts: tuple[str, ...]
    size: Resolution | None

    @property
    def told(self) -> tuple[str, ...]:
        """All that follows the sentence."""
        return (*(line.text for line in self.lines), *self.doubts)


def answer(model: str, own: Sequence[Group], briefs: Sequence[Brief], laws: Laws, learnt: Sequence[str] = ()) -> Answer:
    """What is to be said of one model's groups; `learnt`, of how its students learn, where no cost was taken."""
    if not own:
        return Answer(f"{model}: no cost and no score was taken.", (), (), None)
    if not has_teacher(own):
        remedy = f"variants=[{REFERENCE},...] takes it"
        lacks = f"{REFERENCE} was not taken here, so there is nothing to compare with ({remedy})."
        return Answer(_or_learnt(model, lacks, learnt), (), (), None)
    judged = [brief for brief in briefs if brief.n]
    sound = [brief for brief in judged if not brief.refused]
    deciding = (sound or judged)[-1] if judged else None
    ratios = Ratios(own)
    names = {s.at_any_weights for group in own for s in group.series if s.variant != REFERENCE}
    lines = tuple(_line(series, own, deciding, laws, ratios) for series in sorted(names, key=series_order))
    sentence, chosen = _sentence(model, lines, deciding, learnt)
    others = tuple(line for line in lines if line is not chosen)
    doubts = tuple(dict.fromkeys([*(line.doubt for line in lines if line.doubt), *_unpriced(lines)]))
    return Answer(sentence, others, doubts, deciding.resolution if deciding else None)


def _line(series: Series, own: Sequence[Group], deciding: Brief | None, laws: Laws, ratios: Ratios) -> Line:
    found = next((row for row in deciding.rows if row.series.at_any_weights == series), None) if deciding else None
    saves, used, doubt = _saves(series, own, ratios)
    loses = beside_the_teacher(deciding, found) if deciding and found and found.differences else ""
    return Line(series, saves, loses, _crossing(series, own, laws), used, found, doubt)


def _saves(series: Series, own: Sequence[Group], ratios: Ratios) -> tuple[str, CostRatio | None, str]:
    """What a call costs at the largest size at which that is known, in time or else in FLOPs; and what is left open."""
    doubt = ""
    for tell, names in ((_faster, SPEED), (_fewer, COUNTED)):
        for group, size, one in _ranked(series, own, ratios, names):
            if one.firm:
                return tell(one, THINGS.get(group.name, "a call"), str(size)), one, doubt
            why = "a timing bears ⚠ in the tables" if one.disturbed else "timed apart from the teacher"
            doubt = doubt or f"Time at {size} px is left open: {why}."
    return "", None, doubt


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
    ends = f" ({ratio(one.low)} to {ratio(one.high)})" if one.low and one.high else ""
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
    if deciding.refused:
        return f"{size} its images have no verdict, {deciding.refused}"
    doubted = [one for one in found.differences if one.verdict and one.verdict.outcome != "pass"]
    told = ", ".join(one.text for one in found.differences if one.real or one in doubted)
    if found.judged("fail"):
        how = "are inferior to the teacher's"
    elif doubted:
        how = "may be inferior to the teacher's"
    elif not told:
        how = "are not told apart from the teacher's" + ", nor inferior" * found.not_inferior
    elif found.not_inferior:
        how = "are not inferior to the teacher's"
    else:
        how = f"{'lose' if found.lost else 'gain'} against the teacher's"
    return f"{size} (n = {found.n:,}) its images {how}{f': {told}' if told else ''}"


def _sentence(
    model: str, lines: Sequence[Line], deciding: Brief | None, learnt: Sequence[str]
) -> tuple[str, Line | None]:
    """The variant that saves most of those whose images stand in for the teacher's, or else of all; and its line."""
    fast = [line for line in lines if line.ratio is not None and line.ratio.apart and line.ratio.value < 1]
    whole = [line for line in fast if line.finding and line.finding.stands_in and deciding]
    if not lines:
        return f"{model}: only {REFERENCE} was taken, so there is nothing to compare.", None
    if not any(line.ratio or line.saves for line in lines):
        no_cost = f"what its variants cost was not taken here ({TAKES_COST})."
        return _or_learnt(model, no_cost, learnt), None
    if not fast:
        return f"{model}: no variant is shown to cost less than {REFERENCE}.", None
    chosen = min(whole or fast, key=lambda line: line.ratio.value if line.ratio else math.inf)
    among = " of those whose images stand in for the teacher's" if whole else ""
    most = f"saves most{among}" if len(fast) > 1 else "is cheaper"
    open_yet = ", though no variant's images are shown to stand in for the teacher's" if deciding and not whole else ""
    return f"{model}: {chosen.series.label} {most}{open_yet}. {chosen.told[:1].upper()}{chosen.told[1:]}.", chosen


def _unpriced(lines: Sequence[Line]) -> Iterator[str]:
    """Whose cost was not taken, where that of others was."""
    names = [line.series.label for line in lines if not (line.saves or line.doubt)]
    if 0 < len(names) < len(lines):
        yield f"The cost of {', '.join(names)} was not taken here ({TAKES_COST})."


def _or_learnt(model: str, lacks: str, learnt: Sequence[str]) -> str:
    """How its students learn, where that was taken; else what is missing."""
    told = " ".join(learnt) or lacks
    return f"{model}: {told[:1].lower()}{told[1:]}"
