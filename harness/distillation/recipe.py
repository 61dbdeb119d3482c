"""How a student is made from its teacher, in two stages, without ever training anything but the mixers.

1. Layer by layer (grafting, arXiv 2506.05340; teacher forcing, arXiv 2506.18999): one teacher call captures what
   enters and leaves each self-attention, and every mixer regresses its own pair. Errors are divided by the variance of
   the target, since these differ by orders of magnitude from layer to layer. Gradients never cross layers.
2. End to end: the student runs on its own features; its output follows the teacher's and the true target, and its
   features follow the teacher's (LinFusion, arXiv 2409.02097: weights 1, 0.5, 0.5).
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.distillation.losses import Bench, Weights
from harness.distillation.student import Student, cache_folder
from harness.distillation.training import Schedule, train
from harness.features.world import World
from harness.models.model import Model
from harness.records.case import Resolution
from harness.seats.mixer import TokenMixer
from harness.seats.surgery import Factory, seated


@dataclass(frozen=True)
class Recipe:
    """The two stages, and the data that they see. A stage of zero steps is left out.

    on_demand: False trains nothing, so that what needs a missing student becomes a dash with its reason.
    """

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
    on_demand: bool = field(default=True, repr=False)

    def run(self, student: Student, model: Model, factory: Factory, world: World, device: str) -> Path:
        """Train the student on the loaded model and keep it in the cache; returns its file."""
        model.load(device, "fp32")
        torch.manual_seed(self.seed)
        mixers = build(model.denoiser, factory)
        images, prompts = world.training(self.images, Resolution.parse(self.resolution))
        weights = Weights(self.task_weight, self.output_weight, self.feature_weight)
        bench = Bench(model, mixers, images, prompts, self.batch, self.drop, weights, self.seed)
        name = f"{student.variant} of {student.model}"
        work = cache_folder() / "unfinished" / student.key
        first = self._stage(bench, mixers, self.layerwise, bench.layer_loss, f"{name}, layer by layer", work / "1")
        last = self._stage(bench, mixers, self.end_to_end, bench.end_to_end_loss, f"{name}, end to end", work / "2")
        student.save(mixers, student.cached, {"layerwise_loss": f"{first:.5f}", "end_to_end_loss": f"{last:.5f}"})
        if work.exists():
            shutil.rmtree(work)
        return student.cached

    def _stage(
        self,
        bench: "Bench",
        mixers: dict[str, TokenMixer],
        schedule: Schedule,
        loss: Callable[[int], Tensor],
        name: str,
        checkpoint: Path,
    ) -> float:
        learners = [mixer for mixer in mixers.values() if not mixer.exact]
        if schedule.steps == 0 or not learners:
            return 0.0
        nn.ModuleList(mixers.values()).requires_grad_(False)
        module = nn.ModuleList(learners).train().requires_grad_(True)
        with bench.captured():
            last = train(module, loss, schedule, name, checkpoint.with_suffix(".safetensors"))
        module.eval().requires_grad_(False)
        return last


def build(denoiser: nn.Module, factory: Factory) -> dict[str, TokenMixer]:
    """One mixer a site, made by the factory, on the denoiser's device."""
    with seated(denoiser, factory) as seats:
        return {path: seat.mixer for path, seat in seats.items()}
