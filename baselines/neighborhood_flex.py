"""Neighborhood attention by FlexAttention (arXiv 2412.05496), a fused kernel that skips the blocks without neighbours.

A block is 128 consecutive tokens. So the grid is first cut into tiles of 8 x 16 tokens, each of them one block: with a
13 x 13 kernel the windows of a tile lie in 3 x 3 blocks, where a row-major order would need some of every row. Fused it
is only when compiled, and compiled it runs forward and backward on CUDA alone. The table of blocks is (N / 128)^2.
Shapes: B batch, H x W grid, h heads, d channels a head, S tokens of the padded grid, T tiles.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from baselines.neighborhood_tiled import first_key
from harness.seats.mixer import Grid

TILE = (8, 16)
BLOCK = TILE[0] * TILE[1]


def attend(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Neighborhood attention of (B, H, W, h, d) maps on CUDA, undilated; compiles at its first call."""
    return blockwise(q, k, v, kernel, compiled())


@cache
def compiled() -> Callable[..., Any]:
    """FlexAttention as a fused kernel."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def blockwise(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int], flex_attention: Callable[..., Any]) -> Tensor:
    """The same with any function that does what FlexAttention does on (B, h, S, d) and a BlockMask."""
    grid = (q.shape[1], q.shape[2])
    mixed_BhSd = flex_attention(*map(in_tiles, (q, k, v)), block_mask=block_mask(grid, kernel, q.device))
    return in_rows(mixed_BhSd, grid)


def tiles_of(grid: Grid) -> tuple[int, int]:
    """Rows and columns of tiles that cover a grid."""
    return -(-grid[0] // TILE[0]), -(-grid[1] // TILE[1])


def in_tiles(map_BHWhd: Tensor) -> Tensor:
    """(B, h, S, d), tile after tile, zeros where the last tiles reach beyond the grid."""
    rows, columns = tiles_of((map_BHWhd.shape[1], map_BHWhd.shape[2]))
    below, beside = rows * TILE[0] - map_BHWhd.shape[1], columns * TILE[1] - map_BHWhd.shape[2]
    whole = pad(map_BHWhd, (0, 0, 0, 0, 0, beside, 0, below))
    tiled = whole.reshape(len(whole), rows, TILE[0], columns, TILE[1], *whole.shape[3:])
    return tiled.permute(0, 5, 1, 3, 2, 4, 6).flatten(2, 5)


def in_rows(mixed_BhSd: Tensor, grid: Grid) -> Tensor:
    """Back to (B, H, W, h, d)."""
    tiled = mixed_BhSd.reshape(*mixed_BhSd.shape[:2], *tiles_of(grid), *TILE, mixed_BhSd.shape[3])
    rows = tiled.permute(0, 2, 4, 3, 5, 1, 6).flatten(3, 4).flatten(1, 2)
    return rows[:, : grid[0], : grid[1]]


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def block_mask(grid: Grid, kernel: tuple[int, int], device: torch.device) -> Any:
    """The BlockMask of a grid: which tiles see which, and token by token where a window ends inside a tile.

    Kept for as many grids as a U-Net has, since a table can be gigabytes; never as inference tensors, which no training
    step could save for its backward pass.
    """
    from torch.nn.attention.flex_attention import BlockMask

    row_S, column_S = positions(grid, device)
    first_row_S, first_column_S = (
        (position - size // 2).clamp(min=0, max=length - size)
        for position, length, size in zip((row_S, column_S), grid, kernel, strict=True)
    )

    def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down = row_S[key] - first_row_S[query]
        right = column_S[key] - first_column_S[query]
        return (down >= 0) & (down < kernel[0]) & (right >= 0) & (right < kernel[1])

    rows, columns = (sees(length, size, side, device) for length, size, side in zip(grid, kernel, TILE, strict=True))
    sees_TT = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)[None, None]
    count_T = sees_TT.sum(-1, dtype=torch.int32)
    order_TT = sees_TT.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return BlockMask.from_kv_blocks(count_T, order_TT, BLOCK_SIZE=BLOCK, mask_mod=in_window)


def positions(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each of the S tokens, tile after tile; those of the padding lie beyond the grid."""
    rows, columns = tiles_of(grid)
    row = torch.arange(rows * TILE[0], device=device).view(rows, 1, TILE[0], 1)
    column = torch.arange(columns * TILE[1], device=device).view(1, columns, 1, TILE[1])
    shape = (rows, columns, *TILE)
    return row.expand(shape).flatten(), column.expand(shape).flatten()


def sees(length: int, kernel: int, side: int, device: torch.device) -> Tensor:
    """(T, T) along an axis: whether a query of the first tile has a key in the second."""
    tiles = -(-length // side)
    spans = [
        (
            first_key(tile * side, length, kernel) // side,
            (first_key(tile * side + side - 1, length, kernel) + kernel - 1) // side,
        )
        for tile in range(tiles)
    ]
    first, last = torch.tensor(spans, device=device).unbind(1)
    tile = torch.arange(tiles, device=device)
    return (tile >= first[:, None]) & (tile <= last[:, None])
