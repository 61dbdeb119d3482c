"""What other distances say beside FDD: KD, CMMD, the overlap of both sets, and FD without the bias of few images.

KD and CMMD do not grow as images become fewer; precision and density fall where images are bad, recall and coverage
where they are of few kinds. Real images of other captions are taken where the world holds as many: one of the same
caption is nearer than chance, and would draw KD and CMMD below zero.
Shapes: N, M images, D features.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.features.kept import Reader
from harness.judged.clip_score import seen_by
from harness.judged.cmmd import SCALE, gaussian, units
from harness.judged.fdd import features_of
from harness.judged.infinite import frechet_distance_infinite
from harness.judged.kernel_distance import cubic
from harness.judged.manifold import overlap
from harness.judged.means import mean_score
from harness.judged.mmd import Kernel, KernelSums
from harness.judged.refusal import refusal, unpictured
from harness.records.case import at_least
from harness.records.groups import dealt
from harness.records.record import Better, Reading
from harness.records.statistics import jackknife
from harness.trial import Trial

Sets = tuple[Tensor, Tensor]
Prompts = tuple[list[str], list[str]]
OVERLAPS = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Distances:
    """Seven readings of a trial's images against as many real ones; k: neighbours of a ball."""

    name: str = "distances"
    k: int = 5
    least: int = 50
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        at_least(self, self.name, k=1)

    def readers(self, trial: Trial) -> list[Reader]:
        return [features_of(trial.world.dino), seen_by(trial.world.clip)]

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = refusal(trial, max(self.least, self.k + 1)) or unpictured(trial)
        if why:
            for name in ("kd", "cmmd", *OVERLAPS, "fd_infinite"):
                better: Better = "higher" if name in OVERLAPS else "lower"
                yield Reading(self.name, name, None, "1", better, name, trial.case.n, reason=why)
            return
        world = trial.world
        seen, embedded = self.readers(trial)
        rows, names, whose = _references(trial)
        dino = trial.rows(seen), trial.reference_rows(seen, rows.stop)[rows.start :]
        clip = (
            units(trial.rows(embedded).double()),
            units(trial.reference_rows(embedded, rows.stop)[rows.start :].double()),
        )
        prompts = trial.prompts, names
        where = f"ref={world.name} of {whose} captions n={len(dino[0])}/{len(dino[1])}"
        yield self._kernel("kd", dino, cubic, 1.0, prompts, f"kd (x.y/D+1)^3 unbiased {world.dino.protocol} {where}")
        told = f"cmmd gaussian sigma=10 x1000 unbiased {world.clip.protocol} {where}"
        yield self._kernel("cmmd", clip, gaussian, SCALE, prompts, told)
        yield from self._overlaps(dino, prompts, f"k={self.k} {world.dino.protocol} {where}")
        yield self._infinite(dino, f"fd_infinite {world.dino.protocol} {where}")

    def _kernel(self, name: str, sets: Sets, kernel: Kernel, scale: float, prompts: Prompts, protocol: str) -> Reading:
        group_N, group_M = (torch.from_numpy(group) for group in dealt(*prompts))
        sums = KernelSums.of(*sets, group_N, group_M, kernel)
        spread = jackknife(1 + int(group_N.max()), lambda gone: scale * sums.mmd(gone), pairs=True)
        value, half = scale * sums.mmd(), spread.half_width()
        details = {"error": spread.error, "replicates": list(spread.replicates)}
        n, low, high = len(sets[0]), value - half, value + half
        return Reading(self.name, name, value, "1", "lower", protocol, n, low, high, details=details)

    def _overlaps(self, sets: Sets, prompts: Prompts, protocol: str) -> Iterator[Reading]:
        """The interval is over the images that are counted, with the balls as they are."""
        found = overlap(*sets, self.k)
        values = (found.precise_N, found.recalled_M, found.dense_N, found.covered_M)
        for name, value_N, names in zip(OVERLAPS, values, (prompts * 2), strict=True):
            unit, most = ("1", math.inf) if name == "density" else ("share", 1.0)
            told = f"{name} {protocol}"
            yield mean_score(self.name, name, unit, "higher", told, value_N.tolist(), names, least=0.0, most=most)

    def _infinite(self, sets: Sets, protocol: str) -> Reading:
        n, features = sets[0].shape
        if n <= 2 * features:
            why = f"{n} images are too few for a line in {features} features: ask for more than {2 * features}"
            return Reading(self.name, "fd_infinite", None, "1", "lower", protocol, n, reason=why)
        line = frechet_distance_infinite(*sets)
        at, details = line.value, {"slope": line.slope, "r2": line.r2}
        return Reading(self.name, "fd_infinite", at.value, "1", "lower", protocol, n, at.low, at.high, details=details)


def _references(trial: Trial) -> tuple[range, list[str], str]:
    """Numbers of as many real images as there are images, their captions, and whether these are others or the same."""
    n, world = trial.case.n, trial.world
    if world.held(2 * n) < 2 * n:
        return range(n), world.prompts(n), "the same"
    return range(n, 2 * n), world.prompts(2 * n)[n:], "other"
