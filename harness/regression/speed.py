"""The speed tier: head against a base commit in one job, or against a baseline file's speeds of this machine."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.records.by_key import grouped
from harness.records.case import BadInput
from harness.records.units import duration
from harness.regression.checkout import Broken, Checkout
from harness.regression.decision import LEAST, pairs_to_decide, resolution_of
from harness.regression.duel import Key, Pairs, Unit, duel, passes
from harness.regression.imports import judge_imports
from harness.regression.slices import WHOLE
from harness.regression.verdict import Verdict
from harness.regression.worktrees import Repository

AT = " @ "
"""Between case and site in a baseline's name of a unit."""
OWN = ("gate.", "gate=", "out=", "tracker", "name=", "again=", "dry_run=")
"""Settings of the head's gate, which another commit may not know and no process of a side needs."""


@dataclass(frozen=True)
class Speed:
    """How speeds are compared.

    base: a commit to compare with; None for the baseline file. minutes: the most that pairs may take. passes: processes
    of a comparison with a file. repository: a folder of the repository under test. python_path: where in it packages
    lie. threads: of torch. dirty: measure the working tree as it is, with changes that no commit has. arguments: the
    command line that the gate was called with (filled in by the command line).
    """

    base: str | None = None
    minutes: float = 3.0
    passes: int = 5
    repository: str = "."
    python_path: Sequence[str] = (".",)
    threads: int = 1
    dirty: bool = False
    arguments: Sequence[str] = ()

    def check(self) -> None:
        """BadInput for what no comparison can come out of, before anything is measured."""
        if not self.minutes > 0 or self.passes < 1 or self.threads < 1:
            raise BadInput(
                f"gate.speed.minutes={self.minutes}, passes={self.passes} and threads={self.threads} must be above "
                "zero: give 3, 5 and 1, as they are by default"
            )
        if self.base is None:
            return
        repository = Repository.at(self.repository)
        base = repository.commit(self.base, "gate.speed.base")
        changed = repository.changes()
        if changed and not self.dirty:
            raise BadInput(
                f"{len(changed)} tracked files are changed and not committed, {changed[0]} first, so no commit would "
                "be measured: commit or stash them, or give gate.speed.dirty=true to measure them as they are"
            )
        if base == repository.commit("HEAD", "HEAD") and not changed:
            raise BadInput(
                f"gate.speed.base={self.base} is the commit that is checked out, so there is nothing to compare: give "
                "an earlier one, or measure what this machine resolves with `python -m harness gate noise`"
            )

    def against_base(self, tolerance: float) -> list[Verdict]:
        """Verdicts on every mixer at its sites, the whole call, and imports."""
        assert self.base is not None
        with self._checkouts() as (base, head):
            try:
                pairs = duel(base, head, self.minutes, tolerance)
            except Broken as error:
                told = f"the head does not run: {error}"
                return [Verdict("speed", "every case", "regression", None, None, told, "speed")]
            own = sorted({*base.packages(), *head.packages()})
        told = f"{head.name} over {base.name}"
        verdicts = judged(pairs, tolerance, told, "gate.speed.minutes={minutes}")
        return [*verdicts, *judge_imports(pairs.imports, own, tolerance)]

    def against_file(self, speeds: Mapping[str, list[float]], reference: str, tolerance: float) -> list[Verdict]:
        """Verdicts on every mixer at its sites, by its time over the reference's there."""
        then: dict[Key, list[float]] = {}
        for name, logs in speeds.items():
            case, _, site = name.partition(AT)
            then[case, site] = logs
        pairs = passes(self._here(), reference, self.passes, then)
        for unit in pairs.units.values():
            unit.look(tolerance)
            unit.looks *= 2  # there is one look alone
        pairs.only = {"baseline": [key for key in then if key not in pairs.units]}
        return judged(pairs, tolerance, f"over {reference}, against the baseline's", "gate.speed.passes={pairs}")

    def speeds(self, reference: str) -> dict[str, list[float]]:
        """What a baseline file keeps: the logarithm of each unit's time over the reference's, one a process."""
        pairs = passes(self._here(), reference, self.passes, {})
        return {f"{case}{AT}{site}": [round(log, 5) for log in unit.logs] for (case, site), unit in pairs.units.items()}

    def noise(self, tolerance: float) -> tuple[Pairs, float]:
        """The working tree against itself: the pairs, and the tolerance that this machine can decide on."""
        here = self._here()
        pairs = duel(here, replace(here, name="again"), self.minutes, None)
        return pairs, resolution_of([unit.rise for unit in pairs.units.values()])

    @contextmanager
    def _checkouts(self) -> Iterator[tuple[Checkout, Checkout]]:
        repository = Repository.at(self.repository)
        base, head = repository.commit(str(self.base), "gate.speed.base"), repository.commit("HEAD", "HEAD")
        if repository.changes():
            with repository.checkouts(base) as (folder,):
                yield self._at(folder / repository.inside, base[:10]), self._here()
        else:
            with repository.checkouts(base, head) as (folder, other):
                yield self._at(folder / repository.inside, base[:10]), self._at(other / repository.inside, head[:10])

    def _here(self) -> Checkout:
        return self._at(Path(self.repository).resolve(), "working tree")

    def _at(self, folder: Path, name: str) -> Checkout:
        arguments = tuple(self._moved(one) for one in self.arguments if not one.startswith(OWN))
        return Checkout(name, folder, arguments, tuple(self.python_path), self.threads)

    def _moved(self, argument: str) -> str:
        """A path into the repository, relative to where the command was given: it holds in every checkout."""
        option, mark, value = argument.rpartition("=")
        path, here = Path(value), Path(self.repository).resolve()
        inside = path.is_absolute() and path.resolve().is_relative_to(here)
        return f"{option}{mark}{os.path.relpath(path.resolve(), here)}" if inside else argument


