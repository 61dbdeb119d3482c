"""Error of a student's features at the end of its training, with its learning curve, as kept beside its weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from harness.judged.means import mean_error
from harness.judged.refusal import unlike_teacher
from harness.records.record import Reading
from harness.trial import Trial


@dataclass(frozen=True)
class FeatureError:
    """Mean over the images that the training was watched on; details: the curve, and the recipe's seed."""

    name: str = "feature_error"
    needs: ClassVar[str] = "weights"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """Read what training kept: nothing is run."""
        curve, name, model = trial.learning_curve, self.name, trial.model
        own = map(str, model.buckets or [model.layout.native(model.part)])
        sizes = " and ".join(own if curve is None else curve["sizes"])
        protocol = f"{name}/v1: squared error of the sites' outputs over their variance, on the student's own features"
        protocol += f", images of {sizes} px"
        if curve is None:
            why = unlike_teacher(trial)
            why = why or "no learning curve was kept of this student: train.force=true trains it again, and keeps one"
            yield Reading(name, name, None, "share", "lower", protocol, reason=why)
            return
        details = {"seed": curve["seed"], "points": curve["points"]}
        yield mean_error(name, name, protocol, curve["end"]["features"], details)
