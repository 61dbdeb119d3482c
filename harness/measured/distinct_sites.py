"""The distinct sites of one denoiser call, and their mixers alone on the device, with random weights.

The module scope of a cost: no body around the mixers, so neither weights nor memory for a denoiser are needed. A call
is followed once on the meta device to learn which sites there are and on which grids. Sites of one shape with mixers
of one make cost the same, so they are one place with so many visits.
Shapes: B batch, N tokens, C channels.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.counted.site_calls import Visit, description, left_open, residents
from harness.models.model import DTYPES
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import seating_of

if TYPE_CHECKING:
    from harness.trial import Trial

SEED = 0


@dataclass(frozen=True)
class Place:
    """A site as it is first met, its grid, how many visits of a call are like it, and the price of one for one image.

    weights: parameters of the variant's mixer there. attention: the teacher's, on the meta device.
    """

    site: Site
    grid: Grid
    visits: int
    flops: int
    weights: int
    attention: nn.Module

    @property
    def tokens(self) -> int:
        """N."""
        return math.prod(self.grid)

    def traffic(self, batch: int) -> int:
        """Elements that one call has to read or write at least: tokens in, tokens out, weights."""
        return 2 * batch * self.tokens * self.site.channels + self.weights


def places(trial: "Trial") -> list[Place]:
    """Every distinct site of one call, in the order of the first visits."""
    with trial.meta_denoiser() as (denoiser, arguments):
        with left_open(denoiser) as visits, torch.no_grad():
            denoiser(**arguments)
        at_home, seating = residents(denoiser), seating_of(denoiser)
        assert seating is not None
        attentions = {site.path: (site, attention) for site, attention in seating.layers.items()}
        return [_place(like, at_home[like[0].path], attentions) for like in _alike(visits, at_home)]


def _place(like: list[Visit], mixer: nn.Module, attentions: dict[str, tuple[Site, nn.Module]]) -> Place:
    """The place of visits that are alike."""
    site, attention = attentions[like[0].path]
    grid = like[0].grid
    assert isinstance(mixer, TokenMixer)
    assert grid is not None
    weights = sum(weight.numel() for weight in mixer.parameters())
    return Place(site, grid, len(like), mixer.flops(grid), weights, attention)


def _alike(visits: list[Visit], at_home: dict[str, nn.Module]) -> Iterator[list[Visit]]:
    """Visits in groups of one shape, one grid and one make of mixer."""
    groups: dict[object, list[Visit]] = {}
    for visit in visits:
        groups.setdefault((visit.shape, visit.grid, description(at_home[visit.path])), []).append(visit)
    yield from groups.values()


def mixer_at(place: Place, trial: "Trial") -> TokenMixer:
    """The variant's mixer of a place, on the device and in the dtype of the case, with seeded random weights."""
    device, dtype = torch.device(trial.case.device), DTYPES[trial.case.dtype]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        attention = copy.deepcopy(place.attention).to_empty(device=device)
        for module in attention.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        mixer: TokenMixer = trial.bare_factory(place.site, attention)
    return mixer.to(device, dtype).eval()


def tokens_at(place: Place, trial: "Trial", batch: int) -> Tensor:
    """Noise (B, N, C) like the tokens of a call."""
    generator = torch.Generator().manual_seed(SEED)
    tokens_BNC = torch.randn(batch, place.tokens, place.site.channels, generator=generator)
    return tokens_BNC.to(trial.case.device, DTYPES[trial.case.dtype])
