"""The attribute probe of the embedded world: reads from an image what stands at each of the nine places.

A small convolutional network, trained on drawn scenes with noise and blur, says for each place which shape is there (or
none), its colour and its size. What it reads is compared with what the caption asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.distillation.training import Schedule, train
from harness.shapes.captions import COLOURS, PLACES, SHAPES, SIZES, Scene, held_out_scenes
from harness.shapes.drawing import batch_of, draw

NOTHING = len(SHAPES)
WEIGHTS = "model.safetensors"


class Sight(NamedTuple):
    """What is seen at each place, (N, 9) each: shape (NOTHING for none), colour, size."""

    shape: Tensor
    colour: Tensor
    size: Tensor


class Probe(nn.Module):
    """(N, 3, 64, 64) in [0, 1] to class scores (N, 9, shapes + 1 + colours + sizes)."""

    SPLIT: ClassVar[list[int]] = [len(SHAPES) + 1, len(COLOURS), len(SIZES)]

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inward, outward in ((3, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inward, outward, 3, padding=1), nn.GroupNorm(8, outward), nn.SiLU()]
            layers += [nn.MaxPool2d(2)] if len(layers) < 8 else []
        self.look = nn.Sequential(*layers)
        self.name = nn.Sequential(
            nn.Linear(2 * width * 36, 4 * width), nn.SiLU(), nn.Linear(4 * width, sum(self.SPLIT))
        )

    def forward(self, images: Tensor) -> Tensor:
        seen = F.adaptive_avg_pool2d(self.look(images * 2 - 1), (18, 18))
        cells = seen.unfold(2, 6, 6).unfold(3, 6, 6).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return cast(Tensor, self.name(cells))

    @torch.no_grad()
    def read(self, images: Tensor) -> Sight:
        """What is seen; images of any size are brought to 64 pixels first."""
        small = F.interpolate(images, (64, 64), mode="bilinear", antialias=True) if images.shape[-1] != 64 else images
        scores = torch.cat([self(part) for part in torch.split(small, 64)])
        return Sight(*(part.argmax(-1) for part in torch.split(scores, self.SPLIT, dim=-1)))


def truth(scenes: Sequence[Scene]) -> Sight:
    """What stands at each place of some scenes; colour and size are -100 (no answer) where nothing does."""
    shape = torch.full((len(scenes), len(PLACES)), NOTHING)
    colour, size = torch.full_like(shape, -100), torch.full_like(shape, -100)
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            shape[row, thing.place] = thing.shape
            colour[row, thing.place] = thing.colour
            size[row, thing.place] = thing.size
    return Sight(shape, colour, size)


@dataclass(frozen=True)
class ProbeTraining:
    """Cross-entropy at every place, on images that are blurred and noisy by random amounts."""

    schedule: Schedule
    seed: int = 6
    batch: int = 64
    name: str = "probe"

    def run(self, folder: Path, scenes: Sequence[Scene], checkpoint: Path, device: str) -> None:
        from safetensors.torch import save_file

        torch.manual_seed(self.seed)
        probe = Probe().to(device)
        train(probe, lambda step: self._loss(probe, scenes, step), self.schedule, self.name, checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(probe.cpu().eval().state_dict(), folder / WEIGHTS)

    def figures(self, folder: Path) -> dict[str, float]:
        """Share of the 512 held-out scenes' places read right, by attribute."""
        chosen = held_out_scenes(512)
        seen, answers = load(folder).read(draw(chosen, range(512))), truth(chosen)
        pairs = zip(Sight._fields, seen, answers, strict=True)
        return {name: float((read == answer)[answer >= 0].float().mean()) for name, read, answer in pairs}

    def _loss(self, probe: Probe, scenes: Sequence[Scene], step: int) -> Tensor:
        rows, images = batch_of(scenes, step, self.batch)
        generator = torch.Generator().manual_seed(step)
        share = torch.rand(self.batch, 1, 1, 1, generator=generator)
        images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1), share)
        images = images + 0.08 * share * torch.randn(images.shape, generator=generator)
        scores_NPK = probe(images.to(next(probe.parameters()).device)).float()
        return answers_loss(scores_NPK, Probe.SPLIT, truth(rows))


def answers_loss(scores_NPK: Tensor, split: list[int], answers: Sequence[Tensor]) -> Tensor:
    """Cross-entropy of each part of the scores with its answers (N, P), summed; -100 asks for no answer."""
    parts = zip(torch.split(scores_NPK, split, dim=-1), answers, strict=True)
    losses = [F.cross_entropy(part.flatten(0, 1), answer.flatten().to(part.device)) for part, answer in parts]
    return torch.stack(losses).sum()


def load(folder: Path) -> Probe:
    """The trained probe."""
    from safetensors.torch import load_file

    probe = Probe()
    probe.load_state_dict(load_file(folder / WEIGHTS))
    return probe.float().eval()
