"""Token merging for Stable Diffusion (ToMe-SD, arXiv 2303.17604): attention on what is left when like ones are merged.

In every 2 x 2 cell of the grid the first token is a destination, all others are sources. Each source looks for the most
similar destination (cosine); the `ratio` N most similar sources are averaged into theirs, self-attention runs on what
is left, and every merged token receives a copy of its destination's result. Unlike the published code, destinations are
not drawn at random, and likeness is judged by the site's own (normalised) input.
Shapes: B batch, N tokens, C channels, M tokens left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from baselines.projections import ProjectedMixer, from_teacher, softmax_attention
from harness.seats.mixer import BadInput, Grid, Site, as_map

CELL = 2


class TokenMerging(ProjectedMixer):
    """Self-attention on merged tokens; a teacher's weights fit, and no training is needed."""

    training_free = True

    def __init__(self, channels: int, heads: int, ratio: float = 0.5, bias: bool = False) -> None:
        super().__init__(channels, heads, bias)
        if not 0 <= ratio < 1:
            raise BadInput(f"ratio is {ratio:g}: give the share of tokens to merge, from 0 to below 1")
        self.ratio = ratio

    @classmethod
    def for_site(cls, site: Site, attention: nn.Module, ratio: float | Mapping[str, float] = 0.5) -> "TokenMerging":
        """`ratio` may map path patterns to shares; ToMe-SD itself merges at the widest level alone."""
        share = site.pick(ratio, "ratio")
        return from_teacher(lambda bias: cls(site.channels, site.heads, share, bias), site, attention)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        plan = self.plan(tokens_BNC, grid)
        q, k, v = self.projected(plan.merge(tokens_BNC))
        return plan.unmerge(self.merge(scaled_dot_product_attention(q, k, v)))

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        plan = self.plan(tokens_BNC, grid)
        q, k, v = self.projected(plan.merge(tokens_BNC))
        return plan.unmerge(self.merge(softmax_attention(q, k, v)))

    def plan(self, tokens_BNC: Tensor, grid: Grid) -> "Plan":
        """Who is merged into whom, image by image."""
        as_map(tokens_BNC, grid)
        tokens = tokens_BNC.shape[1]
        targets_D, sources_S = destinations_and_sources(grid, tokens_BNC.device)
        merged = min(len(sources_S), int(tokens * self.ratio))
        with torch.no_grad():
            unit_BNC = normalize(tokens_BNC, dim=-1)
            likeness, likest = (unit_BNC[:, sources_S] @ unit_BNC[:, targets_D].transpose(1, 2)).max(dim=-1)
            order_BS = likeness.argsort(dim=-1, descending=True, stable=True)
        return Plan(
            targets_D=targets_D,
            kept_BK=sources_S[order_BS[:, merged:]],
            merged_BR=sources_S[order_BS[:, :merged]],
            into_BR=likest.gather(1, order_BS[:, :merged]),
        )

    def left(self, grid: Grid) -> tuple[int, int, int]:
        """Tokens after merging, sources and destinations."""
        tokens = grid[0] * grid[1]
        targets = (grid[0] // min(CELL, grid[0])) * (grid[1] // min(CELL, grid[1]))
        sources = tokens - targets
        return tokens - min(sources, int(tokens * self.ratio)), sources, targets

    def flops(self, grid: Grid) -> int:
        """8 M C^2 + 4 M^2 C on the M tokens left, and 2 C for each pair of source and destination."""
        left, sources, targets = self.left(grid)
        return 8 * left * self.channels**2 + 4 * left**2 * self.channels + 2 * sources * targets * self.channels

    def note(self, grid: Grid) -> str:
        return f"attention on {self.left(grid)[0]} of {grid[0] * grid[1]} tokens"


@dataclass(frozen=True)
class Plan:
    """Positions of destinations (D), of sources that stay (K) and that are merged (R), and into which destination."""

    targets_D: Tensor
    kept_BK: Tensor
    merged_BR: Tensor
    into_BR: Tensor

    def merge(self, tokens_BNC: Tensor) -> Tensor:
        """(B, K + D, C): the sources that stay, then the destinations, each averaged with what is merged into it."""
        channels = tokens_BNC.shape[2]
        kept = tokens_BNC.gather(1, over_channels(self.kept_BK, channels))
        moved = tokens_BNC.gather(1, over_channels(self.merged_BR, channels))
        sums = tokens_BNC[:, self.targets_D].scatter_add(1, over_channels(self.into_BR, channels), moved)
        ones = torch.ones_like(self.into_BR, dtype=tokens_BNC.dtype)
        counts = ones.new_ones(len(ones), len(self.targets_D)).scatter_add(1, self.into_BR, ones)
        return torch.cat([kept, sums / counts.unsqueeze(-1)], dim=1)

    def unmerge(self, tokens_BMC: Tensor) -> Tensor:
        """(B, N, C): every token its own result, or a copy of that of the destination it was merged into."""
        batch, _, channels = tokens_BMC.shape
        kept, targets = tokens_BMC.tensor_split([self.kept_BK.shape[1]], dim=1)
        copies = targets.gather(1, over_channels(self.into_BR, channels))
        positions = torch.cat([self.kept_BK, self.targets_D.expand(batch, -1), self.merged_BR], dim=1)
        mixed = torch.cat([kept, targets, copies], dim=1)
        return torch.zeros_like(mixed).scatter(1, over_channels(positions, channels), mixed)


def over_channels(index_BK: Tensor, channels: int) -> Tensor:
    """An index over tokens as one over all their channels, without a copy."""
    return index_BK.unsqueeze(-1).expand(-1, -1, channels)


def destinations_and_sources(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of the destinations (first token of each whole cell) and of all other tokens."""
    height, width = grid
    tall, broad = min(CELL, height), min(CELL, width)
    chosen_HW = torch.zeros(height, width, dtype=torch.int8, device=device)
    chosen_HW[: height // tall * tall : tall, : width // broad * broad : broad] = 1
    order_N = chosen_HW.flatten().argsort(stable=True)  # unlike nonzero, of a length that a compiler knows
    targets = (height // tall) * (width // broad)
    return order_N[-targets:], order_N[:-targets]
