"""What the harness adds to an image: against a loop of bare diffusers calls, in alternation, on the shipped UNet.

Run it on an idle machine: pytest --slow tests/test_overhead.py
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import SelfAttention
from harness.case import Resolution
from harness.metrics.alternation import alternate, ratio_of
from harness.metrics.timing import wall_clock
from harness.model import Model
from harness.models.unet import UNetModel
from harness.surgery import seated

PROMPT, SEED, SIZE, STEPS, GUIDANCE = "a red circle on a blue background", 0, Resolution(64, 64), 10, 3.0


@pytest.fixture(scope="module")
def model() -> Model:
    return UNetModel("tiny_sd", "pkg://harness.shapes/weights/tiny_sd").load()


def bare_loop(model: Model) -> Callable[[], Tensor]:
    """Denoiser, scheduler and decoder called by hand, as the diffusers course does; the text is encoded before."""
    parts: Any = model.pipeline
    text = model.text_states([PROMPT], guidance=True)["encoder_hidden_states"]

    @torch.no_grad()
    def loop() -> Tensor:
        parts.scheduler.set_timesteps(STEPS)
        latents = model.noise(SEED, SIZE) * parts.scheduler.init_noise_sigma
        for timestep in parts.scheduler.timesteps:
            doubled = parts.scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            without, given = parts.unet(doubled, timestep, encoder_hidden_states=text).sample.chunk(2)
            latents = parts.scheduler.step(without + GUIDANCE * (given - without), timestep, latents).prev_sample
        pixels: Tensor = parts.vae.decode(latents / parts.vae.config.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)

    return loop


def harness_image(model: Model) -> Tensor:
    return model.generate([PROMPT], [SEED], SIZE, STEPS, GUIDANCE)


def test_the_bare_loop_makes_the_same_image(model):
    """Otherwise the comparison below would be of unlike work. Differences are roundings of another order of sums."""
    assert torch.allclose(bare_loop(model)(), harness_image(model), atol=1e-3)


@pytest.mark.slow
def test_an_image_through_the_harness_takes_at_most_3_percent_longer_than_a_bare_loop(model):
    """The variant is the teacher in its seats, so their cost is in it; the bare loop runs on the same seats emptied."""
    loop = bare_loop(model)

    def through_the_harness() -> float:
        with seated(model.denoiser, SelfAttention.for_site):
            return wall_clock(lambda: harness_image(model))

    for _ in range(2):
        through_the_harness(), loop()
    ratio = ratio_of(alternate(through_the_harness, lambda: wall_clock(loop), seconds=40.0))
    assert ratio.low is not None
    assert ratio.low <= ratio.value <= 1.03
