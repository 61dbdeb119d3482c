"""A teacher and its student side by side: one set of frozen weights, and mixers in the student's sites alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.distillation.losses import Terms
from harness.distillation.samples import Samples
from harness.models.model import Model
from harness.records.case import Resolution
from harness.seats.capture import attention, twin
from harness.seats.mixer import Grid, TokenMixer
from harness.seats.surgery import Factory, Seating

LEAST_VARIANCE = 1e-6
CALIBRATION = 10**12  # steps from here on are drawn for measuring, and never trained on


class Pair:
    """The teacher is the model's own denoiser. spread: variance of what each of its sites gives out.

    terms: what the losses that it is trained by are made of.
    """

    def __init__(self, model: Model, factory: Factory, samples: Samples) -> None:
        self.model, self.samples, self.terms = model, samples, Terms()
        self.teacher = model.denoiser
        self.student = twin(model.denoiser)
        self.seats = Seating(self.student, factory).seats
        self.mixers: dict[str, TokenMixer] = {path: seat.mixer for path, seat in self.seats.items()}
        self.layers = {path: self.teacher.get_submodule(path) for path in self.mixers}
        self.student.requires_grad_(False)
        self.grids = {size: self._grids(size) for size in samples.sizes}
        self.spread = self._spread()

    @property
    def learners(self) -> dict[str, TokenMixer]:
        """The mixers that have something to learn."""
        return {path: mixer for path, mixer in self.mixers.items() if not mixer.exact}

    @contextmanager
    def learning(self) -> Iterator[nn.ModuleList]:
        """While open, the mixers train; everything else is frozen."""
        module = nn.ModuleList(self.learners.values()).train().requires_grad_(True)
        try:
            yield module
        finally:
            module.eval().requires_grad_(False)

    @torch.no_grad()
    def calls(self, count: int) -> Iterator[tuple[Resolution, Mapping[str, tuple[Tensor, Tensor]]]]:
        """What goes in and out of every site of the teacher in `count` calls of each size, on batches for measuring."""
        with attention(self.teacher, self.mixers) as kept:
            for step in range(count):
                for size in self.samples.sizes:
                    self.teacher(**self.samples(CALIBRATION + step, size).arguments)
                    yield size, kept

    @torch.no_grad()
    def _grids(self, size: Resolution) -> dict[str, Grid]:
        self.student(**self.samples(CALIBRATION, size).arguments)
        return {path: seat.grid for path, seat in self.seats.items() if seat.grid is not None}

    def _spread(self) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {path: [] for path in self.mixers}
        for _, kept in self.calls(1):
            for path, (_, wanted) in kept.items():
                found[path].append(wanted.float().var())
        return {path: torch.stack(each).mean().clamp(min=LEAST_VARIANCE) for path, each in found.items()}
