"""What a case's images and scores are made of, by name: so that a gate can say what changed when a score does.

Weights are known by their values, not by where they came from: noise in a file of a student shows.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.judged.refusal import unfit
from harness.records.record import Reading
from harness.seats.surgery import Seat
from harness.trial import Trial

PROTOCOL = "ingredients/v2: digests of values, site by site"


@dataclass(frozen=True)
class Ingredients:
    """One reading: of how many parts; its details name each."""

    name: str = "ingredients"
    needs: ClassVar[str] = "weights"

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        """details: mixers' settings, model's files, captions, sampler, extractors; weights of each mixer by site."""
        if why := unfit(trial):
            yield Reading(self.name, self.name, None, "1", "neither", PROTOCOL, reason=why)
            return
        with trial.denoiser() as denoiser:
            seats = {seat.site.path: seat.mixer for seat in denoiser.modules() if isinstance(seat, Seat)}
            weights: dict[str, dict[str, str]] = {}
            for path, mixer in seats.items():
                weights.setdefault(f"the weights of {type(mixer).__name__}", {})[path] = of_values(mixer.state_dict())
            scheduler = trial.model.pipeline.scheduler
        parts = {
            "the mixers' settings": _digest(trial.case.mixer),
            "the model's files": trial.model.fingerprint(),
            "the captions": trial.captions,
            "the sampler": f"{type(scheduler).__name__} {_settings(scheduler.config)}",
            "the CLIP extractor": trial.world.clip.protocol,
            "the DINO extractor": trial.world.dino.protocol,
            **weights,
        }
        yield Reading(self.name, self.name, len(parts), "1", "neither", PROTOCOL, details=parts)


def _settings(config: Mapping[str, object]) -> str:
    """Eight hex digits over a sampler's settings, but for those that say who wrote them."""
    return _digest(sorted((name, str(value)) for name, value in config.items() if not name.startswith("_")))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


def of_values(state: Mapping[str, Tensor]) -> str:
    """Eight hex digits over names, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        plain = tensor.detach().to("cpu", torch.float32).contiguous()
        found.update(f"{name}{tuple(plain.shape)}".encode())
        found.update(plain.numpy().tobytes())
    return found.hexdigest()[:8]
