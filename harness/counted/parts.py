"""Which part of a model an operator belongs to, so that FLOPs can be told by kind while a call is counted.

Self-attention is not found here: the mixers at its sites are priced by themselves, and all of that is of that kind.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

SELF_ATTENTION = "self_attention"
CROSS_ATTENTION = "cross_attention"
FEED_FORWARD = "feed_forward"
CONVOLUTION = "convolution"
OTHER = "other"
"""Matrix products outside attention and feed-forward: embeddings of time and text, modulation, maps in and out."""
TEXT_ENCODER = "text_encoder"
VAE = "vae"
PART_NAMES = {"attn2": CROSS_ATTENTION, "ff": FEED_FORWARD}
"""Names that diffusers gives to parts of a transformer block."""


@contextmanager
def working_parts(denoiser: nn.Module) -> Iterator[list[str]]:
    """A list that holds, while the denoiser runs, the kinds of the parts it is in, the innermost last."""
    inside: list[str] = []

    def enter(kind: str, module: nn.Module, args: Any) -> None:
        inside.append(kind)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside.pop()

    with ExitStack() as hooks:
        for path, module in denoiser.named_modules():
            kind = PART_NAMES.get(path.rpartition(".")[2])
            if kind is not None:
                hooks.callback(module.register_forward_pre_hook(partial(enter, kind)).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
        yield inside
