"""The embedded world as a sweep sees it: held-out captions in a fixed order, drawn references, its own extractors."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from torch import Tensor

from harness.features.clip import ClipExtractor
from harness.features.dino import Dino
from harness.features.world import Captioned
from harness.records.case import Resolution
from harness.shapes.captions import held_out_scenes, scenes
from harness.shapes.drawing import draw

REFERENCE_SEED = 1_000_000
TRAINING_SEED = 7
DRAWN = 256  # images that are drawn at a time


@dataclass(frozen=True)
class ShapesWorld:
    """Captioned shapes. Prompts are captions that training never draws; references show the same captions."""

    name: str
    dino: Dino
    clip: ClipExtractor

    pictured: ClassVar[bool] = True
    notes: ClassVar[tuple[str, ...]] = ()

    def held(self, n: int) -> int:
        return n

    def prompts(self, n: int) -> list[str]:
        return [scene.caption for scene in held_out_scenes(n)]

    def references(self, n: int, resolution: Resolution, start: int = 0) -> Tensor:
        """(n - start, 3, H, W) float32 in [0, 1]: the first n held-out scenes, from one of them on, at that size."""
        seeds = range(REFERENCE_SEED + start, REFERENCE_SEED + n)
        return draw(held_out_scenes(n)[start:], seeds, resolution.height, resolution.width)

    def taught_on(self) -> str:
        return f"shapes of seed {TRAINING_SEED}"

    def training(self, n: int, resolution: Resolution, device: str = "cpu", start: int = 0) -> Iterator[Captioned]:
        """Images (B, 3, H, W) and captions to distil on, of which none is held out, a few at a time."""
        chosen = list(islice(scenes(TRAINING_SEED), n))
        for first in range(start, n, DRAWN):
            rows = chosen[first : first + DRAWN]
            images = draw(rows, range(first, first + len(rows)), resolution.height, resolution.width, device)
            yield images, [scene.caption for scene in rows]
