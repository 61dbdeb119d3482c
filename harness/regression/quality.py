"""The quality tier: a score beside the stored one, image by image of the same prompts and seeds.

A score passes if the upper end of its loss lies within the margin, is a regression if the lower end does not, and is
inconclusive between. A gain beyond the margin is asked about as well, since with nothing changed (metric `ingredients`)
a score has no reason to rise.
"""

import math
from collections.abc import Mapping

from harness.records.comparison import enough, paired_half_width
from harness.records.record import Reading
from harness.regression.verdict import RENEW, Verdict, several


def score(case: str, now: Reading, then: Reading, share: float, changed: Mapping[str, str] | None) -> Verdict:
    """Non-inferiority of one score, paired where the raw values allow it. changed: ingredients, and how, if known."""
    given, expected = value_of(now), value_of(then)
    sign = 1 if now.better == "lower" else -1
    loss, margin = sign * (given - expected) + 0.0, share * abs(expected)
    paired = paired_half_width(now, then)
    half = math.hypot(_half_width(now), _half_width(then)) if paired is None else paired
    told = (
        f"{now.name} is {given:.4g}, the baseline {expected:.4g}: a loss of {loss:.3g} "
        f"({loss - half:.3g} to {loss + half:.3g}), margin {margin:.3g}"
    )

    def verdict(outcome: str, why: str = "", decide: str = "") -> Verdict:
        return Verdict(now.name, case, outcome, given, expected, told + why, "quality", decide)  # type: ignore[arg-type]

    if loss - half > margin:
        return verdict("regression", f"; {causes(changed)}")
    if loss + half < -margin:
        if changed:
            return verdict("improvement", f"; {causes(changed)}")
        return verdict("inconclusive", f"; it is better by surprise, and {causes(changed)}", RENEW)
    if (loss if paired is None else loss + half) <= margin:
        return verdict("pass")
    more = f"about {enough(now.n, half, margin - loss):,} images would tell" if loss < margin else ""
    return verdict("inconclusive", f"; {more}" if more else "", more or "more images: n=")


def ingredients(case: str, now: Reading, then: Reading) -> list[Verdict]:
    """One verdict: inconclusive, so that somebody is asked, where the scores are made of something else than before."""
    changed = changes(now, then)
    if not changed:
        return [Verdict(now.name, case, "pass", None, None, "made of the same", "quality")]
    return [Verdict(now.name, case, "inconclusive", None, None, causes(changed), "quality", RENEW)]


def changes(now: Reading | None, then: Reading | None) -> dict[str, str] | None:
    """How each ingredient differs; None where one side does not say what it was made of.

    Of ingredients told site by site, the differing sites are counted, and the first one's difference is told.
    """
    if now is None or then is None:
        return None
    changed = {}
    for name in _differing(then.details, now.details):
        old, new, where = then.details.get(name), now.details.get(name), ""
        if isinstance(old or new, Mapping):
            old, new = old or {}, new or {}
            sites = _differing(old, new)
            old, new, where = old.get(sites[0]), new.get(sites[0]), f" at {several(sites)}"
        changed[name + where] = f"{old or 'unknown'} -> {new or 'unknown'}"
    return changed


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def causes(changed: Mapping[str, str] | None) -> str:
    """What changed, in words."""
    if changed is None:
        return "the metric ingredients, which one side lacks, would say whether weights, sampler or extractors changed"
    if not changed:
        return "of weights, sampler and extractors nothing changed, so it is the code"
    return "; ".join(f"{name} changed ({how})" for name, how in changed.items())


def value_of(reading: Reading) -> float:
    """The number of a reading of a baseline, which keeps no dashes."""
    assert reading.value is not None, "a baseline keeps no dashes"
    return reading.value


def _half_width(reading: Reading) -> float:
    return 0.0 if reading.low is None or reading.high is None else (reading.high - reading.low) / 2
