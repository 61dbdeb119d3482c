"""Where mixers begin: as near to their teacher's attention as can be had without a single step.

A mixer that knows how first imitates what the attention does on average (`TokenMixer.imitate`). Then least squares on
the teacher's own inputs and outputs find the linear maps that close it (`TokenMixer.closing_maps`): the best ones for
the features that it begins with. Shapes: B batch, N tokens, C channels, F features that the closing maps read.
"""

import torch
from torch import Tensor

from harness.distillation.pair import Pair
from harness.seats.capture import inputs
from harness.seats.mixer import Grid, TokenMixer

RIDGE = 1e-2
"""Share of each feature's energy that holds its weights where they are: those that move together would grow large."""


class LeastSquares:
    """The closing maps of one mixer, from sums over batches: nothing of a batch is kept."""

    def __init__(self, mixer: TokenMixer) -> None:
        self.mixer, self.maps = mixer, mixer.closing_maps()
        self.gram_FF: Tensor | None = None
        self.cross_FC: Tensor | None = None

    @torch.no_grad()
    def add(self, tokens_BNC: Tensor, wanted_BNC: Tensor, grid: Grid) -> None:
        with inputs(self.maps) as read:
            self.mixer.definition(tokens_BNC, grid)
        shape = (*wanted_BNC.shape[:2], -1)
        features = [read[layer].expand(shape) for layer in self.maps] + [wanted_BNC.new_ones(1, 1, 1).expand(shape)]
        rows_nF = torch.cat(features, dim=-1).flatten(0, 1).double()
        gram_FF, cross_FC = rows_nF.T @ rows_nF, rows_nF.T @ wanted_BNC.flatten(0, 1).double()
        self.gram_FF = gram_FF if self.gram_FF is None else self.gram_FF + gram_FF
        self.cross_FC = cross_FC if self.cross_FC is None else self.cross_FC + cross_FC

    @torch.no_grad()
    def solve(self) -> None:
        """Set the maps; of several biases the first is the whole."""
        assert self.gram_FF is not None
        assert self.cross_FC is not None
        energy_F = self.gram_FF.diagonal()
        ridge_F = RIDGE * energy_F + 1e-9 * energy_F.max()
        ridge_F[-1] = 0.0
        before_FC = torch.cat([layer.weight.T.double() for layer in self.maps] + [torch.zeros_like(self.cross_FC[:1])])
        pulled_FC = self.cross_FC + ridge_F[:, None] * before_FC
        found_FC = torch.linalg.solve(self.gram_FF + torch.diag(ridge_F), pulled_FC)
        *shares, bias_1C = found_FC.split([*(layer.in_features for layer in self.maps), 1])
        for index, (layer, share_fC) in enumerate(zip(self.maps, shares, strict=True)):
            layer.weight.copy_(share_fC.T)
            if layer.bias is not None:
                layer.bias.copy_(bias_1C[0] if index == 0 else torch.zeros_like(layer.bias))


def begin(pair: Pair, imitate: bool = True, calls: int = 4) -> None:
    """Start the mixers of a student on `calls` batches of each size."""
    if imitate:
        _imitate(pair)
    learners = {path: mixer for path, mixer in pair.learners.items() if mixer.closing_maps()}
    sums = {path: LeastSquares(mixer) for path, mixer in learners.items()}
    for size, kept in pair.calls(calls):
        for path, each in sums.items():
            tokens, wanted = kept[path]
            each.add(tokens, wanted, pair.grids[size][path])
    for each in sums.values():
        each.solve()


def _imitate(pair: Pair) -> None:
    seen: dict[str, list[tuple[Tensor, Grid]]] = {path: [] for path in pair.learners}
    for size, kept in pair.calls(1):
        for path, calls in seen.items():
            calls.append((kept[path][0], pair.grids[size][path]))
    for path, mixer in pair.learners.items():
        mixer.imitate(pair.layers[path], seen[path])
