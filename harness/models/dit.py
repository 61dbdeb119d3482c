"""Diffusion transformers with T5 text: PixArt-alpha and PixArt-Sigma.

The denoiser appends a variance to the channels of its prediction. Text comes with a mask, because T5 pads. PixArt-alpha
at 1024 is also told the size and the aspect ratio of the image.
"""

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.models.model import Model
from harness.models.text import States
from harness.seats.sources import json_of

LENGTHS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""Tokens of a prompt, as the pipelines have it; fewer where the tokenizer says so."""


class PixArtModel(Model):
    """PixArtAlphaPipeline or PixArtSigmaPipeline."""

    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    part = "transformer"
    call_settings: ClassVar[dict[str, Any]] = {"negative_prompt": None, "use_resolution_binning": False}

    @property
    def patch(self) -> int:
        """The transformer's tokens are squares of this many latents."""
        return self.layout.number("transformer", "patch_size")

    @property
    def least_steps(self) -> int:
        """PixArt-alpha's pipeline takes a single step for that of a consistency model, whatever the scheduler."""
        return 2 if self.layout.pipeline == "PixArtAlphaPipeline" else 1

    @cached_property
    def _sized(self) -> bool:
        """Whether the denoiser is told the size: what diffusers infers from 128 latents a side if nothing is said."""
        said = self.layout.component("transformer").get("use_additional_conditions")
        return bool(self.layout.value("transformer", "sample_size") == 128 if said is None else said)

    @cached_property
    def _length(self) -> int:
        """Tokens of a prompt: the same whether the model is loaded or only its shapes are known."""
        tokenizer = self.layout.folder / "tokenizer" / "tokenizer_config.json"
        said = json_of(tokenizer).get("model_max_length") if tokenizer.is_file() else None
        length = LENGTHS[self.layout.pipeline]
        return min(length, int(said)) if isinstance(said, int | float) and said >= 1 else length

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        width = self.layout.number("transformer", "caption_channels")
        return {"encoder_hidden_states": (self._length, width), "encoder_attention_mask": (self._length,)}

    @torch.no_grad()
    def _encode(self, prompt: str | list[str] | None) -> States:
        """As the pipeline does, without its cleaning of captions, which depends on what else is installed."""
        states, mask, _, _ = self.pipeline.encode_prompt(
            prompt or "", do_classifier_free_guidance=False, max_sequence_length=self._length
        )
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def denoise_arguments(self, latents: Tensor, timesteps: Tensor, text: States) -> dict[str, Any]:
        size: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self._sized:
            height, width = (side * self.shrink for side in latents.shape[-2:])
            size["resolution"] = torch.tensor([[height, width]]).expand(len(latents), -1).to(latents)
            size["aspect_ratio"] = torch.tensor([[height / width]]).expand(len(latents), -1).to(latents)
        return {
            "hidden_states": latents,
            "timestep": timesteps,
            "encoder_hidden_states": text["encoder_hidden_states"],
            "encoder_attention_mask": text["encoder_attention_mask"],
            "added_cond_kwargs": size,
            "return_dict": False,
        }
