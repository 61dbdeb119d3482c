"""Neighborhood attention in plain torch, tile by tile, on any device: O(N k^2) work, linear memory, any head size.

The queries of a tile share the union of their windows as keys, and a mask says which of them each one sees. One row of
tiles is worked on at a time, so no buffer outgrows that row's keys, which every tile of it copies; a GPU, which a row
does not fill, takes as many rows at a time as `COPIED` allows. At a border the last tile is shifted inward.
Shapes: B batch, H x W grid, N = H W, h heads, d channels a head; T tiles, w queries and s keys of a tile along an axis.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

TILE = 8
"""Side of a tile of queries: a tile of t reads (t + k - 1)^2 keys, (1 + (t - 1) / k)^2 times what its queries need."""
COPIED = 2**27
"""Bytes of copied keys and values at a time on a GPU, which one row of tiles after the other leaves idle; they come on
top of the projected memory, which has one row's."""


@dataclass(frozen=True)
class Axis:
    """The tiles along an axis: positions of their queries (T, w) and keys (T, s), and who sees whom (T, w, s)."""

    length: int
    queries: Tensor
    keys: Tensor
    sees: Tensor

    @classmethod
    def of(cls, length: int, kernel: int, device: torch.device) -> "Axis":
        """Every tile has the same shape, that of the largest."""
        wide = min(TILE, length)
        extent = min(wide + kernel - 1, length)
        start_T = torch.arange(0, length, wide, device=device).clamp(max=length - wide)
        queries_Tw = start_T[:, None] + torch.arange(wide, device=device)
        keys_Ts = (start_T - kernel // 2).clamp(0, length - extent)[:, None] + torch.arange(extent, device=device)
        after_Tws = keys_Ts[:, None] - (queries_Tw - kernel // 2).clamp(0, length - kernel)[:, :, None]
        return cls(length, queries_Tw, keys_Ts, (after_Tws >= 0) & (after_Tws < kernel))

    def part(self, tiles: slice) -> "Axis":
        return Axis(self.length, self.queries[tiles], self.keys[tiles], self.sees[tiles])


def attend(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Neighborhood attention of (B, H, W, h, d) maps, undilated; the kernel must fit into the grid."""
    grid = (q.shape[1], q.shape[2])
    rows, columns = (Axis.of(length, size, q.device) for length, size in zip(grid, kernel, strict=True))
    step = rows_at_a_time(q, rows, columns)
    q, k, v = (source.flatten(1, 2) for source in (q, k, v))
    parts = [rows.part(slice(start, start + step)) for start in range(0, len(rows.queries), step)]
    mixed_BShd = torch.cat([tiles_of(q, k, v, part, columns) for part in parts], dim=1)
    return picked(mixed_BShd, positions(grid, mixed_BShd.device)).view(-1, *grid, *mixed_BShd.shape[2:])


def rows_at_a_time(q: Tensor, rows: Axis, columns: Axis) -> int:
    """Rows of tiles whose copied keys and values are few enough; one where no GPU has to be filled."""
    if q.device.type != "cuda":
        return 1
    row_bytes = 2 * columns.keys.numel() * rows.keys.shape[1] * q[:, 0, 0].numel() * q.element_size()
    return max(1, COPIED // row_bytes)


def tiles_of(q_BNhd: Tensor, k_BNhd: Tensor, v_BNhd: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """(B, S, h, d): the queries of some rows of tiles, tile after tile, with the mixed values of their keys."""
    queries_Tq, keys_Ts = (
        (down[:, None, :, None] * columns.length + along[None, :, None, :]).flatten(2).flatten(0, 1)
        for down, along in ((rows.queries, columns.queries), (rows.keys, columns.keys))
    )
    sees_Tqs = (rows.sees[:, None, :, None, :, None] & columns.sees[None, :, None, :, None, :]).flatten(4).flatten(2, 3)
    mask_T1qs = sees_Tqs.flatten(0, 1).repeat(len(q_BNhd), 1, 1)[:, None]
    q_Thqd, k_Thsd, v_Thsd = (
        picked(source, of_Tn.flatten()).view(-1, of_Tn.shape[1], *source.shape[2:]).transpose(1, 2)
        for source, of_Tn in ((q_BNhd, queries_Tq), (k_BNhd, keys_Ts), (v_BNhd, keys_Ts))
    )
    mixed_Thqd = scaled_dot_product_attention(q_Thqd, k_Thsd, v_Thsd, attn_mask=mask_T1qs)
    return mixed_Thqd.transpose(1, 2).reshape(len(q_BNhd), -1, *q_BNhd.shape[2:])


def picked(source_BNhd: Tensor, of_S: Tensor) -> Tensor:
    """(B, S, h, d): tokens by their numbers; from one long list, which is what every device copies fastest."""
    batch, tokens = source_BNhd.shape[:2]
    first_B1 = torch.arange(0, batch * tokens, tokens, device=of_S.device)[:, None]
    picked_Shd = source_BNhd.flatten(0, 1).index_select(0, (first_B1 + of_S).flatten())
    return picked_Shd.view(batch, -1, *source_BNhd.shape[2:])


def positions(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(N,): where each token of the grid lies among the queries, tile after tile."""
    (tile_H, place_H, tall, _), (tile_W, place_W, wide, tiles) = (in_tiles(length, device) for length in grid)
    tile_HW = tile_H[:, None] * tiles + tile_W
    return (tile_HW * tall * wide + place_H[:, None] * wide + place_W).flatten()


def in_tiles(length: int, device: torch.device) -> tuple[Tensor, Tensor, int, int]:
    """Along an axis: the tile of each position, where it lies in it, the side of a tile, and how many there are."""
    wide = min(TILE, length)
    position = torch.arange(length, device=device)
    tile = position // wide
    return tile, position - (tile * wide).clamp(max=length - wide), wide, -(-length // wide)


def first_key(query: int, length: int, kernel: int) -> int:
    """Where the window of a query starts along an axis, undilated."""
    return min(max(query - kernel // 2, 0), length - kernel)
