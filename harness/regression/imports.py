"""What importing costs, head against base: own time of the repository's modules, and of packages that are new.

`python -X importtime` tells the time of each module without those that it imports, so the slow one can be named. Judged
is the growth over the base's whole import time, of which at most `LONGEST_MS` count: a busy machine stretches it, and
not what a commit adds by waiting.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from harness.regression.decision import Rise, outcome_of, pairs_to_decide, rise_of
from harness.regression.verdict import Verdict

LONGEST_MS = 5000.0

Imported = Mapping[str, float]
"""Own milliseconds by module."""


def judge_imports(pairs: Sequence[tuple[Imported, Imported]], own: Sequence[str], tolerance: float) -> list[Verdict]:
    """One verdict; names the module whose own time grew most."""
    if not pairs:
        return []
    growths = [_growths(base, head, own) for base, head in pairs]
    wholes = [sum(base.values()) for base, _ in pairs]
    logs = [
        math.log1p(max(sum(grown.values()) / min(whole, LONGEST_MS), -0.9))
        for grown, whole in zip(growths, wholes, strict=True)
    ]
    rise, worst = rise_of(logs), _worst(growths)
    outcome = outcome_of(rise, tolerance)
    typical = statistics.median(wholes)
    than = "the base's time" if typical <= LONGEST_MS else f"5 s (the base takes {typical / 1e3:.0f} s)"
    told = f"importing takes {rise} of {than}{worst if outcome != 'pass' else ''}, tolerance {tolerance:.0%}"
    decide = _decide(rise, tolerance) if outcome == "inconclusive" else ""
    return [Verdict("import", "import", outcome, math.exp(rise.value), 1.0, told, "speed", decide)]


def _growths(base: Imported, head: Imported, own: Sequence[str]) -> dict[str, float]:
    """Milliseconds that each own module takes more, and each package that only the head imports."""
    grown: dict[str, float] = {}
    for module in base.keys() | head.keys():
        package = module.partition(".")[0]
        if package in own:
            grown[module] = head.get(module, 0.0) - base.get(module, 0.0)
        elif module not in base:
            grown[package] = grown.get(package, 0.0) + head[module]
        elif module not in head:
            grown[package] = grown.get(package, 0.0) - base[module]
    return grown


def _worst(growths: Sequence[Mapping[str, float]]) -> str:
    """The module with the largest growth on average."""
    modules = {module for grown in growths for module in grown}
    sums = {module: sum(grown.get(module, 0.0) for grown in growths) / len(growths) for module in modules}
    module = max(sums, key=lambda name: abs(sums[name]), default="")
    return f" (most by {module}: {sums[module]:+.0f} ms)" if module else ""


def _decide(rise: Rise, tolerance: float) -> str:
    """What would decide an inconclusive rise."""
    if not math.isfinite(rise.half):
        return "more pairs: gate.speed.minutes="
    pairs = pairs_to_decide(rise, tolerance)
    none = "no number of pairs: it lies between half the tolerance and the tolerance"
    return f"about {pairs} pairs" if pairs else none
