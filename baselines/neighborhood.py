"""Neighborhood Attention (arXiv 2204.07143) with NATTEN's exact borders: attention in a k x k window around each token.

Along an axis of length L, query i sees the k keys that start at clamp(i - k // 2, 0, L - k): at a border the window
shifts inward, so that there are always k keys; an even k sees one key more before the query than after it. With
dilation D the same holds inside each residue class of positions mod D. Where k D exceeds the grid, both are clamped.

`definition` gathers each query's own keys. `forward` has three backends that do the same, none with an N x N mask:
- `tiled`: plain torch on any device, tile by tile, O(N k^2) work;
- `flex`: FlexAttention, compiled at the first call, on CUDA;
- `natten`: the authors' kernels, where that package is installed;
- `auto`: natten on CUDA where its kernels can do it, else tiled; `note` says which.
On the meta device, where costs are counted, all of them are taken for `tiled`.
Shapes: B batch, H x W grid, C channels, h heads, d = C / h.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from baselines import neighborhood_flex, neighborhood_natten, neighborhood_tiled
from baselines.projections import ProjectedMixer, from_teacher, softmax_attention
from harness.seats.mixer import BadInput, Grid, Site, Unavailable, as_map

BACKENDS = ("auto", "tiled", "flex", "natten")
Pair = tuple[int, int]


class NeighborhoodAttention(ProjectedMixer):
    """y = W_o softmax(q k^T / sqrt(d)) v + b_o over the k x k neighbours of each token; inherits a teacher's maps."""

    training_free = True

    def __init__(
        self, channels: int, heads: int, kernel_size: int, dilation: int = 1, bias: bool = False, backend: str = "auto"
    ) -> None:
        super().__init__(channels, heads, bias)
        if kernel_size < 1:
            raise BadInput(f"kernel_size is {kernel_size}: a window has at least 1 key along each side")
        if dilation < 1:
            raise BadInput(f"dilation is {dilation}: give 1 for dense windows or more for spread ones")
        if backend not in BACKENDS:
            raise BadInput(f"backend {backend!r} is not known: choose from {', '.join(BACKENDS)}")
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.backend = backend

    @classmethod
    def for_site(
        cls,
        site: Site,
        attention: nn.Module,
        kernel_size: int | Mapping[str, int] = 13,
        dilation: int | Mapping[str, int] = 1,
        backend: str = "auto",
        inherit: bool = True,
    ) -> "NeighborhoodAttention":
        """Kernel and dilation may map path patterns to sizes. `inherit=False` starts the projections at random."""
        pair = site.pick(kernel_size, "kernel_size"), site.pick(dilation, "dilation")
        return from_teacher(lambda bias: cls(site.channels, site.heads, *pair, bias, backend), site, attention, inherit)

    def window(self, grid: Grid) -> tuple[Pair, Pair]:
        """Kernel and dilation along both axes, after clamping."""
        dilation = min(self.dilation, grid[0]), min(self.dilation, grid[1])
        kernel = min(self.kernel_size, grid[0] // dilation[0]), min(self.kernel_size, grid[1] // dilation[1])
        return kernel, dilation

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """Raises Unavailable where the backend that was asked for cannot run."""
        kernel, dilation = self.window(grid)
        q, k, v = self.maps(tokens_BNC, grid)
        backend = self.backend_on(q.device.type, q.dtype, kernel)
        if backend == "natten":
            return self.close(neighborhood_natten.attend(q, k, v, kernel, dilation))
        attend = neighborhood_flex.attend if backend == "flex" else neighborhood_tiled.attend
        return self.close(dilated(attend, q, k, v, kernel, dilation))

    def backend_on(self, device: str, dtype: torch.dtype, kernel: Pair) -> str:
        """The backend that works on a device; Unavailable for one that was asked for and cannot."""
        if device == "meta":
            return "tiled"
        if self.backend == "auto":
            size = self.channels // self.heads
            return "natten" if device == "cuda" and neighborhood_natten.serves(size, kernel, dtype) else "tiled"
        if self.backend == "flex" and (device != "cuda" or dtype == torch.float64):
            raise Unavailable(
                f"backend flex is fused on CUDA in 16 or 32 bits alone, not on {device} in {str(dtype)[6:]}, where it "
                "would hold all N x N scores: take backend=tiled"
            )
        return self.backend

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """Every query with its own k x k keys, one row of queries at a time (k^2 copies of a row, not of the map)."""
        q, k, v = self.maps(tokens_BNC, grid)
        kernel, dilation = self.window(grid)
        row_keys_Hk = neighbours(grid[0], kernel[0], dilation[0], q.device)
        column_keys_Wk = neighbours(grid[1], kernel[1], dilation[1], q.device)
        mixed = []
        for row in range(grid[0]):
            q_BWh1d = q[:, row].unsqueeze(-2)
            k_BWhsd, v_BWhsd = (
                source.index_select(1, row_keys_Hk[row])[:, :, column_keys_Wk].permute(0, 2, 4, 1, 3, 5).flatten(3, 4)
                for source in (k, v)
            )
            mixed.append(softmax_attention(q_BWh1d, k_BWhsd, v_BWhsd).squeeze(-2))
        return self.close(torch.stack(mixed, dim=1))

    def maps(self, tokens_BNC: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, W, h, d)."""
        q, k, v = (
            as_map(project(tokens_BNC), grid).view(-1, *grid, self.heads, self.channels // self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        return q, k, v

    def close(self, mixed_BHWhd: Tensor) -> Tensor:
        closed: Tensor = self.to_out[0](mixed_BHWhd.flatten(3).flatten(1, 2))
        return closed

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 4 N k^2 C for scores and sums, k^2 as clamped; what tiles overlap is not counted."""
        (rows, columns), _ = self.window(grid)
        return self.projection_flops(grid) + 4 * grid[0] * grid[1] * rows * columns * self.channels

    def note(self, grid: Grid) -> str:
        """The backend, and the clamped window if it is."""
        kernel, dilation = self.window(grid)
        said = [f"backend {self.backend}"]
        if self.backend == "auto":
            cuda = self.backend_on("cuda", next(self.parameters()).dtype, kernel)
            said = ["backend tiled" if cuda == "tiled" else f"backend {cuda} on cuda, tiled elsewhere"]
        if (kernel, dilation) != ((self.kernel_size,) * 2, (self.dilation,) * 2):
            said.append(
                f"kernel {self.kernel_size}x{self.kernel_size} dilation {self.dilation} clamped to "
                f"{kernel[0]}x{kernel[1]} dilation {dilation[0]}x{dilation[1]} on a {grid[0]}x{grid[1]} grid"
            )
        return "; ".join(said)


def dilated(
    attend: Callable[[Tensor, Tensor, Tensor, Pair], Tensor], q: Tensor, k: Tensor, v: Tensor, kernel: Pair, step: Pair
) -> Tensor:
    """Dilation by attention inside each residue class of positions, which is a dense grid of its own."""
    if step == (1, 1):
        return attend(q, k, v, kernel)
    mixed_BHWhd = torch.empty_like(q)
    for row in range(step[0]):
        for column in range(step[1]):
            part = (slice(None), slice(row, None, step[0]), slice(column, None, step[1]))
            mixed_BHWhd[part] = attend(q[part], k[part], v[part], kernel)
    return mixed_BHWhd


def neighbours(length: int, kernel: int, dilation: int, device: torch.device) -> Tensor:
    """(length, kernel) positions of the keys of each query along one axis."""
    position = torch.arange(length, device=device)
    residue = position % dilation
    members = (length - residue + dilation - 1) // dilation
    first = torch.minimum((position // dilation - kernel // 2).clamp(min=0), members - kernel)
    return (first[:, None] + torch.arange(kernel, device=device)) * dilation + residue[:, None]
