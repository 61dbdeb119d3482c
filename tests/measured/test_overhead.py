"""What the harness adds to an image: against bare diffusers code, in alternation, on the shipped UNet.

Run it on an idle machine: pytest --slow -s tests/test_overhead.py
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import SelfAttention
from harness.measured.alternation import alternate, ratio_of
from harness.measured.timing import wall_clock
from harness.models.model import Model
from harness.models.unet import UNetModel
from harness.records.case import Resolution
from harness.seats.surgery import seated

PROMPT, SEED, STEPS, GUIDANCE = "a red circle on a blue background", 0, 20, 3.0
Make = Callable[[], Tensor]


@pytest.fixture(scope="module")
def model() -> Model:
    return UNetModel("tiny_sd", "pkg://harness.shapes/weights/tiny_sd").load()


def bare_loop(model: Model, size: Resolution) -> Make:
    """Denoiser, scheduler and decoder called by hand, as the diffusers course does; the text is encoded before."""
    parts: Any = model.pipeline
    text = model.text_states([PROMPT], guidance=True)["encoder_hidden_states"]

    @torch.no_grad()
    def loop() -> Tensor:
        parts.scheduler.set_timesteps(STEPS)
        latents = model.noise(SEED, size) * parts.scheduler.init_noise_sigma
        for timestep in parts.scheduler.timesteps:
            doubled = parts.scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            without, given = parts.unet(doubled, timestep, encoder_hidden_states=text).sample.chunk(2)
            latents = parts.scheduler.step(without + GUIDANCE * (given - without), timestep, latents).prev_sample
        pixels: Tensor = parts.vae.decode(latents / parts.vae.config.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)

    return loop


def bare_pipeline(model: Model, size: Resolution) -> Make:
    """diffusers' own pipeline, called as its users call it, on text that is encoded before."""
    without, given = model.text_states([PROMPT], guidance=True)["encoder_hidden_states"].chunk(2)
    latents = model.noise(SEED, size)

    def call() -> Tensor:
        images: Tensor = model.pipeline(
            prompt_embeds=given,
            negative_prompt_embeds=without,
            latents=latents,
            height=size.height,
            width=size.width,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="pt",
        ).images
        return images

    return call


def harness_image(model: Model, size: Resolution) -> Tensor:
    return model.generate([PROMPT], [SEED], size, STEPS, GUIDANCE)


CASES = pytest.mark.parametrize(
    ("bare", "size"), [(bare_pipeline, Resolution(64, 64)), (bare_loop, Resolution(128, 128))], ids=["pipeline", "loop"]
)


@CASES
def test_the_bare_code_makes_the_same_image(model, bare, size):
    """Otherwise the comparison below would be of unlike work. Differences are roundings of another order of sums."""
    assert torch.allclose(bare(model, size)(), harness_image(model, size), atol=1e-3)


@pytest.mark.slow
@CASES
def test_an_image_through_the_harness_takes_at_most_3_percent_longer(model, bare, size):
    """The variant is the teacher in its seats, so their cost is in it; the bare code runs on the same seats emptied.

    At 64 pixels a loop by hand would show what diffusers' pipeline does around a denoiser of 15 ms a call.
    """
    plain = bare(model, size)

    def through_the_harness() -> float:
        with seated(model.denoiser, SelfAttention.for_site):
            return wall_clock(lambda: harness_image(model, size))

    for _ in range(2):
        through_the_harness(), plain()
    ratio = ratio_of(alternate(through_the_harness, lambda: wall_clock(plain), seconds=60.0))
    print(f"{ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})")
    assert ratio.low is not None
    assert ratio.low <= ratio.value <= 1.03
