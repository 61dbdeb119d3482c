"""The autoencoder of the embedded world: 64 x 64 pixels to a 4-channel latent of 16 x 16, shared by both tiny models."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.shapes.captions import Scene
from harness.shapes.drawing import draw
from harness.training import Schedule, train

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def build_autoencoder() -> "AutoencoderKL":
    """An AutoencoderKL of 0.65 M parameters that shrinks by 4, without attention, so that it scales to any size."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


@dataclass(frozen=True)
class AutoencoderTraining:
    """Reconstruction of drawn scenes: absolute plus squared error, and a faint pull of the latents to a unit normal."""

    schedule: Schedule
    seed: int = 1
    batch: int = 16
    kl: float = 1e-4
    name: str = "autoencoder"

    def run(self, folder: Path, scenes: list[Scene], checkpoint: Path | None = None) -> "AutoencoderKL":
        """Train, set the scaling factor to one over the latents' spread, save in `folder`; return it."""
        torch.manual_seed(self.seed)
        model = build_autoencoder()
        train(model, lambda step: self._loss(model, scenes, step), self.schedule, self.name, checkpoint)
        model.register_to_config(scaling_factor=1 / float(encode(model, self._images(scenes, 0)).std()))
        model.eval().save_pretrained(folder)
        return model

    def _images(self, scenes: list[Scene], step: int) -> Tensor:
        rows = [(step * self.batch + i) % len(scenes) for i in range(self.batch)]
        return draw([scenes[row] for row in rows], [step * self.batch + i for i in range(self.batch)])

    def _loss(self, model: "AutoencoderKL", scenes: list[Scene], step: int) -> Tensor:
        pixels = self._images(scenes, step) * 2 - 1
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step))
        error = model.decode(posterior.mean + posterior.std * noise).sample.float() - pixels
        pull = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return error.abs().mean() + (error**2).mean() * 4 + self.kl * pull


@torch.no_grad()
def encode(model: "AutoencoderKL", images: Tensor, batch: int = 64) -> Tensor:
    """Unscaled latents (mode of the posterior) of images (N, 3, H, W) in [0, 1]."""
    parts = [model.encode(part * 2 - 1).latent_dist.mode() for part in images.split(batch)]
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_db(model: "AutoencoderKL", images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images that went through the autoencoder."""
    again = torch.cat([model.decode(part).sample for part in encode(model, images).split(64)])
    return float(-10 * torch.log10(F.mse_loss((again / 2 + 0.5).clamp(0, 1), images)))
