"""FLOPs of what surrounds the denoiser: text encoders and the autoencoder's decoder, built on the meta device."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from harness.counted.counters import count
from harness.models.layout import Layout
from harness.models.model import Model
from harness.models.opening import built
from harness.models.quiet import quiet
from harness.models.weights import PARTS
from harness.records.case import Resolution

FREE_WITHOUT_PROMPT = "force_zeros_for_empty_prompt"
"""Entry of a pipeline's index: its unconditional states are zeros, and nothing is encoded for them."""

WORKLESS = """
    _class_name _diffusers_version _name_or_path sample_size scaling_factor shift_factor force_upcast latents_mean
    latents_std
"""
"""Entries of an autoencoder's configuration that change no operator."""


def encodings(layout: Layout, guidance: float) -> int:
    """How often an image's text is encoded: the prompt, and with guidance the empty one, unless zeros stand for it."""
    return 2 if guidance > 1 and not layout.index.get(FREE_WITHOUT_PROMPT) else 1


def text_flops(model: Model) -> int:
    """One prompt, padded to the pipeline's length, through every text encoder."""
    tokens = torch.zeros(1, model.text_shapes()["encoder_hidden_states"][0], dtype=torch.long, device="meta")
    parts = [part for part in PARTS[model.layout.pipeline] if part.startswith("text_encoder")]
    return sum(count(text_encoder(model.layout, part), input_ids=tokens) for part in parts)


def text_encoder(layout: Layout, part: str) -> nn.Module:
    """The text encoder that a configuration describes, on the meta device."""
    with quiet(), torch.device("meta"):
        return built(layout, part).eval()


def decoder_flops(model: Model, resolution: Resolution) -> int:
    """From the latents of one image to its pixels, in one piece."""
    with torch.device("meta"):
        decoder = Decoder(built(model.layout, "vae").eval())
    channels = model.layout.number("vae", "latent_channels")
    shape = (1, channels, resolution.height // model.shrink, resolution.width // model.shrink)
    return count(decoder, torch.empty(shape, device="meta"))


def decoder_key(layout: Layout) -> str:
    """What decides the decoder's work: many models have the same autoencoder, but for names and scales."""
    config = layout.component("vae")
    return json.dumps({name: value for name, value in config.items() if name not in WORKLESS.split()}, sort_keys=True)


class Decoder(nn.Module):
    """The half of an autoencoder that makes pixels."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        """(1, C, h, w) to (1, 3, H, W)."""
        image: Tensor = self.autoencoder.decode(latents, return_dict=False)[0]
        return image
