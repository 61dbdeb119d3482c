"""In which number format a training computes; bf16 is autocast, and the weights that it trains stay fp32."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.seats.processor import has_bf16_units

Precision = Literal["auto", "fp32", "tf32", "bf16"]


def chosen(precision: Precision, device: str) -> Precision:
    """What `auto` means on a kind of device: bf16 where the processor has units for it, else fp32."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device == "cpu" and has_bf16_units() else "fp32"


@contextmanager
def computing(precision: Precision, device: str) -> Iterator[None]:
    """While open, the format holds; tf32 (matrix products of fp32 in 19 bits) is of CUDA alone."""
    precision = chosen(precision, device)
    before = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        if precision == "tf32":
            torch.set_float32_matmul_precision("high")
            stack.callback(torch.set_float32_matmul_precision, before)
        if precision == "bf16":
            stack.enter_context(torch.autocast(device, torch.bfloat16))
            if device == "cpu":
                stack.enter_context(_Fp32Attention())
        yield


class _Fp32Attention(TorchFunctionMode):
    """Attention in fp32 under CPU autocast: torch's bf16 backward of it is three times slower than the fp32 one."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        query, key, value = args[:3]
        with torch.autocast("cpu", enabled=False):
            return function(query.float(), key.float(), value.float(), *args[3:], **kwargs).to(query.dtype)
