"""The one training loop: AdamW and Muon, warm-up, decay, moving average of the weights, checkpoint and resume.

A step's data is a function of the step's number, so a run that was stopped and resumed sees what an unbroken one sees.
Under `accelerate launch` or `torchrun` each process computes its share of a step's batch, and gradients are averaged.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from harness.distillation.muon import Muon, matrices
from harness.distillation.precision import Precision, computing
from harness.distillation.processes import agreed, averaged, is_first
from harness.distillation.resume import Progress, Trained
from harness.records.case import BadInput, at_least

Loss = Callable[[int], Tensor | Iterable[Tensor]]
"""The loss of one step, drawn from the step's number alone; parts of it, where their graphs have nothing in common."""
CHECK_EVERY = 20  # steps between two looks at the loss: on a GPU each look waits for all work that is under way


class Diverged(BadInput):
    """The loss or a weight is no number any more."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `average` is the decay of the moving average, `clip` the longest gradient, None for any.

    AdamW trains at `learning_rate`, with `betas`. Where `matrix_rate` is given, Muon trains the matrices, at that rate.
    Rates decay over `steps`, or over `minutes` of training where these are over first; a run that is good enough before
    ends at step `until`. Each step adds the gradients of `accumulate` batches.
    """

    steps: int
    learning_rate: float
    matrix_rate: float | None = None
    until: int | None = None
    warmup: int = 100
    weight_decay: float = 0.01
    average: float = 0.998
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0
    precision: Precision = "bf16"
    decay: Literal["cosine", "constant"] = "cosine"
    minutes: float | None = None
    accumulate: int = 1
    save_every: int = field(default=200, repr=False)

    def __post_init__(self) -> None:
        """BadInput for numbers that are none of a training."""
        at_least(self, "schedule", steps=0, learning_rate=0, warmup=0, weight_decay=0, accumulate=1, save_every=1)

    @property
    def last(self) -> int:
        """How many steps are taken at most."""
        return self.steps if self.until is None else min(self.until, self.steps)

    def done(self, step: int, elapsed_s: float = 0.0) -> float:
        """Share of the schedule that is behind: of its steps, or of its minutes where these go faster."""
        spent = elapsed_s / (60 * self.minutes) if self.minutes is not None else 0.0
        return max(step / self.steps, spent)

    def share(self, step: int, elapsed_s: float = 0.0) -> float:
        """Share of the learning rates at a step: linear warm-up, of a tenth of the way at most; then the decay.

        The cosine ends at a fiftieth.
        """
        done, warm = self.done(step, elapsed_s), (step + 1) / max(1, self.warmup)
        if self.minutes is not None:
            warm = max(warm, 10 * done)
        if warm < 1:
            return warm
        if self.decay == "constant":
            return 1.0
        begun = self.warmup / self.steps if self.minutes is None else min(0.1, self.warmup / self.steps)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * max(0.0, done - begun) / max(1e-9, 1 - begun)))

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """AdamW for all that is trained, or Muon for the matrices and AdamW for the rest."""
        inner = matrices(module) if self.matrix_rate is not None else {}
        rest = [value for key, value in module.named_parameters() if value.requires_grad and key not in inner]
        found: list[torch.optim.Optimizer] = []
        if rest:
            first, second = self.betas
            found.append(torch.optim.AdamW(rest, self.learning_rate, (first, second), weight_decay=self.weight_decay))
        if inner and self.matrix_rate is not None:
            found.append(Muon(inner.values(), self.matrix_rate, self.weight_decay))
        return found


class Watch(Protocol):
    """Looks at a training now and then. What that takes is no time of training."""

    def due(self, progress: Progress, done: float) -> bool:
        """Whether it is time for a look; done: the share of the schedule that is behind."""

    def look(self, progress: Progress) -> None:
        """Look at the weights as they would be kept now."""


