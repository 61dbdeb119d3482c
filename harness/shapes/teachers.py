"""The tiny text-to-image models of the embedded world: genuine diffusers pipelines, trained here, from nothing or on.

Both predict v over a schedule with zero terminal signal (so that white and black papers are reachable) in the latents
of the shared autoencoder. CLIP's text encoder learns together with the denoiser, as captions of 46 words allow; T5
learns to read first and is then frozen, as PixArt's is (`harness/shapes/reading.py`).
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.distillation.precision import computing
from harness.distillation.training import Schedule, train
from harness.models import weights
from harness.models.layout import Layout
from harness.models.opening import read_pipeline
from harness.records.case import BadInput
from harness.shapes.autoencoder import encode
from harness.shapes.captions import Scene
from harness.shapes.drawing import draw
from harness.shapes.reading import learn_to_read
from harness.shapes.tokenizers import LENGTH, clip_tokenizer, t5_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline, PixArtTransformer2DModel, UNet2DConditionModel
    from transformers import CLIPTextModel, T5EncoderModel

TEXT_WIDTH = 128
ORIGINS = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
    "steps_offset": 1,
}


def build_pipeline(family: Literal["sd", "pixart"], vae: "AutoencoderKL") -> "DiffusionPipeline":
    """An untrained StableDiffusionPipeline or PixArtSigmaPipeline around the autoencoder."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, StableDiffusionPipeline

    scheduler = DPMSolverMultistepScheduler(**NOISE)
    if family == "pixart":
        return PixArtSigmaPipeline(t5_tokenizer(), _t5_encoder(), vae, _pixart(), scheduler)
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(vae, _clip_text_model(), clip_tokenizer(), _unet(), scheduler, **parts)


