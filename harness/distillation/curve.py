"""A student's learning curve: how far it is from its teacher at a few dozen moments of its training.

It is always taken on the same images, noise and times, whatever the recipe and its seed: on images that no step trains
on. The student runs on its own features, as when it makes images; errors are squared, in units of the variance of what
the teacher gives out. Shapes: B batch, N tokens, C channels.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.distillation.pair import CALIBRATION, LEAST_VARIANCE, Pair
from harness.distillation.processes import is_first
from harness.distillation.resume import Progress
from harness.distillation.telling import Telling
from harness.records.files import write_whole
from harness.seats.capture import outputs

MOMENTS = 32
"""Looks in the course of a training: equally far apart in the root of its time, so that the beginning is seen well."""
COST = 0.05
"""Looks are fewer where they would take more than this share of the time of training."""
ROWS = 8
"""Images of each size."""


class Curve:
    """Watches a training. As a `Watch` it sees one stage after another: `opens` says that a stage begins."""

    def __init__(self, pair: Pair, telling: Telling | None = None) -> None:
        self.pair, self.samples, self.telling = pair, pair.samples.fixed(ROWS), telling
        self.before: dict[str, float] = {"steps": 0, "images": 0, "minutes": 0.0, "share": 0.0}
        self.now = dict(self.before)
        self.look_s = 0.0

    def opens(self, part: float, images: int) -> None:
        """A stage begins that is such a part of the whole, and whose steps see so many images."""
        self.before, self.part, self.images = dict(self.now), part, images
        self.pair.terms.forget()

    def due(self, progress: Progress, done: float) -> bool:
        """Whether it is time for another look, given the share of the stage that is done."""
        before = self.before
        self.now = {
            "steps": before["steps"] + progress.step,
            "images": before["images"] + progress.step * self.images,
            "minutes": before["minutes"] + progress.elapsed_s / 60,
            "share": before["share"] + self.part * done,
        }
        if self.telling is not None:
            self.telling.step(self.now)
        if not progress.curve:
            return is_first()
        whole_s = 60 * self.now["minutes"] / max(self.now["share"], 1e-9)
        gap = max(1 / MOMENTS, self.look_s / (COST * max(whole_s, 1e-9)))
        return is_first() and math.sqrt(self.now["share"]) >= math.sqrt(progress.curve[-1]["share"]) + gap

    def look(self, progress: Progress) -> None:
        """Take both errors, and add them to the curve."""
        begun = time.monotonic()
        features_B, prediction_B = self.errors()
        errors = {"features": float(features_B.mean()), "prediction": float(prediction_B.mean())}
        progress.curve.append(self.now | errors)
        self.look_s = time.monotonic() - begun
        if self.telling is not None:
            self.telling.look(progress.curve[-1], self.look_s)

    @torch.no_grad()
    def errors(self) -> tuple[Tensor, Tensor]:
        """(B,) of the sites' outputs, a mean over the sites that learn, and (B,) of the prediction."""
        pair, sites, found = self.pair, self.pair.learners, []
        with outputs(pair.teacher, sites) as wanted, outputs(pair.student, sites) as made:
            for size in self.samples.sizes:
                batch = self.samples(CALIBRATION, size)
                channels = batch.target_BChw.shape[1]
                expected = pair.teacher(**batch.arguments)[0][:, :channels]
                predicted = pair.student(**batch.arguments)[0][:, :channels]
                features_SB = torch.stack([_relative(made[path], wanted[path]) for path in sites])
                found.append(torch.stack([features_SB.mean(0), _relative(predicted, expected)]))
        features_B, prediction_B = torch.cat(found, dim=1)
        return features_B, prediction_B

    def keep(self, progress: Progress, path: Path, told: Mapping[str, object]) -> dict[str, str]:
        """Write the curve to its end, and that image by image; what it comes to, for the student's card."""
        features_B, prediction_B = self.errors()
        errors = {"features": float(features_B.mean()), "prediction": float(prediction_B.mean())}
        points = [point for point in progress.curve if point["steps"] < self.now["steps"]] + [self.now | errors]
        end = {"features": features_B.tolist(), "prediction": prediction_B.tolist()}
        sizes = [str(size) for size in self.samples.sizes]
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.telling is not None:
            self.telling.look(points[-1] | {"share": 1.0}, self.look_s)
        write_whole(path, json.dumps({**told, "sizes": sizes, "points": points, "end": end}, indent=1) + "\n")
        return {
            "steps": f"{self.now['steps']:.0f}",
            "images": f"{self.now['images']:.0f}",
            "minutes": f"{self.now['minutes']:.2f}",
            "feature_error": f"{errors['features']:.5f}",
            "prediction_error": f"{errors['prediction']:.5f}",
        }


def _relative(made: Tensor, wanted: Tensor) -> Tensor:
    """(B,): the squared error of each image, in units of the variance of all that was wanted."""
    error_B = (made.float() - wanted.float()).square().flatten(1).mean(1)
    return error_B / wanted.float().var().clamp(min=LEAST_VARIANCE)
