"""Key-value compression of PixArt-Sigma (arXiv 2403.04692): attention over keys and values shrunk to a coarser grid.

After their projections, keys and values go through one shared depthwise convolution (kernel and stride r, started as
the mean of r x r tokens, dropping what fills no cell) and one shared LayerNorm, as published. PixArt-Sigma compresses
its blocks 14 to 27 alone.
Shapes: B batch, H x W grid, C channels, M = (H // r) (W // r) keys.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from baselines.projections import ProjectedMixer, from_teacher, softmax_attention
from harness.seats.mixer import BadInput, Grid, Site, as_map


class KeyValueCompression(ProjectedMixer):
    """y = W_o softmax(q k'^T / sqrt(d)) v' + b_o with k' = LN(conv(k)), v' = LN(conv(v)); ratio 1 is self-attention."""

    def __init__(self, channels: int, heads: int, ratio: int = 2, bias: bool = False) -> None:
        super().__init__(channels, heads, bias)
        if ratio < 1:
            raise BadInput(
                f"ratio is {ratio}: give 1 for none, or the number of tokens along each side of a cell, such as 2"
            )
        self.ratio = ratio
        self.shrink = self.norm = None
        if ratio > 1:
            self.shrink = nn.Conv2d(channels, channels, ratio, stride=ratio, groups=channels)
            nn.init.constant_(self.shrink.weight, ratio**-2)
            nn.init.constant_(self.shrink.bias, 0)  # type: ignore[arg-type]
            self.norm = nn.LayerNorm(channels)

    @classmethod
    def for_site(cls, site: Site, attention: nn.Module, ratio: int | Mapping[str, int] = 2) -> "KeyValueCompression":
        """`ratio` may map path patterns to ratios, 1 for the sites that stay as they are."""
        size = site.pick(ratio, "ratio")
        return from_teacher(lambda bias: cls(site.channels, site.heads, size, bias), site, attention)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return self.merge(scaled_dot_product_attention(*self.compressed(tokens_BNC, grid)))

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return self.merge(softmax_attention(*self.compressed(tokens_BNC, grid)))

    def compressed(self, tokens_BNC: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of all tokens, keys and values of the coarser grid, split into heads."""
        self.keys(grid)
        q_BNC, k_BMC, v_BMC = self.to_q(tokens_BNC), self.to_k(tokens_BNC), self.to_v(tokens_BNC)
        as_map(q_BNC, grid)
        if self.shrink is not None and self.norm is not None:
            k_BMC, v_BMC = (
                self.norm(self.shrink(as_map(source, grid).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2))
                for source in (k_BMC, v_BMC)
            )
        return self.split(q_BNC), self.split(k_BMC), self.split(v_BMC)

    def keys(self, grid: Grid) -> int:
        """M; ValueError where no cell fits the grid."""
        count = (grid[0] // self.ratio) * (grid[1] // self.ratio)
        if not count:
            raise ValueError(
                f"ratio {self.ratio} empties a map of {grid[0]} x {grid[1]} tokens: choose a smaller ratio"
            )
        return count

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 4 N M C for scores and sums, and r^2 a key and channel for each shrinking."""
        tokens, keys = grid[0] * grid[1], self.keys(grid)
        shrinking = 0 if self.shrink is None else 4 * keys * self.channels * self.ratio**2
        return self.projection_flops(grid) + 4 * tokens * keys * self.channels + shrinking

    def note(self, grid: Grid) -> str:
        """What the cells leave out, if they do."""
        rows, columns = grid[0] % self.ratio, grid[1] % self.ratio
        return f"no keys from the last {rows} rows and {columns} columns" if rows or columns else ""
