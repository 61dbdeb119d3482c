"""Distils a tiny student in a process of its own, for tests that end it or start several: folder, then its file."""

import sys
from functools import partial
from pathlib import Path

import torch
from worlds import Noise

from baselines import LinFusionAttention
from harness.distillation.own_samples import OwnSamples
from harness.distillation.recipe import Recipe
from harness.distillation.stages import EndToEnd, Layerwise
from harness.distillation.student import Student, ingredients
from harness.distillation.training import Schedule
from harness.models.unet import UNetModel

FACTORY = partial(LinFusionAttention.for_site)
SLOW = Schedule(steps=12, learning_rate=1e-3, matrix_rate=None, warmup=2, average=0.5, precision="fp32", save_every=3)
STAGES = [Layerwise(SLOW), EndToEnd(SLOW), OwnSamples(SLOW, window=3)]
RECIPE = Recipe(STAGES, sizes=[32], samples=8, batch=4, start="closing")


def main() -> None:
    """Train the student of the teacher in a folder and print where it is."""
    torch.set_num_threads(1)
    model = UNetModel("tiny", source=str(Path(sys.argv[1])))
    student = Student("tiny", "linfusion", ingredients(RECIPE, model.fingerprint(), FACTORY, "noise"))
    print(RECIPE.run(student, model, FACTORY, Noise(), "cpu"), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
