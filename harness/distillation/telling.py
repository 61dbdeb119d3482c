"""Tells of a training while it goes on: at each look of its learning curve a point, at a few of them a picture."""

from collections.abc import Mapping

from harness.distillation.alone import say
from harness.distillation.audience import Hearer
from harness.distillation.previews import Previews

CURVES = ("features", "prediction", "minutes")


class Telling:
    """What one hearer is told of one training."""

    def __init__(self, hearer: Hearer, previews: Previews) -> None:
        self.hearer, self.previews = hearer, previews
        self.before: Mapping[str, float] = {}

    def look(self, point: Mapping[str, float], terms: Mapping[str, float], look_s: float) -> None:
        """A point of the learning curve, and what the loss was made of lately."""
        values = {name: point[name] for name in CURVES}
        values |= {f"loss.{name}": value for name, value in terms.items()}
        if terms:
            values["loss"] = sum(terms.values())
        if self.before and (passed := point["minutes"] - self.before["minutes"]) > 0:
            values["images_per_second"] = (point["images"] - self.before["images"]) / (60 * passed)
        self.before = dict(point)
        self.hearer.point(int(point["steps"]), values)
        if self.hearer.listening and self.previews.due(point, look_s):
            self._picture(int(point["steps"]))

    def _picture(self, step: int) -> None:
        try:
            self.hearer.picture(step, self.previews.picture())
        except Exception as error:  # noqa: BLE001, a picture is worth no training
            say(f"no preview of this training could be drawn ({error}): it goes on without")
