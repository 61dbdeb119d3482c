"""ReLU linear attention, as in EfficientViT (arXiv 2205.14756) and SANA (arXiv 2410.10629).

    y_i = W_o (r(q_i) sum_j r(k_j) v_j^T) / (r(q_i) . sum_j r(k_j) + 1e-15) + b_o,    r = ReLU

The sums run in fp32 at least, as published, because they grow with N. SANA pairs it with convolutions in its
feed-forward part; here it stands alone in the place of attention.
Shapes: B batch, N tokens, C channels, h heads, d = C / h.
"""

import torch
from torch import Tensor, nn

from baselines.projections import ProjectedMixer, from_teacher
from harness.seats.mixer import Grid, Site, as_map

EPSILON = 1e-15


class ReLULinearAttention(ProjectedMixer):
    """Attention whose weights are products of rectified queries and keys; its cost is linear in N."""

    @classmethod
    def for_site(cls, site: Site, attention: nn.Module, inherit: bool = True) -> "ReLULinearAttention":
        """`inherit=False` starts at random: LiT (arXiv 2501.12976) found that copying q, k, v does not help."""
        return from_teacher(lambda bias: cls(site.channels, site.heads, bias), site, attention, inherit)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        as_map(tokens_BNC, grid)
        precise = torch.float64 if tokens_BNC.dtype == torch.float64 else torch.float32
        q, k, v = (self.split(project(tokens_BNC)).to(precise) for project in (self.to_q, self.to_k, self.to_v))
        q, k = q.relu(), k.relu()
        norm_BhN1 = q @ k.sum(dim=-2, keepdim=True).transpose(-2, -1) + EPSILON
        mixed_BhNd = q @ (k.transpose(-2, -1) @ v) / norm_BhN1
        return self.merge(mixed_BhNd.to(tokens_BNC.dtype))

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 4 N C d for the state in and out, 2 N C for the norm."""
        tokens = grid[0] * grid[1]
        state = 4 * tokens * self.channels * (self.channels // self.heads)
        return self.projection_flops(grid) + state + 2 * tokens * self.channels
