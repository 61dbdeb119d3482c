"""What may stand at one site while all others keep the teacher's attention: its mean map, or the identity map.

Both keep the teacher's values and closing map, W_o A W_v x: A is the map averaged over images and times, or the one in
which each token looks at itself. What a site loses by either says whether its attention answers to the image at all,
and whether it looks at anything else. Shapes: B batch, N tokens, C channels, h heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.locality.maps import closed
from harness.locality.moments import Moment
from harness.locality.survey import listening
from harness.seats.mixer import Grid
from harness.seats.teacher import TeacherAttention

MOST_BYTES = 2**28  # a mean map is held whole, (h, N, N): beyond this a site has none


class IdentityMap(TeacherAttention):
    """y = W_o W_v x + b_o: each token looks at itself."""

    exact = False

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        return closed(self.attention, self.values(tokens_BNC))

    def values(self, tokens_BNC: Tensor) -> Tensor:
        values_BNC: Tensor = self.attention.to_v(tokens_BNC)  # type: ignore[operator]
        return values_BNC

    def flops(self, grid: Grid) -> int:
        """4 N C^2 for two projections."""
        return 4 * grid[0] * grid[1] * self.channels**2


class MeanMap(IdentityMap):
    """y = W_o A W_v x + b_o with one map A for each head, whatever the image."""

    def __init__(self, attention: nn.Module, maps_hNN: Tensor) -> None:
        super().__init__(attention)
        self.maps_hNN = nn.Buffer(maps_hNN, persistent=False)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        values_BhNd = self.values(tokens_BNC).unflatten(2, (len(self.maps_hNN), -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
        return closed(self.attention, (self.maps_hNN @ values_BhNd).transpose(1, 2).flatten(2))

    def flops(self, grid: Grid) -> int:
        """4 N C^2 for two projections, 2 N^2 C for the sums."""
        return super().flops(grid) + 2 * (grid[0] * grid[1]) ** 2 * self.channels


@torch.no_grad()
def mean_maps(denoiser: nn.Module, moments: Sequence[Moment]) -> dict[str, Tensor]:
    """(h, N, N) mean of every site's maps over all moments; sites whose map is too large are left out."""
    found: dict[str, Tensor] = {}
    with listening(denoiser) as listeners:
        moments[0].call(denoiser)
        small = [each for each in listeners if 4 * each.site.heads * (each.grid[0] * each.grid[1]) ** 2 <= MOST_BYTES]
        for listener in small:
            listener.listens = True
        for moment in moments:
            moment.call(denoiser)
            for listener in small:
                maps_hNN = listener.heard.pop().maps() / len(moments)
                path = listener.site.path
                found[path] = found[path] + maps_hNN if path in found else maps_hNN
    return found
