"""The body of a denoiser call with its sites left open: which site was visited when, with what tokens, on what grid.

All variants share one body. So a call is followed once for a model and a size, with stand-ins at the sites that
answer with empty tokens, and each variant then adds its mixers to these calls. Shapes: B batch, N tokens, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.seats.mixer import Grid
from harness.seats.surgery import Seat, sites

if TYPE_CHECKING:
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
        """Tokens like those of the call, on the meta device."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def arguments(self) -> tuple[Tensor] | tuple[Tensor, Grid]:
        """What the resident of the site is called with."""
        return (self.tokens(),) if self.grid is None else (self.tokens(), self.grid)


def residents(denoiser: nn.Module) -> dict[str, nn.Module]:
    """What works at each site, by its path: the mixer of a seat, or the denoiser's own attention."""
    modules = {site.path: denoiser.get_submodule(site.path) for site in sites(denoiser)}
    return {path: module.mixer if isinstance(module, Seat) else module for path, module in modules.items()}


@contextmanager
def left_open(denoiser: nn.Module, live: Callable[[], int] = int) -> Iterator[list[SiteCall]]:
    """Stand-ins at all sites for a while; the list fills with their calls. `live` is asked at each."""
    site_calls: list[SiteCall] = []
    at_home = residents(denoiser)
    try:
        for path, resident in at_home.items():
            resident.__dict__["forward"] = _stand_in(path, site_calls, live)
        yield site_calls
    finally:
        for resident in at_home.values():
            resident.__dict__.pop("forward", None)


def _stand_in(path: str, site_calls: list[SiteCall], live: Callable[[], int]) -> Callable[..., Tensor]:
    """The right shape and no work; an attention's other arguments are None where self-attention can be replaced."""

    def answer(tokens_BNC: Tensor, grid: Grid | None = None, **ignored: object) -> Tensor:
        site_calls.append(SiteCall(path, tuple(tokens_BNC.shape), tokens_BNC.dtype, grid, live()))
        return torch.empty_like(tokens_BNC)

    return answer


def model_key(trial: "Trial") -> tuple[object, ...]:
    """What decides which operators a body runs, at whatever size."""
    model = trial.model
    return (type(model), model.name, model.source, model.config)


def body_key(trial: "Trial") -> object:
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
