"""Error of a student's prediction along its teacher's trajectory.

The teacher makes a few images; at each of its steps the student is given the very same latents, time and text, and its
prediction is compared with the teacher's. Unlike a comparison of images, an early error is not carried into later
steps: it shows at which times a student fails. Shapes: N images, B rows, C channels, T calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.judged.means import mean_error
from harness.judged.refusal import unlike_teacher
from harness.records.case import at_least
from harness.records.record import Reading
from harness.trial import Trial


@dataclass(frozen=True)
class Call:
    """One call of a denoiser, and what it answered."""

    given: tuple[Any, ...]
    named: dict[str, Any]
    answer_BCHW: Tensor


@contextmanager
def recorded(denoiser: nn.Module) -> Iterator[list[Call]]:
    """The calls that are made meanwhile."""
    calls: list[Call] = []

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
        kept = tuple(one.clone() if isinstance(one, Tensor) else one for one in given)
        calls.append(Call(kept, dict(named), _first(answer).clone()))

    handle = denoiser.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def relative_error(answer_BCHW: Tensor, known_BCHW: Tensor) -> float:
    """Squared error over the squared size of what is known."""
    known = known_BCHW.double()
    return float((answer_BCHW.double() - known).square().sum() / known.square().sum())


@dataclass(frozen=True)
class Trajectory:
    """Mean relative squared error over an image's calls; details: by call, the noisiest first. images: how many."""

    name: str = "trajectory"
    images: int = 8
    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        at_least(self, self.name, images=1)

    def __call__(self, trial: Trial) -> Iterator[Reading]:
        case, name = trial.case, "prediction_error"
        protocol = f"{name}/v1: on the teacher's trajectory, steps={case.steps} guidance={case.guidance:g}"
        if why := unlike_teacher(trial):
            yield Reading(self.name, name, None, "share", "lower", protocol, self.images, reason=why)
            return
        errors_NT = torch.tensor([self._image(trial, row) for row in range(min(self.images, case.n))])
        by_call = {"by_call": errors_NT.mean(dim=0).tolist()}
        yield mean_error(self.name, name, protocol, errors_NT.mean(dim=1).tolist(), by_call)

    def _image(self, trial: Trial, row: int) -> list[float]:
        case, model, rows = trial.case, trial.model, slice(row, row + 1)
        model.load(case.device, case.dtype)
        with recorded(model.denoiser) as calls:
            model.generate(trial.prompts[rows], trial.seeds[rows], case.resolution, case.steps, case.guidance)
        predicted = slice(model.latent_channels)  # a variance may follow
        with trial.denoiser() as denoiser, torch.no_grad():
            answers = [_first(denoiser(*call.given, **call.named)) for call in calls]
        return [
            relative_error(answer[:, predicted], call.answer_BCHW[:, predicted])
            for answer, call in zip(answers, calls, strict=True)
        ]


def _first(answer: Any) -> Tensor:
    """The prediction, of a tuple or of diffusers' output."""
    return answer[0] if isinstance(answer, tuple) else answer.sample  # type: ignore[no-any-return]
