"""Muon: the momentum of each weight matrix, made orthogonal, is its step (Jordan et al., 2024).

A convolution's weight counts as a matrix of out channels x (in channels x taps), which torch's own Muon (from 2.9 on)
refuses. First and last layers, embeddings, biases and norms belong to AdamW.
Shapes: G matrices of one shape, R rows, C columns.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.seats.processor import has_bf16_units

LEAST_SIDE = 48
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that pulls singular values between 0 and 1 towards 1 within five rounds (to about 0.7 to 1.2)."""


def is_matrix(weight: Tensor) -> bool:
    """Whether a weight maps many channels to many: not a bias, norm, first or last layer."""
    return weight.ndim >= 2 and min(len(weight), weight[0].numel()) >= LEAST_SIDE


def matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that Muon trains, by name: trainable matrices, but for embeddings and grouped kernels."""
    others = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding) or _is_grouped(part)}
    named = module.named_parameters()
    return {key: value for key, value in named if value.requires_grad and is_matrix(value) and id(value) not in others}


def _is_grouped(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and part.groups > 1


def orthogonal(matrices_GRC: Tensor, rounds: int = 5) -> Tensor:
    """Nearly the nearest matrices with orthonormal rows (or columns, whichever are fewer), by Newton-Schulz.

    In bf16, which is exact enough for a step, but for a CPU that only emulates it.
    """
    if matrices_GRC.shape[1] > matrices_GRC.shape[2]:
        return orthogonal(matrices_GRC.mT, rounds).mT
    a, b, c = COEFFICIENTS
    dtype = torch.bfloat16 if matrices_GRC.is_cuda or has_bf16_units() else torch.float32
    found_GRC: Tensor = (matrices_GRC / (matrices_GRC.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(rounds):
        square_GRR = found_GRC @ found_GRC.mT
        found_GRC = a * found_GRC + (b * square_GRR + c * square_GRR @ square_GRR) @ found_GRC
    return found_GRC.float()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the step of a tall matrix grows with the root of its sides' ratio."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every weight that has a gradient; those of one shape are made orthogonal together."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault((len(weight), weight[0].numel()), []).append(weight)
            for (rows, columns), weights in shapes.items():
                pushes_GRC = torch.stack([self._push(weight).flatten(1) for weight in weights])
                length = group["lr"] * max(1, rows / columns) ** 0.5
                for weight, step_RC in zip(weights, orthogonal(pushes_GRC), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(step_RC.view_as(weight), alpha=-length)

    def _push(self, weight: nn.Parameter) -> Tensor:
        """Where the momentum points, looked at one step ahead."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["momentum"], MOMENTUM)
