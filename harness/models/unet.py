"""UNets with CLIP text: SD1.5 and its fine-tunes, and SDXL, which is also told the pooled text of its second encoder
and six numbers: the sizes of original, crop and target in pixels."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.models.model import Model
from harness.models.text import States


class UNetModel(Model):
    """StableDiffusionPipeline or StableDiffusionXLPipeline."""

    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    part = "unet"

    @cached_property
    def _pooled(self) -> bool:
        return self.layout.component("unet").get("addition_embed_type") == "text_time"

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        length = self.layout.number("text_encoder", "max_position_embeddings")
        shapes: dict[str, tuple[int, ...]] = {
            "encoder_hidden_states": (length, self.layout.number("unet", "cross_attention_dim"))
        }
        if self._pooled:
            shapes["text_embeds"] = (self.layout.number("text_encoder_2", "projection_dim"),)
        return shapes

    @torch.no_grad()
    def _encode(self, prompt: str | list[str] | None) -> States:
        """As the pipeline does; SDXL's unconditional states are zeros, so they come from its own guidance branch."""
        given = self.pipeline.encode_prompt(
            prompt=prompt or "",
            device=self.pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=prompt is None,
        )
        chosen = given[prompt is None :: 2]
        return dict(zip(self.text_shapes(), chosen, strict=False))

    def denoise_arguments(self, latents: Tensor, timesteps: Tensor, text: States) -> dict[str, Any]:
        arguments = {
            "sample": latents,
            "timestep": timesteps,
            "encoder_hidden_states": text["encoder_hidden_states"],
            "return_dict": False,
        }
        if self._pooled:
            height, width = (side * self.shrink for side in latents.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(latents), -1)
            arguments["added_cond_kwargs"] = {"text_embeds": text["text_embeds"], "time_ids": sizes.to(latents)}
        return arguments
