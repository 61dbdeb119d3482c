"""Depthwise convolution alone: the local half of the ∆ConvBlock (arXiv 2504.21292), without gate, pyramid and pooling.

Its weights don't depend on the content, and a token sees nothing beyond K // 2 steps: what a plain convolution can do.
Shapes: B batch, N tokens, C channels.
"""

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from harness.seats.mixer import (
    BadInput,
    Grid,
    Site,
    TokenMixer,
    as_map,
    depthwise,
    device_of,
    layouts_said,
    padding_said,
)


class DepthwiseConvolution(TokenMixer):
    """y = W (depthwise K x K convolution of x) + b, zero padding."""

    def __init__(self, channels: int, kernel_size: int = 13) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise BadInput(
                f"kernel_size is {kernel_size}, but the kernel needs a centre: give an odd number such as 13"
            )
        self.spatial = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.project = nn.Linear(channels, channels)

    @classmethod
    def for_site(cls, site: Site, attention: nn.Module, kernel_size: int | Mapping[str, int] = 13) -> Self:
        """`kernel_size` may map path patterns to sizes."""
        with device_of(attention):
            return cls(site.channels, site.pick(kernel_size, "kernel_size"))

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return depthwise(self.spatial, as_map(tokens_BNC, grid).permute(0, 3, 1, 2), self.projected)

    def projected(self, map_BCHW: Tensor) -> Tensor:
        """The closing map of a convolved map's tokens."""
        mixed_BNC: Tensor = self.project(map_BCHW.flatten(2).transpose(1, 2))
        return mixed_BNC

    def flops(self, grid: Grid) -> int:
        """A K x K window a channel and one C x C map; window positions in the zero padding count."""
        tokens, channels = grid[0] * grid[1], self.project.in_features
        return 2 * tokens * channels * self.spatial.kernel_size[0] ** 2 + 2 * tokens * channels**2

    def note(self, grid: Grid) -> str:
        """Where the kernel is larger than the map, and in which layout the map is convolved."""
        said = [padding_said(self.spatial.kernel_size[0], [grid]), layouts_said(self.spatial, [grid])]
        return "; ".join(filter(None, said))
