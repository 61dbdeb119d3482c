"""The distinct sites of one denoiser call, and their mixers alone on the device, with random weights.

Nothing of the denoiser but its mixers is made on the device, so that neither its weights nor its memory are needed. One
call is followed on the meta device to learn which sites there are and on which grids. Sites of the same shape, whose
mixers have the same class and settings, cost the same: each group of them is one distinct site with so many calls.
Shapes: B batch, N tokens, C channels.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.counted.site_calls import SiteCall, description, left_open, site_modules
from harness.models.model import DTYPES
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import seating_of

if TYPE_CHECKING:
    from harness.trial import Trial

SEED = 0


@dataclass(frozen=True)
class DistinctSite:
    """Sites of one denoiser call that cost the same, by the first of them.

    calls: how many they are. flops: the price of the mixer for one image. weights: parameters of the variant's mixer.
    attention: the teacher's, on the meta device.
    """

    site: Site
    grid: Grid
    calls: int
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


def distinct_sites(trial: "Trial") -> list[DistinctSite]:
    """Every distinct site of one call, in the order of their first calls."""
    with trial.meta_denoiser() as (denoiser, arguments):
        with left_open(denoiser) as calls, torch.no_grad():
            denoiser(**arguments)
        at_sites, seating = site_modules(denoiser), seating_of(denoiser)
        assert seating is not None
        attentions = {site.path: (site, attention) for site, attention in seating.layers.items()}
        return [_distinct_site(like, at_sites[like[0].path], attentions) for like in _alike(calls, at_sites)]


def _distinct_site(
    like: list[SiteCall], mixer: nn.Module, attentions: dict[str, tuple[Site, nn.Module]]
) -> DistinctSite:
    """The distinct site of calls that are alike."""
    site, attention = attentions[like[0].path]
    grid = like[0].grid
    assert isinstance(mixer, TokenMixer)
    assert grid is not None
    weights = sum(weight.numel() for weight in mixer.parameters())
    return DistinctSite(site, grid, len(like), mixer.flops(grid), weights, attention)


def _alike(calls: list[SiteCall], at_sites: dict[str, nn.Module]) -> Iterator[list[SiteCall]]:
    """Visits in groups of one shape, one grid and one make of mixer."""
    groups: dict[object, list[SiteCall]] = {}
    for site_call in calls:
        groups.setdefault((site_call.shape, site_call.grid, description(at_sites[site_call.path])), []).append(
            site_call
        )
    yield from groups.values()


def mixer_at(distinct: DistinctSite, trial: "Trial") -> TokenMixer:
    """The variant's mixer of such a site, on the device and in the dtype of the case, with seeded random weights."""
    device, dtype = torch.device(trial.case.device), DTYPES[trial.case.dtype]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        attention = copy.deepcopy(distinct.attention).to_empty(device=device)
        for module in attention.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        mixer: TokenMixer = trial.bare_factory(distinct.site, attention)
    return mixer.to(device, dtype).eval()


def tokens_at(distinct: DistinctSite, trial: "Trial", batch: int) -> Tensor:
    """Noise (B, N, C) like the tokens of a call."""
    generator = torch.Generator().manual_seed(SEED)
    tokens_BNC = torch.randn(batch, distinct.tokens, distinct.site.channels, generator=generator)
    return tokens_BNC.to(trial.case.device, DTYPES[trial.case.dtype])
