"""Bytes that an operator needs only while it runs, so that no tensor outside it shows them.

On the CPU, convolutions need some. oneDNN copies the input into a layout of its own, computes a result in that layout,
frees the input's copy, and copies the result into the output. The output takes no memory before it is written. So at no
moment is there more, beyond input and output, than the larger of the two copies and a reordered copy of the weights. A
pointwise convolution is a matrix product and copies nothing, and a depthwise one takes a
channels-last map as it is. Attention keeps a tile a thread, less than a megabyte, which is left out. The same is taken
for CUDA, where the library chooses among algorithms by speed.
"""

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from harness.counted.meta_results import layout_of
from harness.counted.operators import aten


def workspace(op: OpOverload, args: tuple[Any, ...], output: Any) -> int:
    """Bytes of one call beyond its arguments and results."""
    if op.overloadpacket is not aten.convolution:
        return 0
    x, weight = args[:2]
    if all(side == 1 for side in weight.shape[2:]):
        return 0
    if args[8] == x.shape[1] == weight.shape[0] and layout_of(x) == torch.channels_last:
        return _bytes(weight)
    return max(_bytes(x), _bytes(output)) + _bytes(weight)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
