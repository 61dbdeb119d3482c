"""Pooling alone: the smooth half of the ∆ConvBlock (arXiv 2504.21292), without its pyramid.

Every token receives the same vector. A site that keeps its quality under this mixer never needed attention.
Shapes: B batch, N tokens, C channels.
"""

from torch import Tensor, nn

from harness.seats.mixer import Grid, Site, TokenMixer, as_map, device_of


class GlobalPooling(TokenMixer):
    """y_n = W mean_m(x_m) + b for every token n."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, channels)

    @classmethod
    def for_site(cls, site: Site, attention: nn.Module) -> "GlobalPooling":
        with device_of(attention):
            return cls(site.channels)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        as_map(tokens_BNC, grid)
        pooled_B1C: Tensor = self.project(tokens_BNC.mean(dim=1, keepdim=True))
        return pooled_B1C.expand_as(tokens_BNC)

    def flops(self, grid: Grid) -> int:
        """One C x C map an image; the mean is additions."""
        return 2 * self.project.in_features * self.project.out_features
