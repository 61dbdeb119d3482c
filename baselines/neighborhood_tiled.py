"""Neighborhood attention in plain torch, tile by tile, on any device: O(N k^2) work, linear memory, any head size.

The queries of a tile share the union of their windows as keys, and a mask says which of them each one sees. One row of
tiles is worked on at a time, so no buffer outgrows that row's keys, which every tile of it copies.
Shapes: B batch, H x W grid, h heads, d channels a head, T tiles of a row, t x w queries and u x s keys of a tile.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

TILE = 8
"""Side of a tile of queries: a tile of t reads (t + k - 1)^2 keys, (1 + (t - 1) / k)^2 times what its queries need."""


def attend(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Neighborhood attention of (B, H, W, h, d) maps, undilated; the kernel must fit into the grid."""
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


def first_key(query: int, length: int, kernel: int) -> int:
    """Where the window of a query starts along an axis, undilated."""
    return min(max(query - kernel // 2, 0), length - kernel)


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
