"""What the text encoder said, kept per prompt: each is encoded by itself, so that its states depend on no other."""

from collections import OrderedDict
from collections.abc import Callable
from zlib import crc32

import torch
from torch import Tensor

States = dict[str, Tensor]  # keyword arguments of the denoiser that come from the text, for a batch of prompts

PIPELINE_NAMES = {
    "encoder_hidden_states": "prompt_embeds",
    "encoder_attention_mask": "prompt_attention_mask",
    "text_embeds": "pooled_prompt_embeds",
}
"""What the pipelines' arguments of the same content are called."""
LIMIT_BYTES = 2**30


class TextCache:
    """The states of the prompts last used, on the CPU; the oldest go when they fill a gigabyte (T5: 5 MB a prompt)."""

    def __init__(self, encode: Callable[[str | None], States], limit_bytes: int = LIMIT_BYTES) -> None:
        self.encode = encode
        self.limit_bytes = limit_bytes
        self.kept: OrderedDict[str | None, States] = OrderedDict()
        self.kept_bytes = 0

    def __call__(self, prompt: str | None) -> States:
        """States of one prompt, batch 1; None stands for the unconditional states of classifier-free guidance."""
        if prompt not in self.kept:
            states = {name: tensor.detach().cpu() for name, tensor in self.encode(prompt).items()}
            self.kept[prompt] = states
            self.kept_bytes += _bytes(states)
            while self.kept_bytes > self.limit_bytes and len(self.kept) > 1:
                self.kept_bytes -= _bytes(self.kept.popitem(last=False)[1])
        self.kept.move_to_end(prompt)
        return self.kept[prompt]


def batched(states: list[States]) -> States:
    """One batch of the states of several prompts."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def drawn(prompt: str | None, shapes: dict[str, tuple[int, ...]]) -> States:
    """Random states of the right shape for one prompt, where there is no text encoder; masks are all ones."""
    generator = torch.Generator().manual_seed(crc32((prompt or "").encode()))
    return {
        name: torch.ones(1, *shape, dtype=torch.long)
        if name.endswith("mask")
        else torch.randn(1, *shape, generator=generator)
        for name, shape in shapes.items()
    }


def _bytes(states: States) -> int:
    return sum(tensor.nbytes for tensor in states.values())
