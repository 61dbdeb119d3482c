"""Distils a tiny student on the first n images of a folder and prints its peak memory in bytes: teacher, folder, n."""

import resource
import sys
from functools import partial

import torch

from baselines import LinFusionAttention
from harness.distillation.recipe import Recipe
from harness.distillation.stages import EndToEnd, Layerwise
from harness.distillation.student import Student, ingredients
from harness.distillation.training import Schedule
from harness.features.clip import ClipExtractor
from harness.features.dino import DinoExtractor
from harness.features.world import FolderWorld
from harness.models.unet import UNetModel

FACTORY = partial(LinFusionAttention.for_site)


def main() -> None:
    """Train a few steps on all of it."""
    torch.set_num_threads(1)
    teacher, folder, n = sys.argv[1:]
    short = Schedule(steps=50, learning_rate=1e-3, precision="fp32")
    recipe = Recipe([Layerwise(short), EndToEnd(short)], sizes=[32], samples=int(n), batch=32)
    world = FolderWorld("own", DinoExtractor("/nowhere"), ClipExtractor("/nowhere"), training_folder=folder)
    world.require_training(recipe.samples)
    model = UNetModel("tiny", source=teacher)
    student = Student("tiny", "linfusion", ingredients(recipe, model.fingerprint(), FACTORY, world.taught_on()))
    recipe.run(student, model, FACTORY, world, "cpu")
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
