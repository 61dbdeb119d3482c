"""The last stage of a recipe: the student samples, and at each step the teacher says what it should have predicted.

Noised images show a student only states that a perfect denoiser would reach. Sampling, it meets those that its own
errors led to, and guidance enlarges its errors to g e_c - (g - 1) e_u (e_c with the caption, e_u without). So it is
trained on its own states (as DAgger, arXiv 1011.0686) against a guided teacher (as arXiv 2210.03142).
Shapes: B batch, C channels, h, w latent sides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from harness.distillation.pair import Pair
from harness.distillation.stages import feature_error
from harness.distillation.training import Loss, Schedule
from harness.records.case import Resolution
from harness.seats.capture import outputs


@dataclass(frozen=True)
class OwnSamples:
    """Each step, every image of the batch goes one step of the student's own sampler (DDIM) further.

    guidance: scale of the prediction that is walked and compared. path: steps of a walk. window: training steps after
    which all walks begin anew, each somewhere on its way; resumed at a multiple of it, training sees what an unbroken
    one sees. output, feature: weights of the guided prediction's error and of the features'.
    """

    title = "on its own samples"
    schedule: Schedule
    guidance: float = 3.0
    path: int = 10
    window: int = 50
    output: float = 2.0
    feature: float = 0.5

    @contextmanager
    def opened(self, pair: Pair) -> Iterator[Loss]:
        walks: dict[Resolution, Walk] = {}
        g = self.guidance
        with outputs(pair.teacher, pair.mixers) as wanted, outputs(pair.student, pair.mixers) as made:

            def loss(step: int) -> Tensor:
                size = pair.samples.size(step)
                walk = walks.get(size)
                if walk is None or walk.window != step // self.window:
                    walk = walks[size] = Walk(pair, size, step // self.window, self.path)
                arguments = walk.arguments()
                channels = walk.noisy_BChw.shape[1]
                with torch.no_grad():
                    expected = pair.teacher(**arguments)[0][:, :channels].float()
                predicted = pair.student(**arguments)[0][:, :channels].float()
                captioned, plain = (predicted - expected).chunk(2)
                guided = (g * captioned - (g - 1) * plain).square().mean() / (g**2 + (g - 1) ** 2)
                captioned, plain = predicted.detach().chunk(2)
                walk.go(g * captioned - (g - 1) * plain, step)
                output, feature = self.output * guided, self.feature * feature_error(pair, made, wanted)
                pair.terms.note(output=output, feature=feature)
                return cast(Tensor, output + feature)

            yield loss


class Walk:
    """Where each image of a batch is on its way from noise: its latents, the captions' rows, and how far it came."""

    def __init__(self, pair: Pair, size: Resolution, window: int, path: int) -> None:
        self.samples, self.schedule, self.window, self.path = pair.samples, pair.model.noise_schedule, window, path
        self.device, self.shape = pair.samples.device, pair.model.noise(0, size).shape[1:]
        generator = self._generator(-1 - window)
        self.rows_B, noise_BChw = self._fresh(generator)
        chance: dict[str, Any] = {"generator": generator, "device": self.device}
        self.steps_B = torch.randint(path + 1, (self.samples.batch,), **chance)[self.samples.rows]
        self.offset_B = torch.rand(self.samples.batch, **chance)[self.samples.rows]
        clean_BChw = self.samples.clean(size, self.rows_B)
        self.noisy_BChw = self.schedule.add_noise(clean_BChw, noise_BChw, self.times(self.steps_B))

    def times(self, steps_B: Tensor) -> Tensor:
        """The time after so many steps: the first is shorter by a chance of each walk, so that walks meet all times."""
        last = self.schedule.config.num_train_timesteps - 1
        gone_B = ((steps_B - 1 + self.offset_B) / self.path).clamp(0, 1)
        return cast(Tensor, (last * (1 - gone_B)).round().long())

    def arguments(self) -> dict[str, Any]:
        """Of one denoiser call: every image with its caption, and behind them every image without."""
        times_B = self.times(self.steps_B)
        noisy, times = torch.cat([self.noisy_BChw] * 2), torch.cat([times_B] * 2)
        text = self.samples.with_and_without(self.rows_B)
        return self.samples.model.denoise_arguments(noisy, times, text)

    @torch.no_grad()
    def go(self, predicted_BChw: Tensor, step: int) -> None:
        """One step of DDIM (arXiv 2010.02502, eta 0) by the prediction; who has arrived begins again at noise."""
        clean, noise = self._parts(predicted_BChw, self._alphas(self.steps_B))
        arrived_B = self.steps_B >= self.path
        self.steps_B = torch.where(arrived_B, 0, self.steps_B + 1)
        rows_B, fresh_BChw = self._fresh(self._generator(step))
        self.rows_B = torch.where(arrived_B, rows_B, self.rows_B)
        alphas = self._alphas(self.steps_B)
        further = alphas.sqrt() * clean + (1 - alphas).sqrt() * noise
        self.noisy_BChw = torch.where(arrived_B[:, None, None, None], fresh_BChw, further)

    def _parts(self, predicted: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction means."""
        kind, signal, spread = self.schedule.config.prediction_type, alphas.sqrt(), (1 - alphas).sqrt()
        if kind == "v_prediction":
            return signal * self.noisy_BChw - spread * predicted, spread * self.noisy_BChw + signal * predicted
        if kind == "sample":
            return predicted, (self.noisy_BChw - signal * predicted) / spread
        return (self.noisy_BChw - spread * predicted) / signal, predicted

    def _alphas(self, steps_B: Tensor) -> Tensor:
        alphas = self.schedule.alphas_cumprod.to(self.device).clamp(1e-6, 1 - 1e-6)
        return cast(Tensor, alphas[self.times(steps_B)][:, None, None, None])

    def _fresh(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows and noise for this process's images, of those drawn for all."""
        where: dict[str, Any] = {"generator": generator, "device": self.device}
        batch, mine = self.samples.batch, self.samples.rows
        rows = torch.randint(self.samples.n, (batch,), **where)
        return rows[mine], torch.randn(batch, *self.shape, **where)[mine]

    def _generator(self, step: int) -> torch.Generator:
        seed = (self.samples.seed * 1_000_003 + step) * 2 + 1
        return torch.Generator(self.device).manual_seed(seed % 2**63)
