"""How a student is made from its teacher, in two stages, without ever training anything but the mixers.

1. Layer by layer (grafting, arXiv 2506.05340; teacher forcing, arXiv 2506.18999): one teacher call captures what
   enters and leaves each self-attention, and every mixer regresses its own pair. Errors are divided by the variance of
   the target, since these differ by orders of magnitude from layer to layer. Gradients never cross layers.
2. End to end: the student runs on its own features; its output follows the teacher's and the true target, and its
   features follow the teacher's (LinFusion, arXiv 2409.02097: weights 1, 0.5, 0.5).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.case import Resolution
from harness.distillation.student import Student, cache_folder
from harness.mixer import Grid, Site, TokenMixer
from harness.model import Model
from harness.surgery import Factory, Seat, seated
from harness.training import Schedule, train


class TrainingWorld(Protocol):
    """A world that has captioned images to distil on."""

    def training(self, n: int, resolution: Resolution) -> tuple[Tensor, list[str]]: ...


@dataclass(frozen=True)
class Recipe:
    """The two stages, and the data that they see. A stage of zero steps is left out."""

    layerwise: Schedule
    end_to_end: Schedule
    resolution: int | str
    images: int = 4096
    batch: int = 32
    task_weight: float = 1.0
    output_weight: float = 0.5
    feature_weight: float = 0.5
    drop: float = 0.1
    seed: int = 5

    def run(self, student: Student, model: Model, factory: Factory, world: TrainingWorld, device: str) -> Path:
        """Train the student on the loaded model and keep it in the cache; returns its file."""
        model.load(device, "fp32")
        torch.manual_seed(self.seed)
        mixers = build(model.denoiser, factory)
        bench = _Bench(self, model, mixers, world)
        name = f"{student.variant} of {student.model}"
        work = cache_folder() / "unfinished" / student.key
        first = self._stage(bench, mixers, self.layerwise, bench.layer_loss, f"{name}, layer by layer", work / "1")
        last = self._stage(bench, mixers, self.end_to_end, bench.end_to_end_loss, f"{name}, end to end", work / "2")
        student.save(mixers, student.cached, {"layerwise_loss": f"{first:.5f}", "end_to_end_loss": f"{last:.5f}"})
        return student.cached

    def _stage(
        self,
        bench: "_Bench",
        mixers: dict[str, TokenMixer],
        schedule: Schedule,
        loss: Callable[[int], Tensor],
        name: str,
        checkpoint: Path,
    ) -> float:
        if schedule.steps == 0:
            return 0.0
        module = nn.ModuleList(mixers.values()).train().requires_grad_(True)
        with bench.captured():
            last = train(module, loss, schedule, name, checkpoint.with_suffix(".safetensors"))
        module.eval().requires_grad_(False)
        return last


def build(denoiser: nn.Module, factory: Factory) -> dict[str, TokenMixer]:
    """One mixer a site, made by the factory, on the denoiser's device."""
    with seated(denoiser, factory) as seats:
        return {path: seat.mixer for path, seat in seats.items()}


class _Bench:
    """Data, teacher and student of one distillation."""

    def __init__(self, recipe: Recipe, model: Model, mixers: dict[str, TokenMixer], world: TrainingWorld) -> None:
        self.recipe, self.model, self.mixers = recipe, model, mixers
        images, self.prompts = world.training(recipe.images, Resolution.parse(recipe.resolution))
        self.latents = torch.cat([model.encode(part) for part in images.split(64)])
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
        recipe = self.recipe
        return (
            recipe.task_weight * F.mse_loss(made, target)
            + recipe.output_weight * F.mse_loss(made, expected.float())
            + recipe.feature_weight * features
        )

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
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        rows = torch.randint(len(self.prompts), (self.recipe.batch,), generator=generator)
        schedule = self.model.noise_schedule
        times = torch.randint(schedule.config.num_train_timesteps, (self.recipe.batch,), generator=generator)
        clean = self.latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = schedule.add_noise(clean, noise, times)
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(clean, noise, times) if velocity else noise
        dropped = torch.rand(self.recipe.batch, generator=generator) < self.recipe.drop
        prompts = ["" if drop else self.prompts[int(row)] for drop, row in zip(dropped, rows, strict=True)]
        return self.model.denoise_arguments(noisy, times.to(clean.device), prompts), target.float()

    def _grids(self) -> dict[str, Grid]:
        """The grid of each site at the recipe's resolution."""
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
