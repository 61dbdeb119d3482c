"""The bench of a distillation: data, teacher and student on one table, and the losses between them.

Shapes: B batch, N tokens, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.model import Model
from harness.seats.mixer import Grid, TokenMixer
from harness.seats.surgery import Seat, seated


@dataclass(frozen=True)
class Weights:
    """How much each loss counts end to end."""

    task: float
    output: float
    feature: float


class Bench:
    """Data, teacher and student of one distillation."""

    def __init__(
        self,
        model: Model,
        mixers: dict[str, TokenMixer],
        images: Tensor,
        prompts: list[str],
        batch: int,
        drop: float,
        weights: Weights,
        seed: int,
    ) -> None:
        self.model, self.mixers, self.prompts = model, mixers, prompts
        self.batch, self.drop, self.weights, self.seed = batch, drop, weights, seed
        self.latents = torch.cat([model.encode(part) for part in torch.split(images, 64)])
        self.layers = {path: model.denoiser.get_submodule(path) for path in mixers}
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        self.grids = self._grids()

    def layer_loss(self, step: int) -> Tensor:
        """Mean over the sites of the error of each mixer on its teacher's input, in units of the target's variance."""
        arguments, _ = self._batch(step)
        with torch.no_grad():
            self.model.denoiser(**arguments)
        losses = []
        for path, mixer in self.mixers.items():
            before, after = self.seen[path]
            losses.append(_relative(mixer(before, self.grids[path]), after))
        self.seen.clear()
        return torch.stack(losses).mean()

    def end_to_end_loss(self, step: int) -> Tensor:
        """Task, output and feature losses of the student on its own trajectory."""
        arguments, target = self._batch(step)
        with torch.no_grad():
            expected = _first_channels(self.model.denoiser(**arguments)[0], target)
        wanted = {path: after for path, (_, after) in self.seen.items()}
        outputs: dict[str, Tensor] = {}
        with seated(self.model.denoiser, lambda site, _: self.mixers[site.path]) as seats, _outputs(seats, outputs):
            made = _first_channels(self.model.denoiser(**arguments)[0], target).float()
        features = torch.stack([_relative(outputs[path], wanted[path]) for path in self.mixers]).mean()
        self.seen.clear()
        task, output = F.mse_loss(made, target), F.mse_loss(made, expected.float())
        return self.weights.task * task + self.weights.output * output + self.weights.feature * features

    @contextmanager
    def captured(self) -> Iterator[None]:
        """While open, every call of the teacher leaves the input and output of its attention layers in `seen`."""
        hooks = [
            layer.register_forward_hook(self._keeper(path), with_kwargs=True) for path, layer in self.layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keeper(self, path: str) -> Callable[..., None]:
        def keep(layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            self.seen[path] = (args[0] if args else kwargs["hidden_states"], output)

        return keep

    def _batch(self, step: int) -> tuple[dict[str, Any], Tensor]:
        """Arguments of one denoiser call on noisy latents of random times, and the true target."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(self.prompts), (self.batch,), generator=generator)
        schedule = self.model.noise_schedule
        times = torch.randint(schedule.config.num_train_timesteps, (self.batch,), generator=generator)
        clean = self.latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = schedule.add_noise(clean, noise, times)
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(clean, noise, times) if velocity else noise
        dropped = torch.rand(self.batch, generator=generator) < self.drop
        prompts = ["" if drop else self.prompts[int(row)] for drop, row in zip(dropped, rows, strict=True)]
        return self.model.denoise_arguments(noisy, times.to(clean.device), prompts), target.float()

    def _grids(self) -> dict[str, Grid]:
        """The grid of each site at the size of the images."""
        arguments, _ = self._batch(0)
        with seated(self.model.denoiser, lambda site, _: self.mixers[site.path]) as seats, torch.no_grad():
            self.model.denoiser(**arguments)
            return {path: seat.grid for path, seat in seats.items() if seat.grid is not None}


@contextmanager
def _outputs(seats: dict[str, Seat], outputs: dict[str, Tensor]) -> Iterator[None]:
    """While open, what the seats give out is kept in `outputs`."""

    def keeper(path: str) -> Callable[..., None]:
        def keep(seat: nn.Module, args: Any, output: Tensor) -> None:
            outputs[path] = output

        return keep

    hooks = [seat.register_forward_hook(keeper(path)) for path, seat in seats.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _relative(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error over the variance of what was wanted."""
    wanted = wanted.float()
    return F.mse_loss(made.float(), wanted) / wanted.var().clamp(min=1e-6)


def _first_channels(prediction: Tensor, target: Tensor) -> Tensor:
    """The prediction without the variance that some denoisers append."""
    return prediction[:, : target.shape[1]]
