"""The metric `sensitivity`: what the output loses when a site, a level or all sites are replaced, and what it saves.

A site is replaced by the variant's mixer, by its own mean map and by the identity map, while all others keep the
teacher's attention. The error is that of the denoiser's prediction on moments of the teacher's sampling, mean squared,
in units of the prediction's variance; mean maps are taken of the first half of the images and errors of the second.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from harness.judged.clip_score import clip_score
from harness.locality.moments import Moment, Seen, check_times_of, seen_by
from harness.locality.stand_ins import IdentityMap, MeanMap, mean_maps
from harness.models.model import Model
from harness.models.weights import RANDOM
from harness.records.case import BadInput, Resolution
from harness.records.record import Reading
from harness.records.statistics import mean_of
from harness.seats.mixer import Grid, Site, TokenMixer
from harness.seats.surgery import Factory, seated, sites
from harness.seats.teacher import TeacherAttention
from harness.trial import Trial

VARIANT, MEAN_MAP, IDENTITY = "variant", "mean_map", "identity"
Makers = Mapping[str, tuple[Factory, frozenset[str] | None]]
"""What makes a mixer for a site that is replaced, and at which sites it can (None: at all)."""


@dataclass(frozen=True)
class Sensitivity:
    """One reading, the error with all sites replaced, with every site and level in its details.

    images, times: the moments. judged: images whose CLIP score says what a replacement does to them; 0 for none.
    """

    name: str = "sensitivity"
    images: int = 8
    times: Sequence[int] = (900, 500, 100)
    judged: int = 32
    seen: dict[tuple[object, ...], Seen] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        if self.images < 2:
            raise BadInput(f"{self.name}.images={self.images} is not possible: give at least 2, half for mean maps")
        if self.judged < 0 or self.judged == 1:
            raise BadInput(f"{self.name}.judged={self.judged} is not possible: give 0 for none, or at least 2")

    def check(self, model: Model, resolution: Resolution) -> None:
        """BadInput for a time that this model does not have; nothing is loaded."""
        check_times_of(model, self.times, self.name)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        why = _refusal(trial)
        if why:
            yield self._reading(trial, None, why)
            return
        trial.model.load(trial.case.device, trial.case.dtype)
        taken, _ = seen_by(self.seen, trial, self.times, self.images)
        half = len(taken) // 2
        denoiser = trial.model.denoiser
        makers = _makers(trial, mean_maps(denoiser, taken[:half]))
        bench = _Bench(trial, denoiser, taken[half:], self.judged if trial.model.source != RANDOM else 0)
        among = sites(denoiser)
        found = [bench.measured([site.path], makers) for site in among]
        levels = [bench.measured(paths, makers) for paths in bench.levels()]
        whole = bench.measured([site.path for site in among], makers)
        yield self._reading(
            trial, whole["error"][VARIANT], "", sites=found, levels=levels, whole=whole, variant=trial.case.variant
        )

    def _reading(self, trial: Trial, value: float | None, why: str, **details: Any) -> Reading:
        case = trial.case
        protocol = (
            f"sensitivity/v1: squared error of the prediction over its variance, times {list(self.times)} of "
            f"{case.steps} steps, guidance {case.guidance:g}, {self.images} images, CLIP score of {self.judged}"
        )
        inside = {"section": "sensitivity"} | details
        return Reading(self.name, self.name, value, "1", "lower", protocol, self.images, reason=why, details=inside)


def _refusal(trial: Trial) -> str:
    if trial.exact:
        return f"{trial.case.variant} is the teacher itself: there is nothing to replace it with"
    if trial.trained or trial.untrained_allowed or trial.model.source == RANDOM:
        return ""
    return f"{trial.case.variant} has no trained weights on {trial.case.model}: what it loses says nothing"


def _makers(trial: Trial, maps: Mapping[str, Tensor]) -> Makers:
    return {
        VARIANT: (trial.factory, None),
        MEAN_MAP: (lambda site, attention: MeanMap(attention, maps[site.path]), frozenset(maps)),
        IDENTITY: (lambda site, attention: IdentityMap(attention), None),
    }


class _Bench:
    """The teacher's predictions and images, and what becomes of them."""

    def __init__(self, trial: Trial, denoiser: nn.Module, moments: Sequence[Moment], judged: int) -> None:
        self.trial, self.denoiser, self.moments = trial, denoiser, moments
        self.channels = trial.model.latent_channels
        self.grids: dict[str, Grid] = {}
        self.prices: dict[str, int] = {}
        self.prompts = trial.world.prompts(judged) if judged else []
        self.predictions = self._predictions(_kept)
        self.scores = self._scores(_kept)

    def levels(self) -> list[list[str]]:
        """The sites of each grid, the finest first."""
        ordered = sorted(set(self.grids.values()), reverse=True)
        return [[path for path, grid in self.grids.items() if grid == of] for of in ordered]

    def measured(self, paths: Sequence[str], makers: Makers) -> dict[str, Any]:
        """Error, FLOPs before and after, and for the variant the change of the CLIP score, at these sites."""
        errors: dict[str, float] = {}
        flops = {"self_attention": sum(self.prices[path] for path in paths)}
        for name, (maker, where) in makers.items():
            if where is None or where.issuperset(paths):
                factory = _at(paths, maker)
                errors[name], flops[name] = self._error(factory), self._price(paths, factory)
        found: dict[str, Any] = {
            "paths": list(paths),
            "grid": list(self.grids[paths[0]]),
            "flops": flops,
            "error": errors,
        }
        if self.scores:
            changed = self._scores(_at(paths, makers[VARIANT][0]))
            mean = mean_of([after - before for before, after in zip(self.scores, changed, strict=True)], self.prompts)
            found["clip_score"] = {"change": mean.value, "low": mean.low, "high": mean.high}
        return found

    @torch.no_grad()
    def _predictions(self, factory: Factory) -> list[Tensor]:
        with seated(self.denoiser, factory) as seats:
            made = [moment.call(self.denoiser)[:, : self.channels].float() for moment in self.moments]
            if not self.grids:
                self.grids = {path: seat.grid for path, seat in seats.items() if seat.grid is not None}
                self.prices = {path: seats[path].mixer.flops(grid) for path, grid in self.grids.items()}
        return made

    def _error(self, factory: Factory) -> float:
        """Mean over the moments of the squared error over the variance."""
        pairs = zip(self._predictions(factory), self.predictions, strict=True)
        errors = [float((made - wanted).square().mean() / wanted.var()) for made, wanted in pairs]
        return sum(errors) / len(errors)

    def _price(self, paths: Iterable[str], factory: Factory) -> int:
        with seated(self.denoiser, factory) as seats:
            return sum(seats[path].mixer.flops(self.grids[path]) for path in paths)

    def _scores(self, factory: Factory) -> list[float]:
        if not self.prompts:
            return []
        case, clip, model = self.trial.case, self.trial.world.clip, self.trial.model
        seeds = [case.seeds[0] + 1000 * image for image in range(len(self.prompts))]
        with seated(self.denoiser, factory):
            images = model.generate(self.prompts, seeds, case.resolution, case.steps, case.guidance, case.batch)
        return cast(list[float], clip_score(clip.images(images), clip.texts(self.prompts)).tolist())


def _at(paths: Sequence[str], maker: Factory) -> Factory:
    """The maker's mixer at some sites, the teacher's attention at all others."""

    def factory(site: Site, attention: nn.Module) -> TokenMixer:
        return maker(site, attention) if site.path in paths else _kept(site, attention)

    return factory


def _kept(site: Site, attention: nn.Module) -> TokenMixer:
    return TeacherAttention(attention)
