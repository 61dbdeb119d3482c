"""Draws scenes at any size, a whole batch at once: signed distances to each outline, smoothed over one pixel.

Lengths are shares of the image side, so a scene drawn at 128 pixels is the same scene as at 64, only sharper.
Shapes: B scenes, T things of a scene (padded), H, W pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.shapes.captions import SHAPES, Scene

INKS = (
    (0.86, 0.10, 0.12),
    (1.00, 0.55, 0.00),
    (0.98, 0.88, 0.10),
    (0.10, 0.65, 0.20),
    (0.12, 0.30, 0.90),
    (0.60, 0.20, 0.75),
)
PAPERS = ((0.97, 0.97, 0.97), (0.55, 0.55, 0.55), (0.05, 0.05, 0.05))
RADII = (0.100, 0.150)
CENTRES = (0.19, 0.5, 0.81)
MOST_THINGS = 4
JITTER = 0.012
"""Largest shift of a centre; a radius varies by as much relative to its size times four, a colour by 0.03."""


def draw(
    scenes: Sequence[Scene], seeds: Sequence[int], height: int = 64, width: int = 64, device: str | torch.device = "cpu"
) -> Tensor:
    """Images (B, 3, H, W), float32 in [0, 1]; image i is a function of scenes[i], seeds[i] and the size alone."""
    geometry_BT4, inks_BT3, papers_B3 = (part.to(device) for part in _lay_out(scenes, seeds))
    y_HW, x_HW = torch.meshgrid(_pixel_centres(height, device), _pixel_centres(width, device), indexing="ij")
    image_B3HW = papers_B3[:, :, None, None].repeat(1, 1, height, width)
    pixel = 1.0 / min(height, width)
    for thing in range(MOST_THINGS):
        for shape, outline in enumerate(OUTLINES[name] for name in SHAPES):
            rows = (geometry_BT4[:, thing, 3] == shape).nonzero()[:, 0]
            x_R, y_R, radius_R = (column[:, None, None] for column in geometry_BT4[rows, thing, :3].unbind(-1))
            distance_RHW = outline(x_HW - x_R, y_HW - y_R, radius_R)
            cover_R1HW = (0.5 - distance_RHW / pixel).clamp(0, 1)[:, None]
            image_B3HW[rows] = torch.lerp(image_B3HW[rows], inks_BT3[rows, thing, :, None, None], cover_R1HW)
    return image_B3HW


def batch_of(scenes: Sequence[Scene], step: int, batch: int) -> tuple[list[Scene], Tensor]:
    """The scenes of a training step, which take turns, and their images, each time with another jitter."""
    numbers = range(step * batch, (step + 1) * batch)
    rows = [scenes[number % len(scenes)] for number in numbers]
    return rows, draw(rows, numbers)


def _pixel_centres(count: int, device: str | torch.device) -> Tensor:
    return (torch.arange(count, dtype=torch.float32, device=device) + 0.5) / count


def _lay_out(scenes: Sequence[Scene], seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Centre x, centre y, radius and shape of each thing (radius -1 for none), its ink, and the paper."""
    noise_BR6 = _jitter(seeds)
    papers_B3 = torch.tensor(PAPERS)[[scene.background for scene in scenes]] + 0.02 * noise_BR6[:, MOST_THINGS, :3]
    found = [
        (row, column, thing.place, thing.size, thing.shape, thing.colour, *_noise_rows(scene, column))
        for row, scene in enumerate(scenes)
        for column, thing in enumerate(scene.things)
    ]
    row, column, place, size, shape, colour, moved, inked, side = torch.tensor(found).reshape(-1, 9).unbind(-1)
    noise_F6, centres = noise_BR6[row, moved], torch.tensor(CENTRES)
    geometry_BT4 = torch.full((len(scenes), MOST_THINGS, 4), -1.0)
    geometry_BT4[row, column, 0] = centres[place % 3] + JITTER * (side * noise_F6[:, 0])
    geometry_BT4[row, column, 1] = centres[place // 3] + JITTER * noise_F6[:, 1]
    geometry_BT4[row, column, 2] = torch.tensor(RADII)[size] * (1 + 4 * JITTER * noise_F6[:, 2])
    geometry_BT4[row, column, 3] = shape.float()
    inks_BT3 = torch.zeros(len(scenes), MOST_THINGS, 3)
    inks_BT3[row, column] = torch.tensor(INKS)[colour] + 0.03 * noise_BR6[row, inked, 3:]
    return geometry_BT4, inks_BT3.clamp(0, 1), papers_B3.clamp(0, 1)


def _jitter(seeds: Sequence[int]) -> Tensor:
    """(B, MOST_THINGS + 1, 6) in [-1, 1]: a row for each thing, and the last for the paper."""
    generator = torch.Generator()
    drawn = [torch.rand(MOST_THINGS + 1, 6, generator=generator.manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn) * 2 - 1


def _noise_rows(scene: Scene, column: int) -> tuple[int, int, int]:
    """Which row of the noise moves a thing, which one tints it, and 1, or -1 for a thing that mirrors another."""
    half = len(scene.things) // 2
    mirror = scene.mirrored and column >= half
    moved = column - half if mirror else column
    return moved, moved if scene.things[column].named else 0, -1 if mirror else 1


def _cross(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    long, short = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return torch.maximum(long - radius, short - 0.34 * radius)


OUTLINES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y, radius: torch.hypot(x, y) - radius,
    "square": lambda x, y, radius: torch.maximum(x.abs(), y.abs()) - 0.88 * radius,
    "triangle": lambda x, y, radius: torch.maximum(0.894 * x.abs() + 0.447 * (-y - radius), y - 0.85 * radius),
    "cross": _cross,
    "ring": lambda x, y, radius: (torch.hypot(x, y) - 0.72 * radius).abs() - 0.28 * radius,
    "diamond": lambda x, y, radius: 0.7071 * (x.abs() + y.abs() - 1.2 * radius),
}
"""Distance from each outline, negative inside, as a function of the offset from its centre."""
