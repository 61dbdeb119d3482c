"""What the students of tests learn from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.records.case import Resolution


class Noise:
    """Random pictures with two captions."""

    name = "noise"

    def training(self, n: int, resolution: Resolution, device: str) -> Iterator[tuple[Tensor, list[str]]]:
        shape = (n, 3, resolution.height, resolution.width)
        yield torch.rand(shape, generator=torch.Generator().manual_seed(1)), ["a cat", "a dog"] * (n // 2)
