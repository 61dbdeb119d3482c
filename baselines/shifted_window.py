"""Windowed attention with shifted windows, as in Swin (arXiv 2103.14030): full attention inside blocks of the grid.

The grid is cut every `window_size` tokens along each side, from `shift` on, with smaller windows at the edges: Swin's
cyclic shift with its mask, without mask and padding. Every second site shifts by half a window, so that information
crosses the cuts. No relative position bias, so a teacher's weights fit.
Shapes: B batch, H x W grid, C channels, h heads, d = C / h.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from baselines.projections import ProjectedMixer, from_teacher, softmax_attention
from harness.seats.mixer import BadInput, Grid, Site, as_map

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class ShiftedWindowAttention(ProjectedMixer):
    """y = W_o softmax(q k^T / sqrt(d)) v + b_o inside each window."""

    training_free = True

    def __init__(self, channels: int, heads: int, window_size: int = 8, shift: int = 0, bias: bool = False) -> None:
        super().__init__(channels, heads, bias)
        if window_size < 1:
            raise BadInput(f"window_size is {window_size}: a window has at least 1 token along each side")
        if not 0 <= shift < window_size:
            raise BadInput(f"shift is {shift}: give 0 to {window_size - 1} for windows of {window_size}")
        self.window_size = window_size
        self.shift = shift

    @classmethod
    def for_site(
        cls,
        site: Site,
        attention: nn.Module,
        window_size: int | Mapping[str, int] = 8,
        shift: int | Mapping[str, int] | None = None,
    ) -> "ShiftedWindowAttention":
        """`shift` None is half a window at every second site: where the numbers in its path add up to an odd one."""
        size = site.pick(window_size, "window_size")
        odd = sum(int(part) for part in site.path.split(".") if part.isdigit()) % 2
        steps = odd * (size // 2) if shift is None else site.pick(shift, "shift")
        return from_teacher(lambda bias: cls(site.channels, site.heads, size, steps, bias), site, attention)

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """Windows of equal size share one call: at most nine calls."""
        return self.attend(tokens_BNC, grid, together, scaled_dot_product_attention)

    def definition(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        """One window after another."""
        return self.attend(tokens_BNC, grid, one_by_one, softmax_attention)

    def attend(self, tokens_BNC: Tensor, grid: Grid, group: "Group", kernel: Attend) -> Tensor:
        """Attention inside the windows, grouped along each axis by `group`."""
        maps = torch.cat([project(tokens_BNC) for project in (self.to_q, self.to_k, self.to_v)], dim=-1)
        mixed = []
        for rows, tall in group(cuts(grid[0], self.window_size, self.shift)):
            row = []
            for columns, wide in group(cuts(grid[1], self.window_size, self.shift)):
                block_BHWC = as_map(maps, grid)[:, rows, columns]
                row.append(self.inside(block_BHWC, tall, wide, kernel))
            mixed.append(torch.cat(row, dim=2))
        closed: Tensor = self.to_out[0](torch.cat(mixed, dim=1).flatten(1, 2))
        return closed

    def inside(self, maps_BHWC: Tensor, tall: int, wide: int, kernel: Attend) -> Tensor:
        """Attention in each tall x wide window of a block that they fill; q, k, v side by side in its channels."""
        batch, height, width, _ = maps_BHWC.shape
        size = self.channels // self.heads
        windows = maps_BHWC.reshape(batch, height // tall, tall, width // wide, wide, 3, self.heads, size)
        q, k, v = windows.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(1, 3)
        mixed = kernel(q, k, v).view(batch, height // tall, width // wide, self.heads, tall, wide, size)
        return mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, self.channels)

    def flops(self, grid: Grid) -> int:
        """8 N C^2 for the maps, 4 n^2 C for each window of n tokens."""
        rows, columns = (cuts(length, self.window_size, self.shift) for length in grid)
        pairs = sum((stop - start) ** 2 for start, stop in rows) * sum((stop - start) ** 2 for start, stop in columns)
        return self.projection_flops(grid) + 4 * pairs * self.channels

    def note(self, grid: Grid) -> str:
        """The shift, and that there is but one window where the grid is no larger."""
        said = [f"shifted by {self.shift}"] if self.shift else []
        if max(grid) <= self.window_size and not self.shift:
            said.append(f"one window of {self.window_size} covers the {grid[0]}x{grid[1]} grid")
        return "; ".join(said)


Cuts = list[tuple[int, int]]
Group = Callable[[Cuts], list[tuple[slice, int]]]  # spans of an axis with the length of the windows that fill each


def cuts(length: int, size: int, shift: int) -> Cuts:
    """(start, stop) of the windows along an axis."""
    edges = [0, *range(shift or size, length, size), length]
    return list(pairwise(edges))


def one_by_one(windows: Cuts) -> list[tuple[slice, int]]:
    """Every window by itself."""
    return [(slice(start, stop), stop - start) for start, stop in windows]


def together(windows: Cuts) -> list[tuple[slice, int]]:
    """Neighbouring windows of the same length in one span."""
    spans: list[tuple[int, int, int]] = []
    for start, stop in windows:
        if spans and spans[-1][2] == stop - start:
            spans[-1] = (spans[-1][0], stop, stop - start)
        else:
            spans.append((start, stop, stop - start))
    return [(slice(start, stop), size) for start, stop, size in spans]
