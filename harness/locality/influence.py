"""What a mixer looks at when it has no attention map: the gradient of its output with respect to its input.

The effective receptive field of Luo et al. (arXiv 1701.04128): how strongly each input token moves the output at one
query, by the Frobenius norm of the Jacobian's block, which is estimated by projecting the channels on random signs.
Rows sum to one, as those of an attention map do. Shapes: B = 1 image, N tokens, C channels, Q queries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.locality.moments import Moment
from harness.locality.offsets import spread_queries
from harness.locality.tally import Reader, Tally
from harness.seats.capture import attention
from harness.seats.mixer import Grid, TokenMixer
from harness.seats.surgery import Seat, seating_of

SEED = 0


def influence(mixer: TokenMixer, tokens_1NC: Tensor, grid: Grid, queries_Q: Tensor) -> Tensor:
    """(Q, N) share of each input token in the output at these queries; a row of zeros where nothing has any."""
    source = torch.Generator().manual_seed(SEED)
    with torch.enable_grad():
        leaf_1NC = tokens_1NC.detach().clone().requires_grad_()
        output_1NC = mixer(leaf_1NC, grid)
        rows = []
        for query in queries_Q.tolist():
            signs_C = (torch.randint(2, output_1NC.shape[-1:], generator=source) * 2 - 1).to(output_1NC)
            (slope_1NC,) = torch.autograd.grad(output_1NC[0, query] @ signs_C, leaf_1NC, retain_graph=True)
            rows.append(slope_1NC[0].float().norm(dim=-1))
    strength_QN = torch.stack(rows)
    return strength_QN / strength_QN.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def influences(denoiser: nn.Module, moments: Sequence[Moment], reader: Reader, most: int) -> dict[str, Tally]:
    """The influence at every site of what is seated over all moments, at so many queries of each site at most."""
    seating = seating_of(denoiser)
    if seating is None:
        raise ValueError(f"nothing is seated in this {type(denoiser).__name__}: seat the mixers that are asked about")
    seats, found = seating.seats, dict[str, Tally]()
    for moment in moments:
        with attention(denoiser, seats) as entered:
            moment.call(denoiser)
        for path, (tokens_1NC, _) in entered.items():
            seat, grid = seats[path], _grid(seats[path])
            if path not in found:
                found[path] = Tally(reader, grid, 1, tokens_1NC.device)
            queries_Q = spread_queries(grid, most)
            found[path].add(influence(seat.mixer, tokens_1NC, grid, queries_Q)[None], queries_Q)
            found[path].close_image()
    return found


def _grid(seat: Seat) -> Grid:
    if seat.grid is None:
        raise RuntimeError(f"the seat at {seat.site.path} has not been called: call the denoiser first")
    return seat.grid
