"""How a vision transformer's position embedding is brought to another grid: three ways that move DINOv2's features.

    timm          bicubic with antialias, to the exact grid
    transformers  bicubic without antialias, to the exact grid (what DS of arXiv 2504.21292 reads)
    hub           bicubic without antialias, by the factor (side + 0.1) / old side (the code of DINOv2; what FDD reads)

Between 518 and 224 pixels features differ by 0.25 to 0.58 %. Shapes: N positions, D features, h, w sides of a grid.
"""

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.records.case import BadInput

Rule = Literal["timm", "transformers", "hub"]
OFFSET = 0.1


def known(rule: str) -> None:
    """BadInput for a rule that is not known."""
    if rule not in get_args(Rule):
        raise BadInput(f"positions={rule!r} is not known: choose from {', '.join(get_args(Rule))}")


def fit(model: nn.Module, side: int, rule: Rule) -> nn.Module:
    """A timm transformer at its own size, made to read squares of another side by that rule."""
    vit = cast(Any, model)
    learnt_1ND, old = vit.pos_embed.detach().clone(), vit.patch_embed.grid_size
    prefix = 0 if vit.no_embed_class else int(vit.num_prefix_tokens)
    vit.set_input_size(img_size=(side, side))
    new = vit.patch_embed.grid_size
    if rule != "timm" and tuple(new) != tuple(old):
        vit.pos_embed = nn.Parameter(resampled(learnt_1ND, old, new, prefix, rule), requires_grad=False)
    return model


def resampled(learnt_1ND: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int, rule: Rule) -> Tensor:
    """(1, N', D) of the (1, N, D) that were learnt; the first `prefix` belong to no place and stay."""
    grid_1Dhw = learnt_1ND[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    if rule == "hub":
        factors = tuple((one + OFFSET) / other for one, other in zip(new, old, strict=True))
        grid_1Dhw = F.interpolate(grid_1Dhw, scale_factor=cast(Any, factors), mode="bicubic")
    else:
        grid_1Dhw = F.interpolate(grid_1Dhw, size=new, mode="bicubic", antialias=rule == "timm")
    return torch.cat([learnt_1ND[:, :prefix], grid_1Dhw.flatten(2).mT.to(learnt_1ND)], dim=1)
