"""One side of a comparison of speed: a fresh process that answers, slice by slice, how long its units take.

A unit is one mixer at one distinct site (with random weights), or the whole denoiser call of a case. The process first
says which units it has; then it answers each line `INDEX SECONDS` by the milliseconds of the calls that fit, in JSON.
`duel.py` asks two such processes, of two commits, in turn.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch

from harness.measured.conformance import breach
from harness.measured.distinct_sites import DistinctSite, distinct_sites, mixer_at, tokens_at
from harness.measured.timing import Clock, clock_for
from harness.models.weights import at_hand
from harness.records.case import Case
from harness.regression.baseline import name_of

if TYPE_CHECKING:
    from harness.trial import Trial

PROTOCOL = "speed/v1: slices of calls in fresh processes, eager, warm, monotonic wall or CUDA event times"
WHOLE = "the whole call"
WARM_UP = 3
BATCH = 1
Work = Callable[[], object]


@dataclass(frozen=True)
class Unit:
    """What is timed: a mixer at its site, or the whole call of a denoiser. open: makes it ready to be called."""

    case: Case
    site: str
    mixer: str
    open: Callable[[ExitStack], Work]

    def label(self) -> dict[str, str]:
        """By what it is matched with the other side's."""
        return {"case": name_of(self.case), "site": self.site, "mixer": self.mixer}


def units_of(trial: "Trial", whole: bool) -> Iterator[Unit]:
    """Every distinct site of a trial; with `whole` also the denoiser call, where its weights are at hand."""
    for distinct in distinct_sites(trial):
        mixer = type(mixer_at(distinct, trial)).__name__
        yield Unit(trial.case, distinct.site.path, mixer, partial(_mixer, distinct, trial))
    if whole and at_hand(trial.model.source) and trial.model.source is not None:
        yield Unit(trial.case, WHOLE, "", partial(_call, trial))


def _mixer(distinct: DistinctSite, trial: "Trial", held: ExitStack) -> Work:
    mixer, tokens_BNC = mixer_at(distinct, trial), tokens_at(distinct, trial, BATCH)
    if reason := breach(mixer, distinct.site, tokens_BNC):
        raise RuntimeError(reason)
    return lambda: mixer(tokens_BNC, distinct.grid)


def _call(trial: "Trial", held: ExitStack) -> Work:
    denoiser = held.enter_context(trial.denoiser())
    arguments = trial.model.example(trial.case.resolution, BATCH)
    return lambda: denoiser(**arguments)


class Stage:
    """Holds one unit open at a time: two variants cannot sit in one denoiser."""

    def __init__(self, units: list[Unit]) -> None:
        self._units = units
        self._held = ExitStack()
        self._open: tuple[int, Work, Clock] | None = None

    def samples_ms(self, index: int, seconds: float) -> list[float]:
        """Calls of a unit for so many seconds, one at least; a unit that was just opened is warmed up first."""
        if self._open is None or self._open[0] != index:
            self.close()
            unit = self._units[index]
            self._open = index, unit.open(self._held), clock_for(unit.case.device)
            for _ in range(WARM_UP):
                self._open[1]()
        _, work, clock = self._open
        taken, until = [clock(work)], time.perf_counter() + seconds
        while time.perf_counter() < until:
            taken.append(clock(work))
        return taken

    def close(self) -> None:
        """Let go of the unit that is open."""
        self._held.close()
        self._open = None


def serve(trials: Iterable["Trial"], packages: list[str], threads: int, whole: bool, asked: TextIO, out: TextIO) -> int:
    """Say what there is to time, then answer until the other end closes; the exit status."""
    torch.set_num_threads(threads)
    units = [unit for trial in trials for unit in units_of(trial, whole)]
    loaded = [name for name in packages if name in sys.modules]
    found = {name: str(Path(next(iter(sys.modules[name].__path__)))) for name in loaded}
    _say({"protocol": PROTOCOL, "packages": found, "units": [unit.label() for unit in units]}, out)
    stage = Stage(units)
    with torch.no_grad():
        for line in asked:
            index, seconds = line.split()
            _say(stage.samples_ms(int(index), float(seconds)), out)
    stage.close()
    return 0


def _say(answer: object, out: TextIO) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()
