"""The teacher's own attention in a seat: where nothing is replaced, and where a variant is compared with it."""

from torch import Tensor, nn

from harness.seats.mixer import Grid, TokenMixer


class TeacherAttention(TokenMixer):
    """The attention that the denoiser came with, called as a mixer is."""

    exact = True

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        mixed_BNC: Tensor = self.attention(tokens_BNC)
        return mixed_BNC

    def flops(self, grid: Grid) -> int:
        return attention_flops(grid, self.channels)

    @property
    def channels(self) -> int:
        return int(self.attention.to_v.in_features)  # type: ignore[union-attr, arg-type]


def attention_flops(grid: Grid, channels: int) -> int:
    """FLOPs of self-attention on one image: 8 N C^2 for four projections, 4 N^2 C for scores and sums."""
    tokens = grid[0] * grid[1]
    return 8 * tokens * channels**2 + 4 * tokens**2 * channels
