"""The losses of distillation, each in its paper's words. B batch, C channels, h, w sides; y made, t wanted."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Norm = Literal["l2", "l1", "huber"]
Error = Callable[[Tensor, Tensor], Tensor]
ERRORS: dict[Norm, Error] = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}


def distance(made: Tensor, wanted: Tensor, scale: float | Tensor, norm: Norm = "l2") -> Tensor:
    """Mean error in units of the target's spread: `scale` is its variance.

    L1 and Huber resist the outliers of deep layers better than L2 (grafting, arXiv 2506.05340).
    """
    made, wanted = made.float(), wanted.float()
    root = torch.as_tensor(scale).sqrt()
    return ERRORS[norm](made / root, wanted / root)


def min_snr(schedule: Any, times_B: Tensor, gamma: float) -> Tensor:
    """(B,): the weight of each sample by its time, min(SNR, gamma) over what the prediction type makes of SNR.

    As arXiv 2303.09556 and diffusers' training scripts: eps by SNR, v by SNR + 1, the clean image by 1. Where the
    signal is gone (zero terminal SNR), eps has the limit 1.
    """
    alphas = schedule.alphas_cumprod.to(times_B.device)[times_B].double()
    snr = alphas / (1 - alphas)
    kind = schedule.config.prediction_type
    capped = snr.clamp(max=gamma)
    weights_B: Tensor = capped / (snr + 1) if kind == "v_prediction" else capped
    if kind == "epsilon":
        weights_B = torch.where(snr > 0, capped / snr.clamp(min=1e-30), torch.ones_like(snr))
    return weights_B.float()


def weighted(made_BChw: Tensor, wanted_BChw: Tensor, weights_B: Tensor | None) -> Tensor:
    """Mean squared error, of each sample by its weight."""
    error_B = (made_BChw.float() - wanted_BChw.float()).square().flatten(1).mean(1)
    return error_B.mean() if weights_B is None else (weights_B * error_B).mean()


class Terms:
    """What losses were made of lately, by name: means over some fifty steps, on the device until somebody asks."""

    def __init__(self) -> None:
        self._means: dict[str, Tensor] = {}

    def note(self, **terms: Tensor) -> None:
        """What one loss is the sum of."""
        for name, term in terms.items():
            value = term.detach().float()
            self._means[name] = self._means[name].lerp(value, 0.02) if name in self._means else value

    def forget(self) -> None:
        """Another loss begins."""
        self._means.clear()

    def values(self) -> dict[str, float]:
        """Each mean, by name."""
        return {name: float(value) for name, value in self._means.items()}
