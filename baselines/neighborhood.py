"""Neighborhood Attention (arXiv 2204.07143) with NATTEN's exact borders: attention in a k x k window around each token.

Along an axis of length L, query i sees the k keys that start at clamp(i - k // 2, 0, L - k): at a border the window
shifts inward, so that there are always k keys; an even k sees one key more before the query than after it. With
dilation D the same holds inside each residue class of positions mod D. Where k D exceeds the grid, both are clamped.

`forward` works tile by tile: the queries of a tile share the union of their windows, so the work is O(N k^2) and no
buffer outgrows one row of tiles. `definition` gathers each query's own keys.
Shapes: B batch, H x W grid, C channels, h heads, d = C / h.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from baselines.projections import ProjectedMixer, has_bias, place, softmax_attention
from harness.mixer import Grid, Site, as_map

TILE = 8
"""Side of a tile of queries: a tile of t reads (t + k - 1)^2 keys, (1 + (t - 1) / k)^2 times what its queries need."""


class NeighborhoodAttention(ProjectedMixer):
    """y = W_o softmax(q k^T / sqrt(d)) v + b_o over the k x k neighbours of each token; inherits a teacher's maps."""

    def __init__(self, channels: int, heads: int, kernel_size: int, dilation: int = 1, bias: bool = False) -> None:
        super().__init__(channels, heads, bias)
        if kernel_size < 1:
            raise ValueError(f"kernel_size is {kernel_size}: a window has at least 1 key along each side")
        if dilation < 1:
            raise ValueError(f"dilation is {dilation}: give 1 for dense windows or more for spread ones")
        self.kernel_size = kernel_size
        self.dilation = dilation

    @classmethod
    def for_site(
        cls,
        site: Site,
        attention: nn.Module,
        kernel_size: int | Mapping[str, int] = 13,
        dilation: int | Mapping[str, int] = 1,
    ) -> "NeighborhoodAttention":
        """Kernel and dilation may map path patterns to sizes."""
        kernel_size, dilation = site.pick(kernel_size, "kernel_size"), site.pick(dilation, "dilation")
        with place(site, attention):
            mixer = cls(site.channels, site.heads, kernel_size, dilation, bias=has_bias(attention))
        return mixer.inherit(attention)

    def window(self, length: int) -> tuple[int, int]:
        """(kernel, dilation) along an axis of this length, after clamping."""
        dilation = min(self.dilation, length)
        return min(self.kernel_size, length // dilation), dilation

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        (rows, row_step), (columns, column_step) = self.window(grid[0]), self.window(grid[1])
        q, k, v = self.maps(tokens_BNC, grid)
        if row_step == column_step == 1:
            return self.close(tiled_attention(q, k, v, (rows, columns)))
        mixed_BHWhd = torch.empty_like(q)
        for row in range(row_step):
            for column in range(column_step):
                part = (slice(None), slice(row, None, row_step), slice(column, None, column_step))
                mixed_BHWhd[part] = tiled_attention(q[part], k[part], v[part], (rows, columns))
        return self.close(mixed_BHWhd)

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """Every query with its own k x k keys, one row of queries at a time (k^2 copies of a row, not of the map)."""
        q, k, v = self.maps(tokens_BNC, grid)
        row_keys_Hk = neighbours(grid[0], *self.window(grid[0]), device=q.device)
        column_keys_Wk = neighbours(grid[1], *self.window(grid[1]), device=q.device)
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
        self.check_grid(tokens_BNC, grid)
        q, k, v = (
            as_map(project(tokens_BNC), grid).view(-1, *grid, self.heads, self.channels // self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        return q, k, v

    def close(self, mixed_BHWhd: Tensor) -> Tensor:
        """The closing map of (B, N, C)."""
        closed: Tensor = self.to_out[0](mixed_BHWhd.flatten(3).flatten(1, 2))
        return closed

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 4 N k^2 C for scores and sums, k^2 as clamped; what tiles overlap is not counted."""
        window = self.window(grid[0])[0] * self.window(grid[1])[0]
        return self.projection_flops(grid) + 4 * grid[0] * grid[1] * window * self.channels

    def note(self, grid: Grid) -> str:
        """The clamped window, if it is."""
        (rows, row_step), (columns, column_step) = self.window(grid[0]), self.window(grid[1])
        if (rows, columns, row_step, column_step) == (*[self.kernel_size] * 2, *[self.dilation] * 2):
            return ""
        asked = f"kernel {self.kernel_size}x{self.kernel_size} dilation {self.dilation}"
        return f"{asked} clamped to {rows}x{columns} dilation {row_step}x{column_step} on a {grid[0]}x{grid[1]} grid"


def neighbours(length: int, kernel: int, dilation: int, device: torch.device) -> Tensor:
    """(length, kernel) positions of the keys of each query along one axis."""
    position = torch.arange(length, device=device)
    residue = position % dilation
    members = (length - residue + dilation - 1) // dilation
    first = torch.minimum((position // dilation - kernel // 2).clamp(min=0), members - kernel)
    return (first[:, None] + torch.arange(kernel, device=device)) * dilation + residue[:, None]


def first_key(query: int, length: int, kernel: int) -> int:
    """Where the window of a query starts along an axis, undilated."""
    return min(max(query - kernel // 2, 0), length - kernel)


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Neighborhood attention of (B, H, W, h, d) maps, undilated, one row of tiles at a time."""
    batch, height, width = q.shape[:3]
    columns_Twu = column_windows(width, kernel[1], q.device)
    masks: dict[tuple[int, ...], Tensor] = {}
    bands = []
    for top in range(0, height, TILE):
        bottom = min(top + TILE, height)
        first = first_key(top, height, kernel[0])
        last = first_key(bottom - 1, height, kernel[0]) + kernel[0]
        starts = tuple(first_key(row, height, kernel[0]) - first for row in range(top, bottom))
        if starts not in masks:
            rows_tu = within(torch.tensor(starts, device=q.device), last - first, kernel[0])
            mask_Tqs = (rows_tu[None, :, None, :, None] & columns_Twu[:, None, :, None, :]).flatten(3).flatten(1, 2)
            masks[starts] = mask_Tqs.repeat_interleave(batch, dim=0).unsqueeze(1)
        bands.append(tiled_band(q[:, top:bottom], k[:, first:last], v[:, first:last], masks[starts], kernel[1]))
    return torch.cat(bands, dim=1)


def within(starts: Tensor, extent: int, kernel: int) -> Tensor:
    """(..., extent): which of `extent` keys lie in the window that begins at each start."""
    key = torch.arange(extent, device=starts.device)
    return (key >= starts[..., None]) & (key < starts[..., None] + kernel)


def column_windows(width: int, kernel: int, device: torch.device) -> Tensor:
    """(T, w, u): which of the u columns of a tile's keys each of its w columns of queries sees."""
    wide = min(TILE, width)
    reach = min(wide + kernel - 1, width)
    starts = []
    for left in range(0, width, wide):
        base = min(max(left - kernel // 2, 0), width - reach)
        queries = range(min(left, width - wide), min(left, width - wide) + wide)
        starts.append([first_key(column, width, kernel) - base for column in queries])
    return within(torch.tensor(starts, device=device), reach, kernel)


def tiled_band(q: Tensor, k: Tensor, v: Tensor, mask_T1qs: Tensor, kernel: int) -> Tensor:
    """One row of tiles: (B, t, W, h, d) queries against the (B, u, W, h, d) keys that they need."""
    batch, tall, width, heads, size = q.shape
    wide = min(TILE, width)
    reach = min(wide + kernel - 1, width)
    tiles = -(-width // wide)
    q_Thqd = spans(q, 0, wide, tiles).transpose(1, 2)
    k_Thsd, v_Thsd = (spans(source, kernel // 2, reach, tiles).transpose(1, 2) for source in (k, v))
    mixed_Thqd = scaled_dot_product_attention(q_Thqd, k_Thsd, v_Thsd, attn_mask=mask_T1qs)
    mixed = mixed_Thqd.transpose(1, 2).reshape(tiles, batch, tall, wide, heads, size).permute(1, 2, 0, 3, 4, 5)
    whole = mixed[:, :, :-1].flatten(2, 3)
    return torch.cat([whole, mixed[:, :, -1, wide * tiles - width :]], dim=2)


def spans(source: Tensor, before: int, extent: int, tiles: int) -> Tensor:
    """(T B, u extent, h, d): for each tile the columns from `before` its left edge on, shifted inward at a border."""
    width, step = source.shape[2], min(TILE, source.shape[2])
    last = width - extent
    clamped = min(-(-before // step), tiles)
    regular = max(0, min((last + before - 1) // step + 1, tiles) - clamped)
    parts = [source[:, :, :extent].unsqueeze(0).expand(clamped, -1, -1, -1, -1, -1)]
    if regular:
        moving = source[:, :, clamped * step - before :].unfold(2, extent, step)[:, :, :regular]
        parts.append(moving.permute(2, 0, 1, 5, 3, 4))
    parts.append(source[:, :, last:].unsqueeze(0).expand(tiles - clamped - regular, -1, -1, -1, -1, -1))
    return torch.cat(parts).flatten(0, 1).flatten(1, 2)
