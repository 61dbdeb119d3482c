"""The calls of a denoiser's sites: which site is called in what order, with what tokens, on what grid.

All variants of a model have the same body around their mixers. So one call is followed for a model and a size, while
nothing is done at the sites (`left_open`), and the costs of each variant's mixers are added to it.
Shapes: B batch, N tokens, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.seats.mixer import Grid
from harness.seats.surgery import Seat, sites
from harness.trial import Trial


@dataclass(frozen=True)
class SiteCall:
    """One call of one site. `grid` is None at the denoiser's own attention, which knows none; `live`: bytes alive."""

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    grid: Grid | None
    live: int = 0

    def tokens(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def arguments(self) -> tuple[Tensor] | tuple[Tensor, Grid]:
        return (self.tokens(),) if self.grid is None else (self.tokens(), self.grid)


def site_modules(denoiser: nn.Module) -> dict[str, nn.Module]:
    """What works at each site, by its path: the mixer of a seat, or the denoiser's own attention."""
    modules = {site.path: denoiser.get_submodule(site.path) for site in sites(denoiser)}
    return {path: module.mixer if isinstance(module, Seat) else module for path, module in modules.items()}


@contextmanager
def left_open(denoiser: nn.Module, live: Callable[[], int] = int) -> Iterator[list[SiteCall]]:
    """While open, the sites return empty tokens and do no work. The list fills with their calls, each with live()."""
    site_calls: list[SiteCall] = []
    at_sites = site_modules(denoiser)
    try:
        for path, module in at_sites.items():
            module.__dict__["forward"] = _stand_in(path, site_calls, live)
        yield site_calls
    finally:
        for module in at_sites.values():
            module.__dict__.pop("forward", None)


def _stand_in(path: str, site_calls: list[SiteCall], live: Callable[[], int]) -> Callable[..., Tensor]:
    """A forward that notes the call and returns empty tokens. Attention has more arguments, which are None here."""

    def answer(tokens_BNC: Tensor, grid: Grid | None = None, **ignored: object) -> Tensor:
        site_calls.append(SiteCall(path, tuple(tokens_BNC.shape), tokens_BNC.dtype, grid, live()))
        return torch.empty_like(tokens_BNC)

    return answer


def model_key(trial: Trial) -> tuple[object, ...]:
    """What decides which operators a body runs, at whatever size."""
    model = trial.model
    return (type(model), model.name, model.source, model.config)


def body_key(trial: Trial) -> object:
    """What decides a body: the model, the size and the dtype; not the variant."""
    return (*model_key(trial), trial.case.resolution, trial.case.dtype)


def description(mixer: nn.Module) -> object:
    """All that tells one mixer from another of the same work: types, settings and shapes of it and of its parts."""
    parts = []
    for name, part in mixer.named_modules():
        settings = sorted((key, repr(value)) for key, value in vars(part).items() if not key.startswith("_"))
        shapes = [(key, tuple(weight.shape)) for key, weight in part.named_parameters(recurse=False)]
        parts.append((name, type(part), tuple(settings), tuple(shapes)))
    return tuple(parts)
