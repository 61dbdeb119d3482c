"""How pixels reach an extractor: a list of named steps, which is at once the setting and the protocol's text.

    squash224-bicubic          both sides to 224, the aspect ratio is lost
    short256-bicubic           the shorter side to 256
    crop224                    the centre
    squash299-bilinear-alias   torch's plain interpolation, without antialias (the evaluation of arXiv 2504.21292)

Images are rounded to 8 bits on entry and after each resize, as PIL's are: a number taken from the tensors of a model
equals the number taken from its PNG files. Shapes: N images, H height, W width.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.records.case import BadInput

STEP = re.compile(r"(?P<kind>squash|short)(?P<side>\d+)-(?P<mode>bilinear|bicubic)(?P<alias>-alias)?|crop(?P<crop>\d+)")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Pixels:
    """Steps of resizing, then (x - mean) / std; without mean and std the pixels stay in [0, 1]."""

    steps: tuple[str, ...]
    mean: Triple | None = None
    std: Triple | None = None

    def __str__(self) -> str:
        scale = "raw" if self.mean is None else f"mean{_short(self.mean)}-std{_short(self.std or (1.0, 1.0, 1.0))}"
        return ">".join(("u8", *self.steps, scale))

    def __call__(self, images_N3HW: Tensor) -> Tensor:
        """Float32 pixels for the network, on the images' device. Takes floats in [0, 1] or bytes."""
        pixels = eight_bit(images_N3HW)
        for step in self.steps:
            pixels = _taken(step, pixels)
        if self.mean is None:
            return pixels
        mean, std = (pixels.new_tensor(triple).view(3, 1, 1) for triple in (self.mean, self.std or (1.0, 1.0, 1.0)))
        return (pixels - mean) / std


def eight_bit(images_N3HW: Tensor) -> Tensor:
    """Floats in [0, 1] on the grid of 8-bit values; bytes are divided by 255."""
    if images_N3HW.ndim != 4 or images_N3HW.shape[1] != 3:
        raise ValueError(f"images of shape {tuple(images_N3HW.shape)} are not (N, 3, height, width)")
    if images_N3HW.dtype == torch.uint8:
        return images_N3HW.float() / 255
    if not images_N3HW.isfinite().all():
        raise ValueError("images hold values that are not finite: no feature can be taken from them")
    return images_N3HW.float().clamp(0, 1).mul(255).round() / 255


def _taken(step: str, pixels: Tensor) -> Tensor:
    match = STEP.fullmatch(step)
    if match is None:
        raise BadInput(f"pixel step {step!r} is unknown: write squash224-bicubic, short256-bilinear, or crop224")
    if match["crop"]:
        return _cropped(pixels, int(match["crop"]))
    side, (height, width) = int(match["side"]), (pixels.shape[-2], pixels.shape[-1])
    size = (side, side)
    if match["kind"] == "short":
        short = min(height, width)
        size = (int(side * height / short), int(side * width / short))
    if size == (height, width):
        return pixels
    resized = F.interpolate(pixels, size, mode=match["mode"], align_corners=False, antialias=not match["alias"])
    return eight_bit(resized)


def _cropped(pixels: Tensor, side: int) -> Tensor:
    height, width = pixels.shape[-2:]
    if min(height, width) < side:
        raise BadInput(f"pixel step crop{side} cannot cut {width}x{height} pixels: resize to {side} at least before it")
    top, left = round((height - side) / 2), round((width - side) / 2)
    return pixels[..., top : top + side, left : left + side]


def _short(triple: Triple) -> str:
    return ",".join(f"{value:g}" for value in triple)
