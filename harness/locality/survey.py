"""Attention of every site over a model's moments: maps are recomputed site by site, streamed, tallied and let go.

As in the paper, a site's map is averaged over its heads and over the times of one image before anything is read from
it, and images afterwards; single heads and single times are read as well. Queries and keys of a few sites are held at a
time and the calls repeated for the next, so that memory stays within `held_bytes`.
Shapes: h heads, Q queries, N = H * W keys.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.locality.maps import BLOCK_BYTES, Projections, projections, prove
from harness.locality.moments import Moment
from harness.locality.offsets import spread_queries
from harness.locality.tally import Reader, Tally
from harness.seats.mixer import Grid, Site
from harness.seats.surgery import seated
from harness.seats.teacher import TeacherAttention

Place = Sequence[float]  # (down, right) on an image, each from 0 to below 1
HELD_BYTES = 2**28
HEAD_QUERIES = 256
"""Single heads are read at so many queries at most, spread evenly: the filter would take most of the time."""


class Listener(TeacherAttention):
    """The teacher's attention, which keeps what its maps are made of."""

    def __init__(self, site: Site, attention: nn.Module) -> None:
        super().__init__(attention)
        self.site = site
        self.grid: Grid = (0, 0)
        self.bytes = 0
        self.listens = False
        self.heard: list[Projections] = []

    def forward(self, tokens_BNC: Tensor, grid: Grid) -> Tensor:
        output_BNC = super().forward(tokens_BNC, grid)
        self.grid, self.bytes = grid, 12 * tokens_BNC[0].numel()
        if self.listens:
            found = projections(self.attention, tokens_BNC[0])
            prove(self.attention, found, output_BNC[0], self.site.path)
            self.heard.append(found)
        return output_BNC


@contextmanager
def listening(denoiser: nn.Module) -> Iterator[list[Listener]]:
    """A listener at every site of the teacher, in execution order, while the context is open."""
    with seated(denoiser, Listener) as seats:
        yield [seat.mixer for seat in seats.values() if isinstance(seat.mixer, Listener)]


@dataclass(frozen=True)
class SiteTallies:
    """What is read of one site: the mean map, each time, each head, and the mean map's rows for chosen queries."""

    site: Site
    grid: Grid
    times: tuple[int, ...]
    mean: Tally
    by_time: tuple[Tally, ...]
    by_head: Tally
    rows: dict[int, Tensor]

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@torch.no_grad()
def survey(
    denoiser: nn.Module,
    moments: Sequence[Moment],
    reader: Reader,
    queries: Sequence[Place] = (),
    held_bytes: int = HELD_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> list[SiteTallies]:
    """Every site over all moments. queries: places (down, right) from 0 to 1 whose rows of the first image are kept."""
    images = [[each for each in moments if each.image == image] for image in dict.fromkeys(m.image for m in moments)]
    with listening(denoiser) as listeners:
        moments[0].call(denoiser)
        found = [_empty(each, images[0], reader, queries) for each in listeners]
        for group in _groups(listeners, held_bytes // len(images[0])):
            for image, calls in enumerate(images):
                _listen(denoiser, [listeners[at] for at in group], calls)
                for at in group:
                    read_image(found[at], listeners[at].heard, image == 0, block_bytes)
                    listeners[at].heard = []
    return found


def _empty(listener: Listener, calls: Sequence[Moment], reader: Reader, queries: Sequence[Place]) -> SiteTallies:
    device = next(listener.attention.parameters()).device
    grid, heads = listener.grid, listener.site.heads

    def tally(maps: int) -> Tally:
        return Tally(reader, grid, maps, device)

    times = tuple(call.time for call in calls)
    rows = {position_of(query, grid): torch.empty(0) for query in queries}
    mean = tally(1)
    by_time = tuple(tally(1) for _ in times) if len(times) > 1 else (mean,)
    return SiteTallies(listener.site, grid, times, mean, by_time, tally(heads), rows)


def position_of(query: Place, grid: Grid) -> int:
    """The token at a place (down, right) of the image, each from 0 up to 1."""
    row, column = (min(int(at * side), side - 1) for at, side in zip(query, grid, strict=True))
    return row * grid[1] + column


def _groups(listeners: Sequence[Listener], limit: int) -> Iterator[list[int]]:
    """Sites in order, as many at once as fit; one that fits by no means stands alone."""
    group: list[int] = []
    for at, listener in enumerate(listeners):
        if group and sum(listeners[other].bytes for other in group) + listener.bytes > limit:
            yield group
            group = []
        group.append(at)
    yield group


def _listen(denoiser: nn.Module, group: Sequence[Listener], calls: Sequence[Moment]) -> None:
    for listener in group:
        listener.listens = True
    for call in calls:
        call.call(denoiser)
    for listener in group:
        listener.listens = False


def read_image(
    found: SiteTallies, heard: Sequence[Projections], keep_rows: bool, block_bytes: int = BLOCK_BYTES
) -> None:
    """Stream one image's maps of all times, block by block."""
    spread_Q = spread_queries(found.grid, HEAD_QUERIES)
    blocks = list(heard[0].blocks(block_bytes, found.grid[1]))
    space = heard[0].space(blocks[0])
    for block in blocks:
        queries_Q = torch.arange(block.start, block.stop)
        picked_P = spread_Q[(spread_Q >= block.start) & (spread_Q < block.stop)]
        total_QN = space.new_zeros(len(block), found.tokens)
        heads_hPN = space.new_zeros(len(space), len(picked_P), found.tokens)
        for tally, projected in zip(found.by_time, heard, strict=True):
            maps_hQN = projected.maps_of(block, space)
            mean_QN = maps_hQN.mean(dim=0)
            total_QN += mean_QN / len(heard)
            heads_hPN += maps_hQN[:, picked_P - block.start] / len(heard)
            if tally is not found.mean:
                tally.add(mean_QN[None], queries_Q)
        found.mean.add(total_QN[None], queries_Q)
        if len(picked_P):
            found.by_head.add(heads_hPN, picked_P)
        for position in found.rows if keep_rows else ():
            if position in block:
                found.rows[position] = total_QN[position - block.start].cpu()
    for tally in {found.mean, found.by_head, *found.by_time}:
        tally.close_image()
