"""What a student draws while it learns: a few prompts with fixed noise, each beside its teacher's image.

Images have generators of their own, so that no draw of the training changes.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.distillation.pair import Pair
from harness.features.world import World
from harness.models.model import Model

PROMPTS = 4
STEPS = 10
GUIDANCE = 3.0
MOMENTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of a training."""
COST = 0.05
"""Moments are left out where all pictures, with the last, would take more than this share of the time of training."""
LOOKS = 10.0
"""How many looks of the learning curve the first picture takes at most: 160 rows of calls, where a look has 16."""


class Previews:
    """Pictures of a pair: a row a prompt, the teacher's image and the student's."""

    def __init__(self, pair: Pair, world: World) -> None:
        self.pair, self.world = pair, world
        self.teachers: Tensor | None = None
        self.share, self.spent_s, self.one_s = 0.0, 0.0, 0.0

    def due(self, point: Mapping[str, float], look_s: float) -> bool:
        """Whether it is time for a picture. point: of the learning curve; look_s: what a look there takes."""
        share, before = point["share"], self.share
        self.share = share
        if not any(before < moment <= share for moment in MOMENTS):
            return False
        expected_s = (self.one_s or LOOKS * look_s) * (2 if share < 1 else 1)
        return self.spent_s + expected_s <= COST * 60 * point["minutes"] / share

    def picture(self) -> Tensor:
        """(3, H, W)."""
        from torchvision.utils import make_grid

        begun = time.monotonic()
        prompts = self.world.prompts(PROMPTS)
        if self.teachers is None:
            self.teachers = self._drawn(self.pair.teacher, prompts)
        rows = torch.stack([self.teachers, self._drawn(self.pair.student, prompts)], dim=1)
        picture: Tensor = make_grid(rows.flatten(0, 1), nrow=2)
        self.one_s = time.monotonic() - begun
        self.spent_s += self.one_s
        return picture

    def _drawn(self, denoiser: nn.Module, prompts: list[str]) -> Tensor:
        model = self.pair.model
        steps, seeds = max(model.least_steps, STEPS), list(range(len(prompts)))
        size = min(self.pair.samples.sizes, key=lambda size: size.width * size.height)
        with drawing(model, denoiser):
            return model.generate(prompts, seeds, size, steps, GUIDANCE)


@contextmanager
def drawing(model: Model, denoiser: nn.Module) -> Iterator[None]:
    """While open, the model's pipeline calls that denoiser in the place of its own."""
    own = getattr(model.pipeline, model.part)
    setattr(model.pipeline, model.part, denoiser)
    try:
        yield
    finally:
        setattr(model.pipeline, model.part, own)
