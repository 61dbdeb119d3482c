"""The metric `locality`: what the sites of a case look at, by their maps where they have any, and by their gradients.

Every variant is shown the same moments, those of its teacher's sampling, so that teacher and student can be laid side
by side. The teacher is read by its attention maps and by its gradients; a variant without maps by its gradients alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Literal

from harness.locality.findings import influence_of, maps_of, pictures
from harness.locality.high_pass import HighPass
from harness.locality.influence import influences
from harness.locality.moments import Seen, check_times_of, seen_by
from harness.locality.survey import Place, survey
from harness.locality.tally import Reader
from harness.models.model import Model
from harness.models.weights import RANDOM
from harness.records.case import BadInput, Resolution, at_least
from harness.records.record import Reading
from harness.trial import Trial


@dataclass(frozen=True)
class Locality:
    """Six readings: means over the sites, with every site in their details.

    images, times: the moments, of the world's first prompts. window: K of the mass that is read out. queries: places
    (down, right) of the image, from 0 to 1, whose maps become pictures. order, cutoff, negative: of `HighPass`; share,
    artefact: of `Reader`. gradients: queries a site whose gradients are taken.
    """

    name: str = "locality"
    images: int = 4
    times: Sequence[int] = (900, 500, 100)
    window: int = 7
    queries: Sequence[Place] = ((0.5, 0.5), (0.25, 0.25))
    order: int = 2
    cutoff: float = 0.1
    negative: Literal["clip", "absolute"] = "clip"
    share: float = 0.8
    artefact: float = 5.0
    gradients: int = 64
    seen: dict[tuple[object, ...], Seen] = field(default_factory=dict, repr=False, compare=False)
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        for query in self.queries:
            if len(query) != 2 or not all(0 <= at < 1 for at in query):
                raise BadInput(
                    f"query {list(query)} lies outside of the image: give [down, right], each from 0 to below 1"
                )
        at_least(self, self.name, images=1, window=1, gradients=1)
        if not 0 < self.share <= 1:
            raise BadInput(f"{self.name}.share={self.share} is not possible: give more than 0 and at most 1")
        _ = self.reader

    @property
    def reader(self) -> Reader:
        return Reader(HighPass(self.order, self.cutoff, self.negative), self.share, self.artefact)

    def check(self, model: Model, resolution: Resolution) -> None:
        """BadInput for a time or a window that this model does not have at this size; nothing is loaded."""
        check_times_of(model, self.times, self.name)
        side = max(resolution.width, resolution.height) // (model.shrink * model.patch)
        if self.window > side:
            raise BadInput(
                f"{self.name}.window={self.window} is larger than the grid of {model.name} at {resolution} pixels, "
                f"{side} tokens a side: give at most {side}"
            )

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """`locality` by gradients; receptive field, mass, low-frequency share, artefacts and entropy by the maps."""
        case = trial.case
        why = self._refusal(trial)
        if why:
            yield from (self._reading(trial, *each, None, why) for each in READINGS)
            return
        self.check(trial.model, case.resolution)
        trial.model.load(case.device, case.dtype)
        taken, made = seen_by(self.seen, trial, self.times, self.images)
        with trial.denoiser() as denoiser:
            felt = influence_of(influences(denoiser, taken, self.reader, self.gradients))
        fields = [site["receptive_field"] for site in felt if site["receptive_field"] is not None]
        yield self._reading(trial, *READINGS[0], _mean(fields), "no gradient is left", sites=felt)
        if not trial.exact:
            why = f"{case.variant} has no attention map: its gradients stand beside the teacher's"
            yield from (self._reading(trial, *each, None, why) for each in READINGS[1:])
            return
        found = survey(trial.model.denoiser, taken, self.reader, self.queries)
        sites = maps_of(found, self.window)
        shown = pictures(found, made[0], trial.world.prompts(1)[0], self.queries)
        for number, (name, unit) in enumerate(READINGS[1:]):
            values = [site["summary"][name] for site in sites if site["summary"][name] is not None]
            told: dict[str, Any] = {"sites": sites, "pictures": shown} if number == 0 else {}
            if name == "locality_mass":
                told["uniform"] = fmean(site["summary"]["uniform_mass"] for site in sites)
            yield self._reading(trial, name, unit, _mean(values), "the filter leaves nothing of these maps", **told)

    def _refusal(self, trial: Trial) -> str:
        if trial.exact or trial.trained or trial.untrained_allowed or trial.model.source == RANDOM:
            return ""
        return f"{trial.case.variant} has no trained weights on {trial.case.model}: what it looks at says nothing"

    def _reading(self, trial: Trial, name: str, unit: str, value: float | None, why: str, **details: Any) -> Reading:
        case = trial.case
        told = f"{list(self.times)} of {case.steps} steps, guidance {case.guidance:g}, {self.images} images"
        source = ", random weights" if trial.model.source == RANDOM else ""
        protocol = (
            f"{name}/v1: times {told}, mean over heads and times, {self.reader.high_pass}, share {self.share:g}, "
            f"window {self.window}{source}"
        )
        inside = {"section": "locality"} | details
        reason = "" if value is not None else why
        return Reading(self.name, name, value, unit, "neither", protocol, self.images, reason=reason, details=inside)


READINGS = (
    ("locality", "token"),
    ("locality_receptive_field", "token"),
    ("locality_mass", "share"),
    ("locality_low_frequency", "share"),
    ("locality_artefacts", "share"),
    ("locality_entropy", "nat"),
)
"""Names and units, in the order in which they are taken."""


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
