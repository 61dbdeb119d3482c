"""The autoencoder of the embedded world, shared by both tiny models: 64 x 64 pixels to 4 channels of 16 x 16."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.distillation.training import Schedule, train
from harness.shapes.captions import Scene, held_out_scenes
from harness.shapes.drawing import batch_of, draw

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
    """Reconstruction of drawn scenes, then the decoder by itself: the latents stay, their pictures get sharper.

    The first stage adds a faint pull of the latents to a unit normal. The decoder's stage may come after a denoiser was
    trained on the latents, as the decoders of Stable Diffusion were fine-tuned.
    """

    schedule: Schedule
    decoder: Schedule
    seed: int = 1
    batch: int = 16
    kl: float = 1e-4
    name: str = "autoencoder"

    def run(self, folder: Path, scenes: Sequence[Scene], checkpoint: Path, device: str) -> None:
        """Train both stages, set the scaling factor to one over the latents' spread, save in `folder`."""
        torch.manual_seed(self.seed)
        model = build_autoencoder().to(device)
        train(model, lambda step: self._loss(model, scenes, step), self.schedule, self.name, checkpoint)
        model.register_to_config(scaling_factor=1 / float(encode(model, self._images(model, scenes, 0)).std()))
        model.requires_grad_(False)
        model.decoder.requires_grad_(True)
        name, later = f"{self.name}'s decoder", checkpoint.with_stem(f"{checkpoint.stem}-decoder")
        train(
            model,
            lambda step: self._decoder_loss(model, scenes, step),
            self.decoder,
            name,
            later,
            setting="train.decoder",
        )
        model.cpu().eval().save_pretrained(folder)

    def figures(self, folder: Path) -> dict[str, float]:
        """Peak signal-to-noise ratio in dB over the 512 held-out scenes."""
        from diffusers import AutoencoderKL

        images = draw(held_out_scenes(512), range(512))
        return {"reconstruction_db": reconstruction_db(AutoencoderKL.from_pretrained(folder), images)}

    def _images(self, model: "AutoencoderKL", scenes: Sequence[Scene], step: int) -> Tensor:
        return batch_of(scenes, step, self.batch)[1].to(model.device)

    def _loss(self, model: "AutoencoderKL", scenes: Sequence[Scene], step: int) -> Tensor:
        pixels = self._images(model, scenes, step) * 2 - 1
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step)).to(pixels)
        pull: Tensor = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return _error(model, posterior.mean + posterior.std * noise, pixels) + self.kl * pull

    def _decoder_loss(self, model: "AutoencoderKL", scenes: Sequence[Scene], step: int) -> Tensor:
        pixels = self._images(model, scenes, step) * 2 - 1
        with torch.no_grad():
            latents = model.encode(pixels).latent_dist.mode()
        return _error(model, latents, pixels)


def _error(model: "AutoencoderKL", latents: Tensor, pixels: Tensor) -> Tensor:
    error: Tensor = model.decode(latents).sample.float() - pixels
    return error.abs().mean() + 4 * (error**2).mean()


@torch.no_grad()
def encode(model: "AutoencoderKL", images: Tensor, batch: int = 64) -> Tensor:
    """Unscaled latents (mode of the posterior) of images (N, 3, H, W) in [0, 1]."""
    return torch.cat([model.encode(part * 2 - 1).latent_dist.mode() for part in torch.split(images, batch)])


@torch.no_grad()
def reconstruction_db(model: "AutoencoderKL", images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images that went through the autoencoder."""
    again = torch.cat([model.decode(part).sample for part in torch.split(encode(model, images), 64)])
    return float(-10 * torch.log10(F.mse_loss((again / 2 + 0.5).clamp(0, 1), images)))
