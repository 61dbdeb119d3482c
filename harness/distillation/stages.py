"""The stages that a recipe is made of: what is compared with what while the mixers learn."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor

from harness.distillation.losses import Norm, distance, min_snr, weighted
from harness.distillation.pair import Pair
from harness.distillation.training import Loss, Schedule
from harness.seats.capture import attention, outputs, residuals


class Stage(Protocol):
    """Opens a loss that a schedule then lowers. title: what the user reads."""

    title: ClassVar[str]

    @property
    def schedule(self) -> Schedule: ...

    def opened(self, pair: Pair) -> AbstractContextManager[Loss]: ...


@dataclass(frozen=True)
class Layerwise:
    """Each mixer regresses what its teacher's layer makes of the teacher's own input, in units of its spread.

    One teacher call serves all; gradients never cross layers (teacher forcing, arXiv 2506.18999; grafting, arXiv
    2506.05340). norm: one for all sites, by patterns of their paths, or `chosen` for each by how its target is spread.
    """

    title = "layer by layer"
    schedule: Schedule
    norm: Norm | Literal["chosen"] | Mapping[str, Norm] = "l2"

    @contextmanager
    def opened(self, pair: Pair) -> Iterator[Loss]:
        """The loss: a term a site, each with a graph of its own."""
        picked = {path: seat.site.pick(self.norm, "norm") for path, seat in pair.seats.items()}
        norms = suited(pair) if self.norm == "chosen" else cast(dict[str, Norm], picked)
        learners = pair.learners
        with attention(pair.teacher, learners) as kept:

            def loss(step: int) -> Iterator[Tensor]:
                with torch.no_grad():
                    pair.teacher(**pair.samples(step).arguments)
                grids, parts = pair.grids[pair.samples.size(step)], []
                for path, mixer in learners.items():
                    before, wanted = kept[path]
                    made = mixer(before, grids[path])
                    part = distance(made, wanted, pair.spread[path], norms[path]) / len(learners)
                    parts.append(part.detach())
                    yield part
                pair.terms.note(layers=torch.stack(parts).sum())

            yield loss


@dataclass(frozen=True)
class EndToEnd:
    """The student runs on its own features: its prediction follows truth and teacher, its features follow too.

    task, output, feature: weights of the three. gamma: of Min-SNR, which weighs the first two; None weighs no time.
    features: the sites' outputs (`attention`), or the hidden states behind them (`residual`). relative: their errors in
    units of the teacher's spread. summed: over the sites, instead of their mean. few: only the first so many images.
    checkpointing: of gradients, which saves memory.
    """

    title = "end to end"
    schedule: Schedule
    task: float = 1.0
    output: float = 0.5
    feature: float = 0.5
    gamma: float | None = None
    features: Literal["attention", "residual"] = "attention"
    relative: bool = True
    summed: bool = False
    few: int | None = None
    checkpointing: bool = False

    @contextmanager
    def opened(self, pair: Pair) -> Iterator[Loss]:
        student: Any = pair.student
        if self.checkpointing:
            student.enable_gradient_checkpointing()
        capture = residuals if self.features == "residual" else outputs
        with capture(pair.teacher, pair.mixers) as wanted, capture(pair.student, pair.mixers) as made:

            def loss(step: int) -> Tensor:
                batch = pair.samples(step, among=self.few)
                truth = batch.target_BChw
                with torch.no_grad():
                    expected = pair.teacher(**batch.arguments)[0][:, : truth.shape[1]]
                predicted = pair.student(**batch.arguments)[0][:, : truth.shape[1]]
                times = None if self.gamma is None else min_snr(pair.model.noise_schedule, batch.times_B, self.gamma)
                error = feature_error(pair, made, wanted, self.relative)
                total = feature = self.feature * (error * len(made) if self.summed else error)
                if self.task:
                    task = self.task * weighted(predicted, truth, times)
                    pair.terms.note(task=task)
                    total = total + task
                output = self.output * weighted(predicted, expected, times)
                pair.terms.note(feature=feature, output=output)
                return total + output

            yield loss
        if self.checkpointing:
            student.disable_gradient_checkpointing()


def feature_error(pair: Pair, made: dict[str, Tensor], wanted: dict[str, Tensor], relative: bool = True) -> Tensor:
    """Mean over the sites of the mean squared error, in units of the teacher's spread or as it is."""
    scales = {path: pair.spread[path] if relative else 1.0 for path in made}
    return torch.stack([distance(made[path], wanted[path], scales[path]) for path in made]).mean()


def suited(pair: Pair) -> dict[str, Norm]:
    """For each site the norm that its target's tails ask for, by their excess kurtosis on one batch of each size.

    L2 for targets spread like a Gaussian, Huber for longer tails, L1 for outliers (the bounds are ours).
    """
    tails: dict[str, float] = {}
    for _, kept in pair.calls(1):
        for path, (_, wanted) in kept.items():
            standard = (wanted.float() - wanted.float().mean()) / wanted.float().std()
            tails[path] = max(tails.get(path, 0.0), float(standard.pow(4).mean()) - 3)
    return {path: "l1" if tail > 30 else "huber" if tail > 3 else "l2" for path, tail in tails.items()}
