"""Tells of a training while it goes on: of its loss every few seconds, of its errors and by pictures now and then."""

import time
from collections.abc import Mapping

from harness.distillation.alone import say
from harness.distillation.audience import Hearer
from harness.distillation.losses import Terms
from harness.distillation.previews import Previews

ERRORS = ("features", "prediction")
EVERY_S = 10.0
MOST = 200
"""Once a training is longer than so many times that, its loss is told after each such part of what is behind."""


class Telling:
    """What one hearer is told of one training."""

    def __init__(self, hearer: Hearer, previews: Previews, terms: Terms) -> None:
        self.hearer, self.previews, self.terms = hearer, previews, terms
        self.before: Mapping[str, float] = {}
        self.told_s = time.monotonic()

    def step(self, now: Mapping[str, float]) -> None:
        """How far the training is: told if it is time to."""
        if time.monotonic() - self.told_s >= max(EVERY_S, 60 * now["minutes"] / MOST):
            self._tell(now)

    def look(self, point: Mapping[str, float], look_s: float) -> None:
        """A point of the learning curve."""
        self._tell(point)
        if self.hearer.listening and self.previews.due(point, look_s):
            self._picture(int(point["steps"]))

    def _tell(self, point: Mapping[str, float]) -> None:
        """What is known at a point, and what the loss was made of lately."""
        values = {name: point[name] for name in ERRORS if name in point} | {"minutes": point["minutes"]}
        terms = self.terms.values()
        values |= {f"loss.{name}": value for name, value in terms.items()}
        if terms:
            values["loss"] = sum(terms.values())
        if self.before and (passed := point["minutes"] - self.before["minutes"]) > 0:
            values["images_per_second"] = (point["images"] - self.before["images"]) / (60 * passed)
        self.before, self.told_s = dict(point), time.monotonic()
        self.hearer.point(int(point["steps"]), values)

    def _picture(self, step: int) -> None:
        try:
            self.hearer.picture(step, self.previews.picture())
        except Exception as error:  # noqa: BLE001, a picture is worth no training
            say(f"no preview of this training could be drawn ({error}): it goes on without")
