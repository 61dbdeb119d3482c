"""Weights of the ∆ConvBlock as the authors publish them (`7eu7d7/ConvFusion`): their names, their layouts.

One file holds the trained layers of a denoiser: `<transformer block>.conv1.<parameter>`, perhaps behind `base:` or the
name of the denoiser; our site is `<transformer block>.attn1`. The parameters of a site are `conv_up`, `conv_out`,
`conv_pool` and `gates.0.conv_spatial`, `gates.1.conv_spatial`, ..., each with `.weight` and perhaps `.bias`. Depthwise
weights come as (K, K, C) from the Triton code and as (C, 1, K, K) from the torch code, linear ones as (out, in) or as
a 1 x 1 convolution (out, in, 1, 1). Releases differ in biases.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from harness.seats.mixer import BadInput, TokenMixer, fitted

Block = TypeVar("Block", bound=TokenMixer)

NAME = re.compile(r"(?:base:)?(?:(?:denoiser|unet|transformer|model)\.)?(.*transformer_blocks\.\d+)\.conv1\.(.+)")
DEPTHWISE = re.compile(r"gates\.\d+\.conv_spatial\.weight")


def locate(name: str) -> tuple[str, str] | None:
    """Site path and parameter of a tensor of the published file; None where it is not of a ∆ConvBlock."""
    found = NAME.fullmatch(name)
    return None if found is None else (f"{found[1]}.attn1", found[2])


def settings_of(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Kernel size of each site, presence of the pooling branch, and the gate, which the release chose by the denoiser.

    The values of the scales cannot be read from the weights; two are taken as the published ones.
    """
    sizes = {
        path: next((arranged(name, value).shape[-1] for name, value in state.items() if DEPTHWISE.fullmatch(name)), 1)
        for path, state in states.items()
    }
    transformer = all(path.startswith("transformer_blocks.") for path in states)
    pooling = all("conv_pool.weight" in state for state in states.values())
    return {"kernel_size": by_level(sizes), "gate": "sigmoid" if transformer else "scaled", "pooling": pooling}


def by_level(sizes: Mapping[str, int]) -> dict[str, int] | int:
    """Sizes by site path as one number, or by level of a UNet (`down_blocks.0`), where these say the same."""
    levels = {path.partition(".attentions.")[0]: size for path, size in sizes.items()}
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    agree = all(levels[path.partition(".attentions.")[0]] == size for path, size in sizes.items())
    return levels if agree else dict(sizes)


def load_published(mixer: Block, state_dict: Mapping[str, Tensor]) -> Block:
    """Overwrite one site with published weights, or with a student's own; absent biases become zero.

    A missing or left-over name and a wrong shape are BadInput that names it; then nothing has been changed.
    """
    if getattr(mixer, "form", "released") == "paper" and "norm.weight" not in state_dict:
        raise BadInput("published weights are of the released form, not of the paper form: set form=released")
    own = mixer.state_dict()
    values = {name: arranged(name, value) for name, value in state_dict.items()}
    biases = {name for name in own if name.endswith(".bias") and not name.startswith("norm.")}
    mixer.load_state_dict(fitted(own, values, "∆ConvBlock", biases, "kernel_size, scales or pooling"))
    return mixer


def arranged(name: str, value: Tensor) -> Tensor:
    """A published tensor in the layout of torch's own modules."""
    if DEPTHWISE.fullmatch(name) and value.dim() == 3:
        return value.permute(2, 0, 1).unsqueeze(1)
    if value.dim() == 4 and value.shape[2:] == (1, 1) and not DEPTHWISE.fullmatch(name):
        return value.flatten(1)
    return value