def train(
    module: nn.Module,
    loss: Loss,
    schedule: Schedule,
    name: str,
    checkpoint: Path | None = None,
    images: int = 0,
    watch: Watch | None = None,
    progress: Progress | None = None,
    setting: str = "train.schedule",
) -> float:
    """Train the parameters of `module` that require gradients; leave their moving average in it. Returns the last loss.

    checkpoint: where the state is kept, and from which a run goes on; the caller removes it. images: how many a step
    sees. progress: where it begins, kept up to date. setting: what the user calls the schedule. Diverged where the loss
    or a weight is no number any more; no such state is kept.
    """
    progress = progress or Progress()
    parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
    average = {key: value.detach().clone() for key, value in parameters.items()}
    trained, made_by = Trained(parameters, average, schedule.optimizers(module)), f"{name}: {schedule!r}"
    if checkpoint is not None:
        trained.restore(checkpoint, made_by, progress)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trained.optimizers]
    shown, seen = Line(name, schedule, images, progress.step), _Seen(list(average.values()), progress.loss)
    _watched(watch, trained, progress, schedule)
    begun = time.monotonic() - progress.elapsed_s
    while progress.step < schedule.last and schedule.done(progress.step, progress.elapsed_s) < 1:
        for optimizer, rate in zip(trained.optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule.share(progress.step, progress.elapsed_s)
        seen.add(_step(trained, loss, schedule, progress.step))
        progress.step += 1
        looked = progress.step % CHECK_EVERY == 0 or progress.step == schedule.last
        keeps = checkpoint is not None and (progress.step % schedule.save_every == 0 or progress.step == schedule.last)
        if looked or keeps or seen.on_cpu:
            progress.elapsed_s = agreed(time.monotonic() - begun)
            ends = schedule.done(progress.step, progress.elapsed_s) >= 1
            if wrong := seen.wrong(thoroughly=looked or keeps or ends):
                raise Diverged(f"{name}: {wrong} by step {progress.step} {_stopped(schedule, setting, checkpoint)}")
            progress.loss = seen.loss
            shown.show(progress)
            begun += _watched(watch, trained, progress, schedule)
        if checkpoint is not None and keeps and is_first():
            trained.save(checkpoint, progress, made_by)
    if checkpoint is not None and progress.step < schedule.last and is_first():
        trained.save(checkpoint, progress, made_by)
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(average[key])
    return progress.loss


def _watched(watch: Watch | None, trained: Trained, progress: Progress, schedule: Schedule) -> float:
    """Let somebody look at the averaged weights if it is time to; the seconds that it took."""
    begun = time.monotonic()
    done = 1.0 if progress.step == schedule.last else min(1.0, schedule.done(progress.step, progress.elapsed_s))
    if watch is not None and watch.due(progress, done):
        with trained.averaged():
            watch.look(progress)
    return time.monotonic() - begun


def _step(trained: Trained, loss: Loss, schedule: Schedule, step: int) -> Tensor:
    """One step of the optimizers and of the moving average; the loss."""
    parameters = list(trained.parameters.values())
    total = torch.zeros((), device=parameters[0].device)
    for part in range(step * schedule.accumulate, (step + 1) * schedule.accumulate):
        with computing(schedule.precision, parameters[0].device.type):
            value = loss(part)
            for term in [value] if isinstance(value, Tensor) else value:
                torch.autograd.backward(term / schedule.accumulate)
                total += term.detach().float() / schedule.accumulate
    total = averaged(parameters, total)
    if schedule.clip is not None:
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
    for optimizer in trained.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    decay = min(schedule.average, (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(trained.average.values()), [*trained.parameters.values()], 1 - decay)
    return total


class _Seen:
    """The smoothed loss, kept on the device until somebody looks, and the moving average of the weights."""

    def __init__(self, weights: list[Tensor], loss: float) -> None:
        self.weights, device = weights, weights[0].device
        self.on_cpu = device.type == "cpu"
        self.smooth = None if math.isnan(loss) else torch.tensor(loss, dtype=torch.float64, device=device)

    def add(self, loss: Tensor) -> None:
        self.smooth = loss.double() if self.smooth is None else 0.98 * self.smooth + 0.02 * loss

    @property
    def loss(self) -> float:
        return math.nan if self.smooth is None else float(self.smooth)

    def wrong(self, thoroughly: bool) -> str:
        """What is no number any more, or nothing; `thoroughly`: weights as well, by the mark left on their average."""
        if not math.isfinite(self.loss):
            return f"the loss became {self.loss}"
        if not thoroughly:
            return ""
        return "" if nn.utils.get_total_norm(self.weights).isfinite() else "the weights became infinite or nan"


def _stopped(schedule: Schedule, setting: str, checkpoint: Path | None) -> str:
    """What is left of a training that went wrong, and what to do."""
    there = checkpoint is not None and checkpoint.exists()
    kept = f"the last good state is in {checkpoint}" if there else "nothing of it was kept"
    rates = {"learning_rate": schedule.learning_rate, "matrix_rate": schedule.matrix_rate}
    slower = " and ".join(f"{setting}.{name}={rate / 2:.2g}" for name, rate in rates.items() if rate)
    exact = "" if schedule.precision == "fp32" else f", or with {setting}.precision=fp32"
    return f"and training stopped; {kept}: train slower, with {slower}{exact}"


class Line:
    """One line on stderr that is rewritten in a terminal and printed every so often in a log."""

    def __init__(self, name: str, schedule: Schedule, images: int = 0, before: int = 0, every: int = 100) -> None:
        self.name, self.schedule, self.images, self.every = name, schedule, images, every
        self.before, self.begun = before, time.monotonic()

    def show(self, progress: Progress) -> None:
        """Print step, loss, images a second and the time left; of several processes the first alone."""
        total, step = self.schedule.last, progress.step
        ended = step == total or self.schedule.done(step, progress.elapsed_s) >= 1
        if not is_first() or not (sys.stderr.isatty() or step % self.every == 0 or ended):
            return
        rate = (step - self.before) / max(1e-9, time.monotonic() - self.begun)
        left_s = (total - step) / max(1e-9, rate)
        if self.schedule.minutes is not None:
            left_s = min(left_s, max(0.0, 60 * self.schedule.minutes - progress.elapsed_s))
        speed = f"{rate * self.images:.0f} images/s, " if self.images else ""
        of = f"/{total}" if self.schedule.minutes is None else ""
        line = f"{self.name}: step {step}{of}, loss {progress.loss:.4f}, {speed}{left_s / 60:.1f} min left"
        if sys.stderr.isatty():
            print(f"\r{line}\x1b[K", end="\n" if ended else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
