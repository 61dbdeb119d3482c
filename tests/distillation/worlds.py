"""What the students of tests learn from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.records.case import Resolution


class Noise:
    """Random pictures with two captions."""

    name, notes = "noise", ()

    def training(
        self, n: int, resolution: Resolution, device: str, start: int = 0
    ) -> Iterator[tuple[Tensor, list[str]]]:
        shape = (n, 3, resolution.height, resolution.width)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        yield images[start:], (["a cat", "a dog"] * (n // 2))[start:]
