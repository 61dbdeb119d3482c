"""Weights of the ∆ConvBlock as the authors publish them (`7eu7d7/ConvFusion`), one site at a time.

The names of a site are `conv_up`, `gates.0.conv_spatial`, `gates.1.conv_spatial`, ..., `conv_out` and `conv_pool`, each
with `.weight` and perhaps `.bias`. Depthwise weights come as (K, K, C) from the Triton code and as (C, 1, K, K) from
the torch code, linear ones as (out, in) or as a 1 x 1 convolution (out, in, 1, 1). Releases differ in biases.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from deltaconv.block import DeltaConvBlock


def load_published(mixer: DeltaConvBlock, state_dict: Mapping[str, Tensor]) -> DeltaConvBlock:
    """Overwrite one site with published weights; absent biases become zero.

    A missing or left-over name and a wrong shape are ValueErrors that name it; then nothing has been changed.
    """
    if mixer.form != "released":
        raise ValueError(f"published weights are of the released form, not of the {mixer.form} form: set form=released")
    own = mixer.state_dict()
    missing = sorted(name for name in own.keys() - state_dict.keys() if not name.endswith(".bias"))
    left_over = sorted(state_dict.keys() - own.keys())
    if missing:
        raise ValueError(f"the ∆ConvBlock weights lack {', '.join(missing)}: give all of one site, without a prefix")
    if left_over:
        raise ValueError(
            f"the ∆ConvBlock weights hold {', '.join(left_over)}, unknown to this block: check its scales and pooling"
        )
    values = {name: arranged(name, value, own[name].shape) for name, value in state_dict.items()}
    mixer.load_state_dict({name: values.get(name, torch.zeros_like(value)) for name, value in own.items()})
    return mixer


def arranged(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """A published tensor in the block's own layout; ValueError naming it where no layout fits."""
    candidate = value
    if name.endswith("conv_spatial.weight") and value.dim() == 3:
        candidate = value.permute(2, 0, 1).unsqueeze(1)
    elif len(shape) == 2 and value.dim() == 4 and value.shape[2:] == (1, 1):
        candidate = value.flatten(1)
    if candidate.shape != shape:
        raise ValueError(
            f"{name} of the ∆ConvBlock weights is {tuple(value.shape)}, which does not fit {tuple(shape)}: it is for "
            "another site, or kernel_size or scales differ"
        )
    return candidate
