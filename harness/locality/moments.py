"""Moments of a sampling: what the denoiser was called with at chosen times, while it made an image of a prompt.

Of a guided call the half with the prompt is kept. A call can be made again by any variant.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.model import Model
from harness.models.sampler import times
from harness.records.case import BadInput, Resolution
from harness.trial import Trial


@dataclass(frozen=True)
class Moment:
    """One call: of which image, at which training timestep (large: noise), and its arguments at batch 1."""

    image: int
    time: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @torch.no_grad()
    def call(self, denoiser: nn.Module) -> Tensor:
        """The prediction, by whatever is seated."""
        prediction: Tensor = denoiser(*self.args, **self.kwargs)[0]
        return prediction


Seen = tuple[list[Moment], list[Tensor]]  # moments, and the images that were made


@dataclass(frozen=True)
class Sampling:
    """How images are made, and at which times their moments are wanted."""

    resolution: Resolution
    steps: int
    guidance: float
    times: tuple[int, ...]

    def steps_near(self, model: Model) -> list[int]:
        """The sampler's timesteps nearest to the times, each once, noise first; BadInput for steps that it has not."""
        scheduler = model.pipeline.scheduler
        times(scheduler, self.steps)
        scheduler.set_timesteps(self.steps)
        taken = [int(time) for time in scheduler.timesteps]
        return sorted({min(taken, key=lambda step: abs(step - time)) for time in self.times}, reverse=True)


def check_times(wanted: Sequence[int], count: int, of: str) -> None:
    """BadInput where there are no times, or one that a noise schedule of so many training timesteps does not have."""
    last = count - 1
    if not wanted or not all(0 <= time <= last for time in wanted):
        raise BadInput(
            f"{of}: give training timesteps from 0 (clean) to {last} (noise), such as "
            f"[{last * 9 // 10},{last // 2},{last // 10}]"
        )


def check_times_of(model: Model, wanted: Sequence[int], of: str) -> None:
    """The same for a model that is not loaded."""
    count = int(model.layout.component("scheduler").get("num_train_timesteps", 1000))
    check_times(wanted, count, f"{of}.times={list(wanted)} is not possible with {model.name}")


def moments(model: Model, sampling: Sampling, prompts: Sequence[str], seeds: Sequence[int]) -> Seen:
    """The moments of each image, noise first, and the images (3, H, W); the model has to be loaded."""
    said = f"times={list(sampling.times)} is not possible with {model.name}"
    check_times(sampling.times, int(model.pipeline.scheduler.config.num_train_timesteps), said)
    wanted = sampling.steps_near(model)
    found: list[Moment] = []
    images = []
    for image, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        with kept_calls(model.denoiser, image, wanted) as calls:
            made = model.generate([prompt], [seed], sampling.resolution, sampling.steps, sampling.guidance, 1)
        found += calls
        images.append(made[0])
    return found, images


@contextmanager
def kept_calls(denoiser: nn.Module, image: int, wanted: Container[int] | None = None) -> Iterator[list[Moment]]:
    """While open, every call of the denoiser at a wanted time (None: at any) is kept as a moment of that image."""
    calls: list[Moment] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        time = int(_time(args, kwargs))
        fresh = all(call.time != time for call in calls)  # a sampler of a higher order calls twice at one time
        if fresh and (wanted is None or time in wanted):
            calls.append(Moment(image, time, *_conditional(args, kwargs)))

    hook = denoiser.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def seen_by(kept: dict[tuple[object, ...], Seen], trial: Trial, times: Sequence[int], images: int) -> Seen:
    """The moments of the first images of a trial's world, by its teacher; kept for the model's other variants."""
    case = trial.case
    sampling = Sampling(case.resolution, case.steps, case.guidance, tuple(times))
    model = (case.model, trial.model.fingerprint(), trial.model.sampler, case.dtype, case.device)
    key = (*model, case.seeds, sampling, case.world, images)
    for other in [other for other in kept if other[: len(model)] != model]:
        del kept[other]
    if key not in kept:
        seeds = [case.seeds[0] + 1000 * image for image in range(images)]
        kept[key] = moments(trial.model, sampling, trial.world.prompts(images), seeds)
    return kept[key]


def _time(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    time = kwargs["timestep"] if "timestep" in kwargs else args[1]
    return float(time.flatten()[0]) if isinstance(time, Tensor) else float(time)


def _conditional(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the last image of the batch alone: with guidance the one that has the prompt."""
    latents: Tensor = args[0] if args else kwargs["sample" if "sample" in kwargs else "hidden_states"]
    batch = len(latents)

    def last(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == batch:
            return value[-1:].detach().clone()
        return {name: last(each) for name, each in value.items()} if isinstance(value, dict) else value

    return tuple(map(last, args)), last(kwargs)