def _unet() -> "UNet2DConditionModel":
    """Like SD1.5's, its deepest level has no attention; at 4 x 4 the padding tells every position where it is."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(48, 96, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
    )


def _pixart() -> "PixArtTransformer2DModel":
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        sample_size=16,
        patch_size=2,
        cross_attention_dim=128,
        caption_channels=TEXT_WIDTH,
        use_additional_conditions=False,
        interpolation_scale=1,
    )


def _clip_text_model() -> "CLIPTextModel":
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _t5_encoder() -> "T5EncoderModel":
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return T5EncoderModel(config)


@dataclass(frozen=True)
class TeacherTraining:
    """Denoising of latents with v-prediction; captions are dropped at the rate `drop` for guidance.

    start: a pipeline folder (or `pkg://package/folder`) to train on; without it the pipeline is built anew around the
    saved `autoencoder`. sizes: image side in pixels -> share of the steps; a step's batch is of one size. focus: times
    are drawn with a density that grows as the power focus - 1 of the time. reading: a schedule by which the encoder of
    texts learns first and is then frozen; without one it learns with the denoiser, or stays as it was where `frozen`.
    """

    family: Literal["sd", "pixart"]
    schedule: Schedule
    name: str
    autoencoder: str | None = None
    start: str | None = None
    sizes: Mapping[int, float] = field(default_factory=lambda: {64: 1.0})
    seed: int = 4
    batch: int = 64
    drop: float = 0.1
    focus: float = 1.5
    reading: Schedule | None = None
    frozen: bool = False

    def run(self, folder: Path, scenes: Sequence[Scene], checkpoint: Path, device: str) -> None:
        """Train on the scenes' images, drawn and encoded once a size, and save the pipeline in `folder`."""
        from diffusers import DDPMScheduler

        torch.manual_seed(self.seed)
        pipeline = self._pipeline().to(device)
        denoiser = pipeline.transformer if self.family == "pixart" else pipeline.unet
        trained = nn.ModuleDict({"denoiser": denoiser, "text": pipeline.text_encoder}).train()
        tokens, empty = (_tokens(pipeline, captions) for captions in ([scene.caption for scene in scenes], [""]))
        if self.reading is not None:
            learn_to_read(pipeline.text_encoder, tokens, scenes, self.reading, checkpoint)
        if self.frozen:
            pipeline.text_encoder.requires_grad_(False)
        latents = {size: latents_of(pipeline.vae, scenes, size) for size in self.sizes}
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)

        def loss(step: int) -> Tensor:
            generator = torch.Generator(device).manual_seed(self.seed + step)
            rows = torch.randint(len(scenes), (self.batch,), generator=generator, device=device)
            dropped = torch.rand(self.batch, 1, generator=generator, device=device) < self.drop
            ids, mask = (torch.where(dropped, none, some[rows]) for none, some in zip(empty, tokens, strict=True))
            clean = latents[self.size(step)][rows]
            share = torch.rand(self.batch, generator=generator, device=device) ** (1 / self.focus)
            times = (share * scheduler.config.num_train_timesteps).long()
            noise = torch.randn(clean.shape, generator=generator, device=device)
            noisy, target = scheduler.add_noise(clean, noise, times), scheduler.get_velocity(clean, noise, times)
            return F.mse_loss(predict(denoiser, pipeline.text_encoder, noisy, times, ids, mask).float(), target)

        train(trained, loss, self.schedule, self.name, checkpoint)
        trained.eval()
        pipeline.to("cpu").save_pretrained(folder)
        forget_origins(folder)

    def size(self, step: int) -> int:
        """The image side of a step, drawn by the sizes' shares."""
        (chosen,) = random.Random(self.seed + step).choices([*self.sizes], [*self.sizes.values()])
        return chosen

    def figures(self, folder: Path) -> dict[str, float]:
        """None by itself: `+sweep=quality` measures a pipeline as it measures any other."""
        return {}

    def _pipeline(self) -> "DiffusionPipeline":
        """The one to go on from, or a fresh one; only its denoiser and its text encoder are ever trained."""
        from diffusers import AutoencoderKL

        if self.start is not None:
            pipeline = read_pipeline(Layout(weights.fetch(self.start, self.name)), torch.float32)
        elif self.autoencoder is not None:
            pipeline = build_pipeline(self.family, AutoencoderKL.from_pretrained(self.autoencoder))
        else:
            raise BadInput(
                f"{self.name} has nothing to begin with: give start= a pipeline folder, or autoencoder= a saved one"
            )
        pipeline.vae.requires_grad_(False)
        return pipeline


def forget_origins(folder: Path) -> None:
    """Take out of a saved pipeline's configurations where it was loaded from: that is no part of what it is."""
    for path in folder.rglob("*.json"):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if [kept.pop(name) for name in ORIGINS if name in kept]:
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def predict(denoiser: nn.Module, encoder: nn.Module, noisy: Tensor, times: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """One denoiser call as the family's pipeline makes it."""
    from diffusers import PixArtTransformer2DModel

    predicted: Tensor
    if isinstance(denoiser, PixArtTransformer2DModel):
        states = encoder(ids, attention_mask=mask)[0]
        (predicted,) = denoiser(noisy, states, timestep=times, encoder_attention_mask=mask, return_dict=False)
    else:
        (predicted,) = denoiser(noisy, times, encoder(ids)[0], return_dict=False)
    return predicted


def latents_of(vae: "AutoencoderKL", scenes: Sequence[Scene], size: int = 64, batch: int = 64) -> Tensor:
    """Scaled latents (N, C, h, w) of the scenes' images, on the autoencoder's device; row i drawn with seed i."""
    factor = float(vae.config.scaling_factor)
    parts = []
    for first in range(0, len(scenes), batch):
        rows = scenes[first : first + batch]
        images = draw(rows, range(first, first + len(rows)), size, size, vae.device)
        with computing("auto", vae.device.type):
            parts.append(encode(vae, images).float() * factor)
    return torch.cat(parts)


def _tokens(pipeline: "DiffusionPipeline", captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (N, LENGTH), on the pipeline's device."""
    found = pipeline.tokenizer(
        list(captions), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    )
    return found["input_ids"].to(pipeline.device), found["attention_mask"].to(pipeline.device)
