"""Locality in a plain diffusers script: what a pipeline's self-attention looks at while it makes images of prompts.

    rows = deltaconv.locality(pipe, ["a red circle"], steps=20, height=512, width=512)
    rows[rows.quantity == "receptive_field"]

Tidy rows: one number each, with the site, its scope (`mean` over heads and times, one `time`, one `head`) and, for
masses, the window.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.locality.findings import BRIEF, brief, uniform_curve
from harness.locality.moments import Moment, check_times, kept_calls
from harness.locality.survey import SiteTallies, survey
from harness.locality.tally import Reader
from harness.seats.door import denoiser_of
from harness.seats.mixer import BadInput
from harness.seats.surgery import seating_of, sites

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def locality(
    pipe: Any,
    prompts: Sequence[str],
    times: Sequence[int] = (900, 500, 100),
    steps: int = 20,
    seed: int = 0,
    reader: Reader | None = None,
    **call: Any,
) -> "pd.DataFrame":
    """Columns site, height, width, scope, which, quantity, window, value.

    prompts: an image of each is sampled. times: training timesteps (large: noise); the nearest of the sampler's are
    taken. reader: filter, share and artefacts. call: more arguments of the pipeline's call (height, guidance_scale,
    ...). BadInput where there are no maps, prompts or times.
    """
    import pandas as pd

    denoiser = denoiser_of(pipe)
    if denoiser is pipe:
        raise BadInput("locality samples images, for which a denoiser alone is not enough: give the pipeline")
    _check(denoiser, prompts, times, int(pipe.scheduler.config.num_train_timesteps))
    taken = [
        moment
        for image, prompt in enumerate(prompts)
        for moment in _sampled(pipe, prompt, image, seed, steps, times, call)
    ]
    return pd.DataFrame([row for site in survey(denoiser, taken, reader or Reader()) for row in _rows(site)])


def _check(denoiser: torch.nn.Module, prompts: Sequence[str], times: Sequence[int], timesteps: int) -> None:
    if isinstance(prompts, str) or not prompts:
        raise BadInput(f"prompts={prompts!r} is no list of prompts: give at least one, as ['a red circle']")
    check_times(times, timesteps, f"times={list(times)} is not possible")
    seating = seating_of(denoiser)
    if seating is not None:
        mixer = type(next(iter(seating.seats.values())).mixer).__name__
        raise BadInput(f"a {mixer} is seated in this pipeline, which has no attention map: remove it first")
    try:
        sites(denoiser)
    except ValueError as error:
        raise BadInput(f"there are no attention maps: {error}") from error


def _sampled(
    pipe: Any, prompt: str, image: int, seed: int, steps: int, times: Sequence[int], call: dict[str, Any]
) -> list[Moment]:
    """The calls nearest to the times while one image is sampled; it is not decoded."""
    with kept_calls(denoiser_of(pipe), image) as calls:
        pipe(
            prompt,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed + image),
            **({"output_type": "latent"} | call),
        )
    nearest = {min((made.time for made in calls), key=lambda step: abs(step - time)) for time in times}
    return [made for made in calls if made.time in nearest]


def _rows(found: SiteTallies) -> Iterator[Row]:
    site = {"site": found.site.path, "height": found.grid[0], "width": found.grid[1]}

    def row(scope: str, which: int | None, quantity: str, value: float | None, window: int | None = None) -> Row:
        return site | {"scope": scope, "which": which, "quantity": quantity, "window": window, "value": value}

    mean = found.mean.findings()
    sizes, uniform = uniform_curve(found.grid)
    for name, curve in (("raw_mass", mean["raw"]), ("filtered_mass", mean["filtered"]), ("uniform_mass", uniform)):
        for window, value in zip(sizes, curve or [], strict=False):
            yield row("mean", None, name, value, window)
    yield from (row("mean", None, name, mean[name]) for name in BRIEF)
    for fit in found.mean.decay()["fits"]:
        yield from (row("mean", None, f"{fit['form']}_{name}", fit[name]) for name in ("error", "width", "bias"))
    for time, tally in zip(found.times, found.by_time, strict=True):
        yield from (row("time", time, name, value) for name, value in brief(tally).items())
    for head in range(found.site.heads):
        yield from (row("head", head, name, value) for name, value in brief(found.by_head, head).items())
