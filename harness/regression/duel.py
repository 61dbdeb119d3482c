"""Base and head in alternation: pair after pair of fresh processes, each unit in slices base, head, head, base.

Who begins takes turns, within a pair and from pair to pair, so a drift favours neither. A slice gives its fastest call
(other work only ever adds time), a pair the median over neighbouring slices of the ratio's logarithm. Both processes of
a pair share one core, another one in the next pair, so that other work on a core meets both alike.
Pairs go on until every unit is settled or the minutes are over.
"""

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from harness.regression.checkout import Checkout, Side, begun, together
from harness.regression.decision import LEAST, Rise, outcome_of, rise_between, rise_of, settled
from harness.regression.verdict import Outcome

SLICE_S = 0.01
TURNS = 16
"""Slices of each side: many and short, so that what disturbs the machine for longer meets both alike."""

Key = tuple[str, str]
"""Case and site."""


@dataclass
class Unit:
    """What is known of one unit: the logarithm of its ratio in each pair, and the verdict after each.

    then: an earlier run's logarithms to compare with, where the base itself is not measured.
    """

    case: str
    site: str
    mixer: str
    logs: list[float] = field(default_factory=list)
    then: list[float] | None = None
    looks: list[Outcome] = field(default_factory=list)

    @property
    def rise(self) -> Rise:
        """How much slower than before, as far as the pairs tell."""
        return rise_of(self.logs) if self.then is None else rise_between(self.logs, self.then)

    def look(self, tolerance: float) -> None:
        """Judge what is there by now."""
        if len(self.logs) >= LEAST:
            self.looks.append(outcome_of(self.rise, tolerance))

    @property
    def outcome(self) -> Outcome:
        """The last look, if it is settled."""
        return self.looks[-1] if settled(self.looks) else "inconclusive"


@dataclass
class Pairs:
    """All units; of each pair the import times of base and head by module (ms); and the seconds that all took.

    only: units that only one side has. starting: seconds until both processes answered, of all pairs. compared: how
    often a unit was measured in the rest of the time.
    """

    units: dict[Key, Unit] = field(default_factory=dict)
    only: dict[str, list[Key]] = field(default_factory=lambda: {"base": [], "head": []})
    imports: list[tuple[dict[str, float], dict[str, float]]] = field(default_factory=list)
    seconds: float = 0.0
    starting: float = 0.0
    compared: int = 0

    @property
    def count(self) -> int:
        return len(self.imports)

    @property
    def next_s(self) -> float:
        """Seconds of another pair, which measures only what is not settled."""
        left = sum(not settled(unit.looks) for unit in self.units.values())
        return self.starting / self.count + left * (self.seconds - self.starting) / max(1, self.compared)


def duel(base: Checkout, head: Checkout, minutes: float, tolerance: float | None) -> Pairs:
    """Compare two checkouts; Broken where the head does not run, BadInput where the base does not.

    Without a tolerance nothing is ever settled, and all of the minutes are used.
    """
    started, pairs = time.monotonic(), Pairs()
    for side in (base, head):
        side.compiled()
    while not _over(pairs, started, minutes):
        begins, base_first = time.monotonic(), pairs.count % 2 == 0
        first, second = (base, head) if base_first else (head, base)
        with closing(Side(first)) as one, closing(Side(second)) as other:
            theirs, ours = (one, other) if base_first else (other, one)
            begun((one, other), base)
            together((one, other), pairs.count)
            pairs.starting += time.monotonic() - begins
            _meet(pairs, theirs, ours)
            for key, unit in pairs.units.items():
                if not settled(unit.looks):
                    pairs.compared += 1
                    unit.logs.append(_ratio(_index(theirs, key), theirs, _index(ours, key), ours, base_first))
                    if tolerance is not None:
                        unit.look(tolerance)
            pairs.imports.append((theirs.imports_ms(), ours.imports_ms()))
        pairs.seconds = time.monotonic() - started
    return pairs


def passes(here: Checkout, reference: str, count: int, then: dict[Key, list[float]]) -> Pairs:
    """One checkout by itself: in fresh processes each unit beside the reference variant's at the same place."""
    started, pairs = time.monotonic(), Pairs()
    for turn in range(count):
        with closing(Side(here)) as side:
            begun([side], here)
            together([side], turn)
            beside = _beside(side, reference)
            if not turn:
                pairs.units = {key: _unit(side.units[mine], then.get(key, [])) for key, (mine, _) in beside.items()}
            for key, (mine, other) in beside.items():
                pairs.units[key].logs.append(_ratio(other, side, mine, side, turn % 2 == 0))
            pairs.imports.append(({}, side.imports_ms()))
        pairs.seconds = time.monotonic() - started
    return pairs


def _over(pairs: Pairs, started: float, minutes: float) -> bool:
    """Whether all is settled, or another pair would not fit."""
    if not pairs.count:
        return False
    if pairs.count >= LEAST and all(settled(unit.looks) for unit in pairs.units.values()):
        return True
    return time.monotonic() - started + pairs.next_s > 60 * minutes


def _meet(pairs: Pairs, base: Side, head: Side) -> None:
    """At the first pair: the units of both sides, and those that only one has."""
    if pairs.units:
        return
    theirs, ours = ({_key(unit): unit for unit in side.units} for side in (base, head))
    pairs.units = {key: _unit(ours[key]) for key in ours if key in theirs}
    pairs.only = {"base": [key for key in theirs if key not in ours], "head": [k for k in ours if k not in theirs]}


def _ratio(index: int, side: Side, other_index: int, other: Side, side_first: bool) -> float:
    """Logarithm of other over side: the median over neighbouring slices of their fastest calls."""
    logs = []
    for turn in range(TURNS):
        if side_first == (turn % 2 == 0):
            under, over = min(side.samples_ms(index, SLICE_S)), min(other.samples_ms(other_index, SLICE_S))
        else:
            over, under = min(other.samples_ms(other_index, SLICE_S)), min(side.samples_ms(index, SLICE_S))
        logs.append(math.log(over / under))
    return statistics.median(logs)


def _beside(side: Side, reference: str) -> dict[Key, tuple[int, int]]:
    """Index of each unit and of the reference variant's of the same model, size and site."""
    known = {_key(unit): index for index, unit in enumerate(side.units)}
    found = {}
    for (case, site), index in known.items():
        model, variant, *rest = case.split(" ")
        other = known.get((" ".join([model, reference, *rest]), site))
        if variant != reference and other is not None:
            found[case, site] = index, other
    return found


def _index(side: Side, key: Key) -> int:
    return next(index for index, unit in enumerate(side.units) if _key(unit) == key)


def _key(unit: dict[str, Any]) -> Key:
    return unit["case"], unit["site"]


def _unit(told: dict[str, Any], then: Sequence[float] | None = None) -> Unit:
    return Unit(told["case"], told["site"], told["mixer"], then=None if then is None else list(then))
