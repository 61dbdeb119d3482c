"""Self-attention itself, as diffusers computes it: the row that every other mixer is measured against.

softmax(q k^T / sqrt(d)) v for each head. `forward` leaves it to PyTorch's fused kernels, which hold no N x N map;
`definition` writes it out. With the teacher's weights it is the teacher.
Shapes: B batch, N tokens, C channels, h heads, d = C / h.
"""

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from baselines.projections import ProjectedMixer, from_teacher, softmax_attention
from harness.seats.mixer import Grid, Site


class SelfAttention(ProjectedMixer):
    """y = W_o softmax(q k^T / sqrt(d)) v + b_o over all N tokens."""

    exact = True

    @classmethod
    def for_site(cls, site: Site, attention: nn.Module) -> "SelfAttention":
        return from_teacher(lambda bias: cls(site.channels, site.heads, bias), site, attention)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        q, k, v = self.projected(tokens_BNC, grid)
        return self.merge(scaled_dot_product_attention(q, k, v))

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        q, k, v = self.projected(tokens_BNC, grid)
        return self.merge(softmax_attention(q, k, v))

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 4 N^2 C for scores and sums; the softmax is not counted."""
        tokens = grid[0] * grid[1]
        return self.projection_flops(grid) + 4 * tokens**2 * self.channels
