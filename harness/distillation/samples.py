"""What a student is trained on: noisy latents of captioned images at several sizes, with the text that belongs to them.

Everything that a step sees is a function of its number. Captions are dropped at a rate, and what stands in their place
is what the pipeline takes for guidance (SDXL: zeros). Shapes: B batch, C channels, h, w latent sides, n images.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.distillation.processes import share_of
from harness.features.world import World
from harness.models.model import Model
from harness.models.text import States
from harness.records.case import BadInput, Resolution

ON_DEVICE_BYTES = 2**31
"""Text states that need more than this stay on the CPU, and are encoded again where they were forgotten."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Batch:
    """Arguments of one denoiser call, the true target of its prediction, and the times. Rows of this process alone."""

    arguments: dict[str, Any]
    target_BChw: Tensor
    times_B: Tensor


class Samples:
    """n captioned images of a world at each size, encoded once; batches of one size each, sizes in equal shares."""

    def __init__(
        self, model: Model, world: World, sizes: Sequence[Resolution], n: int, batch: int, drop: float, seed: int
    ) -> None:
        self.model, self.batch, self.drop, self.seed = model, batch, drop, seed
        self.sizes = list(sizes)
        self.latents, self.prompts = self._encoded(world, n)
        self.device = next(iter(self.latents.values())).device
        self.rows = share_of(batch)
        self.text = self._text()
        check_prediction(model)

    def size(self, step: int) -> Resolution:
        """The size of a step's images."""
        return random.Random(f"{self.seed} {step}").choice(self.sizes)

    def __call__(self, step: int, size: Resolution | None = None, among: int | None = None) -> Batch:
        """The batch of a step: this process's share. One of a given size is for measuring: all processes see all of it.

        among: the first so many images.
        """
        mine = self.rows if size is None else slice(None)
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)
        where: dict[str, Any] = {"generator": generator, "device": self.device}
        rows = torch.randint(min(among or len(self.prompts), len(self.prompts)), (self.batch,), **where)
        times = torch.randint(self.model.noise_schedule.config.num_train_timesteps, (self.batch,), **where)
        clean = self.latents[size or self.size(step)][rows]
        noise = torch.randn(clean.shape, **where)
        dropped = torch.rand(self.batch, **where) < self.drop
        clean, noise, times = clean[mine], noise[mine], times[mine]
        schedule = self.model.noise_schedule
        noisy = schedule.add_noise(clean, noise, times)
        text = self._text_of(rows[mine], dropped[mine])
        arguments = self.model.denoise_arguments(noisy, times, text)
        return Batch(arguments, target(schedule, clean, noise, times).float(), times)

    def _encoded(self, world: World, n: int) -> tuple[dict[Resolution, Tensor], list[str]]:
        device = next(self.model.denoiser.parameters()).device
        latents: dict[Resolution, Tensor] = {}
        prompts: list[str] = []
        for size in self.sizes:
            parts, prompts = [], []
            for images, captions in world.training(n, size, str(device)):
                parts.append(self.model.encode(images))
                prompts += captions
            latents[size] = torch.cat(parts)
        return latents, prompts

    def _text(self) -> States | None:
        """States of every prompt, the unconditional ones last, where the device has room for all of them."""
        one = self.model.text_states([None])
        if (len(self.prompts) + 1) * sum(tensor.nbytes for tensor in one.values()) > ON_DEVICE_BYTES:
            return None
        parts = [
            self.model.text_states_at_once(self.prompts[row : row + 256]) for row in range(0, len(self.prompts), 256)
        ]
        return {name: torch.cat([*(part[name] for part in parts), one[name]]) for name in one}

    def _text_of(self, rows: Tensor, dropped: Tensor) -> States:
        if self.text is not None:
            chosen = torch.where(dropped, len(self.prompts), rows)
            return {name: states[chosen] for name, states in self.text.items()}
        pairs = zip(rows.tolist(), dropped.tolist(), strict=True)
        return self.model.text_states([None if drop else self.prompts[row] for row, drop in pairs])

    def with_and_without(self, rows: Tensor) -> States:
        """Text of the rows' captions and, behind it, as many times that of none: what guidance compares."""
        without = torch.ones_like(rows, dtype=torch.bool)
        return self._text_of(torch.cat([rows, rows]), torch.cat([~without, without]))


def check_prediction(model: Model) -> None:
    """BadInput for a model whose denoiser predicts something that has no loss here."""
    kind = model.noise_schedule.config.prediction_type
    if kind not in PREDICTIONS:
        raise BadInput(f"{model.name} predicts {kind!r}, for which there is no loss: {', '.join(PREDICTIONS)} have one")


def target(schedule: Any, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """What a perfect denoiser would predict."""
    kind = schedule.config.prediction_type
    if kind == "v_prediction":
        velocity: Tensor = schedule.get_velocity(clean, noise, times)
        return velocity
    return noise if kind == "epsilon" else clean
