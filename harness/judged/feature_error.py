"""Error of a student's features at the end of its training, with its learning curve, as kept beside its weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.judged.refusal import unfit
from harness.records.record import Reading
from harness.records.statistics import mean_of

if TYPE_CHECKING:
    from harness.trial import Trial


@dataclass(frozen=True)
class FeatureError:
    """Mean over the images that the training was watched on; details: the curve, and the recipe's seed."""

    name: str = "feature_error"
    needs: ClassVar[str] = "weights"

    def __call__(self, trial: "Trial") -> Iterator[Reading]:
        """Read what training kept: nothing is run."""
        curve, name, model = trial.learning_curve, self.name, trial.model
        own = map(str, model.buckets or [model.layout.native(model.part)])
        sizes = " and ".join(own if curve is None else curve["sizes"])
        protocol = f"{name}/v1: squared error of the sites' outputs over their variance, on the student's own features"
        protocol += f", images of {sizes} px"
        if curve is None:
            why = "the teacher is what others are compared with" if trial.exact else unfit(trial)
            why = why or "no learning curve was kept of this student: train.force=true trains it again, and keeps one"
            yield Reading(name, name, None, "share", "lower", protocol, reason=why)
            return
        samples = curve["end"]["features"]
        mean = mean_of(samples) if len(samples) > 1 else None
        yield Reading(
            metric=name,
            name=name,
            value=sum(samples) / len(samples),
            unit="share",
            better="lower",
            protocol=protocol,
            n=len(samples),
            low=max(0.0, mean.low) if mean else None,
            high=mean.high if mean else None,
            samples=tuple(samples),
            details={"seed": curve["seed"], "points": curve["points"]},
        )
