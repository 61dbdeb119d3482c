"""What a student is trained on: noisy latents of captioned images at several sizes, with the text that belongs to them.

Everything that a step sees is a function of its number. Captions are dropped at a rate, and what stands in their place
is what the pipeline takes for guidance (SDXL: zeros). Shapes: B batch, C channels, h, w latent sides, n images.
"""

import random
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from harness.distillation.encoded import encoded
from harness.distillation.processes import share_of
from harness.features.world import World
from harness.models.model import Model
from harness.models.text import States
from harness.records.case import BadInput, Resolution

PREDICTIONS = ("epsilon", "v_prediction", "sample")
HELD_OUT = 8
"""Images, the last ones and at most half, that no step trains on: learning curves are taken on them."""


@dataclass(frozen=True)
class Batch:
    """Arguments of one denoiser call, the true target of its prediction, and the times. Rows of this process alone."""

    arguments: dict[str, Any]
    target_BChw: Tensor
    times_B: Tensor


class Samples:
    """n captioned images of a world at each size; batches of one size each, sizes in equal shares.

    A few are held out: the batches are drawn from `self.n` images, from number `self.first` on.
    """

    def __init__(
        self, model: Model, world: World, sizes: Sequence[Resolution], n: int, batch: int, drop: float, seed: int
    ) -> None:
        check_prediction(model)
        self.model, self.batch, self.drop, self.seed = model, batch, drop, seed
        self.held_out = min(HELD_OUT, n // 2)
        self.first, self.n = 0, n - self.held_out
        self.sizes, self.rows = list(sizes), share_of(batch)
        self.device = next(model.denoiser.parameters()).device
        self.latents, self.text = encoded(model, world, self.sizes, n)
        self.unconditional = model.text_states([None])

    def fixed(self, batch: int) -> "Samples":
        """Batches of what is held out, with its captions, the same whatever the recipe and its seed."""
        found = copy(self)
        found.first, found.n = (self.n, self.held_out) if self.held_out else (0, self.n)
        found.batch, found.drop, found.seed = batch, 0.0, 0
        return found

    def size(self, step: int) -> Resolution:
        return random.Random(f"{self.seed} {step}").choice(self.sizes)

    def __call__(self, step: int, size: Resolution | None = None, among: int | None = None) -> Batch:
        """The batch of a step: this process's share, or all of it at a given size. among: the first so many images."""
        mine = self.rows if size is None else slice(None)
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)
        where: dict[str, Any] = {"generator": generator, "device": self.device}
        rows = self.first + torch.randint(min(among or self.n, self.n), (self.batch,), **where)
        times = torch.randint(self.model.noise_schedule.config.num_train_timesteps, (self.batch,), **where)
        clean = self.clean(size or self.size(step), rows[mine])
        noise = torch.randn((self.batch, *clean.shape[1:]), **where)[mine]
        dropped = torch.rand(self.batch, **where)[mine] < self.drop
        times = times[mine]
        schedule = self.model.noise_schedule
        noisy = schedule.add_noise(clean, noise, times)
        text = {
            name: torch.where(dropped.view(-1, *[1] * (states.ndim - 1)), self.unconditional[name], states)
            for name, states in self.text[rows[mine]].items()
        }
        arguments = self.model.denoise_arguments(noisy, times, text)
        return Batch(arguments, target(schedule, clean, noise, times).float(), times)

    def clean(self, size: Resolution, rows: Tensor) -> Tensor:
        """Latents of these images, laid out as autoencoders give them: a denoiser's sums round by it."""
        return self.latents[size][rows]["latents"].contiguous(memory_format=torch.channels_last)

    def with_and_without(self, rows: Tensor) -> States:
        """Text of the rows' captions and, behind it, as many times that of none: what guidance compares."""
        none = self.unconditional
        return {name: torch.cat([states, none[name].expand_as(states)]) for name, states in self.text[rows].items()}


def check_prediction(model: Model) -> None:
    """BadInput for a model whose denoiser predicts something that has no loss here."""
    kind = model.noise_schedule.config.prediction_type
    if kind not in PREDICTIONS:
        raise BadInput(f"{model.name} predicts {kind!r}, for which there is no loss: {', '.join(PREDICTIONS)} have one")


def target(schedule: Any, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """What a perfect denoiser would predict."""
    kind = schedule.config.prediction_type
    if kind == "v_prediction":
        return cast(Tensor, schedule.get_velocity(clean, noise, times))
    return noise if kind == "epsilon" else clean
