"""Numbers that are none: looked for in weights when they are loaded, and in images when they are made."""

from pathlib import Path

import torch
from torch import Tensor, nn

from harness.records.case import BadInput

WIDER = {torch.float16: "take dtype bf16 or fp32, or ", torch.bfloat16: "take dtype fp32, or "}
"""What helps where numbers outgrew a format; fp32 has none that is wider here."""


def check_weights(module: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """BadInput where a weight is infinite or no number, in its file already or because the dtype cannot hold it."""
    for name, weight in module.named_parameters():
        if not all(end.isfinite() for end in torch.aminmax(weight)):
            raise BadInput(
                f"{folder} has weights that are not finite in {_said(dtype)}, the first is {name}: "
                f"{WIDER.get(dtype, '')}fetch them again"
            )


def check_images(model: str, images: Tensor, dtype: torch.dtype) -> None:
    """FloatingPointError where a pixel is no number, although all weights are."""
    if not images.isfinite().all():
        raise FloatingPointError(
            f"{model} made images that are not finite in {_said(dtype)}: "
            f"{WIDER.get(dtype, '')}look at the weights of what is seated"
        )


def _said(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
