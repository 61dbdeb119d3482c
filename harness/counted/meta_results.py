"""What operators return on the meta device, shaped as the kernels on a device shape it.

Norms are answered without calling them: torch's shape functions take each apart into twenty operators, half of the time
of following a call. Convolutions keep channels last where they are, which torch's shape function forgets.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten
Three = tuple[Tensor, Tensor, Tensor]  # a result, means, inverse deviations


def layer_norm(x: Tensor, normalized: list[int], *ignored: Any) -> Three:
    """Result and statistics of `native_layer_norm`."""
    kept = x.dim() - len(normalized)
    statistics = (*x.shape[:kept], *[1] * len(normalized))
    return x.new_empty(x.shape), x.new_empty(statistics), x.new_empty(statistics)


def group_norm(x: Tensor, weight: Any, bias: Any, batch: int, channels: int, area: int, groups: int, *_: Any) -> Three:
    """Result and statistics of `native_group_norm`, which keeps channels last where they are."""
    return torch.empty_like(x, memory_format=layout_of(x)), x.new_empty(batch, groups), x.new_empty(batch, groups)


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels-last for a map that is so and no other way."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


ANSWERS: Mapping[OpOverload, Callable[..., Three]] = {
    aten.native_layer_norm.default: layer_norm,
    aten.native_group_norm.default: group_norm,
}


def answered(op: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What an operator returns; a norm of a tensor on the meta device is not called for it."""
    answer = ANSWERS.get(op)
    if answer is not None and args[0].is_meta:
        return answer(*args, **kwargs)
    result = op(*args, **kwargs)
    if op is aten.convolution.default and result.is_meta:
        return result.contiguous(memory_format=layout_of(args[0]))
    return result
