"""What is kept of attention maps when their blocks are gone, and the numbers that are made of it.

Shapes: M maps (heads, or one), Q queries of a block, N = H * W keys.
"""

from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from harness.locality.bias import artefact_tokens, entropy, low_frequency_share
from harness.locality.decay import fits, profile
from harness.locality.high_pass import HighPass
from harness.locality.mass import mass_curve, smallest_window
from harness.locality.offsets import offset_pairs, offset_sums
from harness.seats.mixer import Grid


@dataclass(frozen=True)
class Reader:
    """How maps are read. share: of the filtered mass, that a receptive field holds. artefact: times its equal share."""

    high_pass: HighPass = field(default_factory=HighPass)
    share: float = 0.8
    artefact: float = 5.0


class Tally:
    """Sums over queries of M maps on one grid: `add` blocks, `close_image`, then ask for the findings."""

    def __init__(self, reader: Reader, grid: Grid, maps: int, device: torch.device) -> None:
        shape = (maps, 2 * grid[0] - 1, 2 * grid[1] - 1)
        self.reader, self.grid = reader, grid
        self.raw = torch.zeros(shape, dtype=torch.float64, device=device)
        self.sharp = torch.zeros_like(self.raw)
        self.asked_N = torch.zeros(grid[0] * grid[1])
        self.received_MN = torch.zeros(maps, grid[0] * grid[1], dtype=torch.float64, device=device)
        self.shares: list[list[float]] = []
        self.entropy_M = torch.zeros(maps, dtype=torch.float64, device=device)
        self.queries = self.image_queries = 0

    def add(self, maps_MQN: Tensor, queries_Q: Tensor) -> None:
        """Take in the maps of some queries; each row sums to one."""
        self.raw += offset_sums(maps_MQN, queries_Q, self.grid)
        self.sharp += offset_sums(self.reader.high_pass(maps_MQN, self.grid), queries_Q, self.grid)
        self.received_MN += maps_MQN.sum(dim=1)
        self.image_queries += len(queries_Q)
        self.asked_N[queries_Q] += 1
        self.entropy_M += entropy(maps_MQN) * len(queries_Q)
        self.queries += len(queries_Q)

    def close_image(self) -> None:
        """Settle what is of one image: its artefact tokens lie elsewhere in the next."""
        received_MN = self.received_MN.cpu() / self.image_queries
        factor = self.reader.artefact
        self.shares.append([float(row_N[artefact_tokens(row_N, factor)].sum()) for row_N in received_MN])
        self.received_MN.zero_()
        self.image_queries = 0

    def findings(self, row: int = 0) -> dict[str, Any]:
        """All numbers of one map, as JSON values. receptive_field: None where the filter leaves nothing."""
        raw, sharp = (mass_curve(sums[row]).cpu() / self.queries for sums in (self.raw, self.sharp))
        return {
            "raw": raw.tolist(),
            "filtered": (sharp / sharp[-1]).tolist() if self._left(sharp) else None,
            "receptive_field": smallest_window(sharp, self.reader.share) if self._left(sharp) else None,
            "raw_receptive_field": smallest_window(raw, self.reader.share),
            "low_frequency": low_frequency_share(float(sharp[-1])),
            "artefacts": fmean(shares[row] for shares in self.shares),
            "entropy": float(self.entropy_M[row]) / self.queries,
        }

    def decay(self, row: int = 0) -> dict[str, Any]:
        """Mean attention by distance in whole tokens, and fits of all distances, the most exact first."""
        distance_R, attention_R, pairs_R = profile(self.raw[row].cpu(), offset_pairs(self.asked_N, self.grid))
        found = fits(distance_R, attention_R, pairs_R)
        keys = self.grid[0] * self.grid[1]
        rounded, where = torch.unique(distance_R.round(), return_inverse=True)
        empty = torch.zeros(len(rounded), dtype=torch.float64)
        mean = empty.index_add(0, where, attention_R * pairs_R) / empty.index_add(0, where, pairs_R)
        return {
            "distance": rounded.tolist(),
            "attention": mean.tolist(),
            "fits": [asdict(fit) | {"bias": min(1.0, fit.floor * keys)} for fit in found],
        }

    @staticmethod
    def _left(curve: Tensor) -> bool:
        """Whether there is more than the rounding of a float32 transform."""
        return float(curve[-1]) > 1e-5
