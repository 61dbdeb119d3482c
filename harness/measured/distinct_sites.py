"""The distinct sites of one denoiser call, and their mixers alone on the device, with random weights.

A call on the meta device tells which sites there are and on which grids. Those of the same shape, whose mixers have the
same class and settings, cost the same: each group of them is one distinct site with so many calls.
Shapes: B batch, N tokens, C channels.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.counted.site_calls import SiteCall, description, left_open, site_modules
from harness.models.model import DTYPES
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import seating_of
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
        return math.prod(self.grid)

    @property
    def shape(self) -> dict[str, Any]:
        """What the details of a reading say of it."""
        site = self.site
        return {"site": site.path, "channels": site.channels, "heads": site.heads, "grid": list(self.grid)}

    def traffic(self, batch: int) -> int:
        """Elements that one call has to read or write at least: tokens in, tokens out, weights."""
        return 2 * batch * self.tokens * self.site.channels + self.weights


def distinct_sites(trial: Trial) -> list[DistinctSite]:
    """Every distinct site of one call, in the order of their first calls."""
    with trial.meta_denoiser() as (denoiser, arguments):
        with left_open(denoiser) as calls, torch.no_grad():
            denoiser(**arguments)
        at_sites, seating = site_modules(denoiser), seating_of(denoiser)
        assert seating is not None
        attentions = {site.path: (site, attention) for site, attention in seating.layers.items()}
        alike: dict[object, list[SiteCall]] = {}
        for call in calls:
            alike.setdefault((call.shape, call.grid, description(at_sites[call.path])), []).append(call)
        return [_distinct_site(group, at_sites[group[0].path], attentions) for group in alike.values()]


def _distinct_site(alike: list[SiteCall], mixer: nn.Module, layers: dict[str, tuple[Site, nn.Module]]) -> DistinctSite:
    site, attention = layers[alike[0].path]
    grid = alike[0].grid
    assert isinstance(mixer, TokenMixer)
    assert grid is not None
    weights = sum(weight.numel() for weight in mixer.parameters())
    return DistinctSite(site, grid, len(alike), mixer.flops(grid), weights, attention)


def mixer_at(distinct: DistinctSite, trial: Trial) -> TokenMixer:
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


def tokens_at(distinct: DistinctSite, trial: Trial, batch: int) -> Tensor:
    """Noise (B, N, C) like the tokens of a call."""
    generator = torch.Generator().manual_seed(SEED)
    tokens_BNC = torch.randn(batch, distinct.tokens, distinct.site.channels, generator=generator)
    return tokens_BNC.to(trial.case.device, DTYPES[trial.case.dtype])
