"""The embedded world as a sweep sees it: held-out captions in a fixed order, drawn references, its own extractors."""

from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from harness.features.clip import ClipExtractor
from harness.features.dino import Dino
from harness.records.case import Resolution
from harness.shapes.captions import held_out_scenes, scenes
from harness.shapes.drawing import draw

REFERENCE_SEED = 1_000_000
TRAINING_SEED = 7


@dataclass(frozen=True)
class ShapesWorld:
    """Captioned shapes. Prompts are captions that training never draws; references show the same captions."""

    name: str
    dino: Dino
    clip: ClipExtractor

    def prompts(self, n: int) -> list[str]:
        """The first n held-out captions."""
        return [scene.caption for scene in held_out_scenes(n)]

    def categories(self, n: int) -> list[str]:
        """What each of them tests: colour, shape, size, place, count, pair, mirror, mixed."""
        return [scene.category for scene in held_out_scenes(n)]

    def references(self, n: int, resolution: Resolution) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1]: the held-out scenes, drawn at that size."""
        seeds = range(REFERENCE_SEED, REFERENCE_SEED + n)
        return draw(held_out_scenes(n), seeds, resolution.height, resolution.width)

    def training(self, n: int, resolution: Resolution) -> tuple[Tensor, list[str]]:
        """Images and captions to distil on, of which none is held out."""
        chosen = list(islice(scenes(TRAINING_SEED), n))
        return draw(chosen, range(n), resolution.height, resolution.width), [scene.caption for scene in chosen]
