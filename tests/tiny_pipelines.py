"""Diffusers pipelines of a few thousand random weights, made in place: nothing is fetched, nothing was trained."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from harness.models.dit import PixArtModel
from harness.models.model import Model
from harness.models.unet import UNetModel
from harness.records.case import Resolution

KINDS: dict[str, type[Model]] = {"sd": UNetModel, "sdxl": UNetModel, "sigma": PixArtModel, "alpha": PixArtModel}
PROMPTS = ["a cat", "dog xyz", "red", ""]
SEEDS = [11, 12, 13, 14]
TALL = Resolution(40, 64)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def autoencoder() -> AutoencoderKL:
    """Shrinks by 4."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )


def clip_tokenizer() -> CLIPTokenizer:
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate([*marks, *LETTERS, *(f"{c}</w>" for c in LETTERS)])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


def clip_config(width: int, projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=projection,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def unet(context: int = 16, **more: Any) -> UNet2DConditionModel:
    """Two levels, five self-attention sites of (16, 32) channels."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=context,
        **more,
    )


def transformer(**more: Any) -> PixArtTransformer2DModel:
    """Three blocks of 24 channels, patch 2."""
    return PixArtTransformer2DModel(
        **{
            "sample_size": 16,
            "num_layers": 3,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "cross_attention_dim": 24,
            "caption_channels": 12,
            "norm_num_groups": 4,
        }
        | more
    )


def sd() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config(16, 16)),
        tokenizer=clip_tokenizer(),
        unet=unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config(16, 16)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(24, 20)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            context=40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=20 + 6 * 8,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def pixart(kind: Any, **more: Any) -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    config = T5Config(
        vocab_size=32, d_model=12, d_kv=4, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return kind(
        vae=autoencoder(),
        text_encoder=T5EncoderModel(config),
        tokenizer=T5Tokenizer(vocab=[*special, *((c, -3.0) for c in LETTERS)], extra_ids=0, model_max_length=20),
        transformer=transformer(**more),
        scheduler=DPMSolverMultistepScheduler(),
    )


MAKERS = {
    "sd": sd,
    "sdxl": sdxl,
    "sigma": partial(pixart, PixArtSigmaPipeline),
    "alpha": partial(pixart, PixArtAlphaPipeline, sample_size=128),
}
"""Name -> what makes the pipeline. Alpha at 128 latents is told the size of the image, as PixArt-alpha 1024-MS is."""


def save(kind: str, folder: Path) -> Path:
    """Make a pipeline with the weights of seed 0 and save it as diffusers does."""
    torch.manual_seed(0)
    MAKERS[kind]().save_pretrained(folder)
    return folder


def model(kind: str, folder: Path) -> Model:
    """Such a pipeline, saved, as a model of the harness."""
    return KINDS[kind]("tiny", source=str(save(kind, folder)))