def judged(pairs: Pairs, tolerance: float, told: str, setting: str) -> list[Verdict]:
    """One verdict for each mixer of a case and each outcome of its sites, and for each whole call. setting: lets it
    take more pairs.
    """
    alike = grouped(pairs.units.values(), lambda unit: (unit.case, unit.mixer, unit.outcome))
    verdicts = [_verdict(units, tolerance, told, pairs, setting) for units in alike.values()]
    for side, keys in pairs.only.items():
        for case, site in keys:
            why = f"only the {side} has {site}"
            verdicts.append(Verdict("speed", case, "inconclusive", None, None, why, "speed", "nothing: look at it"))
    return [_blamed(one, verdicts) for one in verdicts]


def _verdict(units: Sequence[Unit], tolerance: float, told: str, pairs: Pairs, setting: str) -> Verdict:
    """Told by the unit that rose most."""
    worst = max(units, key=lambda unit: abs(unit.rise.value) if unit.outcome == "improvement" else unit.rise.value)
    where = f"{worst.mixer} at {worst.site}" if worst.mixer else worst.site
    more = f" and {len(units) - 1} more sites" if len(units) > 1 else ""
    said = f"{where}{more}: {worst.rise} ({told})"
    if math.isfinite(worst.rise.half):
        said = f"{where}{more} takes {worst.rise} ({told}), tolerance {tolerance:.0%}"
    decide = _decide(worst, tolerance, pairs, setting) if worst.outcome == "inconclusive" else ""
    name, given = worst.mixer or WHOLE, math.exp(worst.rise.value)
    return Verdict(name, worst.case, worst.outcome, given, 1.0, said, "speed", decide)


def _decide(unit: Unit, tolerance: float, pairs: Pairs, setting: str) -> str:
    """What would decide an inconclusive unit."""
    each = pairs.seconds / max(1, pairs.count)
    if not math.isfinite(unit.rise.half):
        more = setting.format(pairs=2 * LEAST, minutes=math.ceil(2 * LEAST * each / 60))
        return f"more time: a pair takes {duration(each)} here, and there were {pairs.count}: {more}"
    needed = pairs_to_decide(unit.rise, tolerance)
    if needed is None:
        return "no number of pairs: it lies between half of the tolerance and all of it"
    more = setting.format(pairs=needed, minutes=math.ceil(needed * each / 60))
    return f"about {needed} pairs, {duration(needed * each)} here: {more}"


def _blamed(verdict: Verdict, all_of: Sequence[Verdict]) -> Verdict:
    """A whole call that became slower while none of its mixers did: it is the body around them."""
    if verdict.name != WHOLE or verdict.outcome != "regression":
        return verdict
    mixers = [one for one in all_of if one.case == verdict.case and one.name != WHOLE]
    guilty = [one.name for one in mixers if one.outcome == "regression"]
    cause = f"by {', '.join(guilty)}" if guilty else "around the mixers, none of which is slower by itself"
    return replace(verdict, reason=f"{verdict.reason}; {cause}")
